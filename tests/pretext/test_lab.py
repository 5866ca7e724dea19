import numpy as np
import pytest
import torch

from ssl_app.pretext.parts.lab import ROWS, SIGMA, ColorBins, bin_centers, lab_of, luma, rgb_of

PRIMARIES = {  # sRGB and its Lab under D65, as published
    (1, 0, 0): (53.2408, 80.0925, 67.2032),
    (0, 1, 0): (87.7347, -86.1827, 83.1793),
    (0, 0, 1): (32.2970, 79.1875, -107.8602),
    (0, 1, 1): (91.1132, -48.0875, -14.1312),
    (1, 0, 1): (60.3242, 98.2343, -60.8249),
    (1, 1, 0): (97.1393, -21.5537, 94.4780),
    (1, 1, 1): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
}


def every_color(values: int = 42) -> torch.Tensor:
    """sRGB on a grid of so many values a channel, 0 and 1 among them, as one image. (1, 3, n * n, n)."""
    line = torch.linspace(0, 1, values)
    return torch.cartesian_prod(line, line, line).T.reshape(1, 3, -1, values)


def slow_lab(rgb: np.ndarray) -> list[float]:
    """One color, from the equations of IEC 61966-2-1 and CIE 15, in double."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
    matrix = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    white = [0.95047, 1.0, 1.08883]
    roots = []
    for row, of_white in zip(matrix, white, strict=True):
        ratio = sum(m * v for m, v in zip(row, linear, strict=True)) / of_white
        roots.append(ratio ** (1 / 3) if ratio > 216 / 24389 else (24389 / 27 * ratio + 16) / 116)
    x, y, z = roots
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)]


@pytest.mark.parametrize("rgb", PRIMARIES)
def test_known_colors_have_their_published_lab(rgb):
    lab = lab_of(torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1)).flatten()
    assert lab.tolist() == pytest.approx(PRIMARIES[rgb], abs=0.01)


def test_lab_is_that_of_the_equations():
    images = torch.rand(3, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    images[0, :, 0] /= 40  # the straight parts of both curves
    lab = lab_of(images)
    for image, y, x in np.ndindex(3, 4, 5):
        expected = slow_lab(images[image, :, y, x].double().numpy())
        assert lab[image, :, y, x].tolist() == pytest.approx(expected, abs=2e-3)


def test_there_and_back_is_the_same_color():
    colors = every_color()
    assert (rgb_of(lab_of(colors)) - colors).abs().max() < 1e-4
    lab = lab_of(colors)
    assert (lab_of(rgb_of(lab)) - lab).abs().max() < 0.02


def test_gray_has_no_chroma_and_what_lies_outside_is_clipped():
    gray = torch.linspace(0, 1, 256).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert lab_of(gray)[:, 1:].abs().max() < 0.01
    outside = torch.tensor([-0.5, 1.5, 0.3]).view(1, 3, 1, 1)
    assert torch.equal(lab_of(outside), lab_of(outside.clamp(0, 1)))
    wild = torch.tensor([50.0, 200.0, -200.0]).view(1, 3, 1, 1)
    shown = rgb_of(wild)
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_luma_weighs_the_channels_and_keeps_the_scale():
    images = torch.rand(2, 3, 4, 4) * 2 - 1
    expected = 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]
    torch.testing.assert_close(luma(images), expected)
    assert luma(torch.ones(1, 3, 1, 1)).item() == pytest.approx(1)


def test_there_are_313_bins_in_20_rows_by_a_then_b():
    centers = bin_centers()
    assert centers.shape == (313, 2)
    counts = [int((centers[:, 0] == a).sum()) for a in ROWS]
    assert counts == [5, 8, 10, 12, 14, 15, 16, 16, 17, 18, 18, 18, 19, 20, 19, 20, 20, 19, 19, 10]
    assert sum(counts) == 313
    pairs = [tuple(pair) for pair in centers.tolist()]
    assert pairs == sorted(set(pairs))
    assert (centers % 10 == 0).all()


def test_every_color_lies_near_a_bin():
    bins = ColorBins()
    ab = lab_of(every_color(52))[:, 1:]
    apart = (bins.centers[bins.nearest(ab)] - ab.permute(0, 2, 3, 1)).norm(dim=-1)
    assert apart.max() < 7.08  # half a diagonal of a cell
    assert apart.mean() == pytest.approx(3.83, abs=0.05)


def test_soft_colors_are_a_gaussian_of_the_five_nearest_bins():
    bins = ColorBins()
    ab = lab_of(every_color(6))[:, 1:]
    colors = bins.encode(ab)
    assert colors.index.shape == colors.weight.shape == (1, 5, *ab.shape[2:])
    torch.testing.assert_close(colors.weight.sum(1), torch.ones(1, *ab.shape[2:]))
    apart = torch.cdist(ab[0].flatten(1).T.double(), bins.centers.double())  # (n, 313)
    near, _ = apart.sort(1)
    for pixel in range(len(apart)):
        index = colors.index[0].flatten(1)[:, pixel]
        assert len(set(index.tolist())) == 5
        found = apart[pixel, index].sort().values
        assert float(found[0]) == pytest.approx(float(near[pixel, 0]))  # the nearest is always among them
        assert (found - near[pixel, :5]).abs().max() < 1e-6  # although looked up by ab in whole units
        gauss = torch.exp(-(apart[pixel, index] ** 2) / (2 * SIGMA**2))
        expected = (gauss / gauss.sum()).float()
        torch.testing.assert_close(colors.weight[0].flatten(1)[:, pixel], expected, atol=1e-5, rtol=1e-4)
        assert int(colors.nearest.flatten()[pixel]) == int(apart[pixel].argmin())


def test_encoding_and_its_mean_give_the_color_back():
    bins = ColorBins()
    ab = lab_of(every_color(52))[:, 1:]
    colors = bins.encode(ab)
    decoded = (bins.centers[colors.index] * colors.weight[..., None]).sum(1).permute(0, 3, 1, 2)
    errors = (decoded - ab).norm(dim=1)
    assert errors.mean() == pytest.approx(0.22, abs=0.03)
    assert errors.max() < 0.95


def test_the_annealed_mean_goes_from_the_expectation_to_the_mode():
    bins = ColorBins()
    logits = torch.randn(2, 313, 3, 3, generator=torch.Generator().manual_seed(1))
    shares = logits.double().softmax(1)
    expected = torch.einsum("bqhw,qc->bchw", shares, bins.centers.double())
    torch.testing.assert_close(bins.mean(logits, 1.0).double(), expected, atol=1e-3, rtol=1e-4)
    peaked = logits.clone()
    peaked[:, 100] += 10
    mode = bins.centers[100].view(1, 2, 1, 1).expand(2, 2, 3, 3)
    torch.testing.assert_close(bins.mean(peaked, 0.01), mode, atol=1e-3, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(bins.mean(logits, 0.38), ColorBins().mean(logits, 0.38))


def test_bins_are_no_part_of_a_checkpoint():
    assert not ColorBins().state_dict()
