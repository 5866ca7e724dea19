"""A network asked, not taught: probabilities and features of images, unaugmented, in eval mode."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_app.data.intensity import Pixels
from ssl_app.data.loading import Loader
from ssl_app.data.transforms import Augment
from ssl_app.models.backbones import Backbone
from ssl_app.training.batch_norm import recalibrate
from ssl_app.training.classifier import Classifier
from ssl_app.training.hardware import Hardware


def probabilities(
    classifier: Classifier, rows: NDArray[np.int64], images: NDArray[Any], pixels: Pixels, hardware: Hardware
) -> NDArray[np.float64]:
    """Probabilities of each class for rows of packed images (N, P, P, C). -> (n, K)."""

    def ask(images: Tensor) -> Tensor:
        return torch.softmax(classifier(images).double(), 1)

    return over(classifier, ask, rows, images, pixels, hardware, classifier.backbone.image_size).double().numpy()


def pooled_features(
    classifier: Classifier, rows: NDArray[np.int64], images: NDArray[Any], pixels: Pixels, hardware: Hardware
) -> NDArray[np.float32]:
    """What the head sees of rows of packed images. -> (n, d)."""

    def ask(images: Tensor) -> Tensor:
        return classifier.head.pool(classifier.backbone(images, classifier.layer))

    return over(classifier, ask, rows, images, pixels, hardware, classifier.backbone.image_size).float().numpy()


def probabilities_of_features(classifier: Classifier, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities where the features are known already and the head is linear. (n, d) -> (n, K)."""
    with torch.no_grad():
        logits = classifier.head.cpu().last(torch.from_numpy(np.ascontiguousarray(features)))
    return torch.softmax(logits.double(), 1).numpy()


def over(
    network: nn.Module,
    ask: Callable[[Tensor], Tensor],
    rows: NDArray[np.int64],
    images: NDArray[Any],
    pixels: Pixels,
    hardware: Hardware,
    image_size: int,
) -> Tensor:
    """What `ask` says of images (B, C, S, S), a row an image, over rows of packed images. -> (n, ...), on the CPU."""
    still = Augment("none", image_size, images.shape[1], False)
    loader = Loader(images, rows, pixels, still, batch_size=1, seed=0)
    network.to(hardware.device, memory_format=hardware.memory_format)  # type: ignore[call-overload]
    network.eval()
    with torch.no_grad(), hardware.autocast():
        batches = (batch.to(hardware.device, hardware.memory_format) for batch in loader.ordered())
        found = [ask(batch.images).cpu() for batch in batches]
    return torch.cat(found) if found else torch.zeros(0, 1)


def settle(
    backbone: Backbone, rows: NDArray[np.int64], images: NDArray[Any], pixels: Pixels, hardware: Hardware
) -> None:
    """Give a backbone the batch-norm statistics of rows of packed images, a few hundred; a new network has none."""
    still = Augment("none", backbone.image_size, images.shape[1], False)
    loader = Loader(images, rows, pixels, still, batch_size=1, seed=0)
    seen = torch.cat([batch.images for batch in loader.ordered()])
    backbone.to(hardware.device, memory_format=hardware.memory_format)  # type: ignore[call-overload]
    recalibrate(backbone, seen.to(hardware.device, memory_format=hardware.memory_format))
