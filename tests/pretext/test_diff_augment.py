"""DiffAugment against a slow reference: one image, one kind and one pixel at a time."""

import numpy as np
import pytest
import torch

from ssl_app.pretext.parts.diff_augment import CUT, DRAWS, SHIFT, diff_augment


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reference(images: torch.Tensor, strength: float, seed: int) -> np.ndarray:
    drawn = torch.rand(len(images), DRAWS, generator=seeded(seed)).numpy()
    out = []
    for image, (brightness, color, contrast, right, down, across, along) in zip(images.numpy(), drawn, strict=True):
        channels, side, _ = image.shape
        image = image + strength * (brightness - 0.5)
        if channels == 3:
            gray = image.mean(0, keepdims=True)
            image = gray + (1 + 2 * strength * (color - 0.5)) * (image - gray)
        image = image.mean() + (1 + strength * (contrast - 0.5)) * (image - image.mean())
        dx, dy = (round(float(2 * SHIFT * strength * side * (at - 0.5))) for at in (right, down))
        hole = round(CUT * strength * side)
        left, top = (int(np.floor(at * (side + 1 - hole % 2))) - hole // 2 for at in (across, along))
        moved = np.zeros_like(image)
        for y in range(side):
            for x in range(side):
                inside = 0 <= y - dy < side and 0 <= x - dx < side
                cut = left <= x < left + hole and top <= y < top + hole
                if inside and not cut:
                    moved[:, y, x] = image[:, y - dy, x - dx]
        out.append(moved)
    return np.stack(out)


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize(("channels", "side"), [(1, 16), (3, 12), (5, 9), (3, 28)])
def test_it_equals_a_slow_reference(channels: int, side: int, strength: float) -> None:
    images = torch.rand(6, channels, side, side, generator=seeded(9)) * 2 - 1
    found = diff_augment(images, strength, seeded(4))
    np.testing.assert_allclose(found.numpy(), reference(images, strength, 4), atol=1e-5)


def test_at_strength_0_it_is_the_identity_and_near_0_nearly() -> None:
    images = torch.rand(4, 3, 16, 16, generator=seeded()) * 2 - 1
    assert torch.equal(diff_augment(images, 0.0, seeded(1)), images)
    torch.testing.assert_close(diff_augment(images, 1e-4, seeded(1)), images, atol=1e-3, rtol=0)


def test_real_and_made_images_get_the_same_kinds() -> None:
    """What is done depends on the generator alone, and a hole and a shift are in every image."""
    real = torch.rand(32, 1, 16, 16, generator=seeded(1)) + 0.5
    made = -torch.rand(32, 1, 16, 16, generator=seeded(2)) - 0.5
    empty = [diff_augment(images, 1.0, seeded(3)) == 0 for images in (real, made)]
    assert torch.equal(*empty)
    assert all(hole.sum() >= 16 for hole in empty[0])  # a quarter of an 8 px square is inside at least


def test_every_place_of_hole_and_shift_is_drawn() -> None:
    images = torch.ones(4000, 1, 8, 8)
    holes = (diff_augment(images, 1.0, seeded(5)) == 0).float().mean(0)[0]
    assert holes.min() > 0.1
    assert holes.max() < 0.6


def test_gradients_flow_where_pixels_stay() -> None:
    images = (torch.rand(4, 3, 16, 16, generator=seeded(1)) * 2 - 1).requires_grad_()
    out = diff_augment(images, 1.0, seeded(2))
    weights = torch.randn(out.shape, generator=seeded(3))
    (gradient,) = torch.autograd.grad((out * weights).sum(), images)
    assert gradient.isfinite().all()
    # a number more in one place, and the sum moves by the gradient there
    for place in ((0, 0, 5, 5), (3, 2, 8, 1), (1, 1, 15, 15)):
        more = images.detach().clone()
        more[place] += 0.1
        change = ((diff_augment(more, 1.0, seeded(2)) - out.detach()) * weights).sum()
        assert float(change) == pytest.approx(0.1 * float(gradient[place]), abs=1e-3)


def test_the_memory_format_stays() -> None:
    images = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    assert diff_augment(images, 1.0, seeded()).is_contiguous(memory_format=torch.channels_last)
