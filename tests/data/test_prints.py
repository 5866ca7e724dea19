"""Near copies: found where a picture was saved again, not where pictures are only of one kind."""

import itertools

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from ssl_app.data import prints as module
from ssl_app.data.prints import Prints, near_pairs, prints, thumbnail

rng = np.random.default_rng(0)


def scene(seed: int, side: int = 96) -> NDArray[np.uint8]:
    """A smooth picture of its own, (S, S, 1)."""
    noise = np.random.default_rng(seed).normal(size=(12, 12)).astype(np.float32)
    large = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    return cv2.normalize(large, None, 20, 200, cv2.NORM_MINMAX).astype(np.uint8)[..., None]


def again(how: str, image: NDArray[np.uint8]) -> NDArray[np.generic]:
    if how == "JPEG":
        return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)[
            ..., None
        ]
    if how == "half the size":
        return cv2.resize(image, (48, 48), interpolation=cv2.INTER_AREA)[..., None]
    if how == "brighter":
        return np.clip(image * 1.2 + 5, 0, 255).astype(np.uint8)
    if how == "color":
        return image.repeat(3, 2)
    if how == "16 bits":
        return image.astype(np.uint16) * 200
    if how == "noise":
        return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    return 255 - (255 - image.astype(np.float32)) * 0.5


HOWS = ("JPEG", "half the size", "brighter", "color", "16 bits", "noise", "another window")


def printed(images: list[NDArray[np.generic]]) -> Prints:
    return prints(np.stack([thumbnail(image) for image in images]))


@pytest.mark.parametrize("how", HOWS)
def test_a_picture_that_was_saved_again_is_a_near_copy(how: str) -> None:
    images: list[NDArray[np.generic]] = [scene(seed) for seed in range(30)]
    pairs, alike = near_pairs(printed([*images, again(how, images[7])]))
    assert pairs.tolist() == [[7, 30]]
    assert alike[0] >= module.NEAR


def test_pictures_of_one_kind_are_no_near_copies() -> None:
    assert not len(near_pairs(printed([scene(seed) for seed in range(60)]))[0])


def test_mirrored_and_inverted_pictures_are_no_near_copies() -> None:
    image = scene(0)
    assert not len(near_pairs(printed([image, image[:, ::-1], 255 - image, np.rot90(image)]))[0])


def test_textures_under_the_same_light_are_no_near_copies_by_their_lowest_frequencies() -> None:
    """As steel surfaces are, of which most of what the lowest frequencies hold is the light; a copy is one."""
    light = cv2.resize(np.array([[40, 40], [190, 200]], np.float32), (96, 96), interpolation=cv2.INTER_LINEAR)
    pictures = [
        light + np.random.default_rng(seed).normal(0, 14, (24, 24)).repeat(4, 0).repeat(4, 1) for seed in range(40)
    ]
    images = [np.clip(picture, 0, 255).astype(np.uint8)[..., None] for picture in pictures]
    looks = module.frequencies(np.stack([thumbnail(image) for image in images]))
    unit = looks / np.linalg.norm(looks, axis=1, keepdims=True)
    assert np.triu(unit @ unit.T, 1).max() > module.NEAR  # with the threshold of thumbnails they would be
    assert not len(module.near_between(looks[:20], looks[20:]))
    copies = module.frequencies(np.stack([thumbnail(again("JPEG", image)) for image in images]))
    assert module.near_between(looks, copies).tolist() == [[i, i] for i in range(40)]


def test_blank_pictures_are_near_to_none() -> None:
    found = printed([np.full((8, 8, 1), 7, np.uint8), np.full((8, 8, 1), 9, np.uint8), scene(1)])
    assert found.blank.tolist() == [True, True, False]
    assert not len(near_pairs(found)[0])


def test_small_images_are_near_to_none() -> None:
    digits = [thumbnail(image[..., None]) for image in load_digits().images]
    assert len(near_pairs(prints(np.stack(digits)))[0]) == 0
    small, large = (np.stack([thumbnail(scene(0, side))] * 2) for side in (15, 16))
    assert len(near_pairs(prints(small))[0]) == 0
    assert near_pairs(prints(large))[0].tolist() == [[0, 1]]


def test_the_pairs_are_those_of_all_pairs_compared() -> None:
    base = [scene(seed) for seed in range(12)]
    images = [*base, *(again(how, image) for how, image in zip(itertools.cycle(HOWS), base, strict=False))]
    found = printed(images)
    thumbs = found.thumbs.astype(np.float64)
    thumbs /= np.linalg.norm(thumbs, axis=1, keepdims=True)
    slow = {(i, j) for i, j in itertools.combinations(range(24), 2) if thumbs[i] @ thumbs[j] >= module.NEAR}
    assert {tuple(pair) for pair in near_pairs(found)[0].tolist()} == slow
    assert len(slow) == 12


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_are_no_special_case(count: int) -> None:
    thumbs = np.array([thumbnail(scene(0))] * count, np.int8).reshape(count, 1024)
    assert len(near_pairs(prints(thumbs))[0]) == (count == 2)


def test_a_set_of_much_the_same_images_costs_a_window_of_neighbors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of n images that are all near copies n x WINDOW x 8 pairs are compared at most, not n^2 / 2."""
    monkeypatch.setattr(module, "WINDOW", 2)
    found = prints(np.stack([thumbnail(scene(0))] * 100))
    compared = [len(one) for one, _, _ in module._compared(found, None)]
    assert 0 < sum(compared) <= 100 * 2 * module.BANDS


def test_many_pairs_and_few_are_compared_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a block's candidates are taken one by one or as one product, blocks of any size find the same pairs."""
    found = prints(
        np.stack([thumbnail(scene(number % 8) + rng.normal(0, 2 + number / 10, (96, 96, 1))) for number in range(60)])
    )
    results = []
    for many, block in ((16, 256), (0, 256), (10**9, 7)):
        monkeypatch.setattr(module, "MANY", many)
        monkeypatch.setattr(module, "BLOCK", block)
        results.append(near_pairs(found, near=0.9))
    assert len(results[0][0]) > 60
    for pairs, alike in results[1:]:
        np.testing.assert_array_equal(pairs, results[0][0])
        np.testing.assert_array_equal(alike, results[0][1])
