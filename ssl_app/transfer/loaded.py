"""A finished run as a torch module: features and probabilities of images that are given in Python."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_app import checkpoints, runs
from ssl_app.data.given import Picture, pack_given, pictures
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.loading import ImageRows, every_row
from ssl_app.data.spec import PixelSpec
from ssl_app.errors import CheckpointError, DataError, Run, RunError
from ssl_app.models.backbones import Backbone
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.hardware import Hardware, choose
from ssl_app.training.inference import center_crops, frozen_features, probabilities
from ssl_app.training.initialization import BACKBONE, Initialization, load_initialization
from ssl_app.transfer.trained import CLASSIFIER, TrainedClassifier, read_classifier


class LoadedRun(nn.Module):
    """The network of a pretraining, or the classifier of a finetune run, as `ssl-app predict` computes with it.

    `images` is a path, an image of Pillow, an array (H, W) or (H, W, C), a list of these, or an array of several,
    (N, H, W, C). Files and arrays are decoded, scaled and cropped as those of the run were.
    """

    def __init__(
        self,
        name: str,
        pixels: PixelSpec,
        scaling: PixelScaling,
        hardware: Hardware,
        networks: Sequence[Backbone],
        classifier: tuple[Ensemble, tuple[str, ...]] | None = None,
    ) -> None:
        """Of a pretraining there is no `classifier`, which is what predicts and the names of its classes."""
        super().__init__()
        self.name, self.pixels, self.scaling, self.hardware = name, pixels, scaling, hardware
        self.backbones = nn.ModuleList(networks)
        self.predictor = classifier[0] if classifier else None
        self.classes = classifier[1] if classifier else ()
        self.eval()

    def forward(self, batch: Tensor) -> Tensor:
        """Of what `preprocess` gives, (B, C, S, S): probabilities (B, K), or of a pretraining features (B, D)."""
        if self.predictor is not None:
            return self.predictor.probabilities(batch)
        features: Tensor = self.backbones[0](batch)
        return features

    def preprocess(self, images: Picture | Sequence[Picture]) -> Tensor:
        """What the network is given of images: center crops, normalized. -> (N, C, S, S)."""
        return torch.cat([batch.images for batch in center_crops(self._rows(images)).ordered()])

    def features(self, images: Picture | Sequence[Picture], layer: str | None = None) -> NDArray[np.float32]:
        """Features of the last layer, pooled, or of another one that is named. -> (N, D).

        Where a classifier is the mean over several networks, the features of each follow one another.
        """
        rows = self._rows(images)
        networks = [one for one in self.backbones if isinstance(one, Backbone)]
        return np.concatenate([frozen_features(one, layer, rows, self.hardware) for one in networks], axis=1)

    def predict(self, images: Picture | Sequence[Picture]) -> NDArray[np.float64]:
        """Probabilities, one column a class of `classes`. -> (N, K). Raises RunError of a pretraining."""
        if self.predictor is None:
            raise RunError(
                f"{self.name} is a pretraining, which has features and no classes",
                fix=Run("finetune", (("init", self.name),)),
            )
        return probabilities(self.predictor, self._rows(images), self.hardware)

    def _rows(self, images: Picture | Sequence[Picture]) -> ImageRows:
        try:
            packed = pack_given(pictures(images, self.pixels.channels), self.pixels)
            return every_row(packed, self.scaling, self.pixels.size, "what is given")
        except DataError as error:  # what the network takes was settled when it was trained
            left = [fix for fix in error.fixes if not fix.settings_named() and not isinstance(fix, Run)]
            raise DataError(error.found, expected=error.expected, fix=left) from error


def load_run(
    run: str | Path, out: str | Path = runs.OUT, device: str = "auto", threads: int | None = None
) -> LoadedRun:
    """The network of a finished run, by its name in `out` or by its folder.

    Raises RunError for a run that has none, CheckpointError for a damaged file.
    """
    folder = runs.find_run(Path(out), str(run))
    if (folder / CLASSIFIER).is_file():
        return _classifier(read_classifier(folder / CLASSIFIER), folder.name, device, threads)
    if not (folder / BACKBONE).is_file():
        raise RunError(f"run {folder} holds no network", expected="a finished pretrain or finetune run")
    return _backbone(load_initialization(str(folder), Path(out), None), device, threads)


def load_file(weights: Path, device: str = "auto", threads: int | None = None) -> LoadedRun:
    """The network of a run's file of weights, wherever that lies. Raises CheckpointError for any other file."""
    if checkpoints.read_meta(weights)["kind"] == "classifier":
        return _classifier(read_classifier(weights), weights.stem, device, threads)
    return _backbone(load_initialization(str(weights), weights.parent, None), device, threads)


def _classifier(trained: TrainedClassifier, name: str, device: str, threads: int | None) -> LoadedRun:
    hardware = choose(device, trained.precision, threads)
    networks = list(dict.fromkeys(one.backbone for one in trained.predictor.classifiers))
    parts = (trained.predictor, trained.classes)
    return LoadedRun(name, trained.pixels, trained.scaling, hardware, networks, parts)


def _backbone(start: Initialization, device: str, threads: int | None) -> LoadedRun:
    if start.scaling is None or start.channels is None or start.image_size is None:
        raise CheckpointError(f"{start.source} does not say what images it takes", expected="a pretraining's")
    hardware = choose(device, str(start.settings.get("precision", "auto")), threads)
    backbone, _ = start.load(start.channels, start.image_size, 0)
    scaling = start.scaling
    pixels = PixelSpec(
        start.image_size, start.channels, scaling.intensity, start.pack_side, scaling.nodata, scaling.fit
    )
    return LoadedRun(start.name, pixels, scaling, hardware, [backbone])
