"""Measure frozen features, layer by layer: neighbors, linear probe, retrieval, clusters; random weights beside.

RUN is a pretraining, a checkpoint, a weights file, or none for random weights. Everything is fitted to all labels
of the training part and tested once. With no --data it takes the data of the pretraining. What has to be chosen,
the best layer too, is chosen on a fifth of the training part.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ssl_app import config, runs
from ssl_app.commands import RunSpec, record
from ssl_app.commands.base import (
    cache_of,
    hardware_of,
    planned_of,
    run_in_place_of_init,
    stage_two_of,
    transfer_config,
)
from ssl_app.config import option
from ssl_app.errors import CheckpointError, SettingsError, count_of
from ssl_app.runs import Result
from ssl_app.settings import DataSettings, PixelSettings, RunSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_app.commands import RecordedRun
    from ssl_app.evaluation.layer import Protocol, Truth
    from ssl_app.models.backbones import Backbone
    from ssl_app.training.frozen import FrozenBackbone
    from ssl_app.training.initialization import Initialization
    from ssl_app.transfer.trial import TrialSetup

logger = logging.getLogger(__name__)

EXAMPLES = """
ssl-app evaluate pretrain-20261121-101500
ssl-app evaluate pretrain-20261121-101500 --layers pooled --data labeled.csv --group patient
ssl-app evaluate my-sela --clusters 16,64,256
ssl-app evaluate my-sela --pictures --classifier my-finetune
ssl-app evaluate none --backbone small-resnet --layers stage2,stage3
ssl-app evaluate resnet18.pth --backbone resnet18 --data folders/ --k 200
"""
POOLED, ALL = "pooled", "all"
CURVES = "clusters.png"  # in the run's folder
SETTLED = 512  # images that a random network takes its batch-norm statistics from
Measures = dict[str, dict[str, Any]]  # by layer


@dataclass(frozen=True)
class Settings(RunSettings, PixelSettings, DataSettings):
    """Settings of an evaluation of frozen features."""

    run: str = option("", "run of pretrain, checkpoint, weights file or none", argument=True)
    backbone: str | None = option(
        None, "network of RUN none or of a plain weights file; a checkpoint knows its own", metavar="B"
    )
    layers: tuple[str, ...] = option(
        (ALL,),
        "layers beside the pooled last, such as stage2,stage3; all takes every named one, pooled no other",
        metavar="L,L",
    )
    k: tuple[int, ...] = option(
        (10, 50, 200),
        "nearest neighbors; of several the best on a fifth of train",
        at_least=1,
        metavar="N,N",
    )
    clusters: tuple[int, ...] = option(
        (),
        "clusters K of k-means, each compared with the labels; default: as many as classes",
        at_least=2,
        metavar="K,K",
    )
    baseline: Literal["scratch", "none"] = option(
        "scratch", "what to measure beside: random weights of the same network"
    )
    labels: Path | None = option(
        None, "table of path and label that takes the place of the data's own labels", metavar="FILE"
    )
    evaluate_on: Literal["test", "validation"] = option(
        "test", "part that is evaluated; validation is a fifth of the training part, and leaves the test part alone"
    )
    pictures: bool = option(
        False, "draw what was learned: filters, top activations, attention, neighbors, a map of the features"
    )
    tsne: bool = option(False, "with --pictures: a map of the features by t-SNE too")
    classifier: str | None = option(
        None, "with --pictures: finetune run, for maps of the evidence for its classes", metavar="RUN"
    )


def run(settings: Settings) -> Result:
    """Measure every layer requested, and the same layers of random weights."""
    from ssl_app.evaluation import layer as measures
    from ssl_app.report import curves
    from ssl_app.report import layers as tables
    from ssl_app.training.frozen import FrozenBackbone
    from ssl_app.training.initialization import Initialization, load_initialization
    from ssl_app.transfer.setup import overlap_sentence, prepare

    started = time.monotonic()
    if not settings.pictures and (settings.tsne or settings.classifier is not None):
        raise SettingsError("--tsne and --classifier are for pictures; type --pictures too")
    runs.prepare(settings.out, settings.name, "evaluate")
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
    frozen = FrozenBackbone(_backbone(setup, start), setup.hardware, cache_of(settings.out))
    layers = _layers(settings.layers, frozen.backbone)
    truth = _truth(setup, settings.seed)
    protocol = _protocol(settings, truth, setup)
    overlap = overlap_sentence(setup)
    about = RunSpec("evaluate", settings.out, settings.name, config.as_json(settings), settings.tracking_uri)
    with record(about, None, started) as one:
        logger.info(f"run {one.folder}: {start.name} with the labels of {len(truth.train)} training images")
        one.tracked.data(setup.dataset.name, setup.dataset.hash, "evaluate")
        found = _measured(setup, frozen, start.name, layers, truth, protocol)
        random: Measures = {}
        if start.pretrained and settings.baseline != "none":
            beside = replace(frozen, backbone=_backbone(setup, Initialization("random", start.backbone)))
            random = _measured(setup, beside, f"random {start.backbone}", layers, truth, protocol)
        best = {kind: measures.best_layer(found, kind) for kind in measures.KINDS}
        _log(_header(setup, overlap), tables.scores(found, random))
        _log(_retrieval_header(setup, found), tables.retrieved(found, random))
        _log(_clusters_header(truth), tables.clustered(found, random))
        chosen = best["linear"] or POOLED
        _log(f"classes by the linear probe of {chosen}, n test images", tables.classes(chosen, found, random))
        if len(layers) > 1:
            logger.info(tables.choice(found, best, POOLED, int(truth.held.sum())))
        over_epochs = curves.of_history(start.history)
        _log_curves(one, over_epochs, found, random)
        pictures = _drawn(settings, setup, frozen.backbone, layers, one) if settings.pictures else []
        for prefix, every in (("", found), ("random_", random)):
            for layer, numbers in every.items():
                named = measures.plain_numbers(numbers)
                one.tracked.metrics({f"{prefix}{layer}_{k}": v for k, v in named.items()}, len(truth.train))
        one.more = {
            "init": settings.run,
            "probe": found,
            "random": random,
            "best": best,
            "last": POOLED,
            "curves": over_epochs,
            "labels_used": len(truth.train),
            "held_out": int(truth.held.sum()),
            "pictures": pictures,
            "overlap": overlap,
            "unreadable": list(setup.dataset.unreadable),
        }
    return one.result()


def _layers(requested: Sequence[str], backbone: "Backbone") -> list[str]:
    """The pooled output and the layers requested for, each once. Raises SettingsError for one that is not there."""
    if ALL in requested and len(set(requested)) > 1:
        raise SettingsError(f"--layers names {ALL} beside others; type --layers {ALL}, or the others alone")
    layers = list(dict.fromkeys([POOLED, *(backbone.layers if ALL in requested else requested)]))
    for layer in layers[1:]:
        backbone.shape(layer)
    return layers


def _truth(setup: "TrialSetup", seed: int) -> "Truth":
    """The labels of both parts, and which training images are held out to choose by."""
    from ssl_app.evaluation import linear_probe
    from ssl_app.evaluation.layer import Truth

    dataset, train, test = setup.dataset, setup.opened.parts.train, setup.opened.parts.test
    held = linear_probe.hold_out(dataset.labels[train], [dataset.units[row] for row in train], seed)
    groups = None if dataset.groups is None else [dataset.groups[row] for row in test]
    units = [dataset.units[row] for row in test]
    return Truth(dataset.labels[train], dataset.labels[test], dataset.classes, held, units, groups)


def _protocol(settings: Settings, truth: "Truth", setup: "TrialSetup") -> "Protocol":
    """How layers are measured. Raises SettingsError for more clusters than training images."""
    from ssl_app.evaluation.layer import Protocol

    clusters = tuple(dict.fromkeys(settings.clusters or (len(truth.classes),)))
    if max(clusters) > len(truth.train):
        raise SettingsError(
            f"--clusters is {max(clusters)}, and {len(truth.train)} training images are labeled; "
            f"type --clusters {max(2, len(truth.train) // 10)} or fewer"
        )
    return Protocol(settings.k, clusters, settings.seed, setup.hardware.device)


def _backbone(setup: "TrialSetup", start: "Initialization") -> "Backbone":
    """The network that is measured; random weights get batch-norm statistics, since they have none of any image."""
    from ssl_app.pretraining.selection import spaced
    from ssl_app.training.inference import recalibrate_on

    dataset = setup.dataset
    backbone, _ = start.load(dataset.images.shape[-1], dataset.image_size, setup.config.seed)
    if not start.pretrained:
        some = spaced(setup.opened.parts.train, SETTLED)
        recalibrate_on(backbone, setup.rows(some), setup.hardware)
        logger.info(f"random weights, with batch-norm statistics of {len(some)} of the images")
    return backbone


def _measured(
    setup: "TrialSetup",
    frozen: "FrozenBackbone",
    name: str,
    layers: Sequence[str],
    truth: "Truth",
    protocol: "Protocol",
) -> Measures:
    """Every measure of every layer, on features that are computed in one pass and kept in the cache."""
    import numpy as np

    from ssl_app.evaluation.layer import measure

    parts = setup.opened.parts
    rows = setup.rows(np.concatenate([parts.train, parts.test]))
    names = {layer: None if layer == POOLED else layer for layer in layers}
    kept = frozen.features(list(names.values()), rows, setup.dataset.key)
    found: Measures = {}
    for number, layer in enumerate(layers, start=1):
        features = kept[names[layer]]  # in the order of the rows, so that both parts stay in the file
        _refuse_not_finite(features, layer, name)
        found[layer] = measure(features[: len(truth.train)], features[len(truth.train) :], truth, protocol)
        logger.info(f"measured: {name}, layer {layer} ({number} of {len(layers)})")
    return found


def _log_curves(
    one: "RecordedRun", over_epochs: Mapping[str, Sequence[float | None]] | None, found: Measures, random: Measures
) -> None:
    """DeepCluster's curves: those of the pretraining's own clusters, and that over K where there are several."""
    from ssl_app.report import curves

    own, beside = found[POOLED]["clusters"], random.get(POOLED, {}).get("clusters", ())
    if over_epochs is None and len(own) == 1:
        return
    if over_epochs is not None:
        _log("clusters of the pretraining, for comparison with labels only", curves.sentences(over_epochs))
    if len(own) > 1:
        best = max(own, key=lambda row: row["train"]["ami"])
        logger.info(f"K by AMI on {best['train']['n']} training images, pooled features: {best['k']}")
    path = one.folder / CURVES
    curves.draw(path, over_epochs, own, beside)
    one.tracked.artifact(path)


def _drawn(
    settings: Settings, setup: "TrialSetup", backbone: "Backbone", layers: Sequence[str], one: "RecordedRun"
) -> list[str]:
    """Pictures of what was learned, by images of the training part. -> the files."""
    import torch

    from ssl_app.clustering import kmeans
    from ssl_app.report import learned
    from ssl_app.transfer.subject import subject_of
    from ssl_app.transfer.trained import load_classifier

    subject = subject_of(setup, backbone, tuple(layer for layer in layers if layer != POOLED), tsne=settings.tsne)
    few = min(len(subject.classes), len(subject.features))
    clusters = kmeans.fit(torch.tensor(subject.features), few, seed=settings.seed).labels.cpu().numpy()
    predictor = None
    if settings.classifier is not None:
        predictor = load_classifier(runs.find_run(settings.out, settings.classifier)).predictor
    files = learned.draw(replace(subject, clusters=clusters, predictor=predictor), one.folder / "pictures")
    for path in files:
        one.tracked.artifact(path)
    logger.info(f"pictures: {one.folder / 'pictures'}, {count_of(len(files), 'file')}")
    return [str(path) for path in files]


def _refuse_not_finite(features: "NDArray[np.float32]", layer: str, name: str) -> None:
    import numpy as np

    if not all(np.isfinite(block).all() for block in np.array_split(features, max(1, len(features) // 4096))):
        raise CheckpointError(
            f"layer {layer} of {name} gives numbers that are not finite; "
            f"type --precision fp32, or evaluate other weights"
        )


def _log(header: str, lines: Iterable[str]) -> None:
    for line in (header, *lines):
        logger.info(line)


def _header(setup: "TrialSetup", overlap: str | None) -> str:
    dataset, count = setup.dataset, len(setup.opened.parts.test)
    unit = "images" if dataset.groups is None else f"groups ({dataset.columns.group})"
    seen = f"; {overlap}" if overlap else ""
    return f"balanced accuracy [95 % interval over test {unit}] and accuracy, n = {count} test images{seen}"


def _retrieval_header(setup: "TrialSetup", found: Measures) -> str:
    """What searches what."""
    own = "exact copies" if setup.dataset.groups is None else f"the same {setup.dataset.columns.group}"
    numbers = next(iter(found.values()))["retrieval"]
    alone = f"; {numbers['left_out']} have none of their class to find" if numbers["left_out"] else ""
    return f"retrieval among the test images, {own} left out, n = {numbers['n']} queries{alone}"


def _clusters_header(truth: "Truth") -> str:
    return (
        f"k-means of {len(truth.train)} training images against {len(truth.classes)} classes, "
        f"n = {len(truth.test)} test images (jackknife)"
    )
