"""Measure what a frozen backbone tells apart, layer by layer: nearest neighbors and a linear probe.

RUN is a pretraining, a checkpoint, a weights file, or none for random weights. Both are fitted to all labels of
the training part and tested once. With no --data it takes the data of the pretraining. What has to be chosen, the
best layer too, is chosen on a fifth of the training part.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ssl_app import config, runs
from ssl_app.config import option
from ssl_app.errors import CheckpointError, SettingsError, UserError
from ssl_app.runs import Result, Say
from ssl_app.saying import to_stderr
from ssl_app.settings import DataSettings, PixelSettings, RunSettings, StageTwoSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_app.models.backbones import Backbone
    from ssl_app.trial import Bench

EXAMPLES = """
ssl-app probe pretrain-20261121-101500
ssl-app probe pretrain-20261121-101500 --layers all --data labeled.csv --group patient
ssl-app probe none --backbone small-resnet --layers stage2,stage3
ssl-app probe resnet18.pth --backbone resnet18 --data folders/ --k 200
"""
POOLED, ALL = "pooled", "all"
KINDS = {"knn": "nearest neighbors", "linear": "linear probe"}
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
        "nearest neighbors that vote; of several the best on a fifth of train",
        at_least=1,
        metavar="N,N",
    )
    labels: Path | None = option(
        None, "table of path and label that takes the place of the data's own labels", metavar="FILE"
    )
    judge: Literal["test", "held-out"] = option(
        "test", "what is tested on; held-out is a fifth of the training part, and leaves the test part alone"
    )


def run(settings: Settings, say: Say = to_stderr) -> Result:
    """Probe every layer asked for."""
    from ssl_app import handover, inference, preparing, trial
    from ssl_app.choosing import spaced
    from ssl_app.evaluation import linear_probe
    from ssl_app.tracking import open_tracker
    from ssl_app.training.hardware import choose

    started = time.monotonic()
    runs.prepare(settings.out, settings.name, "probe")
    hardware = choose(settings.device, settings.precision, settings.threads)
    say(hardware.sentence())
    shared = {
        field: getattr(settings, field) for field in StageTwoSettings.__dataclass_fields__ if hasattr(settings, field)
    }
    stage_two = StageTwoSettings(**shared)
    with _run_in_place_of_init():
        start = handover.load_initialization(settings.run, settings.out, settings.backbone)
        recipe = trial.recipe_of(stage_two, "within", settings.seed)
        bench = preparing.bench(stage_two, start, recipe, hardware, say)
    dataset, parts = bench.opened.dataset, bench.opened.parts
    backbone, _ = start.build(dataset.images.shape[-1], dataset.image_size, settings.seed)
    if start.tensors is None:
        some = spaced(parts.train, SETTLED)
        inference.settle(backbone, some, dataset.images, bench.pixels, hardware)
        say(f"random weights, with batch-norm statistics of {len(some)} of the images")
    layers = _layers(settings.layers, backbone)
    units = [dataset.units[row] for row in parts.train]
    held = linear_probe.hold_out(dataset.labels[parts.train], units, settings.seed)
    leaks = preparing.leak_sentence(bench)
    stored = config.as_json(settings)
    folder = runs.new_run(settings.out, settings.name, "probe", stored)
    say(f"run {folder}: {start.name} with the labels of {len(parts.train)} training images")
    unit = "images" if dataset.groups is None else f"{dataset.columns.group}s"
    say(
        f"balanced accuracy [bootstrap over test {unit}] and accuracy, n = {len(parts.test)} test images"
        f"{'; ' + leaks if leaks else ''}"
    )
    width = max(len(layer) for layer in ("layer", *layers))
    say(_row(width, "layer", "numbers", [(kind, "accuracy") for kind in KINDS.values()]))
    with runs.whole(folder):
        tracker = open_tracker(settings.out, settings.tracking_uri, "ssl-app")
        tracked = tracker.start(folder.name, folder, stored, {"verb": "probe"})
        status = "FAILED"
        try:
            tracked.data(dataset.name, dataset.hash, "probe")
            found: dict[str, dict[str, Any]] = {}
            for layer in layers:
                found[layer] = _probed(bench, backbone, layer, held, settings)
                say(_line(width, layer, found[layer]))
                numbers = {f"{layer}_{kind}_{key}": found[layer][kind].get(key) for kind in KINDS for key in KEPT}
                tracked.metrics({k: float(v) for k, v in numbers.items() if v is not None}, len(parts.train))
            status = "FINISHED"
        finally:
            tracked.finish(status)
        best = {kind: _best(found, kind) for kind in KINDS}
        more: dict[str, Any] = {
            "init": settings.run,
            "probe": found,
            "best": best,
            "labels_used": len(parts.train),
            "held_out": int(held.sum()),
            "leaks": leaks,
            "unreadable": list(dataset.unreadable),
        }
        result = Result("probe", folder, time.monotonic() - started, stored, more)
        runs.write_json(folder / runs.RESULT, result.to_json())
    if len(layers) > 1:
        say(_choice(found, best, int(held.sum())))
    return result


@contextmanager
def _run_in_place_of_init() -> Iterator[None]:
    """Refusals that the verbs with --init share, in this verb's words: what is typed here is RUN."""
    try:
        yield
    except UserError as error:
        raise type(error)(str(error).replace("--init", "RUN")) from error


