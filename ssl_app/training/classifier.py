"""Classifier: the task of stage two, a backbone and a head trained on labels."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.data.batch import Batch
from ssl_app.models.backbones import Backbone
from ssl_app.models.heads import Head
from ssl_app.training.task import Metrics, Task


class Classifier(Task):
    """Cross-entropy on the features of one layer of a backbone.

    Classes are drawn equally often, whatever their share of the labels: what is reported first is
    balanced accuracy.
    """

    def __init__(self, backbone: Backbone, head: Head, layer: str | None, labels: Tensor) -> None:
        """`labels` (N,) are those of the loader's images, for the sampling."""
        super().__init__()
        self.backbone, self.head, self.layer = backbone, head, layer
        self.labels = labels

    def parts(self) -> Mapping[str, nn.Module]:
        """The two that a phase can train or freeze."""
        return {"backbone": self.backbone, "head": self.head}

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, S, S) -> logits (B, K)."""
        features = self.backbone(images, self.layer)
        with torch.autocast(images.device.type, enabled=False):  # bf16 logits tie, and ties go to the first class
            logits: Tensor = self.head(features.float())
        return logits

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, K), float64."""
        return torch.softmax(self(images).double(), 1)

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Cross-entropy, and accuracy on the batch."""
        assert batch.labels is not None
        logits = self(batch.images).float()
        accuracy = (logits.detach().argmax(1) == batch.labels).float().mean()
        return functional.cross_entropy(logits, batch.labels), {"accuracy": accuracy}

    def sampling_weights(self) -> Tensor:
        """The same weight for every class. (N,)."""
        return 1.0 / torch.bincount(self.labels)[self.labels].double()
