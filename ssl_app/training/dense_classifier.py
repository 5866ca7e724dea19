"""A classifier without its global pooling: class logits at each place of an image, in place of one for all of it."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.data.class_maps import packed
from ssl_app.data.loading import ImageRows
from ssl_app.errors import Set, SettingsError, Unset
from ssl_app.models.feature_maps import FeatureMap, coarsest
from ssl_app.training.classifier import Classifier
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.hardware import Hardware
from ssl_app.training.inference import center_crops

AT_ONCE = 64  # images: the maps of all classes of a batch are held


class DenseClassifier(nn.Module):
    """Logits of each place: (B, C, S, S) -> (B, K, h, w), exponentials adding up to 1 at each place.

    A head acts on each place as it does on the mean, as 1x1 convolutions would. The mean logits of a linear head over
    all places are the classifier's own. Of an ensemble it is the logarithm of its members' mean probabilities at
    each place of the coarsest member.
    """

    def __init__(self, predictor: Ensemble) -> None:
        """Raises SettingsError where a member gives no map."""
        super().__init__()
        self.predictor = predictor
        for one in predictor.classifiers:
            _refuse_grid(one)
        self.maps = nn.ModuleList([FeatureMap(one.backbone, one.layer) for one in predictor.classifiers])

    def grid(self, side: int) -> tuple[int, int]:
        """Height and width of the maps of images of this side. Raises SettingsError where the network takes none."""
        one = self.predictor.classifiers[0].backbone
        like = next(one.parameters())
        try:
            with torch.no_grad():
                found = self.eval()(torch.zeros(1, one.channels, side, side, device=like.device))
        except (RuntimeError, ValueError) as error:
            raise SettingsError(
                f"{one.name} takes no images of {side} px ({' '.join(str(error).split())[:80]})",
                fix=Set("image_size", one.image_size),
            ) from error
        return coarsest([found])

    def forward(self, images: Tensor) -> Tensor:
        """Of images of any side that the backbone takes; in float32."""
        views = [images, images.flip(-1)] if self.predictor.mirrored else [images]
        logits = []
        for one, features in zip(self.predictor.classifiers, self.maps, strict=True):
            each = [head_of_places(one, features(view)) for view in views]
            # the mirror image's map is mirrored, too
            logits.append(torch.stack([each[0], *(other.flip(-1) for other in each[1:])]).mean(0))
        grid = coarsest(logits)
        logits = [functional.adaptive_avg_pool2d(one, grid) for one in logits]
        shares = zip(self.predictor.weights, logits, strict=True)
        mean = torch.stack([weight * torch.softmax(one.double(), 1) for weight, one in shares]).sum(0)
        return mean.clamp_min(1e-300).log().float()


def head_of_places(classifier: Classifier, features: Tensor) -> Tensor:
    """The head on each place of a map. (B, D, h, w) -> (B, K, h, w)."""
    count, _, height, width = features.shape
    with torch.autocast(features.device.type, enabled=False):
        places = features.float().permute(0, 2, 3, 1).flatten(0, 2)  # (B h w, D)
        logits: Tensor = classifier.head.layers(places)
    return logits.reshape(count, height, width, -1).permute(0, 3, 1, 2)


def cells_of(network: DenseClassifier, rows: ImageRows, k: int, hardware: Hardware) -> Iterator[NDArray[np.uint16]]:
    """Maps of whole packed images as a file holds them, batch by batch in their order. -> (B, 2 k + 1, h, w)."""
    network.to(hardware.device, memory_format=hardware.memory_format)  # type: ignore[call-overload]
    network.eval()
    whole = replace(rows, image_size=int(rows.images.shape[1]))
    for batch in center_crops(whole).ordered() if len(rows.indices) else ():
        for some in torch.split(batch.to(hardware.device, hardware.memory_format).images, AT_ONCE):
            with torch.no_grad(), hardware.autocast():
                logits = network(some)
            yield packed(logits.cpu().numpy(), k)


def _refuse_grid(classifier: Classifier) -> None:
    """Raise SettingsError where the head has other weights for each place of a map."""
    head = classifier.head
    if head.features != head.shape[0]:
        places = round((head.features / head.shape[0]) ** 0.5)
        raise SettingsError(
            f"the head on layer {classifier.layer} has weights for each of {places}x{places} places, and gives no "
            "class maps",
            expected="a head on the mean over all places",
            fix=Unset("layer"),
        )