def _layers(asked: Sequence[str], backbone: "Backbone") -> list[str]:
    """The pooled output and the layers asked for, each once. Raises SettingsError for one that is not there."""
    if ALL in asked and len(set(asked)) > 1:
        raise SettingsError(f"--layers names {ALL} beside others; type --layers {ALL}, or the others alone")
    layers = list(dict.fromkeys([POOLED, *(backbone.layers if ALL in asked else asked)]))
    for layer in layers[1:]:
        backbone.shape(layer)
    return layers


def _probed(
    bench: "Bench", backbone: "Backbone", layer: str, held: "NDArray[np.bool_]", settings: Settings
) -> dict[str, Any]:
    """Both measures of one layer: numbers an image, and for each what was chosen and how it did."""
    from ssl_app.evaluation import knn, linear_probe
    from ssl_app.evaluation.intervals import bootstrap_balanced_accuracy
    from ssl_app.evaluation.metrics import classification

    dataset, parts, device = bench.opened.dataset, bench.opened.parts, bench.hardware.device
    labels, truth, classes = dataset.labels[parts.train], dataset.labels[parts.test], dataset.classes
    groups = None if dataset.groups is None else [dataset.groups[row] for row in parts.test]
    features = _features(bench, backbone, None if layer == POOLED else layer)
    train, test = features[: len(labels)], features[len(labels) :]

    def judged(scores: "NDArray[np.float64]") -> float:
        return cast(float, classification(scores, labels[held], classes)["balanced_accuracy"])

    def tested(scores: "NDArray[np.float64]") -> dict[str, Any]:
        numbers = classification(scores, truth, classes)
        interval = bootstrap_balanced_accuracy(truth, scores.argmax(1), groups, seed=settings.seed)
        kept = {key: numbers[key] for key in KEPT if key in numbers}
        return kept | {"low": interval.low, "high": interval.high}

    chosen: dict[int, float | None] = {settings.k[0]: None}
    if held.any():
        inside = knn.votes(train[~held], labels[~held], train[held], len(classes), k=settings.k, device=device)
        chosen = {k: judged(votes) for k, votes in inside.items()}
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
            "held_out": None if probe.held_logits is None else judged(probe.held_logits),
        }
        | tested(logits),
    }


def _features(bench: "Bench", backbone: "Backbone", layer: str | None) -> "NDArray[np.float32]":
    """What a head on this layer sees of the training images and then of the test images. -> (N + n, d)."""
    import numpy as np
    import torch

    from ssl_app import inference
    from ssl_app.classification import Classifier
    from ssl_app.models.heads import build_head

    dataset, parts = bench.opened.dataset, bench.opened.parts
    head = build_head("linear", backbone.shape(layer), len(dataset.classes))
    classifier = Classifier(backbone, head, layer, torch.zeros(0, dtype=torch.int64))
    rows = np.concatenate([parts.train, parts.test])
    features = inference.pooled_features(classifier, rows, dataset.images, bench.pixels, bench.hardware)
    if not np.isfinite(features).all():
        raise CheckpointError(
            f"layer {layer or POOLED} of {bench.start.name} gives numbers that are not finite; "
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
        f"{best[kind]} by {told} ({found[str(best[kind])][kind]['held_out']:.3f})" for kind, told in KINDS.items()
    ]
    return f"best on {held} held-out training images, not on test: {', '.join(named)}"
