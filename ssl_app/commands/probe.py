"""Measure frozen features, layer by layer: nearest neighbors and a linear probe.

RUN is a pretraining, a checkpoint, a weights file, or none for random weights. Both are fitted to all labels of
the training part and tested once. With no --data it takes the data of the pretraining. What has to be chosen, the
best layer too, is chosen on a fifth of the training part.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ssl_app import config, runs
from ssl_app.commands import RunSpec, record
from ssl_app.commands.base import hardware_of, planned_of, run_in_place_of_init, stage_two_of, transfer_config
from ssl_app.config import option
from ssl_app.errors import CheckpointError, SettingsError
from ssl_app.runs import Result
from ssl_app.settings import DataSettings, PixelSettings, RunSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_app.models.backbones import Backbone
    from ssl_app.transfer.trial import TrialSetup

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app probe pretrain-20261121-101500
ssl-app probe pretrain-20261121-101500 --layers all --data labeled.csv --group patient
ssl-app probe none --backbone small-resnet --layers stage2,stage3
ssl-app probe resnet18.pth --backbone resnet18 --data folders/ --k 200
"""
POOLED, ALL = "pooled", "all"
KINDS = {"knn": "kNN", "linear": "linear probe"}
KEPT = ("n", "accuracy", "top5_accuracy", "balanced_accuracy", "macro_f1")
SETTLED = 512  # images that a random network takes its batch-norm statistics from


@dataclass(frozen=True)
class Settings(RunSettings, PixelSettings, DataSettings):
    """Settings of a probe."""

    run: str = option("", "run of pretrain, checkpoint, weights file or none", argument=True)
    backbone: str | None = option(
        None, "network of RUN none or of a plain weights file; a checkpoint knows its own", metavar="B"
    )
    layers: tuple[str, ...] = option(
        (), "layers beside the pooled last, such as stage2,stage3; all takes every named one", metavar="L,L"
    )
    k: tuple[int, ...] = option(
        (10, 50, 200),
        "nearest neighbors; of several the best on a fifth of train",
        at_least=1,
        metavar="N,N",
    )
    labels: Path | None = option(
        None, "table of path and label that takes the place of the data's own labels", metavar="FILE"
    )
    evaluate_on: Literal["test", "validation"] = option(
        "test", "part that is evaluated; validation is a fifth of the training part, and leaves the test part alone"
    )


def run(settings: Settings) -> Result:
    """Probe every layer requested for."""
    from ssl_app.evaluation import linear_probe
    from ssl_app.pretraining.selection import spaced
    from ssl_app.training.inference import recalibrate_on
    from ssl_app.training.initialization import load_initialization
    from ssl_app.transfer.setup import overlap_sentence, prepare

    started = time.monotonic()
    runs.prepare(settings.out, settings.name, "probe")
    hardware = hardware_of(settings)
    logger.info(hardware.sentence())
    stage_two = stage_two_of(settings)
    with run_in_place_of_init():
        start = load_initialization(settings.run, settings.out, settings.backbone)
        setup = prepare(
            planned_of(stage_two, start, settings.evaluate_on),
            transfer_config(stage_two, start, "within", settings.seed),
            hardware,
        )
    dataset, train = setup.dataset, setup.opened.parts.train
    backbone, _ = start.load(dataset.images.shape[-1], dataset.image_size, settings.seed)
    if not start.pretrained:
        some = spaced(train, SETTLED)
        recalibrate_on(backbone, setup.rows(some), setup.hardware)
        logger.info(f"random weights, with batch-norm statistics of {len(some)} of the images")
    layers = _layers(settings.layers, backbone)
    units = [dataset.units[index] for index in train]
    held = linear_probe.hold_out(dataset.labels[train], units, settings.seed)
    overlap = overlap_sentence(setup)
    about = RunSpec("probe", settings.out, settings.name, config.as_json(settings), settings.tracking_uri)
    with record(about, None, started) as one:
        logger.info(f"run {one.folder}: {start.name} with the labels of {len(train)} training images")
        unit = "images" if dataset.groups is None else f"{dataset.columns.group}s"
        logger.info(
            f"balanced accuracy [bootstrap over test {unit}] and accuracy, n = {len(setup.opened.parts.test)} test "
            f"images{'; ' + overlap if overlap else ''}"
        )
        width = max(len(layer) for layer in ("layer", *layers))
        logger.info(_row(width, "layer", "numbers", [(kind, "accuracy") for kind in KINDS.values()]))
        one.tracked.data(dataset.name, dataset.hash, "probe")
        found: dict[str, dict[str, Any]] = {}
        for layer in layers:
            found[layer] = _probed(setup, backbone, layer, held, settings)
            logger.info(_line(width, layer, found[layer]))
            numbers = {f"{layer}_{kind}_{key}": found[layer][kind].get(key) for kind in KINDS for key in KEPT}
            one.tracked.metrics({k: float(v) for k, v in numbers.items() if v is not None}, len(train))
        best = {kind: _best(found, kind) for kind in KINDS}
        one.more = {
            "init": settings.run,
            "probe": found,
            "best": best,
            "labels_used": len(train),
            "held_out": int(held.sum()),
            "overlap": overlap,
            "unreadable": list(dataset.unreadable),
        }
    if len(layers) > 1:
        logger.info(_choice(found, best, int(held.sum())))
    return one.result()


