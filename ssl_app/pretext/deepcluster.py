"""DeepCluster: cluster the features, then learn the clusters (Caron et al., 2018, arXiv:1807.05520)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.clustering import agreement, kmeans, whitening
from ssl_app.clustering.sizes import clusters_for, few_each
from ssl_app.config import option
from ssl_app.data.batch import Batch
from ssl_app.errors import Change, Notice, Set
from ssl_app.models.backbones import Backbone
from ssl_app.pretext.base import Defaults, Pretext, SelfLabeling, TrainingSet
from ssl_app.pretext.parts import labelings
from ssl_app.training.batch_norm import recalibrate, sample
from ssl_app.training.task import DatasetMap, Metrics

EARLY, FROZEN = 5, 0.98  # epochs, and NMI with the partition before, above which clusters stand still
REPAIRED = 0.2  # of the clusters, above which they are too many
TEMPERATURE = 0.1  # of cosines to centroids, as in DeepCluster-v2 (Caron et al., 2020, arXiv:2006.09882)


@dataclass(frozen=True)
class DeepClusterConfig:
    """Settings of DeepCluster."""

    clusters: int | None = option(
        None, "clusters K; default: a 400th of the images, 16 to 3,000", at_least=2, metavar="K"
    )
    pca: int | None = option(
        None,
        "dimensions that features are whitened to before they are clustered; default: a quarter of them, 16 to 256",
        at_least=1,
    )
    iterations: int = option(20, "of k-means, each epoch", at_least=1)
    classifier: Literal["new", "centroids"] = option(
        "new",
        "what learns the clusters: a new linear layer each epoch, or the centroids themselves, which stand still",
    )
    head_momentum: bool = option(
        True, "whether the new layer has the network's momentum; in the paper it has none, for epochs of 5,000 steps"
    )


class DeepCluster(SelfLabeling, Pretext[DeepClusterConfig]):
    """Each epoch begins with k-means of all features, whitened by PCA and of length 1.

    Images are drawn so that every cluster comes equally often (section 3.3): by weight, under their own numbers. The
    released code permutes a list sorted by cluster but reads images by their old numbers, and so draws clusters as
    they are.
    Take the backbone alexnet+sobel, say, for the paper's filter on the input.
    """

    Config = DeepClusterConfig
    score = "accuracy"
    defaults = Defaults(
        epochs=60,
        lr=0.05,
        augment="strong",
    )
    per_image_targets = True
    progressive_resizing = True

    labels: Tensor
    centroids: Tensor
    mean: Tensor
    basis: Tensor

    def __init__(self, backbone: Backbone, config: DeepClusterConfig, data: TrainingSet) -> None:
        super().__init__(backbone, config, data)
        self.clusters = clusters_for(data.images, config.clusters)
        self.notes = few_each(data.images, self.clusters)
        features = int(torch.Size(backbone.shape()).numel())
        # all of them would be noise for the larger part, made as loud as the rest
        width = min(config.pca or min(256, max(16, features // 4)), features, max(1, data.images - 1))
        self.head = nn.Linear(features, self.clusters) if config.classifier == "new" else None
        self.known = data.labels  # for comparison only
        self.fresh: list[nn.Parameter] = []
        self.register_buffer("labels", torch.full((data.images,), -1))  # (N,)
        self.register_buffer("centroids", torch.zeros(self.clusters, width))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("basis", torch.zeros(features, width))

    def start_epoch(self, epoch: int, map_dataset: DatasetMap) -> Metrics:
        """Cluster all images anew. -> its agreement with the last partition, and with labels where there are."""
        if epoch == 0:  # the statistics of a new network are of no images
            recalibrate(self.backbone, sample(self.images, map_dataset))
        before = self.labels.clone()
        found = self._cluster(map_dataset, seed=int(torch.randint(2**31, ())))
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.01)
            nn.init.zeros_(self.head.bias)
            self.fresh = list(self.head.parameters())
        reported = {
            "objective": torch.tensor(found.objective),
            "repaired": torch.tensor(float(found.empties_repaired)),
            "cluster_use": torch.tensor(agreement.use(found.labels.cpu().numpy(), self.clusters)),
        }
        return reported | labelings.compared(found.labels, before if epoch > 0 else None, self.known)

    def finish(self, map_dataset: DatasetMap) -> None:
        """Cluster once more: the centroids of an earlier network are not those of the last."""
        self._cluster(map_dataset, seed=0)

    def warning(self, history: Sequence[Mapping[str, float]]) -> Notice | None:
        """Of clusters that are left empty, or stand still before anything was learned."""
        repaired = history[-1].get("repaired", 0.0)
        if repaired > REPAIRED * self.clusters:
            return Notice(
                f"{repaired:.0f} times in the last k-means a cluster of deepcluster's {self.clusters} was left empty "
                f"and filled by splitting another",
                fixes=(Set("clusters", max(2, self.clusters // 2)),),
            )
        if len(history) > EARLY or history[-1].get("nmi_before", 0.0) <= FROZEN:
            return None
        return Notice(
            f"the clusters of deepcluster stand still: NMI {history[-1]['nmi_before']:.3f} with the last by epoch "
            f"{len(history)}",
            fixes=(Change("clusters", "more"), Change("lr", "a larger")),
        )

    def sampling_weights(self) -> Tensor:
        """Every cluster as often as any other."""
        sizes = torch.bincount(self.labels, minlength=self.clusters)
        return 1 / sizes[self.labels].double()

    def without_momentum(self) -> Iterable[nn.Parameter]:
        """The new layer, as the paper's own code has it."""
        return () if self.head is None or self.config.head_momentum else self.head.parameters()

    def reinitialized(self) -> Iterable[nn.Parameter]:
        """The new layer."""
        fresh, self.fresh = self.fresh, []
        return fresh

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Cross-entropy of the images' clusters; the accuracy, in [0, 1]."""
        features = self._features(batch.images)
        logits = self.head(features).float() if self.head is not None else self._cosines(features) / TEMPERATURE
        labels = self.labels[batch.index]
        accuracy = (logits.detach().argmax(1) == labels).float().mean()
        return functional.cross_entropy(logits, labels), {"accuracy": accuracy}

    def log_clusters(self, images: Tensor) -> Tensor:
        """Largest for the nearest centroid; a softmax of negative squared distances. (B, C, S, S) -> (B, 1, K)."""
        nearness = self._cosines(self._features(images)) - self.centroids.square().sum(1) / 2
        return torch.log_softmax(nearness / TEMPERATURE, 1)[:, None]

    def _cluster(self, map_dataset: DatasetMap, seed: int) -> kmeans.Clusters:
        """Cluster the features of all images, and keep what an image's cluster follows from."""
        features = map_dataset(lambda batch: self._features(batch.images).float())  # (N, D)
        white = whitening.fit(features, self.basis.shape[1])
        found = kmeans.fit(white(features), self.clusters, iterations=self.config.iterations, seed=seed)
        for buffer, value in ((self.mean, white.mean), (self.basis, white.basis), (self.centroids, found.centroids)):
            buffer.copy_(value)
        self.labels.copy_(found.labels)
        return found

    def _features(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images).flatten(1)
        return features

    def _cosines(self, features: Tensor) -> Tensor:
        """Products of whitened features of length 1 with the centroids. (B, D) -> (B, K)."""
        with torch.autocast(features.device.type, enabled=False):
            white = functional.normalize((features.float() - self.mean) @ self.basis, dim=1)
            return white @ self.centroids.t()
