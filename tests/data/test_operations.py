"""What is executed without albumentations: its pixels, its distribution, its boxes; the same in any batch."""

import albumentations as A
import cv2
import numpy as np
import pytest
from albumentations.augmentations.blur.functional import create_gaussian_kernel_1d
from scipy.stats import ks_2samp

from ssl_app.data.operations import OPERATIONS, Operation, operations, uniform
from ssl_app.data.seeding import mix, mix_each
from ssl_app.data.transforms import (
    PRESETS,
    Augmentation,
    Frame,
    Mixed,
    MixedImages,
    Pipeline,
    composed,
    located_views_of_batch,
    mirrored,
    preset,
    views_of_batch,
)
from ssl_app.pretext.parts.contrastive import STRENGTHS, views_of
from ssl_app.transfer.semi_supervised import STRONG, contrastive_views

EQUAL = 2e-5  # largest difference of a pixel in [0, 1]
SEEDS = mix_each(np.arange(3000, dtype=np.uint64))
TRANSFORMS = (
    A.RandomResizedCrop((16, 16), scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)),
    A.RandomResizedCrop((33, 29), scale=(0.05, 1.0), ratio=(0.5, 2.0)),
    A.RandomCrop(13, 9),
    A.CenterCrop(13, 10),
    A.PadIfNeeded(35, 50, border_mode=cv2.BORDER_REFLECT_101),
    A.HorizontalFlip(p=0.5),
    A.VerticalFlip(p=0.3),
    A.ColorJitter(0.6, 0.6, 0.6, 0.3, p=0.8),
    A.ColorJitter((0.2, 3.0), (0.1, 3.0), (0.0, 4.0), (-0.5, 0.5), p=0.8),
    A.ColorJitter(0.4, 0.4, 0.0, 0.0, p=0.8),
    A.ToGray(p=0.2),
    A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.4, p=0.8),
    A.RandomGamma(gamma_limit=(60.0, 170.0), p=0.9),
    A.GaussianBlur(blur_limit=(3, 5), p=0.3),
    A.GaussianBlur(p=0.3),
    A.GaussNoise(std_range=(0.0, 0.2), mean_range=(-0.1, 0.3), p=0.7),
)


def images_of(count: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(1).random((count, height, width, channels), np.float32)


def known(transform: A.BasicTransform, channels: int) -> Operation:
    (found,) = operations([transform], channels) or [None]
    if found is None:
        pytest.skip("left to albumentations")
    return found


def drawn_by_us(operation: Operation, shape: tuple[int, ...], seeds: np.ndarray = SEEDS) -> list[dict]:
    drawn = operation.draw(uniform(seeds, operation.numbers), shape)
    rows = zip(*(values.tolist() for values in drawn.values()), strict=True)
    return [dict(zip(drawn, row, strict=True)) for row in rows] if drawn else [{} for _ in seeds]


def test_every_operation_is_tested() -> None:
    assert {type(transform) for transform in TRANSFORMS} == set(OPERATIONS)


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda one: type(one).__name__)
def test_pixels_are_those_of_albumentations(transform: A.BasicTransform, channels: int) -> None:
    """By its own `apply`, with the parameters that we drew."""
    operation = known(transform, channels)
    images = images_of(40, 21, 26, channels)
    images[0], images[1] = 0, 1
    images[2, :, :, 1:] = images[2, :, :, :1]  # gray, of no hue
    for image, drawn in zip(images, drawn_by_us(operation, images.shape[1:], SEEDS[:40]), strict=True):
        kept = image.copy()
        ours = operation.apply(image, *drawn.values())
        np.testing.assert_array_equal(image, kept)
        assert ours.dtype == np.float32
        if isinstance(transform, A.GaussianBlur):
            drawn = {"kernel": create_gaussian_kernel_1d(drawn["sigma"], drawn["ksize"])}
        if isinstance(transform, A.GaussNoise):
            drawn = {"noise_map": noise_of(operation, drawn, image.shape)}
        np.testing.assert_allclose(ours, transform.apply(image, **drawn), atol=EQUAL, rtol=0)


