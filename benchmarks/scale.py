"""Time and memory by the number of images: packing, an epoch, a labeling of SeLa, features, propagation.

    python benchmarks/scale.py FOLDER [--images 10000,100000,1000000] [--only pack,epoch,label,features,propagate]
                               [--kind npz|tar|png] [--threads 1]

Images of 32 x 32 pixels, one channel, in ten classes: made once in FOLDER (1 GB a million as .npz). Each part runs in
a process of its own. Its memory is the most that was allocated at a time beyond memory maps of files (RssAnon),
sampled every 20 ms; `imports` is what torch and the package take. Seconds are of the clock and of the processor.

pack: reading, decoding, hashing and packing into an empty cache; `open` is the same once more, from the cache.
epoch: RotNet with the small ResNet: STEPS steps of 128 images, and an epoch of as many as there are by their time.
label: one labeling by SeLa, one head of K = 1,000: all that is done for it but the network, in whose place stands a
       projection of the pixels to as many features; the network is timed on NETWORK images.
features: features of all images into a file, as for a sweep, by the same projection.
propagate: those features, eight labels a class: graph, propagation, head.
names: what is held of each image beside its pixels: names, labels, hashes, stamps, split.
assign: SeLa's assignment alone, of features of noise in a mapped file, to the first balance; `graph` the graph alone.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SIDE, CLASSES, CLUSTERS, STEPS, NETWORK, PER_CLASS = 32, 10, 1000, 10, 1024, 8
PARTS = ("imports", "pack", "open", "epoch", "label", "features", "propagate")
ALONE = ("names", "assign", "graph")  # on noise, if asked for by name; no set is made
BLOCK = 10_000  # images made at a time


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("folder", type=Path)
    reader.add_argument("--images", default="10000,100000,1000000")
    reader.add_argument("--only", default=",".join(PARTS))
    reader.add_argument("--kind", choices=["npz", "tar", "png"], default="npz")
    reader.add_argument("--threads", type=int, default=1)
    reader.add_argument("--part", help=argparse.SUPPRESS)  # what a process of its own runs
    asked = reader.parse_args()
    if asked.part:
        measure(asked.part, asked.folder, asked.images, asked.threads)
        return
    from benchmarks.throughput import processor

    print(f"{processor()}, {asked.threads} threads, load {os.getloadavg()[0]:.1f}", flush=True)
    for count in map(int, asked.images.split(",")):
        place = asked.folder / f"{asked.kind}-{count}"
        wanted = [part for part in (*PARTS, *ALONE) if part in asked.only.split(",")]
        if set(wanted) - set(ALONE) and not (place / "made").is_file():
            place.mkdir(parents=True, exist_ok=True)
            {"npz": make_npz, "tar": make_tars, "png": make_files}[asked.kind](place, count)
            (place / "made").touch()
        for part in wanted:
            words = [sys.executable, __file__, str(place), "--images", str(count), "--part", part]
            subprocess.run([*words, "--threads", str(asked.threads)], check=True)


def blocks(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels, BLOCK at a time: a pattern of the class, moved about, under noise."""
    generator = np.random.default_rng(0)
    patterns = generator.normal(size=(CLASSES, SIDE // 4, SIDE // 4)).repeat(4, 1).repeat(4, 2)
    for first in range(0, count, BLOCK):
        labels = generator.integers(0, CLASSES, min(BLOCK, count - first))
        moved = generator.integers(-4, 5, len(labels))
        images = np.stack([np.roll(patterns[k], shift, 1) for k, shift in zip(labels, moved, strict=True)])
        noisy = 128 + 40 * images + generator.normal(0, 25, images.shape).astype(np.float32)
        yield np.clip(noisy, 0, 255).astype(np.uint8), labels


def make_npz(place: Path, count: int) -> None:
    """One .npz, written from front to back."""
    labels = []
    with zipfile.ZipFile(place / "set.npz", "w", zipfile.ZIP_STORED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as file:
            head = {"descr": "|u1", "fortran_order": False, "shape": (count, SIDE, SIDE)}
            np.lib.format.write_array_header_1_0(file, head)
            for images, own in blocks(count):
                file.write(images.tobytes())
                labels.append(own)
        with archive.open("labels.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.concatenate(labels))


def encoded(count: int) -> Iterator[tuple[int, bytes, int]]:
    """Number, PNG and label of every image."""
    import cv2

    number = 0
    for images, labels in blocks(count):
        for image, label in zip(images, labels, strict=True):
            yield number, cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes(), int(label)
            number += 1


def make_tars(place: Path, count: int) -> None:
    """Shards of 50,000 PNGs with their classes."""
    (place / "set").mkdir()
    images = encoded(count)
    for shard in range(-(-count // 50_000)):
        with tarfile.open(place / "set" / f"{shard:05d}.tar", "w") as file:
            for number, content, label in islice(images, 50_000):
                for name, data in ((f"{number:08d}.png", content), (f"{number:08d}.cls", str(label).encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    file.addfile(info, io.BytesIO(data))


def make_files(place: Path, count: int) -> None:
    """A folder a class."""
    for label in range(CLASSES):
        (place / "set" / f"class{label}").mkdir(parents=True)
    for number, content, label in encoded(count):
        (place / "set" / f"class{label}" / f"{number:08d}.png").write_bytes(content)


class Peak:
    """The most memory of this process beyond files that are mapped, in GB."""

    def __init__(self) -> None:
        self.most = 0.0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def _follow(self) -> None:
        while not self.ended.wait(0.02):
            self.look()

    def look(self) -> None:
        """Take note of what is held now."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                self.most = max(self.most, int(line.split()[1]) / 2**20)

    def __enter__(self) -> "Peak":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.look()
        self.ended.set()
        self.thread.join()


def measure(part: str, place: Path, images: str, threads: int) -> None:
    with Peak() as peak:
        started, before = time.perf_counter(), time.process_time()
        more = globals()[f"{part}_part"](place, int(images), threads)
        seconds, cpu = time.perf_counter() - started, time.process_time() - before
    more = {"part": part, "images": int(images), "seconds": seconds, "cpu": cpu, "peak GB": peak.most, **more}
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in more.items()}), flush=True)


def source_of(place: Path) -> str:
    return str(place / "set.npz" if (place / "set.npz").is_file() else place / "set")


def imports_part(place: Path, count: int, threads: int) -> dict[str, float]:
    import_module("ssl_app.pretraining.run")
    import_module("ssl_app.transfer.sweep")
    return {}


def pack_part(place: Path, count: int, threads: int) -> dict[str, float]:
    import shutil

    shutil.rmtree(place / "cache", ignore_errors=True)
    return open_part(place, count, threads)


def open_part(place: Path, count: int, threads: int) -> dict[str, float]:
    from ssl_app.data.opened import open_data
    from ssl_app.data.spec import DataSpec, PixelSpec

    opened = open_data(DataSpec(source_of(place), place / "cache"), PixelSpec(SIDE))
    return {"train": len(opened.parts.train)}


def prepared(place: Path, threads: int, method: str, own: object) -> Any:
    """A pretraining, before its first step."""
    from ssl_app.commands import pretrain
    from ssl_app.training.distributed import SingleProcess
    from ssl_app.training.hardware import choose

    settings = pretrain.Settings(method=method, data=source_of(place), out=place,
        epochs=1, steps_per_epoch=STEPS, image_size=SIDE, seed=0)  # fmt: skip
    return pretrain.prepared(settings, own, choose("cpu", "auto", threads), SingleProcess())[0]


def epoch_part(place: Path, count: int, threads: int) -> dict[str, float]:
    from ssl_app.pretext.rotnet import RotNetConfig
    from ssl_app.training.loop import fit

    work = prepared(place, threads, "rotnet", RotNetConfig())
    ready = time.process_time()
    loader = work._loader(work._training_rows)
    fit(work.task, loader, work.plan, work.hardware)
    each = (time.process_time() - ready) / STEPS
    return {"steps": loader.steps, "cpu a step": each, "cpu an epoch": each * loader.steps}


def label_part(place: Path, count: int, threads: int) -> dict[str, float]:
    from ssl_app.pretext.sela import SeLaConfig
    from ssl_app.training.loop import _DatasetMap, _Run
    from ssl_app.training.resume import Checkpointing, Position

    work = prepared(place, threads, "sela", SeLaConfig(clusters=CLUSTERS, heads=1, relabels=1))
    network = seconds_of_network(work)
    work.task.backbone = Projection(work.task.backbone.shape())
    keeping = Checkpointing(place / "training.safetensors")
    run = _Run(work.task, work._loader(work._training_rows), work.plan, work.hardware, work.group, keeping)
    ready = time.process_time()
    found = work.task.before_step(0.0, _DatasetMap(run, Position()))
    spent = time.process_time() - ready
    return {"cpu of labeling": spent, "cpu of the network": network * len(work.inputs.train),
        **{name: float(found[name]) for name in ("sinkhorn_iterations", "sinkhorn_error")}}  # fmt: skip


class Projection(torch.nn.Module):
    """A fixed projection of the pixels in place of a network, which costs nothing."""

    weight: torch.Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.features = shape
        weight = torch.randn(64, shape[0], generator=torch.Generator().manual_seed(0)) / 8
        self.register_buffer("weight", weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, S, S) -> (B, D)."""
        return torch.nn.functional.adaptive_avg_pool2d(images, 8).mean(1).flatten(1) @ self.weight

    def shape(self, layer: str | None = None) -> tuple[int, ...]:
        """(D,)."""
        return self.features

    def reduced(self, images: torch.Tensor, pools: dict[Any, Any]) -> dict[None, torch.Tensor]:
        """Those of the last layer."""
        return {None: self(images)}


def seconds_of_network(work: Any) -> float:
    """Processor time of an image through the network without gradients."""
    images = torch.randn(NETWORK // 4, 1, SIDE, SIDE)
    backbone = work.task.backbone.eval()
    with torch.no_grad():
        backbone(images)
        began = time.process_time()
        for _ in range(4):
            backbone(images)
    return (time.process_time() - began) / NETWORK


def features_file(place: Path) -> Path:
    return place / "features.npy"


def features_part(place: Path, count: int, threads: int) -> dict[str, float]:
    from ssl_app.pretext.rotnet import RotNetConfig
    from ssl_app.training import frozen

    work = prepared(place, threads, "rotnet", RotNetConfig())
    network, ready = seconds_of_network(work), time.process_time()
    every = work.inputs.rows(np.arange(len(work.inputs.dataset.keys)))
    projection: Any = Projection(work.task.backbone.shape())
    frozen.write({None: features_file(place)}, projection, every, work.hardware)
    return {"cpu of features": time.process_time() - ready, "cpu of the network": network * count}


def propagate_part(place: Path, count: int, threads: int) -> dict[str, float]:
    from ssl_app.clustering.label_propagation import neighbor_graph
    from ssl_app.evaluation import propagated_head

    torch.set_num_threads(threads)
    features = np.load(features_file(place), mmap_mode="r")
    labels = np.concatenate([labels for _, labels in blocks(count)])
    drawn = np.concatenate([np.flatnonzero(labels == k)[:PER_CLASS] for k in range(CLASSES)])
    began = time.process_time()
    graph = neighbor_graph(features)
    made = time.process_time()
    head, found = propagated_head.fit(features, drawn, labels[drawn], CLASSES, graph=graph)
    ended = time.process_time()
    right = (head.logits(np.asarray(features[:5000])).argmax(1) == labels[:5000]).mean()
    return {"cpu of the graph": made - began, "cpu of propagation and head": ended - made,
        "reached": float(found.reached.mean()), "right": float(right)}  # fmt: skip


def names_part(place: Path, count: int, threads: int) -> dict[str, float]:
    from ssl_app.data.dataset import Dataset, label_arrays
    from ssl_app.data.packing import digest
    from ssl_app.data.sources.base import Columns, open_source
    from ssl_app.data.splits import split

    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "set.npz"
        np.savez(path, images=np.zeros((count, 1, 1), np.uint8), labels=np.arange(count) % CLASSES)
        source = open_source(str(path), Columns())
        digest(source.stamps())
    classes, labels, labeled = label_arrays(source, np.arange(count))
    content = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, count)
    dataset = Dataset(source.name, np.zeros((1, 1, 1, 1)), tuple(source.keys), content, classes, labels, labeled,
        None, None, source.columns, (), (), True, 1, "")  # fmt: skip
    return {"train": len(split(dataset).train), "bits of the hash": 4 * len(dataset.hash)}


def noise_features(count: int) -> torch.Tensor:
    """(N, 256) in loose groups, as the loop holds them."""
    from ssl_app.training.rows import empty_rows

    found = empty_rows(count, torch.zeros(1, 256), None)
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(CLUSTERS, 256, generator=generator)
    for first in range(0, count, BLOCK):
        some = found[first : first + BLOCK]
        group = torch.randint(CLUSTERS, (len(some),), generator=generator)
        torch.randn(some.shape, generator=generator, out=some).add_(centers[group])
    return found


def assign_part(place: Path, count: int, threads: int) -> dict[str, float]:
    from ssl_app.clustering import sinkhorn

    torch.set_num_threads(threads)
    features = noise_features(count)
    scores = sinkhorn.Linear(features, torch.randn(CLUSTERS, 256, generator=torch.Generator().manual_seed(1)) / 32)
    began = time.process_time()
    found = sinkhorn.balance(scores, 10.0, tolerance=0.1)
    balanced = time.process_time()
    sinkhorn.labels(scores, 10.0, found.potential)
    return {"cpu of balance": balanced - began, "passes": found.iterations, "error": found.error,
        "cpu of labels": time.process_time() - balanced}  # fmt: skip


def graph_part(place: Path, count: int, threads: int) -> dict[str, float]:
    from ssl_app.clustering.label_propagation import neighbor_graph

    torch.set_num_threads(threads)
    features = noise_features(count)
    began = time.process_time()
    graph = neighbor_graph(features)
    return {"cpu of the graph": time.process_time() - began, "edges an image": graph.nnz / count}


if __name__ == "__main__":
    main()
