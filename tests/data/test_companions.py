"""Masks and thumbnails beside their images, by the names of both."""

import pytest

from ssl_app.data.companions import companions, pattern_of, stem_of
from ssl_app.data.survey import left_after

MASKS = {
    "a word after the name": ["a/x.png", "a/x_mask.png"],
    "in capitals, of another format": ["a/x.jpg", "a/x_MASK.tif"],
    "between dots": ["a/x.png", "a/x.mask.png"],
    "numbered": ["a/x (1).png", "a/x (1)_mask_1.png"],
    "a word before the name": ["x.png", "gt_x.png"],
    "ground truth in two words": ["x.png", "x-ground-truth.png"],
    "of a volume that several files are of": ["p/b1_flair.nii.gz", "p/b1_t1.nii.gz", "p/b1_seg.nii.gz"],
    "a folder beside the images": ["images/x.png", "masks/x.png"],
    "in each part": ["train/images/1.png", "train/masks/1.png"],
    "in each class": ["crack/images/1.png", "crack/masks/1.png"],
    "the decathlon's folders": ["imagesTr/la_007.nii.gz", "labelsTr/la_007.nii.gz"],
    "Pascal's folders": ["JPEGImages/a.jpg", "SegmentationClass/a.png"],
    "a folder below the images": ["c/x.png", "c/seg/x_seg.png"],
}
MASKS["a short word beside many others, with the picture of the bare name"] = [
    "flag.png",
    *[f"flag-{a}{b}.png" for a in "acgit" for b in "mrs"],
    "flag-gt.png",
]
THUMBNAILS = {
    "a folder below the images": ["c/x.jpg", "c/thumbs/x.jpg"],
    "a word after the name": ["x.jpg", "x_thumb.jpg"],
    "a word before the name": ["x.jpg", "tn_x.jpg"],
    "another format": ["x.tif", "thumbnails/x.png"],
}
NEITHER = {
    "classes with numbered files": ["mask/1.png", "crack/1.png"],
    "faces with and without masks": ["with_mask/1.png", "without_mask/1.png", "worn_badly/1.png"],
    "a mask whose image is not there": ["a/x.png", "a/y_mask.png"],
    "a name that goes on": ["x.png", "xmask.png", "mask.png"],
    "one of many of the same name": [f"flag-{a}{b}.png" for a in "acgit" for b in "mnrt"],
    "a class of segments": ["seg/1.png", "whole/1.png", "seg/2.png"],
}


@pytest.mark.parametrize("case", MASKS)
def test_a_mask_is_known_by_the_image_beside_it(case: str) -> None:
    *images, mask = MASKS[case]
    assert dict(companions(MASKS[case]).of) == {"mask": {mask: images[0]}}


@pytest.mark.parametrize("case", THUMBNAILS)
def test_a_thumbnail_is_known_by_the_image_beside_it(case: str) -> None:
    image, thumbnail = THUMBNAILS[case]
    assert dict(companions(THUMBNAILS[case]).of) == {"thumbnail": {thumbnail: image}}


@pytest.mark.parametrize("case", NEITHER)
def test_a_name_alone_makes_no_companion(case: str) -> None:
    assert not companions(NEITHER[case])


@pytest.mark.parametrize("case", [*MASKS.values(), *THUMBNAILS.values()])
def test_the_pattern_of_a_companion_leaves_it_out_and_not_its_image(case: list[str]) -> None:
    *images, last = case
    assert left_after(case, (pattern_of(last),)) == images


def test_the_sentence_counts_and_names_the_first() -> None:
    found = companions(["x.png", "x_mask.png", "y.png", "y_mask.png"])
    assert [str(one) for one in found.notices(left_out=True)] == [
        "2 masks left out (x_mask.png of x.png the first); type omit none to take them as images"
    ]
    assert [str(one) for one in found.notices(left_out=False)] == [
        "2 masks listed and taken as images (x_mask.png of x.png the first); type omit '*_mask.png', or remove their "
        "rows"
    ]


def test_the_ending_of_a_volume_has_two_parts() -> None:
    assert [stem_of(path) for path in ("a/x.nii.gz", "x.png", "a.b/x", "x.1")] == ["a/x", "x", "a.b/x", "x.1"]
