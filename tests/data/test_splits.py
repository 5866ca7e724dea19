"""Splits, draws, folds and overlap: pure functions of content, group and seed."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ssl_app.data.dataset import Dataset
from ssl_app.data.overlap import Overlap, count_overlap, exclude, seen
from ssl_app.data.sources.base import Columns, open_source
from ssl_app.data.splits import (
    Parts,
    absent,
    check_budgets,
    check_classes,
    draw,
    folds,
    hashed,
    hold_out_units,
    leakage_of,
    limited,
    one_sided,
    split,
    too_few,
    write_draw,
)
from ssl_app.errors import DataError
from tests import toys

rng = np.random.default_rng(0)


def part(dataset: Dataset, indices: list[int]) -> Dataset:
    at = np.array(indices)
    return replace(
        dataset, images=dataset.images[at], keys=tuple(dataset.keys[i] for i in at), content=dataset.content[at],
        labels=dataset.labels[at], labeled=dataset.labeled[at],
        groups=None if dataset.groups is None else tuple(dataset.groups[i] for i in at),
    )  # fmt: skip


def refusal(dataset: Dataset, parts: Parts | None = None) -> str:
    with pytest.raises(DataError) as raised:
        check_classes(dataset, parts or split(dataset))
    return str(raised.value)


# the test set


def test_about_a_fifth_is_tested_and_all_is_used_once() -> None:
    parts = split(toys.dataset([None] * 2000))
    assert abs(len(parts.test) - 400) < 60
    assert sorted([*parts.train, *parts.test]) == list(range(2000))
    assert parts.how == "split by image content (no group column), 20 % of images, seed 0"


def test_an_image_stays_on_its_side_in_any_subset_order_and_labeling() -> None:
    groups: list[str | None] = [f"p{i // 3}" if i % 7 else None for i in range(300)]
    dataset = toys.dataset(["a", "b"] * 150, groups)
    tested = {dataset.keys[i] for i in split(dataset).test}
    some = rng.permutation(300)[:120].tolist()
    fewer = part(dataset, some)
    assert {fewer.keys[i] for i in split(fewer).test} == tested & set(fewer.keys)
    other = replace(toys.dataset([None] * 300, groups), content=dataset.content)
    assert split(other).test.tolist() == split(dataset).test.tolist()
    assert split(dataset, seed=1).test.tolist() != split(dataset).test.tolist()


def test_groups_and_exact_copies_are_never_cut() -> None:
    content = rng.integers(0, 150, 300).tolist()  # every picture about twice
    groups: list[str | None] = [f"p{i // 3}" for i in range(300)]
    for dataset in (
        toys.dataset([None] * 300, None, None, content),
        toys.dataset([None] * 300, groups, None, content),
    ):
        parts = split(dataset, fraction=0.5)
        assert not set(dataset.content[parts.train]) & set(dataset.content[parts.test])
    small = toys.dataset([None] * 90, [f"p{i // 3}" for i in range(90)])
    parts = split(small)
    assert small.groups is not None
    assert not {small.groups[i] for i in parts.train} & {small.groups[i] for i in parts.test}
    assert parts.how == "split by patient (column patient), 20 % of groups, seed 0"


def test_an_image_without_a_group_is_its_own_and_alike_in_a_set_without_groups() -> None:
    without = toys.dataset([None] * 100)
    empty = toys.dataset([None] * 100, [None] * 100)
    assert split(without).test.tolist() == split(empty).test.tolist()


def test_a_given_split_is_used() -> None:
    parts = split(toys.dataset(["a"] * 4, None, ["test", None, "val", "train"]))
    assert (parts.train.tolist(), parts.val.tolist(), parts.test.tolist()) == ([1, 3], [2], [0])
    assert parts.how == "split as given by column split"
    parts = split(toys.dataset(["a"] * 3, None, ["train", "val", "val"]))
    assert parts.test.tolist() == [1, 2]
    assert parts.how == "split as given by column split; its 2 val images are the test set"
    parts = split(toys.dataset(["a"] * 3, None, ["train", "test", "test"], [5, 5, 6]), allow_leak=True)
    assert parts.how == "split as given by column split; 1 of 2 test images have an exact copy in train"
    assert split(toys.dataset(["a"] * 3, None, ["train"] * 3)).seed == 0  # nothing to test on: split by content


MARKS = ("train", "test", "train", "train", "test", "val", "train", "train", "train", "train", "train", "train")


def test_a_test_part_without_labels_is_left_out_and_others_are_split() -> None:
    labels = [None if mark == "test" else "ab"[i % 2] for i, mark in enumerate(MARKS)]
    marked = replace(toys.dataset(labels), splits=MARKS, columns=Columns(label="label", split="split"))
    for dataset in (replace(marked, labeled=marked.labeled & (np.array(MARKS) != "val")), marked):
        parts = split(dataset)
        assert not {1, 4} & {*parts.train.tolist(), *parts.val.tolist(), *parts.test.tolist()}
        assert parts.how.endswith("; 2 images marked test by column split have no label, and are left out")
    assert parts.how.startswith("split as given by column split; its only val image is the test set")
    parts = split(replace(marked, splits=tuple("train" if mark == "val" else mark for mark in MARKS)))
    alone = split(part(replace(marked, splits=None), [i for i, mark in enumerate(MARKS) if mark != "test"]))
    kept = np.array([i for i, mark in enumerate(MARKS) if mark != "test"])
    assert parts.test.tolist() == kept[alone.test].tolist()  # as if they were not there
    assert parts.train.tolist() == kept[alone.train].tolist()


def test_a_test_part_is_used_where_nothing_or_some_of_it_has_labels() -> None:
    for labels in ([None] * 12, ["ab"[i % 2] if i != 4 else None for i in range(12)]):
        parts = split(replace(toys.dataset(labels), splits=MARKS, columns=Columns(split="split")))
        assert parts.test.tolist() == [1, 4]
        assert parts.val.tolist() == [5]
        assert parts.how == "split as given by column split"


def test_a_given_split_that_cuts_a_group_is_refused() -> None:
    groups: list[str | None] = ["p", "p", "q", "q", None, None]
    dataset = toys.dataset(["a"] * 6, groups, ["train", "test", "val", "test", "train", "test"])
    with pytest.raises(DataError) as raised:
        split(dataset)
    assert str(raised.value) == (
        "column split puts 2 of 3 test images beside a train or val image of the same patient; "
        "type split none to split by patient, or allow_leak"
    )


def test_a_split_without_training_images_is_refused() -> None:
    with pytest.raises(DataError, match=r"^column split marks no image as train; type split none$"):
        split(toys.dataset(["a"] * 2, None, ["test", "test"]))


# classes on both sides


def test_every_class_must_be_on_both_sides() -> None:
    labels: list[str | None] = ["a", "b"] * 20 + ["virus"] * 3
    groups: list[str | None] = [f"p{i}" for i in range(43)]
    dataset = toys.dataset(labels, groups)
    parts = Parts(np.array([*range(10, 43)]), np.array([], np.int64), np.arange(10), "", seed=0)
    message = refusal(dataset, parts)
    start = (
        "class 'virus' has no test image: its 3 groups (patient) all fall into the training part; type split_seed "
    )
    assert message.startswith(start)
    seed = int(message.removeprefix(start).split(",")[0])
    check_classes(dataset, split(dataset, seed=seed))
    given = replace(parts, seed=None)
    assert refusal(replace(dataset, columns=Columns(split="split")), given) == (
        "class 'virus' has no test image in column split; type split none, or unlabeled virus"
    )


def test_a_class_in_one_group_cannot_be_tested() -> None:
    dataset = toys.dataset(["a", "b"] * 20 + ["c"], [f"p{i}" for i in range(41)])
    parts = Parts(np.arange(10, 41), np.array([], np.int64), np.arange(10), "", seed=0)
    assert refusal(dataset, parts) == (
        "class 'c' has no test image: its only patient falls into the training part; "
        "type unlabeled c, or give it images of another patient"
    )
    assert str(one_sided(dataset, parts, ["none", "two words"])).split("; ")[1] == (
        "type unlabeled 'none,two words,c', or give it images of another patient"
    )
    alone = toys.dataset(["a", "b"] * 20 + ["c", "d"])
    assert str(one_sided(alone, replace(parts, train=np.arange(10, 42)))) == (
        "2 classes have no test or no training image; class 'c' has no test image: its only image falls into the "
        "training part; type unlabeled c,d, or give each of them more images"
    )
    two = toys.dataset(["a"] * 20 + ["c"], [f"p{i}" for i in range(21)])
    assert str(one_sided(two, replace(parts, train=np.arange(10, 21)))).endswith(
        "training part; give it images of another patient"  # without it one class would be left
    )


@pytest.mark.parametrize("groups", [None, [f"p{i // 3}" for i in range(120)]])
def test_the_seed_that_is_named_is_the_first_that_works(groups: list[str] | None) -> None:
    dataset = toys.dataset(["a", "b"] * 57 + ["c"] * 6, groups)
    works = [not absent(dataset, split(dataset, seed=seed)) for seed in range(40)]
    for seed in range(11):
        notice = one_sided(dataset, split(dataset, seed=seed))
        if not works[seed]:
            assert f"type split_seed {works.index(True, seed)}, or unlabeled " in str(notice)
        else:
            assert notice is None


def test_fewer_than_two_classes_are_refused() -> None:
    assert refusal(toys.dataset([None, None])) == (
        "m.csv has no labels; expected a manifest with a column label, or one sub-folder a class"
    )
    assert refusal(toys.dataset(["a", None])) == "m.csv has one class, 'a'; expected two or more"


# draws


def test_draws_are_nested_and_balanced() -> None:
    dataset = toys.dataset(["a", "b", None] * 40)
    train = split(dataset).train
    draws = [draw(dataset, train, n, seed=0, draw=0) for n in (1, 2, 4, 8, 16)]
    for fewer, more in pairwise(draws):
        assert set(fewer.tolist()) < set(more.tolist())
    for number, drawn in zip((1, 2, 4, 8, 16), draws, strict=True):
        assert np.bincount(dataset.labels[drawn]).tolist() == [number, number]
        assert dataset.labeled[drawn].all()
        assert drawn.tolist() == sorted(drawn.tolist())
        assert set(drawn.tolist()) <= set(train.tolist())
    assert draw(dataset, train, 8, seed=0, draw=1).tolist() != draws[3].tolist()
    assert draw(dataset, train, 8, seed=1, draw=0).tolist() != draws[3].tolist()
    assert len(draw(dataset, train, None, seed=0, draw=0)) == dataset.labeled[train].sum()


def test_a_draw_does_not_depend_on_the_order_of_the_files() -> None:
    dataset = toys.dataset(["a", "b"] * 30)
    order = rng.permutation(60).tolist()
    other = part(dataset, order)
    ours = {dataset.keys[i] for i in draw(dataset, np.arange(60), 5, seed=0, draw=2)}
    assert ours == {other.keys[i] for i in draw(other, np.arange(60), 5, seed=0, draw=2)}


def test_a_class_with_fewer_labels_gives_all_it_has_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    dataset = toys.dataset(["x"] * 7 + ["y"] * 40)
    with caplog.at_level("INFO"):
        check_budgets(dataset, np.arange(47), [4, 8])
    assert caplog.messages == ["classes with fewer than 8 labeled training images give all that they have: 'x' 7"]
    drawn = draw(dataset, np.arange(47), 8, seed=0, draw=0)
    assert np.bincount(dataset.labels[drawn]).tolist() == [7, 8]


def test_more_than_the_largest_class_has_says_what_to_type() -> None:
    dataset = toys.dataset(["x"] * 20 + ["y"] * 40)
    with pytest.raises(DataError) as raised:
        check_budgets(dataset, np.arange(60), [8, 32, 64])
    assert str(raised.value) == (
        "class 'y', the largest, has 40 labeled training images, 64 per class are requested; type per_class 8,32"
    )


def test_a_saved_draw_is_a_manifest(tmp_path: Path) -> None:
    dataset = toys.dataset(["a, b", None, "c"], ["p", None, "q"])
    write_draw(tmp_path / "runs" / "draw.csv", dataset, np.array([0, 1, 2]))
    assert (tmp_path / "runs" / "draw.csv").read_text() == 'path,label,group\n0.png,"a, b",p\n1.png,,\n2.png,c,q\n'
    source = open_source(str(tmp_path / "runs" / "draw.csv"), Columns())
    assert source.labels == ("a, b", None, "c")
    assert source.groups == ("p", None, "q")


# folds


def test_folds_keep_groups_whole_and_classes_in_every_fit_part() -> None:
    labels = np.array([0, 1] * 20)
    groups = [f"p{i // 4}" for i in range(40)]
    found = folds(labels, groups, 5, 0)
    assert found is not None
    assert len(found) == 5
    assert sorted(int(i) for _, held in found for i in held) == list(range(40))
    for fit, held in found:
        assert not {groups[i] for i in fit} & {groups[i] for i in held}
        assert set(labels[fit].tolist()) == {0, 1}


def test_folds_shrink_to_the_smallest_class_and_give_up_below_two() -> None:
    assert len(folds(np.array([0, 0, 1, 1, 1, 1]), list("abcdef"), 5, 0) or []) == 2
    assert folds(np.array([0, 1, 1, 1]), list("abcd"), 5, 0) is None
    assert folds(np.array([], np.int64), [], 5, 0) is None


def test_no_folds_where_a_class_lies_in_one_group() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert folds(labels, list("aaabcd"), 3, 0) is None  # a fold would cut group a
    assert folds(labels, list("abcdef"), 3, 0) is not None


def test_folds_keep_copies_without_a_group_together() -> None:
    dataset = toys.dataset([None] * 40, content=[i // 2 + 1 for i in range(40)])  # each picture twice
    found = folds(np.array([0, 0, 1, 1] * 10), dataset.units, 5, 0)
    assert found is not None
    assert len(found) == 5
    for fit, held in found:
        assert not set(dataset.content[fit].tolist()) & set(dataset.content[held].tolist())


# held out of pretraining


@pytest.mark.parametrize("seed", range(5))
def test_held_out_units_are_whole(seed: int) -> None:
    content = rng.integers(0, 900, 1000).tolist()  # copies join some groups
    dataset = toys.dataset([None] * 1000, [f"p{i // 4}" if i % 3 else None for i in range(1000)], None, content)
    rows = np.arange(100, 1000)
    kept, held = hold_out_units(dataset, rows, 0.1, 512, seed)
    units = dataset.units
    assert not {units[i] for i in held} & {units[i] for i in kept}
    assert sorted([*kept, *held]) == rows.tolist()
    assert 90 <= len(held) <= 180
    assert held.tolist() == hold_out_units(dataset, rows, 0.1, 512, seed)[1].tolist()
    assert held.tolist() != hold_out_units(dataset, rows, 0.1, 512, seed + 1)[1].tolist()
    assert len(hold_out_units(dataset, rows, 0.1, 20, seed)[1]) == 20


@pytest.mark.parametrize("groups", [None, [f"p{i // 3}" for i in range(120)]])
def test_a_limit_is_nested_by_whole_groups_and_a_function_of_content_and_seed(groups: list[str] | None) -> None:
    dataset, rows = toys.dataset([None] * 120, groups), np.arange(120)
    found = {limit: limited(dataset, rows, limit, 0) for limit in (10, 40, 90, 200)}
    step = 1 if groups is None else 3
    assert [len(one) for one in found.values()] == [10 // step * step, 40 // step * step, 90, 120]
    for small, large in pairwise(found.values()):
        assert set(small) < set(large)
    for one in found.values():
        units = {dataset.units[i] for i in one}
        assert sorted(one) == [i for i in range(120) if dataset.units[i] in units] == one.tolist()
    assert set(limited(dataset, rows, 40, 1)) != set(found[40])
    fewer = limited(dataset, rows[:60], 10, 0)
    assert set(found[90]) & set(range(60)) >= set(fewer), "units keep their order without the others"


def test_a_limit_below_the_smallest_group_takes_one_group() -> None:
    dataset = toys.dataset([None] * 20, ["a"] * 12 + ["b"] * 8)
    assert len(limited(dataset, np.arange(20), 4, 0)) in (8, 12)


@pytest.mark.parametrize("seed", range(5))
def test_one_giant_group_is_not_held_out(seed: int) -> None:
    dataset = toys.dataset([None] * 100, ["giant"] * 80 + [f"p{i // 2}" for i in range(20)])
    kept, held = hold_out_units(dataset, np.arange(100), 0.05, 512, seed)
    assert 5 <= len(held) <= 10
    assert set(range(80)) <= set(kept.tolist())


def test_something_is_held_out_and_something_kept_whatever_the_units() -> None:
    two = toys.dataset([None] * 50, ["p"] * 30 + ["q"] * 20)
    assert hold_out_units(two, np.arange(50), 0.05, 512, 0)[1].tolist() == list(range(30, 50))
    one = toys.dataset([None] * 40, ["p"] * 40)
    assert [len(part) for part in hold_out_units(one, np.arange(40), 0.05, 512, 0)] == [38, 2]
    with pytest.raises(DataError, match=r"^the 4 images left of m.csv are one picture; type another data$"):
        hold_out_units(toys.dataset([None] * 4, None, None, [7] * 4), np.arange(4), 0.05, 512, 0)


# overlap


def test_leaks_count_copies_and_groups_once_each() -> None:
    pretraining = toys.dataset([None] * 4, ["p", "p", "q", None], None, [1, 2, 3, 4])
    labeled = toys.dataset(["a"] * 6, ["p", "p", "r", None, None, "s"], None, [2, 9, 3, 4, 8, 7])
    shown = seen(pretraining, np.arange(4))
    overlap = count_overlap(shown, labeled, np.arange(6))
    assert overlap == Overlap(images=3, groups=1, of=6, noun="patient")
    assert (
        overlap.sentence() == "4 of 6 test images: 3 exact copies of pretraining images, 1 shares a patient with them"
    )
    assert exclude(labeled, np.arange(6), shown).tolist() == [4, 5]


def test_nothing_seen_says_nothing() -> None:
    assert Overlap(0, 0, 400).sentence() is None
    assert Overlap(0, 0, 400, "patient", False).sentence() == "which groups (patient) pretraining saw is not known"
    assert Overlap(1, 0, 9, "lot", False).sentence() == (
        "1 of 9 test images is an exact copy of pretraining images; which groups (lot) pretraining saw is not known"
    )


@pytest.mark.parametrize(
    ("overlap", "sentence"),
    [
        (Overlap(0, 0, 9, near=1), "1 of 9 test images is a near copy of pretraining images"),
        (Overlap(0, 0, 400, near=5), "5 of 400 test images are near copies of pretraining images"),
        (
            Overlap(2, 0, 400, near=1),
            "3 of 400 test images: 2 exact copies and 1 near copy of pretraining images",
        ),
        (
            Overlap(0, 7, 400, "lot", near=3),
            "10 of 400 test images: 3 near copies of pretraining images, 7 share a lot with them",
        ),
        (Overlap(0, 0, 9, near_known=False), "near copies were not looked for"),
    ],
)
def test_near_copies_are_counted_apart(overlap: Overlap, sentence: str) -> None:
    assert overlap.sentence() == sentence


def test_a_shared_group_is_not_said_to_be_a_seen_image() -> None:
    assert Overlap(12, 25, 400, "patient").sentence() == (
        "37 of 400 test images: 12 exact copies of pretraining images, 25 share a patient with them"
    )
    assert (
        Overlap(0, 25, 400, "patient").sentence() == "25 of 400 test images share a patient with pretraining images"
    )
    assert Overlap(0, 1, 9, "eye").sentence() == "1 of 9 test images shares an eye with pretraining images"
    assert Overlap(12, 0, 400).sentence() == "12 of 400 test images are exact copies of pretraining images"
    assert Overlap(1, 0, 9).sentence() == "1 of 9 test images is an exact copy of pretraining images"


@pytest.mark.parametrize(("column", "shared"), [("patient", 4), ("Patient", 4), ("lot", 0), ("folder names", 0)])
def test_groups_are_the_same_only_in_columns_of_one_name(column: str, shared: int) -> None:
    pretraining = toys.dataset([None] * 4, ["1", "2", "3", "4"], None, [1, 2, 3, 4])
    other = toys.dataset([None] * 4, ["1", "2", "3", "4"], None, [5, 6, 7, 8])
    other = replace(other, columns=replace(other.columns, group=column))
    assert count_overlap(seen(pretraining, np.arange(4)), other, np.arange(4)).groups == shared
    later = replace(other, content=other.content + 4)
    assert count_overlap(seen(other, np.arange(4)), later, np.arange(4)).groups == 4


def test_the_test_part_of_the_same_set_was_never_seen() -> None:
    dataset = toys.dataset([None] * 60, [f"p{i // 2}" for i in range(60)])
    parts = split(dataset)
    assert count_overlap(seen(dataset, parts.train), dataset, parts.test).total == 0


def test_splits_and_draws_are_the_same_in_every_version() -> None:
    assert hashed("p1") == 10506498227197777640
    dataset = toys.dataset(["a", "b"] * 20, content=list(range(1, 41)))
    assert draw(dataset, np.arange(40), 3, seed=0, draw=0).tolist() == [6, 19, 23, 24, 35, 38]


def test_a_draw_does_not_depend_on_the_names_of_the_files() -> None:
    dataset = toys.dataset(["a", "b"] * 20)
    renamed = replace(dataset, keys=tuple(reversed(dataset.keys)))
    assert (
        draw(renamed, np.arange(40), 5, seed=0, draw=0).tolist()
        == draw(dataset, np.arange(40), 5, seed=0, draw=0).tolist()
    )


def test_a_class_more_leaves_the_draws_of_others_alone() -> None:
    dataset = toys.dataset(["b", "a"] * 20)
    alone = part(dataset, list(range(0, 40, 2)))
    alone = replace(alone, classes=("b",), labels=np.zeros(20, np.int64))
    of_b = [i for i in draw(dataset, np.arange(40), 5, seed=0, draw=0) if dataset.labels[i] == 1]
    assert [dataset.keys[i] for i in of_b] == [alone.keys[i] for i in draw(alone, np.arange(20), 5, seed=0, draw=0)]


def test_what_a_copy_joins_has_the_groups_name() -> None:
    assert toys.dataset([None] * 3, ["p", "p", None], None, [1, 2, 2]).units == ["p"] * 3


def test_leakage_of_a_given_split_are_refused_unless_allowed() -> None:
    copies = toys.dataset(["a"] * 3, [None, None, "q"], ["train", "test", "test"], [5, 5, 6])
    with pytest.raises(DataError) as raised:
        split(copies)
    assert str(raised.value) == (
        "column split puts 1 of 2 test images beside an exact copy in train; type split none to split by patient, "
        "or allow_leak"
    )
    parts = split(copies, allow_leak=True)
    assert parts.how == "split as given by column split; 1 of 2 test images have an exact copy in train"
    both = toys.dataset(
        ["a"] * 5, ["p", "p", "q", None, None], ["train", "test", "val", "test", "train"], [1, 2, 3, 4, 4]
    )
    with pytest.raises(DataError) as raised:
        split(both)
    assert raised.value.notice.found == (
        "column split puts 1 of 2 test images beside a train or val image of the same patient, and 1 of 2 test "
        "images beside an exact copy in train or val"
    )
    assert split(both, allow_leak=True).leakage == (
        "1 of 2 test images have a train or val image of the same patient",
        "1 of 2 test images have an exact copy in train or val",
    )


def test_a_given_split_without_a_test_part_tests_on_val() -> None:
    assert split(toys.dataset(["a"] * 3, None, ["train", "val", "val"])).val.tolist() == []


@pytest.mark.parametrize("size", [1, 2])
def test_folds_differ_by_seed(size: int) -> None:
    units = [f"p{i // size}" for i in range(40)]
    one, other = (folds(np.array([0, 1] * 20), units, 5, seed) for seed in (0, 1))
    assert [held.tolist() for _, held in one] != [held.tolist() for _, held in other]


def test_too_few_images_are_counted_in_words() -> None:
    assert str(too_few(1, 2)) == (
        "1 image is left to pretrain on, 2 are the test part; expected at least 4; type another data"
    )
    assert str(too_few(2, 1, " after a")).startswith("2 images are left to pretrain on after a, 1 is the test part")
    assert too_few(4, 0) is None


def test_copies_are_counted_among_the_images_that_are_tested() -> None:
    labels = ["a", "b", None, "a", "b", None]
    dataset = toys.dataset(labels, None, ["train"] * 3 + ["test"] * 3, [1, 2, 3, 1, 5, 3])
    parts = split(dataset, allow_leak=True)
    assert parts.leakage == ("2 of 3 test images have an exact copy in train",)
    tested = replace(parts, test=parts.test[dataset.labeled[parts.test]])
    assert leakage_of(dataset, tested) == ("1 of 2 test images have an exact copy in train",)
