"""Frozen features in files: what a linear head on each layer would be given of every image, computed once."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_app import runs
from ssl_app.data.loading import ImageRows
from ssl_app.data.store import Store
from ssl_app.errors import count_of
from ssl_app.models.backbones import Backbone
from ssl_app.models.heads import build_head
from ssl_app.training.hardware import Hardware
from ssl_app.training.inference import Views, each_views, with_mirrored

logger = logging.getLogger(__name__)

FOLDER = "features"  # in the cache


TURNS = 8  # by quarters, and mirrored


def turned(images: Tensor, turn: int) -> Tensor:
    """Images (B, C, S, S) by 0 to 3 quarters, counterclockwise; from 4 on mirrored left to right after that."""
    quarters = images.rot90(turn % 4, (2, 3))
    return quarters.flip(3) if turn >= 4 else quarters


def write(
    paths: Mapping[str | None, Path],
    backbone: Backbone,
    rows: ImageRows,
    hardware: Hardware,
    mirrored: bool = False,
    corners: bool = False,
    turn: int = 0,
) -> None:
    """One .npy for each layer, (n, d) f32, in one pass over the images, batch by batch.

    A layer's d is that of a linear head: a map is averaged to a grid of at most 4,096 numbers. None is the pooled
    last. `mirrored` takes the mean over the image and its mirror image, `corners` over the crops of
    `transforms.Corners`; `turn` is of `turned`. The files are there whole, or not at all. Raises OSError where the
    disk has no room.
    """
    heads = {layer: build_head("linear", backbone.shape(layer), 1) for layer in paths}
    pools = {layer: head.pool for layer, head in heads.items()}
    with ExitStack() as drafts:
        stores: dict[str | None, Store] = {}
        for layer, path in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            runs.clear_half_made(path.parent)
            draft = drafts.enter_context(runs.draft(path))
            stores[layer] = Store(draft, np.zeros(heads[layer].features, np.float32), len(rows.indices))
            drafts.callback(stores[layer].file.close)

        def pooled(views: Views) -> dict[str | None, Tensor]:
            every = with_mirrored([turned(view, turn) for view in views], mirrored)
            found = [backbone.reduced(view, pools) for view in every]
            return {layer: torch.stack([one[layer].float() for one in found]).mean(0) for layer in stores}

        for batch in each_views(backbone, pooled, rows, hardware, corners):
            for layer, store in stores.items():
                for row in batch[layer].cpu().numpy():
                    store.add(row)
        for store in stores.values():
            store.close()


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone that is trained no more, whose features are kept in a folder."""

    backbone: Backbone
    hardware: Hardware
    folder: Path

    def features(
        self, layers: Sequence[str | None], rows: ImageRows, data: str, turn: int = 0
    ) -> dict[str | None, NDArray[np.float32]]:
        """Features of these images at each layer, (n, d) memory-mapped; `data` is the key of the set's pixels.

        Of the images under a `turn`. Computed once for the same weights, layer, pixels and images; what is missing in
        one pass.
        """
        weights = content_of(self.backbone)
        pixels = (data, hashlib.blake2b(rows.indices.tobytes()).hexdigest(), rows.scaling.to_json(), rows.image_size)
        arithmetic = (self.hardware.device.type, self.hardware.bf16)
        paths: dict[str | None, Path] = {}
        for layer in layers:
            what = repr((weights, self.backbone.name, layer, pixels, arithmetic, *([turn] if turn else []))).encode()
            paths[layer] = self.folder / FOLDER / f"{hashlib.blake2b(what, digest_size=16).hexdigest()}.npy"
        missing = {layer: path for layer, path in paths.items() if not path.is_file()}
        if missing:
            numbers = sum(build_head("linear", self.backbone.shape(layer), 1).features for layer in missing)
            level = logging.DEBUG if turn else logging.INFO  # said once
            logger.log(
                level,
                f"features: {count_of(len(missing), 'layer')} of {count_of(len(rows.indices), 'image')} in one pass, "
                f" {4e-9 * numbers * len(rows.indices):.2g} GB to keep in {self.folder / FOLDER}",
            )
            write(missing, self.backbone, rows, self.hardware, turn=turn)
        return {layer: np.load(path, mmap_mode="r") for layer, path in paths.items()}


def content_of(backbone: Backbone) -> str:
    """Hash of all weights and statistics."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