def noise_of(operation: Operation, drawn: dict, shape: tuple[int, ...]) -> np.ndarray:
    """What lies on a gray image, of which a small noise is not clipped."""
    halved = drawn | {"mean": drawn["mean"] / 100, "sigma": drawn["sigma"] / 100}
    return (operation.apply(np.full(shape, 0.5, np.float32), *halved.values()) - np.float32(0.5)) * 100


def test_noise_is_normal_and_of_its_own_in_every_pixel_and_image() -> None:
    operation = known(A.GaussNoise(std_range=(0.1, 0.1), mean_range=(0.05, 0.05)), 3)
    drawn = drawn_by_us(operation, (32, 32, 3), SEEDS[:200])
    noise = np.stack([noise_of(operation, one, (32, 32, 3)) for one in drawn]).reshape(200, -1)
    assert noise.mean() == pytest.approx(0.05, abs=0.001)
    assert noise.std() == pytest.approx(0.1, abs=0.001)
    inside = [np.mean(np.abs(noise - 0.05) < 0.1 * deviations) for deviations in (1, 2, 3)]
    np.testing.assert_allclose(inside, [0.6827, 0.9545, 0.9973], atol=0.002)
    between_images = np.corrcoef(noise)[np.triu_indices(200, 1)]  # each of deviation 1 / sqrt(3072) = .018
    assert np.abs(between_images).max() < 0.1
    assert between_images.std() == pytest.approx(0.018, abs=0.002)
    assert np.abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.005


def numbers_of(drawn: dict) -> list[float]:
    """What the parameters of one image come to, by albumentations' names or ours."""
    if "ksize" in drawn:
        drawn = {"kernel": create_gaussian_kernel_1d(drawn["sigma"], drawn["ksize"])}
    if "kernel" in drawn:
        return [len(drawn["kernel"]), max(drawn["kernel"])]
    if "noise_map" in drawn:
        return [drawn["noise_map"].mean(), drawn["noise_map"].std()]
    if "crop_coords" in drawn:
        x0, y0, x1, y1 = drawn["crop_coords"]
        return [x0, y0, x1, y1, (x1 - x0) * (y1 - y0), (x1 - x0) / (y1 - y0)]
    return [float(value) for name in sorted(drawn.keys() - {"seed"}) for value in np.ravel(drawn[name])]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda one: type(one).__name__)
def test_parameters_are_distributed_as_those_of_albumentations(transform: A.BasicTransform) -> None:
    """Of 3,000 draws each, by the test of Kolmogorov and Smirnov at p = .001, and by correlations."""
    shape = (30, 37, 1 if isinstance(transform, A.RandomBrightnessContrast) else 3)
    image = np.full(shape, 0.5, np.float32)
    ours = np.array([numbers_of(drawn) for drawn in drawn_by_us(known(transform, shape[2]), shape)])
    transform.set_random_seed(5)
    names = ("noise_map", "kernel", "crop_coords", "brightness", "contrast", "saturation", "hue", "order")
    names += ("alpha", "beta", "gamma", "pad_top", "pad_bottom", "pad_left", "pad_right")
    theirs = []
    for _ in range(len(ours)):
        drawn = transform.get_params() | transform.get_params_dependent_on_data({"shape": shape}, {"image": image})
        theirs.append(numbers_of({name: drawn[name] for name in names if name in drawn}))
    for mine, other in zip(ours.T, np.array(theirs).T, strict=True):
        assert ks_2samp(mine, other).statistic < 1.95 * (2 / 3000) ** 0.5
    scale = np.maximum(np.std(theirs, 0), 1e-9)
    np.testing.assert_allclose(np.cov((ours / scale).T), np.cov((theirs / scale).T), atol=0.1)


