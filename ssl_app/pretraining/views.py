"""The views of a pretraining: images, what augmentation makes of them, and what the method gives to the network."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_app.data.batch import Batch
from ssl_app.data.intensity import PixelScaling
from ssl_app.data.loading import Loader
from ssl_app.data.seeding import mix
from ssl_app.errors import UserError
from ssl_app.pretext.base import Pretext
from ssl_app.report.contrast import Contrast, tile_side
from ssl_app.report.grid import Grid, Tile
from ssl_app.training.batch_norm import batch_norms

logger = logging.getLogger(__name__)

VIEWS = "views.png"
VIEWED = 8  # images
MOST = 9  # inputs of the network of one image


@dataclass(frozen=True)
class Views:
    """Of n images: the center crop, the random views, and what the backbone is given, in the network's scale."""

    images: Tensor  # (n, C, S, S)
    views: tuple[Tensor, ...]  # each (n, C, S, S)
    given: Sequence[Tensor] | None  # (n,) each (m, C, s, s); None: the views as they are; empty: not known

    def draw(self, path: Path, scaling: PixelScaling, method: str, more: str) -> Path:
        """Images down; their views and the network's inputs across. `more` ends the explanation."""
        plain = _pixels(self.images, scaling)
        contrast, tile = Contrast.of(plain), tile_side(plain.shape[1])
        rows = [[Tile(one)] for one in contrast.shown(plain)]
        heads = ["image", *_numbered("view", len(self.views))]
        for view in self.views:
            for row, one in zip(rows, contrast.shown(_pixels(view, scaling)), strict=True):
                row.append(Tile(one))
        about = f"Random views of {len(plain)} images, as they are drawn anew in every epoch"
        about += "; the network is given the views as they are." if self.given is None else "."
        if self.given:
            for row, inputs in zip(rows, self.given, strict=True):
                row += [Tile(one) for one in contrast.shown(_pixels(inputs[:MOST], scaling))]
            most = max(map(len, self.given))
            heads += _numbered("input", min(most, MOST))
            first = f" (the first {MOST} of {most})" if most > MOST else ""
            about += f" Input: what {method} makes of the views and gives to the network{first}."
        grid = Grid(f"What the network sees: {method}", f"{about} {more}", heads)
        return grid.sheet(rows, tile).save(path)


def views_of(task: Pretext[object], loader: Loader) -> Views:
    """The views of a loader's first images, the same at every call. The task and torch's generator stay."""
    plain = next(loader.ordered()).images[:VIEWED]
    batch = next(loader.ordered(views=task.needs.views))
    batch = replace(batch, views=tuple(view[:VIEWED] for view in batch.views), index=batch.index[:VIEWED])
    given: list[Tensor] = []
    try:
        given = _given(task, batch)
    except UserError:
        raise
    except Exception as error:  # a method of the user's own may need more than one image at a time
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        logger.info(f"note: {VIEWS} shows no inputs of the network, since the loss of one image raises {what}")
    return Views(plain, batch.views, None if given and _are_views(given, batch.views) else given)


def _given(task: Pretext[object], batch: Batch) -> list[Tensor]:
    """What the backbone is given of each image, (m, C, s, s) each; nothing where the method does not say."""
    task = copy.deepcopy(task).cpu()
    for norm in batch_norms(task):
        norm.eval()  # one image has no statistics
    given: list[Tensor] = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(batch.seed & 0x7FFF_FFFF_FFFF_FFFF)
        for number in range(len(batch.index)):
            # one at a time: in a batch nobody but the method knows which input is of which image
            views = tuple(view[[number]] for view in batch.views)
            found = task.backbone_inputs(Batch(views, batch.index[[number]], None, mix(batch.seed, number)))
            if found is None:
                return []
            given.append(found.float())
    return given


def _are_views(given: Sequence[Tensor], views: tuple[Tensor, ...]) -> bool:
    """Whether the network is given nothing but views."""
    for number, inputs in enumerate(given):
        own = [view[number] for view in views]
        if not all(any(one.shape == view.shape and torch.equal(one, view) for view in own) for one in inputs):
            return False
    return all(len(inputs) <= len(views) for inputs in given)


def _pixels(images: Tensor, scaling: PixelScaling) -> NDArray[np.float32]:
    """From a network's input back to [0, 1]. (n, C, s, s) -> (n, s, s, C)."""
    mean, std = np.asarray(scaling.mean, np.float32), np.asarray(scaling.std, np.float32)
    found: NDArray[np.float32] = np.clip(images.permute(0, 2, 3, 1).numpy() * std + mean, 0, 1)
    return found


def _numbered(word: str, count: int) -> list[str]:
    return [word] if count == 1 else [f"{word} {number}" for number in range(1, count + 1)]
