"""The settings that several verbs share, each group once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ssl_app.config import option
from ssl_app.runs import OUT

# the method where none is named, of gray images and of those with three channels or more (docs/results.md). Gray: the
# frozen mean of `auto` at 8 labels per class, small ResNet at 64 px: chest-xray, 5 minutes of one core each, sela
# .715, simclr .687; steel, sela .917 in 200 s, simclr .869 in 280 s (6 draws, one pretraining each). Color: feature
# extraction at 8, CIFAR-10, 4 minutes on 4,000 images sela .268, simclr .334, 8 on 50,000 .301, .362 (3 draws)
GRAY_METHOD, COLOR_METHOD = "sela", "simclr"
COLOR_CHANNELS = 3
USUAL_SIZES, USUAL_DRAWS = (1, 2, 4, 8, 16, 32, 64), 5  # of a sweep
LARGEST_SEED = 2**32 - 1  # what every library takes
NO_RAY = "none"
MAX_IMAGE_MB = 512  # 13,000 x 13,000 pixels of RGB; a decoder takes up to four times as much at its worst


@dataclass(frozen=True)
class RunSettings:
    """Where a run lies and what makes it repeatable."""

    out: Path = option(OUT, "folder of mlflow.db, the cache and one folder a run", metavar="DIR")
    name: str | None = option(None, "name of the run's folder; default: verb and time", metavar="NAME")
    seed: int = option(0, "seed of everything random in the run", at_least=0, at_most=LARGEST_SEED)
    tracking_uri: str | None = option(
        None,
        "MLflow server to send the run to beside OUT/mlflow.db; default: the environment's; none turns tracking off",
        metavar="URI",
    )
    threads: int | None = option(
        None, "CPU threads of one training; default: all cores, or one a trial in a sweep", at_least=1
    )
    precision: Literal["auto", "bf16", "fp32"] = option("auto", "arithmetic; auto takes bf16 where it is fast")
    device: str = option("auto", "auto, cpu, cuda or cuda:N", metavar="NAME")


@dataclass(frozen=True)
class FileSettings:
    """Which files are images, and which names are classes."""

    omit: tuple[str, ...] = option(
        ("auto",),
        "patterns of files to leave out, such as '*_mask.png,thumbs/*'; auto: masks and thumbnails beside their "
        "images; none: nothing",
        metavar="P,P",
    )
    unlabeled: tuple[str, ...] = option(
        (), "labels that stand for none, such as unknown,n/a; the images stay, unlabeled", metavar="L,L"
    )
    one_spelling: bool = option(False, "take class names that differ in case, blanks or accents' form for one")


@dataclass(frozen=True)
class DataSettings(FileSettings):
    """What to read, and which of it is test."""

    data: str | None = option(
        None,
        "folder, manifest (.csv, .tsv, .parquet), .npz, shards, a file of several images, or digits; default: in "
        "stage two the pretraining's, else digits",
        metavar="D",
        path="any",
        names=("digits",),
    )
    label: str | None = option(None, "column of the labels; default: label, where present", metavar="COLUMN")
    group: str | None = option(
        None,
        "column of what must not be split (patient, lot); default: group, where present; of DICOM the patient, or "
        "study or series",
        metavar="COLUMN",
    )
    split: str | None = option(
        None,
        "column of an existing split; default: split, where present; none makes a new one",
        metavar="COLUMN",
    )
    axis: Literal["axial", "coronal", "sagittal"] | None = option(
        None, "slices to cut volumes (NIfTI) into; default: the pretraining's, else as each was acquired"
    )
    test_fraction: float | None = option(
        None,
        "share of groups held out for the test; default: the pretraining's, else 0.2",
        at_least=0.01,
        at_most=0.9,
    )
    split_seed: int | None = option(
        None, "seed of the test split; default: the pretraining's, else 0", at_least=0, at_most=LARGEST_SEED
    )
    max_unreadable: int = option(0, "unreadable images allowed before a run is refused", at_least=0)
    allow_leak: bool = option(
        False, "take an existing split with copies or groups on both sides; the result says how many"
    )
    max_image_mb: int = option(
        MAX_IMAGE_MB, "largest decoded image in megabytes (2^20 bytes); larger ones are unreadable", at_least=1
    )


@dataclass(frozen=True)
class PixelSettings:
    """How an image becomes numbers; a checkpoint carries these, so only pretraining and scratch choose them."""

    image_size: int | None = option(
        None, "side of the training images in pixels; default: the checkpoint's, or by the data", at_least=8
    )
    channels: int | None = option(
        None,
        "auto or a number; auto takes gray RGB files as one channel; default: the checkpoint's, or auto",
        at_least=1,
        metavar="N|auto",
    )
    intensity: str | None = option(
        None,
        "scale by the set's percentiles, a window in the images' units (window:-160,240), the dtype's range, each "
        "image's own, or the window in each DICOM file; default: the checkpoint's, or range",
        choices=("range", "window:LOW,HIGH", "dtype", "per-image", "file-window"),
    )
    fit: Literal["crop", "pad", "stretch"] | None = option(
        None,
        "how an image becomes a square: its center is cut out, or all of it is kept, with bars of its mean, or "
        "stretched; default: the checkpoint's, or crop",
    )
    nodata: float | None = option(
        None,
        "value of pixels that hold nothing (65535, -9999): they take their image's mean; default: the checkpoint's",
        metavar="VALUE",
    )


@dataclass(frozen=True)
class ClusterSettings:
    """Where trials, or pretrainings of several seeds, run other than on this machine."""

    ray: str = option(
        NO_RAY,
        "run trials, or the pretrainings of --seeds, on a Ray cluster: auto finds the one that runs on this machine; "
        "HOST:PORT; needs the extra ray",
        metavar="none|auto|ADDRESS",
    )
    gpu_share: float = option(
        1.0, "share of a GPU that a trial, or a pretraining, takes on a Ray cluster", at_least=0.01, at_most=1
    )


@dataclass(frozen=True)
class PretrainSettings(ClusterSettings, RunSettings, PixelSettings, DataSettings):
    """Settings of a pretraining; the method's own join them."""

    method: str | None = option(
        None,
        f"pretext method, see ssl-app methods; or module:Class, whose code runs; default: by the images, "
        f"{COLOR_METHOD} where they are in color, else {GRAY_METHOD}",
        metavar="M",
    )
    backbone: str | None = option(
        None,
        "network, see ssl-app methods; or module:factory, whose code runs; default: the method's or --init's",
        metavar="B",
    )
    init: str = option("none", "weights to start from: none, a file, or a run", metavar="none|FILE|RUN", path="file")
    epochs: int | None = option(None, "passes over the images; default: the method's", at_least=1)
    budget: str | None = option(
        None, "time to train, such as 90s, 5m or 1h: as many steps as fit, by a few timed ones", metavar="TIME"
    )
    steps_per_epoch: int | None = option(
        None, "optimizer steps of an epoch; default: one pass over the images", at_least=1
    )
    batch_size: int | None = option(
        None,
        "images of one step, over all processes; default: the method's, halved while steps are under 5,000",
        at_least=2,
    )
    lr: float | None = option(None, "highest learning rate; default: the method's", at_least=0)
    optimizer: Literal["sgd", "adamw"] | None = option(None, "optimizer; default: the method's")
    weight_decay: float | None = option(
        None, "weight decay of matrices and filters; default: the method's", at_least=0
    )
    schedule: Literal["cosine", "step", "constant"] | None = option(
        None, "how the learning rate falls; default: the method's"
    )
    warmup: float | None = option(
        None, "share of the steps in which the learning rate rises; default: the method's", at_least=0, at_most=1
    )
    clip: float | None = option(None, "largest norm of the gradient", at_least=0)
    progressive_resizing: float | None = option(
        None,
        "share of the steps, the first ones, on images of half the side; 0: none; default: 0.92 where method, "
        "backbone and size of the images allow it",
        at_least=0,
        at_most=0.99,
    )
    accumulate: int = option(1, "micro-batches that a process adds up for one step", at_least=1)
    augment: Literal["none", "light", "crop", "standard", "strong"] | None = option(
        None, "random views of each image; default: the method's"
    )
    mirror: bool | None = option(None, "mirror images at random; default: yes, but for digits")
    vertical_flip: bool = option(False, "flip images vertically too, where there is no up: surfaces, cells, tissue")
    workers: int | None = option(None, "loader processes; default: none on a CPU", at_least=0)
    limit: int | None = option(
        None, "train on so many of the images, drawn by group; a smaller limit's are among a larger one's", at_least=4
    )
    exclude: str | None = option(
        None, "data whose images and groups must not be seen", metavar="D", path="any", names=("digits",)
    )
    probe_data: str | None = option(
        None,
        "labeled data for a kNN monitor of the features; it trains and chooses nothing, and its time is "
        "not in --budget",
        metavar="D",
        path="any",
        names=("digits",),
    )
    probe_every: int | None = option(
        None, "epochs between two measurements on --probe-data; default: a tenth of all", at_least=1
    )
    show_views: bool = option(
        False, "draw views.png into OUT, the random views that the network would see, and train nothing"
    )
    seeds: int = option(
        1, "pretrainings to make, with this seed and the next ones; a sweep takes them as one", at_least=1
    )
    save_every: float = option(60.0, "seconds between checkpoints within an epoch", at_least=0)
    resume: str | None = option(None, "go on with a stopped run, to the same bits", metavar="RUN")
    any_threads: bool = option(False, "resume under other threads, torch or arithmetic; bits may differ")


