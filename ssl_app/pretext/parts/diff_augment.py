"""DiffAugment: augment what the discriminator sees, real and fake alike (Zhao et al., 2020, arXiv:2006.10738)."""

import torch
from torch import Tensor
from torch.nn import functional

SHIFT, CUT = 1 / 8, 1 / 2  # shares of the side: how far at most, and how large a hole (section 3.2 and the code)
DRAWS = 7  # random numbers an image


def diff_augment(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, a shift and a hole, drawn for each image. (B, C, S, S) in [-1, 1] -> (B, C, S, S).

    Images of three channels also become paler or more colorful. Every image gets every kind, so the kind
    says nothing of where it is from. Gradients flow to the images, zero where something was moved out or cut out;
    what is moved in, and the hole, are 0, which is mid-gray. `strength` is in [0, 1]: at 0 the images are returned as
    they are, at 1 it is as much as in the paper. Values may leave [-1, 1].
    """
    if strength == 0:
        return images
    drawn = torch.rand(len(images), DRAWS, generator=generator) - 0.5  # on the CPU: the same bits for any device
    drawn = drawn.to(images.device, non_blocking=True)
    brightness, color, contrast = (strength * drawn[:, :3]).t()[..., None, None, None]  # each (B, 1, 1, 1)
    images = images + brightness
    if images.shape[1] == 3:
        images = _spread(images, images.mean(1, keepdim=True), 1 + 2 * color)
    images = _spread(images, images.mean((1, 2, 3), keepdim=True), 1 + contrast)
    side = images.shape[-1]
    shift = (2 * SHIFT * strength * side * drawn[:, 3:5]).round()
    shown = _moved(images, shift) * _around_a_hole(drawn[:, 5:] + 0.5, side, round(CUT * strength * side))
    channels_last = images.is_contiguous(memory_format=torch.channels_last)  # which grid_sample does not keep
    return shown.contiguous(memory_format=torch.channels_last) if channels_last else shown


def _spread(images: Tensor, center: Tensor, factor: Tensor) -> Tensor:
    return center + factor * (images - center)


def _moved(images: Tensor, shift: Tensor) -> Tensor:
    """Each image by whole pixels, to the right and down; 0 moves in. (B, C, S, S), (B, 2) -> (B, C, S, S)."""
    side = images.shape[-1]
    place = torch.arange(side, device=images.device)
    source = place - shift[..., None]  # (B, 2, S) where a column and a row come from
    # whole pixels and "nearest": every value is copied, none is mixed
    grid = (2 * source + 1) / side - 1
    x, y = grid[:, 0, None, :].expand(-1, side, -1), grid[:, 1, :, None].expand(-1, -1, side)
    return functional.grid_sample(images, torch.stack([x, y], 3), mode="nearest", align_corners=False)


def _around_a_hole(center: Tensor, side: int, hole: int) -> Tensor:
    """1, and 0 in a square of `hole` pixels, cut off at the border. (B, 2) in [0, 1) -> (B, 1, S, S)."""
    first = (center * (side + 1 - hole % 2)).floor() - hole // 2  # (B, 2) of the hole's columns and rows
    from_first = torch.arange(side, device=center.device) - first[..., None]  # (B, 2, S)
    within = (from_first >= 0) & (from_first < hole)
    return (~(within[:, 0, None, None, :] & within[:, 1, None, :, None])).float()