def test_every_order_of_the_jitter_is_as_likely() -> None:
    drawn = drawn_by_us(known(A.ColorJitter(), 3), (9, 9, 3))
    _, counts = np.unique([one["order"] for one in drawn], axis=0, return_counts=True)
    assert len(counts) == 24
    assert np.square(counts - 125).sum() / 125 < 49.7  # chi-square of 23 degrees of freedom, p = .001


@pytest.mark.parametrize("p", [0.0, 0.2, 0.8, 1.0])
def test_a_transform_is_applied_with_its_probability(p: float) -> None:
    image = np.zeros((4, 4, 1), np.float32)
    image[0, 0] = 1
    views = Pipeline(Frame(4, 4), [A.HorizontalFlip(p=p)]).batch(np.stack([image] * 3000), SEEDS)
    assert np.mean(views[:, 0, 3, 0] == 1) == pytest.approx(p, abs=0.03 if 0 < p < 1 else 0)


def every_augmentation(frame: Frame) -> dict[str, Augmentation]:
    presets = {name: preset(name, frame) for name in PRESETS}
    contrastive = {f"views {name}": views_of(frame, name) for name in ("mixed", *STRENGTHS)}
    mixed = Mixed(preset("standard", frame), contrastive_views(frame, STRONG))
    return presets | contrastive | {"semi-supervised": mixed}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_view_depends_on_seed_and_view_only(channels: int) -> None:
    """To the bit the same alone, in a batch of 128 and in a part of it, at an odd size."""
    frame = Frame(19, 23, channels, vertical_flip=True)
    images, seeds = images_of(128, 23, 23, channels), SEEDS[:128]
    kept = images.copy()
    for name, augmentation in every_augmentation(frame).items():
        for view in (0, 1):
            together = views_of_batch(augmentation, images, seeds, view)
            assert together.shape == (128, 19, 19, channels)
            assert together.dtype == np.float32
            assert 0 <= together.min() <= together.max() <= 1
            np.testing.assert_array_equal(images, kept)
            np.testing.assert_array_equal(
                views_of_batch(augmentation, images[40:73], seeds[40:73], view), together[40:73]
            )
            alone = np.stack([augmentation(images[i], int(seeds[i]), view) for i in range(0, 128, 7)])
            np.testing.assert_array_equal(alone, together[::7], err_msg=name)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 130])
def test_our_own_augmentations_need_no_albumentations(channels: int) -> None:
    for augmentation in every_augmentation(Frame(16, 18, channels)).values():
        for pipeline in getattr(augmentation, "by_image", getattr(augmentation, "by_view", [augmentation])):
            assert pipeline.operations is not None


@pytest.mark.parametrize(("size", "pack"), [(16, 16), (16, 19), (32, 37)])
@pytest.mark.parametrize("name", ["none", "light", "crop", "standard"])
def test_boxes_are_those_of_the_pixels(name: str, size: int, pack: int) -> None:
    """On a ramp, interpolation is exact away from the border: each pixel shows where it lies."""
    ramp = (np.arange(pack, dtype=np.float32) + 0.5) / pack
    image = np.stack(np.meshgrid(ramp, ramp), -1)  # (P, P, 2): x, y
    pipeline = preset(name, Frame(size, pack, 2, vertical_flip=True))
    assert isinstance(pipeline, Pipeline)
    pipeline.operations = [
        one for one in pipeline.operations or [] if not isinstance(one.transform, A.ImageOnlyTransform)
    ]
    views, boxes = pipeline.located_batch(np.stack([image] * 200), SEEDS[:200])
    for view, (x0, y0, x1, y1) in zip(views, boxes, strict=True):
        if min(x0, y0, 1 - x1, 1 - y1) < 0:
            continue  # padded by reflection
        for found, low, high in ((view[2:-2, 2:-2, 0].mean(0), x0, x1), (view[2:-2, 2:-2, 1].mean(1), y0, y1)):
            expected = low + (high - low) * (np.arange(size) + 0.5) / size
            np.testing.assert_allclose(np.sort(found), expected[2:-2], atol=1e-5)