@dataclass(frozen=True)
class TransferSettings:
    """How a classifier is trained; the same for every variant of a sweep."""

    backbone: str | None = option(
        None, "network of --init none or of a plain weights file; a checkpoint knows its own", metavar="B"
    )
    layer: str | None = option(
        None, "layer that the head sits on, such as conv4; default: the pooled last", metavar="L"
    )
    head: Literal["linear", "mlp"] = option("linear", "classifier on the features: one layer, or the articles' three")
    steps: int | None = option(
        None,
        "optimizer steps in all (two-stage: head plus all); default: ten a label, 300 to 1000, 30 passes at least",
        at_least=2,
    )
    batch_size: int = option(64, "images of a step, drawn with replacement", at_least=2)
    lr: float | None = option(
        None,
        "highest learning rate from random weights, of which pretrained ones take a share; default: 0.15, or the "
        "backbone's with adamw",
        at_least=0,
    )
    weight_decay: float | None = option(
        None, "weight decay of matrices and filters; default: 5e-4, or the backbone's with adamw", at_least=0
    )
    optimizer: Literal["sgd", "adamw"] | None = option(None, "optimizer of stage two; default: the backbone's")
    clip: float = option(5.0, "largest norm of the gradient", at_least=0)
    progressive_resizing: float | None = option(
        None,
        "share of the steps of the whole network, the first ones, on images of half the side; 0: none; default: 0.75 "
        "where backbone and size of the images allow it",
        at_least=0,
        at_most=0.99,
    )
    augment: Literal["none", "light", "standard"] = option("standard", "random views of each image")
    mirror: bool | None = option(None, "mirror images at random; default: yes, but for digits")


