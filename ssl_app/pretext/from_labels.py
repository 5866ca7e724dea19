"""From labels: learn what another run's labeling says, from random weights (label transfer: Asano et al., 2020)."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.config import option
from ssl_app.data.batch import Batch
from ssl_app.data.label_tables import CLUSTERS, numbered, read_labels
from ssl_app.errors import DataError, Notice, Set, SettingsError
from ssl_app.models.backbones import Backbone
from ssl_app.pretext.base import Defaults, Pretext, TrainingSet
from ssl_app.training.task import Metrics


@dataclass(frozen=True)
class FromLabelsConfig:
    """Settings of from-labels."""

    labels: Path | None = option(
        None,
        "table of path and cluster, as ssl-app label writes it, or of path and label",
        metavar="FILE",
        path="file",
    )


class FromLabels(Pretext[FromLabelsConfig]):
    """A head for each column of the file, cross-entropies averaged; images that it does not name are not drawn."""

    Config = FromLabelsConfig
    score = "accuracy"
    defaults = Defaults(
        epochs=60,
        augment="strong",
    )
    standalone = False
    per_image_targets = True
    progressive_resizing = True

    labels: Tensor

    def __init__(self, backbone: Backbone, config: FromLabelsConfig, data: TrainingSet) -> None:
        super().__init__(backbone, config, data)
        if config.labels is None:
            raise SettingsError(
                "from-labels has nothing to learn", fix=Set("labels", "FILE, such as ssl-app label writes")
            )
        self.teacher_file = config.labels
        table, notes = read_labels(config.labels, data.keys)
        read = [numbered(column) for column in table.of(data.keys)]
        columns = [(classes, numbers) for classes, numbers in read if len(classes) > 1]  # one says nothing
        if not columns:
            raise DataError(f"{config.labels} holds one label only", expected="two or more")
        self.register_buffer("labels", torch.tensor([numbers for _, numbers in columns], dtype=torch.int32))  # (T, N)
        named = repr([classes for classes, _ in columns]).encode()
        self.fingerprints = {"labels": blake2b(self.labels.numpy().tobytes() + named, digest_size=8).hexdigest()}
        features = int(torch.Size(backbone.shape()).numel())
        self.heads = nn.ModuleList(nn.Linear(features, len(classes)) for classes, _ in columns)
        known = int(self._known().sum())
        self.labels_learned = 0 if all(map(CLUSTERS.fullmatch, table.columns)) else known
        heads = f"{len(columns)} labelings" if len(columns) > 1 else f"{len(columns[0][0])} labels"
        self.notes = (
            Notice(f"{heads} of {known} of {data.images} images, from {config.labels}"),
            *notes,
        )

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Mean cross-entropy over the heads; how often they agree with their labels, in [0, 1]."""
        features = self.backbone(batch.images).flatten(1)
        losses, hits = [], []
        for head, labels in zip(self.heads, self.labels[:, batch.index].long(), strict=True):
            logits = head(features).float()  # (B, K)
            known = labels >= 0
            losses.append(functional.cross_entropy(logits, labels.clamp_min(0), reduction="none") * known)
            hits.append((logits.detach().argmax(1) == labels) & known)
        count = torch.stack([labels >= 0 for labels in self.labels[:, batch.index]]).sum().clamp_min(1)
        return torch.stack(losses).sum() / count, {"accuracy": torch.stack(hits).sum() / count}

    def sampling_weights(self) -> Tensor | None:
        """Only images with a label are drawn."""
        known = self._known()
        return None if bool(known.all()) else known.double()

    def _known(self) -> Tensor:
        return (self.labels >= 0).any(0)