def _layers(requested: Sequence[str], backbone: "Backbone") -> list[str]:
    """The pooled output and the layers requested for, each once. Raises SettingsError for one that is not there."""
    if ALL in requested and len(set(requested)) > 1:
        raise SettingsError(f"--layers names {ALL} beside others; type --layers {ALL}, or the others alone")
    layers = list(dict.fromkeys([POOLED, *(backbone.layers if ALL in requested else requested)]))
    for layer in layers[1:]:
        backbone.shape(layer)
    return layers


def _probed(
    setup: "TrialSetup", backbone: "Backbone", layer: str, held: "NDArray[np.bool_]", settings: Settings
) -> dict[str, Any]:
    """Both measures of one layer: numbers an image, and for each what was chosen and how it did."""
    from ssl_app.evaluation import knn, linear_probe
    from ssl_app.evaluation.intervals import bootstrap_balanced_accuracy
    from ssl_app.evaluation.metrics import classification

    dataset, parts, device = setup.dataset, setup.opened.parts, setup.hardware.device
    labels, truth, classes = dataset.labels[parts.train], dataset.labels[parts.test], dataset.classes
    groups = None if dataset.groups is None else [dataset.groups[row] for row in parts.test]
    features = _features(setup, backbone, None if layer == POOLED else layer)
    train, test = features[: len(labels)], features[len(labels) :]

    def scored_on_held(scores: "NDArray[np.float64]") -> float:
        return cast(float, classification(scores, labels[held], classes)["balanced_accuracy"])

    def tested(scores: "NDArray[np.float64]") -> dict[str, Any]:
        numbers = classification(scores, truth, classes)
        interval = bootstrap_balanced_accuracy(truth, scores.argmax(1), groups, seed=settings.seed)
        kept = {key: numbers[key] for key in KEPT if key in numbers}
        return kept | {"low": interval.low, "high": interval.high}

    chosen: dict[int, float | None] = {settings.k[0]: None}
    if held.any():
        inside = knn.votes(train[~held], labels[~held], train[held], len(classes), k=settings.k, device=device)
        chosen = {k: scored_on_held(votes) for k, votes in inside.items()}
    k = max(chosen, key=lambda k: chosen[k] or 0.0)
    votes = knn.votes(train, labels, test, len(classes), k=(k,), device=device)[k]
    neighbors = tested(votes)
    neighbors.pop("top5_accuracy", None)  # most classes have no vote at all: the first of them would be right
    probe = linear_probe.fit(train, labels, len(classes), held, device=device)
    logits = probe.classifier.logits(test)
    return {
        "features": int(features.shape[1]),
        "knn": {"k": min(k, len(train)), "sigma": knn.SIGMA, "held_out": chosen[k]} | neighbors,
        "linear": {
            "how": probe.classifier.how,
            "held_out": None if probe.held_logits is None else scored_on_held(probe.held_logits),
        }
        | tested(logits),
    }


def _features(setup: "TrialSetup", backbone: "Backbone", layer: str | None) -> "NDArray[np.float32]":
    """What a head on this layer sees of the training images and then of the test images. -> (N + n, d)."""
    import numpy as np

    from ssl_app.training.inference import frozen_features

    parts = setup.opened.parts
    rows = setup.rows(np.concatenate([parts.train, parts.test]))
    features = frozen_features(backbone, layer, rows, setup.hardware)
    if not np.isfinite(features).all():
        raise CheckpointError(
            f"layer {layer or POOLED} of {setup.initialization.name} gives numbers that are not finite; "
            f"type --precision fp32, or probe other weights"
        )
    return features


def _best(found: dict[str, dict[str, Any]], kind: str) -> str | None:
    """The layer that did best on what was held out of train; None where nothing was."""
    scored = {layer: one[kind]["held_out"] for layer, one in found.items() if one[kind]["held_out"] is not None}
    return max(scored, key=lambda layer: scored[layer]) if scored else None


def _line(width: int, layer: str, one: dict[str, Any]) -> str:
    cells = []
    for kind in KINDS:
        numbers = one[kind]
        interval = "" if numbers["low"] is None else f" [{numbers['low']:.3f}, {numbers['high']:.3f}]"
        cells.append((f"{numbers['balanced_accuracy']:.3f}{interval}", f"{numbers['accuracy']:.3f}"))
    return _row(width, layer, str(one["features"]), cells)


def _row(width: int, layer: str, numbers: str, cells: Sequence[tuple[str, str]]) -> str:
    columns = "  ".join(f"{score:<20}  {plain:<8}" for score, plain in cells)
    return f"{layer:<{width}}  {numbers:>7}  {columns}".rstrip()


def _choice(found: dict[str, dict[str, Any]], best: dict[str, str | None], held: int) -> str:
    if None in best.values():
        return "no best layer: nothing can be held out of so few training images"
    named = [
        f"{best[kind]} by {name} ({found[str(best[kind])][kind]['held_out']:.3f})" for kind, name in KINDS.items()
    ]
    return f"best on {held} held-out training images, not on test: {', '.join(named)}"