@dataclass(frozen=True)
class StageTwoSettings(RunSettings, TransferSettings, PixelSettings, DataSettings):
    """What finetune and sweep have in common."""

    labels: Path | None = option(
        None, "table of path and label that takes the place of the data's own labels", metavar="FILE", path="file"
    )
    strict: bool = option(False, "refuse test images that pretraining has seen, or where that is not known")
    relabel: str | None = option(
        None, "class maps of ssl-app relabel, for strategies label-pooling and relabel: its run, or its file",
        metavar="RUN|FILE", path="file",
    )  # fmt: skip


@dataclass(frozen=True)
class WorkerSettings(ClusterSettings):
    """What runs the trials of a sweep."""

    jobs: int | None = option(None, "trials at a time; default: one a core, up to 8; one on a GPU", at_least=1)


@dataclass(frozen=True)
class SweepSettings(WorkerSettings, StageTwoSettings):
    """Settings of a sweep."""

    evaluate_on: Literal["auto", "test", "validation", "folds"] = option(
        "auto",
        "what is evaluated: the test part; validation, a fifth of the training part, which leaves the test part "
        "alone; folds, all labeled images by repeated cross-validation; auto: folds below 30 labels a class in all",
    )

    init: tuple[str, ...] = option(
        (), "run (with its --seeds), checkpoint or weights file, or A+B: auto averages over both; repeat to compare, "
        "the verdict is about the first; default: the newest finished pretraining", metavar="RUN|FILE", repeat=True,
        path="file",
    )  # fmt: skip
    strategy: tuple[str, ...] = option(
        (), "comma list of strategies; default: auto and the three of the articles", metavar="S,S"
    )
    per_class: tuple[int, ...] = option(
        (), "labeled images of each class; default: 1,2,4,8,16,32,64", at_least=1, metavar="N,N"
    )
    draws: int | None = option(
        None, "random choices of labels for each size; more make the intervals narrower; default: 5", at_least=1
    )
    baseline: Literal["scratch", "none"] = option("scratch", "what to compare with: random weights, trained fully")
    baseline_strategy: tuple[str, ...] = option(
        (), "further strategies from random weights, such as fixmatch, beside the baseline", metavar="S,S"
    )
    baseline_per_class: tuple[int, ...] = option(
        (), "further labels per class for scratch alone, to see how many it needs", at_least=1, metavar="N,N"
    )
    baseline_length: Literal["chosen", "same"] = option(
        "chosen", "steps of scratch: the usual number or twice as many, by a part of the first draw's labels; or the "
        "same as every variant, as with --steps",
    )  # fmt: skip
    resume: str | None = option(
        None, "go on with a sweep by its name, with its settings; draws, sizes and inits may grow", metavar="RUN"
    )
