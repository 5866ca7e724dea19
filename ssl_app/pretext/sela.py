"""SeLa: label the images by optimal transport, then learn the labels (Asano et al., 2020, arXiv:1911.05371)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.clustering import agreement, sinkhorn
from ssl_app.clustering.sizes import clusters_for, few_each
from ssl_app.config import option
from ssl_app.data.batch import Batch
from ssl_app.errors import Change, Notice
from ssl_app.models.backbones import Backbone
from ssl_app.pretext.base import Defaults, Pretext, SelfLabeling, TrainingSet
from ssl_app.pretext.parts import labelings
from ssl_app.training.batch_norm import recalibrate, sample
from ssl_app.training.task import DatasetMap, Metrics

UNBALANCED = 0.01  # mean relative error of the clusters' shares, ten times what an assignment ends at


@dataclass(frozen=True)
class SeLaConfig:
    """Settings of SeLa."""

    clusters: int | None = option(
        None, "clusters K of each head; default: a 400th of the images, 16 to 3,000", at_least=2, metavar="K"
    )
    heads: int = option(10, "labelings learned at a time, each by its own head (section 3.3)", at_least=1)
    sharpness: float = option(
        10.0, "lambda of the assignment; the paper takes 10 for CIFAR, 25 for ImageNet", at_least=0.1
    )
    relabels: int | None = option(
        None, "times that all images are labeled anew; default: as many as epochs", at_least=1
    )
    spacing: Literal["quadratic", "linear"] = option(
        "quadratic", "when: often at first, as for ImageNet, or evenly, as for CIFAR"
    )
    skew: float = option(
        0.0, "sizes of clusters fall as rank to the power of minus this; 0: all alike", at_least=0, at_most=3
    )
    memory: str = option("2G", "what an assignment may hold; larger ones compute their scores anew", metavar="SIZE")
    faithful: bool = option(
        False,
        "relabel as the released code: in training mode, on augmented views, with spacing linear one head at a time",
    )


class SeLa(SelfLabeling, Pretext[SeLaConfig]):
    """Labels are an assignment in which every cluster has its share, so that they cannot collapse.

    The rows of the assignment are this process's images; scores come from features that are computed once for
    all heads. Labels start as a random balanced assignment; the first relabeling, before the first step, replaces
    them (with `faithful` and linear spacing a head's turn may come epochs later, as in the released CIFAR code).
    """

    Config = SeLaConfig
    score = "accuracy"
    defaults = Defaults(
        epochs=60,
        augment="strong",
    )
    per_image_targets = True
    progressive_resizing = True

    labels: Tensor
    potentials: Tensor
    done: Tensor

    def __init__(self, backbone: Backbone, config: SeLaConfig, data: TrainingSet) -> None:
        super().__init__(backbone, config, data)
        self.clusters = clusters_for(data.images, config.clusters)
        self.memory = sinkhorn.bytes_of(config.memory)
        self.notes = few_each(data.images, self.clusters)
        self.known = data.labels  # for comparison only
        features = int(torch.Size(backbone.shape()).numel())
        self.heads = nn.ModuleList(nn.Linear(features, self.clusters) for _ in range(config.heads))
        start = torch.arange(data.images) % self.clusters
        random = torch.stack([start[torch.randperm(data.images)] for _ in self.heads])
        self.register_buffer("labels", random.to(torch.int32))  # (T, N)
        self.register_buffer("potentials", torch.zeros(config.heads, self.clusters, dtype=torch.float64))
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))  # relabelings so far
        self.times = moments(config.relabels or data.epochs, data.epochs, config.spacing, config.faithful)

    @classmethod
    def for_one_epoch(cls, config: SeLaConfig) -> SeLaConfig:
        """One relabeling, as there is in the mean; with `relabels` above the epochs, a time budget is overrun."""
        return replace(config, relabels=1)

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Mean cross-entropy of the heads against their labels; how often they agree with them, in [0, 1]."""
        features = self.backbone(batch.images).flatten(1)
        labels = self.labels[:, batch.index].long()  # (T, B)
        logits = torch.stack([head(features).float() for head in self.heads])  # (T, B, K)
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return loss, {"accuracy": (logits.detach().argmax(2) == labels).float().mean()}

    def before_step(self, progress: float, map_dataset: DatasetMap) -> Metrics:
        """Relabel where the schedule says so, before the step. -> what changed."""
        due = sum(moment <= progress + 1e-9 for moment in self.times)
        if int(self.done) >= due:
            return {}
        if int(self.done) == 0 and not self.config.faithful:  # the statistics of a new network are of no images
            recalibrate(self.backbone, sample(self.images, map_dataset))
        turn = range(len(self.heads))
        if self.config.faithful and self.config.spacing == "linear":
            turn = range(int(self.done), due)
        features = map_dataset.local(self._features, as_trained=self.config.faithful)  # (n, D)
        changed, iterations, errors, used = [], [], [], []
        agreement_of_first: Metrics = {}
        for number in sorted({number % len(self.heads) for number in turn}):
            before = self.labels[number].clone()
            found = self._relabel(number, features, map_dataset)
            changed.append((self.labels[number] != before).double().mean())
            iterations.append(float(found.iterations))
            errors.append(found.error)
            used.append(agreement.use(self.labels[number].cpu().numpy(), self.clusters))
            if number == 0:  # one head stands for all: AMI of each would take as long as its relabeling
                agreement_of_first = labelings.compared(
                    self.labels[0], before if int(self.done) else None, self.known
                )
        self.done.fill_(due)
        return {
            "relabeled": self.done.double(),
            "labels_changed": torch.stack(changed).mean(),
            "cluster_use": torch.tensor(used).mean(),
            "sinkhorn_iterations": torch.tensor(iterations).mean(),
            "sinkhorn_error": torch.tensor(errors).max(),
        } | agreement_of_first

    def finish(self, map_dataset: DatasetMap) -> None:
        """Label once more: the balance of an earlier network is not that of the last."""
        features = map_dataset.local(self._features)
        for number in range(len(self.heads)):
            self._relabel(number, features, map_dataset)

    def warning(self, history: Sequence[Mapping[str, float]]) -> Notice | None:
        """Of an assignment that ended before it was balanced."""
        error = next((row["sinkhorn_error"] for row in reversed(history) if "sinkhorn_error" in row), 0.0)
        if error <= UNBALANCED:
            return None
        return Notice(
            f"the clusters of sela are not balanced: their sizes are {error:.0%} off in the mean",
            fixes=(Change("sharpness", "a smaller"),),
        )

    def log_clusters(self, images: Tensor) -> Tensor:
        """Log of each head's balanced assignment, unsharpened; its argmax is the label. (B, C, S, S) -> (B, T, K).

        With `skew` the labels' sizes follow the scores: the prior is not in it.
        """
        features = self._features_of(images).float()
        with torch.autocast(features.device.type, enabled=False):  # as relabeling computes them
            logits = torch.stack([head(features) for head in self.heads], 1)
        return torch.log_softmax(logits + (self.potentials / self.config.sharpness).float(), 2)

    def _features(self, batch: Batch) -> Tensor:
        return self._features_of(batch.images).float()

    def _features_of(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images).flatten(1)
        return features

    def _relabel(self, number: int, features: Tensor, map_dataset: DatasetMap) -> sinkhorn.Balanced:
        head = self.heads[number]
        assert isinstance(head, nn.Linear)
        scores = sinkhorn.Linear(features, head.weight.detach().float(), head.bias.detach().float())
        prior = self._prior(scores, map_dataset)
        found = sinkhorn.balance(
            scores,
            self.config.sharpness,
            prior=prior,
            start=self.potentials[number] + prior.log(),
            memory=self.memory,
            total=map_dataset.all_reduce,
        )
        # without the prior itself: while scores say little, the largest cluster would take every image
        self.potentials[number] = found.potential - prior.log()
        labels = sinkhorn.labels(scores, self.config.sharpness, self.potentials[number])
        self.labels[number] = map_dataset.all_gather(labels).to(torch.int32)
        return found

    def _prior(self, scores: sinkhorn.Linear, map_dataset: DatasetMap) -> Tensor:
        """(K,) f64. Shares that fall with rank, the largest for the cluster that the network itself favors most."""
        prior = torch.ones_like(self.potentials[0])
        if self.config.skew > 0:
            rank = sinkhorn.masses(scores, map_dataset.all_reduce).argsort(descending=True).argsort()
            prior = (rank.double() + 1) ** -self.config.skew
        return prior / prior.sum()


def moments(relabels: int, epochs: int, spacing: str, released: bool) -> list[float]:
    """Epochs, in fractions, before whose steps images are labeled anew; the first is 0.

    E * (i / n)^2, so that half lie in the first quarter, or E * i / n. The released code takes (E + 1.01) *
    linspace(0, 1, n), whose last come after the training has ended.
    """
    share = torch.linspace(0, 1, relabels if released else relabels + 1, dtype=torch.float64)
    found = (epochs + 1.01 * released) * (share**2 if spacing == "quadratic" else share)
    return [float(moment) for moment in found if moment < epochs]
