"""Inference: probabilities and features of images, center crops in eval mode without gradients."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_app.data import transforms
from ssl_app.data.batch import Batch
from ssl_app.data.loading import Batching, ImageRows, Loader
from ssl_app.models.backbones import Backbone
from ssl_app.models.heads import build_head
from ssl_app.training.batch_norm import recalibrate
from ssl_app.training.classifier import Classifier
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.hardware import Hardware

T = TypeVar("T")
Views = tuple[Tensor, ...]  # of one batch of images, each (B, C, S, S)


def probabilities(predictor: Classifier | Ensemble, rows: ImageRows, hardware: Hardware) -> NDArray[np.float64]:
    """Probabilities of each class. -> (n, K)."""
    return map_images(predictor, predictor.probabilities, rows, hardware).double().numpy()


def pooled_features(
    classifier: Classifier, rows: ImageRows, hardware: Hardware, mirrored: bool = False, corners: bool = False
) -> NDArray[np.float32]:
    """What the head is given of each image. -> (n, d).

    `mirrored` takes the mean over the image and its mirror image, `corners` that over the crops of `Corners`.
    """

    def features(views: Views) -> Tensor:
        pooled = [
            classifier.head.pool(classifier.backbone(view, classifier.layer)).float()
            for view in with_mirrored(views, mirrored)
        ]
        return torch.stack(pooled).mean(0).cpu()

    found = list(each_views(classifier, features, rows, hardware, corners))
    return torch.cat(found).float().numpy() if found else np.zeros((0, classifier.head.features), np.float32)


def frozen_features(
    backbone: Backbone, layer: str | None, rows: ImageRows, hardware: Hardware
) -> NDArray[np.float32]:
    """What a linear head on a layer, None for the pooled last, would be given of each image. -> (n, d)."""
    head = build_head("linear", backbone.shape(layer), 1)
    return pooled_features(Classifier(backbone, head, layer, torch.zeros(0, dtype=torch.int64)), rows, hardware)


def map_images(network: nn.Module, fn: Callable[[Tensor], Tensor], rows: ImageRows, hardware: Hardware) -> Tensor:
    """fn of the images, (B, C, S, S) -> (B, ...), one after the other. -> (n, ...), on the CPU.

    `network` is what fn computes with: it is put on the device, and into eval mode.
    """
    found = [result.cpu() for result in each_batch(network, fn, rows, hardware)]
    return torch.cat(found) if found else torch.zeros(0, 1)


def each_batch(network: nn.Module, fn: Callable[[Tensor], T], rows: ImageRows, hardware: Hardware) -> Iterator[T]:
    """fn of one batch of images after the other, (B, C, S, S), as in `map_images`; nothing is kept."""
    return each_views(network, lambda views: fn(views[0]), rows, hardware)


def each_views(
    network: nn.Module, fn: Callable[[Views], T], rows: ImageRows, hardware: Hardware, corners: bool = False
) -> Iterator[T]:
    """fn of the views of one batch after the other: of the center crop alone, or of all of `Corners`."""
    network.to(hardware.device, memory_format=hardware.memory_format)  # type: ignore[call-overload]
    network.eval()
    loader, count = center_crops(rows), None
    if corners:
        places = transforms.Corners(rows.frame)
        loader, count = Loader(rows, places, Batching(batch_size=loader.together, seed=0)), places.views
    for batch in loader.ordered(views=count):
        with torch.no_grad(), hardware.autocast():
            found = fn(batch.to(hardware.device, hardware.memory_format).views)
        yield found


def with_mirrored(views: Sequence[Tensor], mirrored: bool) -> list[Tensor]:
    """The views, each beside its mirror image where that is as good."""
    return [one for view in views for one in ((view, view.flip(-1)) if mirrored else (view,))]


def recalibrate_on(backbone: Backbone, rows: ImageRows, hardware: Hardware) -> None:
    """Give a backbone the batch-norm statistics of a few hundred images; a new network has none."""
    batches: list[Batch] = list(center_crops(rows).ordered())
    images = torch.cat([batch.images for batch in batches])
    backbone.to(hardware.device, memory_format=hardware.memory_format)  # type: ignore[call-overload]
    recalibrate(backbone, images.to(hardware.device, memory_format=hardware.memory_format))


def center_crops(rows: ImageRows) -> Loader:
    """A loader for `ordered` alone."""
    return Loader(rows, transforms.none(rows.frame), Batching(batch_size=1, seed=0))
