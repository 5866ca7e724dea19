"""K-means after Lloyd, in chunks that stay in the cache; no cluster is left empty (DeepCluster: arXiv:1807.05520)."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ssl_app.clustering.products import bf16_multiplies
from ssl_app.errors import Change, DataError, Set

logger = logging.getLogger(__name__)

BLOCK = 1 << 20  # scores computed at a time: with the centroids they stay in two cores' caches
BLOCK_GPU = 1 << 27
ROWS = 256  # at least, of a chunk: the centroids are read once for all of them
COPIED = 2**25  # numbers of a chunk of points in bf16, beyond which it holds no more rows than that
LANES = 64  # columns that torch takes the minimum of at a time
PIECE = 1024  # members summed in f32; the sums of pieces are added in f64
MANY, HUGE = 2**15, 2**20  # points from which on the first iterations, and nearly all of them, go over some points
EACH_EARLY, FEWEST_EARLY = 256, 16  # of these for a cluster, at most and at least
LAST = 2  # iterations over all points of huge sets
PART, EACH, TRIALS = 1024, 4, 16  # of the start: centroids drawn together, points for one, candidates of a draw
ROUNDING = 2**-6  # of a difference of two bf16 products, in units of |x - m| |c - m| / sqrt(d)
LAST_DIGIT = 2**-8  # of two scores that are rounded to bf16, in units of the smaller
SMALL = 2**30  # products of numbers in an iteration below which bf16 saves milliseconds
PARTS, NEVER = 3, 3e38  # bf16 numbers that hold an f32; a score that is never the smallest
TURNS = 4  # power iterations towards the main axis of a cluster that is split


@dataclass(frozen=True)
class Clusters:
    """A partition in which every cluster has members."""

    centroids: Tensor  # (K, d) f32, each the mean of its members
    labels: Tensor  # (N,) int64
    objective: float  # mean squared distance of a point to its centroid
    empties_repaired: int  # in all iterations


@torch.no_grad()
def fit(
    points: Tensor, k: int, *, iterations: int = 20, seed: int, start: Tensor | None = None, fast: bool | None = None
) -> Clusters:
    """K clusters of points, (N, d). An iteration assigns, fills empty clusters and takes the means.

    Ends early where an assignment repeats. The labels are those of the last assignment; `nearest` tells those
    that the last means would give. `start` takes centroids, (K, d); without it they are points that greedy
    k-means++ draws from some of all points. An empty cluster takes half of the cluster with the largest squared
    error, split across its main axis, which lowers the objective; where nothing is left but clusters of equal
    points, half of these. `fast` computes products in bf16, and compares the two nearest centroids in f32
    where bf16 cannot tell them apart; None asks whether it is faster here. The same bits for the same
    seed and number of threads. Without a start, the first iterations see some of many points: `_stages`. Raises
    DataError where there are fewer points than clusters, and where a point is not finite.
    """
    assert k >= 1, "no clusters"
    assert iterations >= 1, "no iterations"
    if k > len(points):
        raise _too_few(len(points), k)
    cloud = _Cloud(points)
    fast = _bf16_is_faster(points, k) if fast is None else fast
    centroids = _drawn(cloud, k, seed) if start is None else start.to(cloud.points)
    assert centroids.shape == (k, points.shape[1]), "the start has another shape"
    repaired = 0
    for part, count in _stages(cloud, k, iterations, seed) if start is None else [(cloud, iterations)]:
        centroids, labels, empties = _lloyd(part, centroids, count, fast)
        repaired += empties
    total = sum(float(part.sum(dtype=torch.float64)) for _, part in cloud.distances(centroids, labels))
    return Clusters(centroids, labels, total / len(points), repaired)


def _stages(cloud: "_Cloud", k: int, iterations: int, seed: int) -> Iterator[tuple["_Cloud", int]]:
    """Points and iterations over them: of many points some, drawn at random, and at the end all.

    Half of MANY points or more, or EACH_EARLY for a cluster, serve for half of the iterations; of HUGE sets they
    serve for all but LAST. Objective over that of all points from the start, 50,000 points of 256 numbers, 1,000
    clusters, 20 iterations, half of the points for ten of them: .998 on noise, 1.003 on a mixture, one seed each.
    """
    count = len(cloud.points)
    some = min(count // 2, EACH_EARLY * k)
    early = iterations // 2 if count < HUGE else max(iterations // 2, iterations - LAST)
    if count >= MANY and some >= FEWEST_EARLY * k and early:
        if count >= HUGE:
            logger.info(f"k-means: {early} of {iterations} iterations go over {some:,} of {count:,} images")
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        yield _Cloud(cloud.points[order[:some].sort().values.to(cloud.points.device)]), early
        iterations -= early
    yield cloud, iterations


def _lloyd(cloud: "_Cloud", centroids: Tensor, iterations: int, fast: bool) -> tuple[Tensor, Tensor, int]:
    """Iterations from centroids on. -> means (K, d), labels (N,) that they are the means of, clusters repaired."""
    search = _Search(cloud, len(centroids), fast)
    labels: Tensor | None = None
    repaired = 0
    for _ in range(iterations):
        partition = _Partition(cloud, search.labels(centroids), len(centroids))
        repaired += partition.fill_empties()
        centroids = partition.means()
        if labels is not None and torch.equal(labels, partition.labels):
            break
        labels = partition.labels
    assert labels is not None
    return centroids, labels, repaired


@torch.no_grad()
def nearest(points: Tensor, centroids: Tensor, *, fast: bool | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Label of the nearest centroid, squared distances to it and to the second. (N, d), (K, d) -> (N,), (N,), (N,).

    Distances are those of f32; with `fast`, which two centroids they are of is what bf16 says. The second is at
    infinity where there is one centroid. Raises DataError where a point is not finite.
    """
    cloud = _Cloud(points)
    fast = _bf16_is_faster(points, len(centroids)) if fast is None else fast
    centroids = centroids.to(cloud.points)
    first, second, *_ = _Search(cloud, len(centroids), fast).two_nearest(centroids)
    one, other = torch.empty_like(cloud.reach), torch.empty_like(cloud.reach)
    for distance, labels in ((one, first), (other, second)):
        for chunk, part in cloud.distances(centroids, labels):
            distance[chunk] = part
    if len(centroids) == 1:
        other.fill_(torch.inf)
    swap = other < one  # distances are those of f32, candidates may be those of bf16
    return torch.where(swap, second, first), torch.minimum(one, other), torch.maximum(one, other)


