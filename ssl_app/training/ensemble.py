"""Ensemble: what predicts in the end, one classifier or the mean of several."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ssl_app.models.backbones import Backbone
from ssl_app.training.classifier import Classifier

LEAST = 1e-300  # probability, for its logarithm
Features = Callable[[Backbone, str | None], Tensor]  # of a layer: what heads on it are given, (B, d)


class Ensemble(nn.Module):
    """The weighted mean of its members' probabilities. Members may share a backbone.

    `mirrored`: logits are the mean over an image and its mirror image, worth about a point of accuracy.
    `temperature`: the mean becomes softmax(log p / temperature); 1 until it is calibrated.
    """

    def __init__(
        self, members: Sequence[Classifier], weights: Sequence[float] | None = None, mirrored: bool = False
    ) -> None:
        """Weights are the members' shares, all alike by default; they need not add up to 1."""
        super().__init__()
        assert members, "an ensemble of nobody"
        given = [1.0] * len(members) if weights is None else list(weights)
        assert len(given) == len(members), (len(given), len(members))
        assert min(given) > 0, given
        self.members = nn.ModuleList(members)
        self.weights = [weight / sum(given) for weight in given]
        self.mirrored = mirrored
        self.temperature = 1.0

    @property
    def classifiers(self) -> list[Classifier]:
        """The members."""
        return [member for member in self.members if isinstance(member, Classifier)]

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, K), float64. Each backbone computes a layer once, whoever asks for it."""
        views = [images, images.flip(-1)] if self.mirrored else [images]
        known: dict[tuple[int, str | None], list[Tensor]] = {}
        logits = []
        for one in self.classifiers:
            key = (id(one.backbone), one.layer)
            if key not in known:
                known[key] = [one.backbone(view, one.layer) for view in views]
            with torch.autocast(images.device.type, enabled=False):
                logits.append(torch.stack([one.head(features.float()) for features in known[key]]).mean(0))
        return self._mean(logits)

    def probabilities_of_features(self, features: Features) -> Tensor:
        """Where all backbones are as the features were made, mirror images and all. -> (B, K), float64."""
        return self._mean([one.head.last(features(one.backbone, one.layer)) for one in self.classifiers])

    def _mean(self, logits: Sequence[Tensor]) -> Tensor:
        shares = zip(self.weights, logits, strict=True)
        mean = torch.stack([weight * torch.softmax(each.double(), 1) for weight, each in shares]).sum(0)
        return mean if self.temperature == 1 else torch.softmax(mean.clamp_min(LEAST).log() / self.temperature, 1)