def test_boxes_follow_the_rule_of_albumentations_own_parameters() -> None:
    """Of a list that is executed here, and the same by albumentations: boxes of one distribution."""
    pipeline = Pipeline(Frame(16, 20), [A.RandomResizedCrop((16, 16), scale=(0.3, 1.0)), A.HorizontalFlip(p=0.5)])
    images = np.zeros((1000, 20, 20, 1), np.float32)
    _, ours = located_views_of_batch(pipeline, images, SEEDS[:1000], 0)
    theirs = np.array(
        [composed(pipeline.compose, image, int(seed))[1] for image, seed in zip(images, SEEDS, strict=False)]
    )
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0) / 20, atol=0.03)
    np.testing.assert_allclose(np.cov(ours.T), np.cov(theirs.T / 20), atol=0.01)


class Shifted(A.HorizontalFlip):
    """A user's own."""


@pytest.mark.parametrize(
    "transform",
    [
        A.Affine(rotate=(-10, 10), border_mode=cv2.BORDER_REFLECT_101, p=0.9),
        A.OneOf([A.RandomGamma(p=1), A.HorizontalFlip(p=1)], p=0.9),
        Shifted(p=0.5),
        A.GaussNoise(per_channel=False),
        A.RandomBrightnessContrast(ensure_safe_range=True),
        A.ToGray(method="max"),
        A.PadIfNeeded(20, 20, border_mode=cv2.BORDER_CONSTANT),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_is_unknown_is_left_to_albumentations(transform: A.BasicTransform) -> None:
    """The whole list, image by image, each with its own seed."""
    frame = Frame(16, 16, 3)
    steps = [transform, A.RandomCrop(16, 16)]
    pipeline, compose = Pipeline(frame, steps), A.Compose(steps)
    assert pipeline.operations is None
    images = images_of(8, 16, 16, 3)
    views = views_of_batch(MixedImages(pipeline), images, SEEDS[:8], 1)
    for image, seed, view in zip(images, SEEDS, views, strict=False):
        compose.set_random_seed(mix(int(seed), 1) % 2**32)
        np.testing.assert_array_equal(view, compose(image=image)["image"])


def test_an_augmentation_that_knows_no_batches_is_called_for_each_image() -> None:
    def own(image: np.ndarray, seed: int, view: int) -> np.ndarray:
        assert type(seed) is int
        return image[:8, :8] * (seed % 5 + view)

    images = images_of(6, 9, 9, 2)
    for augmentation in (own, Mixed(own), MixedImages(own, own)):
        views = views_of_batch(augmentation, images, SEEDS[:6], 2)
        for image, seed, view in zip(images, SEEDS, views, strict=False):
            np.testing.assert_array_equal(view, own(image, int(seed), 2))


def test_seeds_of_arrays_are_those_of_numbers() -> None:
    numbers = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    found = mix_each(7, -1, numbers)
    assert found.tolist() == [mix(7, -1, number) for number in numbers.tolist()]
    assert mix_each(numbers, 3).tolist() == [mix(number, 3) for number in numbers.tolist()]


def test_a_call_of_ones_own_is_not_passed_over() -> None:
    class Negative(Pipeline):
        def __call__(self, image: np.ndarray, seed: int, view: int = 0) -> np.ndarray:
            negative: np.ndarray = 1 - super().__call__(image, seed, view)
            return negative

    frame, images = Frame(8, 8, 1), np.random.default_rng(0).random((3, 8, 8, 1), dtype=np.float32)
    seeds = np.arange(3, dtype=np.uint64)
    plain, own = Pipeline(frame, mirrored(frame)), Negative(frame, mirrored(frame))
    expected = 1 - views_of_batch(plain, images, seeds, 0)
    np.testing.assert_array_equal(views_of_batch(own, images, seeds, 0), expected)