def _bf16_is_faster(points: Tensor, k: int) -> bool:
    return points.numel() * k >= SMALL and bf16_multiplies(points.device)


def _too_few(count: int, k: int) -> DataError:
    fewer = max(1, count // 10)  # clusters of fewer than ten images say little but of these images
    fix = Set("clusters", f"{fewer} or fewer" if fewer > 1 else "1")
    return DataError(f"{count} image{'s' * (count != 1)} cannot make {k} clusters", fix=fix)


class _Cloud:
    """The points, their mean m, and |x - m|^2. Raises DataError where a point is not finite."""

    def __init__(self, points: Tensor) -> None:
        self.points = points.float().contiguous()  # (N, d)
        count, width = points.shape
        self.step = max(1, (BLOCK if points.device.type == "cpu" else BLOCK_GPU) // width)  # rows of a chunk
        total = self.points.new_zeros(width, dtype=torch.float64)
        for chunk in _chunks(count, self.step):
            total += self.points[chunk].sum(0, dtype=torch.float64)
        self.mean = (total / count).float()  # (d,)
        self.reach = self.points.new_empty(count)
        for chunk in _chunks(count, self.step):
            self.reach[chunk] = (self.points[chunk] - self.mean).square_().sum(1)
        wrong = int((~torch.isfinite(self.points).all(1)).sum()) if not bool(torch.isfinite(total).all()) else 0
        if wrong:
            raise DataError(
                f"the features of {wrong} of {count} images are nan or infinite",
                fix=(Change("lr", "a smaller"), Set("clip", 1)),
            )

    def distances(self, centroids: Tensor, labels: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Squared distance of each point to its centroid, by chunks."""
        for chunk in _chunks(len(self.points), self.step):
            yield chunk, (self.points[chunk] - centroids[labels[chunk]]).square_().sum(1)


def _drawn(cloud: _Cloud, k: int, seed: int) -> Tensor:
    """Points to start from, by greedy k-means++ (Arthur and Vassilvitskii, 2007) on four points a centroid. (K, d).

    A draw by squared distance to those drawn before has several candidates, and the one that lowers the objective
    most is taken. PART centroids are drawn from points whose distances to each other lie in memory, the next part
    from other points that know of the first. Objective of 80 clusters of 4,000 points over that from random
    points, mean of 6 seeds: .90 to .95 on three mixtures of 80, .99 on one of 20, 1.00 on noise; from scikit-learn's
    k-means++ on all points the same within .01, and random points are what faiss starts from.
    """
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(cloud.points), generator=random).to(cloud.points.device)
    drawn, used = order[:1], 1
    while len(drawn) < k:
        size = min(PART, k - len(drawn))
        spare = len(order) - used - (k - len(drawn) - size)  # the parts to come must not run out of points
        rows = order[used : used + min(EACH * size, spare)]
        used += len(rows)
        x = cloud.points[rows] - cloud.mean
        far = _between(x, cloud.points[drawn] - cloud.mean).amin(1)
        drawn = torch.cat([drawn, rows[_spread(_between(x, x), far, size, random)]])
    return cloud.points[drawn]


def _spread(squared: Tensor, far: Tensor, size: int, random: torch.Generator) -> Tensor:
    """Greedy k-means++ where squared distances are known. (M, M), to what was drawn (M,) -> (size,) rows."""
    found = torch.empty(size, dtype=torch.int64, device=far.device)
    for i in range(size):
        weight = far.cumsum(0)
        luck = torch.rand(TRIALS, generator=random).to(far.device) * weight[-1]
        candidates = torch.searchsorted(weight, luck, right=True).clamp_max_(len(far) - 1)
        after = torch.minimum(squared[candidates], far)  # (TRIALS, M)
        best = after.sum(1).argmin()
        found[i], far = candidates[best], after[best]
    return found


def _between(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances. (M, d), (L, d) -> (M, L)."""
    found = torch.addmm(y.square().sum(1), x, y.t(), alpha=-2).add_(x.square().sum(1)[:, None]).clamp_min_(0)
    return found.fill_diagonal_(0) if x is y else found  # no rounding: what was drawn must not be drawn again


class _Search:
    """Nearest centroids of all points; its buffers serve every iteration.

    |x - c|^2 / 2 = |x - m|^2 / 2 + score, where, for c' = c - m, score = |c'|^2 / 2 + m c' - x c'. Points that
    lie far from zero thereby cost few digits, and are not copied. In bf16 it is |c'|^2 / 2 - (x - m) c', with the
    first term as further columns of the product: added in f32, it is rounded once, with the score.
    """

    def __init__(self, cloud: _Cloud, k: int, fast: bool) -> None:
        self.cloud, self.points, self.k, self.fast = cloud, cloud.points, k, fast
        count, width = self.points.shape
        padded = -(-k // LANES) * LANES
        # a minimum over (groups, columns) looks at each score once, K / LANES lanes wide, and only at the
        # groups and the columns one by one; both are few where columns are about sqrt(K)
        self.columns = LANES * max(1, round(padded**0.5 / LANES))
        self.groups = -(-padded // self.columns)
        size = self.groups * self.columns
        self.rows = min(count, max(ROWS, min(cloud.step * width // size, COPIED // width)))
        dtype = torch.bfloat16 if fast else torch.float32
        self.scores = self.points.new_empty(self.rows, size, dtype=dtype)
        self.minima = self.points.new_empty(self.rows, self.columns, dtype=dtype)
        self.weight = self.points.new_zeros(size, width + PARTS * fast, dtype=dtype)  # rows from K on are padding
        if fast:
            self.weight[k:, width] = NEVER
            self.chunk = self.points.new_ones(self.rows, width + PARTS, dtype=dtype)
        else:
            self.bias = self.points.new_full((size,), torch.inf)

    def labels(self, centroids: Tensor) -> Tensor:
        """Each point's nearest centroid, (N,) int64."""
        if not self.fast:
            labels = torch.empty(len(self.points), dtype=torch.int64, device=self.points.device)
            for chunk, scores, minima in self._scored(centroids):
                _, column = minima.min(1)
                group = _column(scores, column).argmin(1)
                torch.add(column, group, alpha=self.columns, out=labels[chunk])
            return labels
        first, second, best, gap = self.two_nearest(centroids)
        longest = float((centroids - self.cloud.mean).square().sum(1).max()) ** 0.5
        error = self.cloud.reach.sqrt().mul_(ROUNDING * longest / self.points.shape[1] ** 0.5)
        near = (gap <= error.add_(best.abs_(), alpha=LAST_DIGIT)).nonzero().squeeze(1)
        swap = torch.empty(len(near), dtype=torch.bool, device=near.device)
        for chunk in _chunks(len(near), self.cloud.step):
            x = self.points[near[chunk]]
            one, other = first[near[chunk]], second[near[chunk]]
            swap[chunk] = (x - centroids[other]).square_().sum(1) < (x - centroids[one]).square_().sum(1)
        first[near[swap]] = second[near[swap]]
        return first

    def two_nearest(self, centroids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The two nearest centroids by score, the lower score, and their difference. (N,), (N,), (N,), (N,)."""
        first = torch.empty(len(self.points), dtype=torch.int64, device=self.points.device)
        second, lower, gap = (
            torch.empty_like(first),
            self.points.new_empty(len(first)),
            self.points.new_empty(len(first)),
        )
        for chunk, scores, minima in self._scored(centroids):
            best, column = minima.min(1)
            inside = _column(scores, column)  # (rows, groups)
            group = inside.argmin(1)
            # the second is in the same column or heads another
            within, its_group = inside.scatter_(1, group[:, None], torch.inf).min(1)
            beside, its_column = minima.scatter_(1, column[:, None], torch.inf).min(1)
            head = _column(scores, its_column).argmin(1)
            same = within <= beside
            torch.add(column, group, alpha=self.columns, out=first[chunk])
            second[chunk] = torch.where(same, column, its_column) + self.columns * torch.where(same, its_group, head)
            lower[chunk] = best
            torch.sub(torch.minimum(within, beside).float(), lower[chunk], out=gap[chunk])
        return first, second.clamp_max_(self.k - 1), lower, gap  # of one centroid, the second is padding

    def _scored(self, centroids: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Chunks with their scores, (rows, groups, columns), and the minima of these columns, (rows, columns)."""
        write = self._bf16_scores(centroids) if self.fast else self._f32_scores(centroids)
        for chunk in _chunks(len(self.points), self.rows):
            x = self.points[chunk]
            scores, minima = self.scores[: len(x)], self.minima[: len(x)]
            write(x, scores)
            grouped = scores.view(len(x), self.groups, self.columns)
            yield chunk, grouped, torch.amin(grouped, 1, out=minima)

    def _f32_scores(self, centroids: Tensor) -> Callable[[Tensor, Tensor], object]:
        shifted = torch.sub(centroids, self.cloud.mean, out=self.weight[: self.k])
        self.bias[: self.k] = shifted.square().sum(1) / 2 + shifted @ self.cloud.mean
        return lambda x, scores: torch.addmm(self.bias, x, self.weight.t(), alpha=-1, out=scores)

    def _bf16_scores(self, centroids: Tensor) -> Callable[[Tensor, Tensor], object]:
        width = centroids.shape[1]
        shifted = centroids - self.cloud.mean
        self.weight[: self.k, :width] = shifted
        rest = shifted.square().sum(1) / 2
        for part in range(width, width + PARTS):
            self.weight[: self.k, part] = rest
            rest = rest - self.weight[: self.k, part]

        def write(x: Tensor, scores: Tensor) -> None:
            chunk = self.chunk[: len(x)]
            torch.sub(self.cloud.mean, x, out=chunk[:, :width])
            torch.mm(chunk, self.weight.t(), out=scores)

        return write


class _Partition:
    """Points by label: sums, counts, and clusters that are split to fill the empty ones."""

    def __init__(self, cloud: _Cloud, labels: Tensor, k: int) -> None:
        self.cloud, self.points, self.labels = cloud, cloud.points, labels
        points = cloud.points
        self.counts = torch.bincount(labels, minlength=k)  # (K,)
        self.order = torch.argsort(labels, stable=True)
        ordered = labels[self.order]
        begins = torch.arange(len(points), device=points.device) % PIECE == 0
        begins[1:] |= ordered[1:] != ordered[:-1]
        heads = begins.nonzero().squeeze(1)
        # a bag is a piece of a cluster: gathered and summed in one pass by all threads
        pieces = functional.embedding_bag(self.order, points, heads, mode="sum")
        self.sums = points.new_zeros(k, points.shape[1], dtype=torch.float64)
        self.sums.index_add_(0, ordered[heads], pieces.double())

    def means(self) -> Tensor:
        """Centroids, (K, d) f32."""
        return (self.sums / self.counts[:, None]).float()

    def fill_empties(self) -> int:
        """Split clusters until none is empty; the number of those that were."""
        empty = (self.counts == 0).nonzero().squeeze(1).tolist()
        if not empty:
            return 0
        ends = self.counts.cumsum(0).tolist()
        members = dict(enumerate(torch.tensor_split(self.order, ends[:-1])))
        # sum of |x - c|^2 = sum of |x - m|^2 - n |c - m|^2
        error = torch.zeros_like(self.sums[:, 0]).index_add_(0, self.labels, self.cloud.reach.double())  # (K,)
        error -= self.counts * (self.sums / self.counts.clamp_min(1)[:, None] - self.cloud.mean).square().sum(1)
        error.clamp_min_(0)[self.counts < 2] = -1  # what cannot be split comes last
        for label in empty:
            wide = int(error.argmax())
            rows = members[wide]
            half = _half(self.points[rows])
            members[wide], members[label] = rows[~half], rows[half]
            self.labels[members[label]] = label
            for part in (wide, label):
                x = self.points[members[part]]
                self.counts[part] = len(x)
                self.sums[part] = x.sum(0, dtype=torch.float64)
                error[part] = float((x - x.mean(0)).square_().sum()) if len(x) > 1 else -1
        return len(empty)


def _half(rows: Tensor) -> Tensor:
    """The rows on one side of their mean along their main axis, where they differ; at least one, never all. (n,)."""
    centered = rows - rows.mean(0)
    axis = centered[centered.square().sum(1).argmax()]
    for _ in range(TURNS):
        axis = functional.normalize(centered.t() @ (centered @ axis), dim=0)
    half = centered @ axis > 0
    if not 0 < int(half.sum()) < len(rows):  # equal, or as good as equal
        half = torch.arange(len(rows), device=rows.device) < len(rows) // 2
    return half


def _column(scores: Tensor, column: Tensor) -> Tensor:
    """One column of each row's scores. (rows, groups, columns), (rows,) -> (rows, groups)."""
    return scores.gather(2, column[:, None, None].expand(-1, scores.shape[1], 1)).squeeze(2)


def _chunks(count: int, step: int) -> Iterator[slice]:
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
