"""The verdict, word for word, in each of the ways that it can end."""

from dataclasses import replace

import numpy as np
import pytest

from ssl_app.config import flag
from ssl_app.evaluation.difference import Difference
from ssl_app.evaluation.intervals import Component
from ssl_app.evaluation.labels_saved import LabelsSaved
from ssl_app.evaluation.verdict import Around, Evidence, SeenInPretraining, lines, nearest_budget

SAVED = LabelsSaved(2.1, 1.4, 3.04, None, 32, None)
AROUND = Around("sweep-1a2b", "rotnet", True, compared=(("data", "my scans/"), ("group", "patient")), most_labels=40)


def difference(*rows: list[float], error: float = 0.005, groups: int = 340) -> Difference:
    """Of scores in points; `error` is the standard error that the test images add."""
    return Difference(np.array(rows) / 100, Component(error**2, groups - 1.0))


def evidence(found: Difference, **changed: object) -> Evidence:
    names = ("rotnet", "rotnet-seed1", "rotnet-seed2")[: len(found.table)]
    ours = 0.841 + found.mean
    return replace(Evidence(names, 32, ours, 0.841, found, 1066, SAVED, 32), **changed)


def said(found: Evidence, around: Around = AROUND) -> list[str]:
    head, why, commands = lines(found, around)
    assert len(head) == 2
    return [*head, f"{why}, type {', and then '.join(command.command(flag) for command in commands)}."]


HELPED = difference([2.8, 3.1, 3.4])
HURT = difference([-3.8, -4.1, -4.4])
SAME = difference([0.1, -0.1, 0.0], error=0.001)
OPEN = difference([-1.0, 2.0, 5.0])


def three(one: Difference) -> Difference:
    """The same from three pretrainings that are alike."""
    return replace(one, table=np.concatenate([one.table, one.table + 0.001, one.table - 0.001]))


REACHED = {
    "HELPED": SAVED,
    "HURT": LabelsSaved(0.5, 0.3, 0.8, None, 32, None),
    "SAME": LabelsSaved(1.0, 0.9, 1.1, None, 32, None),
    "OPEN": LabelsSaved(1.3, 0.8, 2.2, None, 32, None),
}
BEYOND = {
    "HELPED": LabelsSaved(1.0, 1.0, None, "at least", 32, None),
    "HURT": LabelsSaved(0.5, None, 0.8, "at most", 32, None),
    "SAME": LabelsSaved(1.0, 0.9, None, "at least", 32, None),
    "OPEN": LabelsSaved(1.0, 0.8, None, "at least", 32, None),
}
WORDS = {
    ("HELPED", 1, "reached"): [
        "Pretraining helped, for this pretraining: 87.2 % balanced accuracy at 32 labels per class (two-stage "
        "from rotnet), scratch 84.1: +3.1 points [+2.0, +4.2], 3 draws, 1,066 test images.",
        "Scratch needs 2.1 times the labels for this score [1.4, 3.0].",
        "To see whether other pretrainings help too, type ssl-app pretrain --resume rotnet --seeds 3, and then "
        "ssl-app sweep --resume sweep-1a2b.",
    ],
    ("HELPED", 1, "beyond"): [
        "Pretraining helped, for this pretraining: 87.2 % balanced accuracy at 32 labels per class (two-stage "
        "from rotnet), scratch 84.1: +3.1 points [+2.0, +4.2], 3 draws, 1,066 test images.",
        "Labels saved are not known: scratch would have to be tried with 64 labels per class or more.",
        "To see how many labels scratch needs, type ssl-app sweep --resume sweep-1a2b --baseline-per-class 64,128.",
    ],
    ("HELPED", 3, "reached"): [
        "Pretraining helped: 87.2 % balanced accuracy at 32 labels per class (two-stage from 3 pretrainings), "
        "scratch 84.1: +3.1 points [+2.0, +4.2], 3 draws, 1,066 test images.",
        "Scratch needs 2.1 times the labels for this score [1.4, 3.0].",
        "To use it, type ssl-app finetune --init rotnet --strategy two-stage --per-class 32.",
    ],
    ("HELPED", 3, "beyond"): [
        "Pretraining helped: 87.2 % balanced accuracy at 32 labels per class (two-stage from 3 pretrainings), "
        "scratch 84.1: +3.1 points [+2.0, +4.2], 3 draws, 1,066 test images.",
        "Labels saved are not known: scratch would have to be tried with 64 labels per class or more.",
        "To see how many labels scratch needs, type ssl-app sweep --resume sweep-1a2b --baseline-per-class 64,128.",
    ],
    ("HURT", 1, "reached"): [
        "Pretraining hurt, for this pretraining: 80.0 % balanced accuracy at 32 labels per class (two-stage "
        "from rotnet), scratch 84.1: -4.1 points [-5.2, -3.0], 3 draws, 1,066 test images.",
        "Scratch needs 0.5 times the labels for this score [0.3, 0.8].",
        "To look for a method that suits these images, type ssl-app compare --data 'my scans/' --group patient.",
    ],
    ("HURT", 1, "beyond"): [
        "Pretraining hurt, for this pretraining: 80.0 % balanced accuracy at 32 labels per class (two-stage "
        "from rotnet), scratch 84.1: -4.1 points [-5.2, -3.0], 3 draws, 1,066 test images.",
        "Scratch needs at most 0.5 times the labels for this score [0.8 or less].",
        "To look for a method that suits these images, type ssl-app compare --data 'my scans/' --group patient.",
    ],
    ("HURT", 3, "reached"): [
        "Pretraining hurt: 80.0 % balanced accuracy at 32 labels per class (two-stage from 3 pretrainings), "
        "scratch 84.1: -4.1 points [-5.2, -3.0], 3 draws, 1,066 test images.",
        "Scratch needs 0.5 times the labels for this score [0.3, 0.8].",
        "To look for a method that suits these images, type ssl-app compare --data 'my scans/' --group patient.",
    ],
    ("HURT", 3, "beyond"): [
        "Pretraining hurt: 80.0 % balanced accuracy at 32 labels per class (two-stage from 3 pretrainings), "
        "scratch 84.1: -4.1 points [-5.2, -3.0], 3 draws, 1,066 test images.",
        "Scratch needs at most 0.5 times the labels for this score [0.8 or less].",
        "To look for a method that suits these images, type ssl-app compare --data 'my scans/' --group patient.",
    ],
    ("SAME", 1, "reached"): [
        "No difference that matters, for this pretraining: 84.1 % balanced accuracy at 32 labels per class "
        "(two-stage from rotnet), scratch 84.1: 0.0 points [-0.3, +0.3], 3 draws, 1,066 test images.",
        "Differences up to 1.0 point do not matter here. Scratch needs 1.0 times the labels for this score "
        "[0.9, 1.1].",
        "To look for a method that suits these images, type ssl-app compare --data 'my scans/' --group patient.",
    ],
    ("SAME", 1, "beyond"): [
        "No difference that matters, for this pretraining: 84.1 % balanced accuracy at 32 labels per class "
        "(two-stage from rotnet), scratch 84.1: 0.0 points [-0.3, +0.3], 3 draws, 1,066 test images.",
        "Differences up to 1.0 point do not matter here. Labels saved are not known: scratch would have to be "
        "tried with 64 labels per class or more.",
        "To look for a method that suits these images, type ssl-app compare --data 'my scans/' --group patient.",
    ],
    ("SAME", 3, "reached"): [
        "No difference that matters: 84.1 % balanced accuracy at 32 labels per class (two-stage from 3 "
        "pretrainings), scratch 84.1: 0.0 points [-0.3, +0.3], 3 draws, 1,066 test images.",
        "Differences up to 1.0 point do not matter here. Scratch needs 1.0 times the labels for this score "
        "[0.9, 1.1].",
        "To look for a method that suits these images, type ssl-app compare --data 'my scans/' --group patient.",
    ],
    ("SAME", 3, "beyond"): [
        "No difference that matters: 84.1 % balanced accuracy at 32 labels per class (two-stage from 3 "
        "pretrainings), scratch 84.1: 0.0 points [-0.3, +0.3], 3 draws, 1,066 test images.",
        "Differences up to 1.0 point do not matter here. Labels saved are not known: scratch would have to be "
        "tried with 64 labels per class or more.",
        "To look for a method that suits these images, type ssl-app compare --data 'my scans/' --group patient.",
    ],
    ("OPEN", 1, "reached"): [
        "No difference shown, for this pretraining: 86.1 % balanced accuracy at 32 labels per class "
        "(two-stage from rotnet), scratch 84.1: +2.0 points [-5.1, +9.1], 3 draws, 1,066 test images.",
        "Gains up to 9.1 points are still possible; 7 draws would show +4.6 at this spread. Scratch needs 1.3 "
        "times the labels for this score [0.8, 2.2].",
        "To settle it, type ssl-app sweep --resume sweep-1a2b --draws 7.",
    ],
    ("OPEN", 1, "beyond"): [
        "No difference shown, for this pretraining: 86.1 % balanced accuracy at 32 labels per class "
        "(two-stage from rotnet), scratch 84.1: +2.0 points [-5.1, +9.1], 3 draws, 1,066 test images.",
        "Gains up to 9.1 points are still possible; 7 draws would show +4.6 at this spread. Labels saved are "
        "not known: scratch would have to be tried with 64 labels per class or more.",
        "To settle it, type ssl-app sweep --resume sweep-1a2b --draws 7.",
    ],
    ("OPEN", 3, "reached"): [
        "No difference shown: 86.1 % balanced accuracy at 32 labels per class (two-stage from 3 "
        "pretrainings), scratch 84.1: +2.0 points [-4.7, +8.7], 3 draws, 1,066 test images.",
        "Gains up to 8.7 points are still possible; 7 draws would show +4.4 at this spread. Scratch needs 1.3 "
        "times the labels for this score [0.8, 2.2].",
        "To settle it, type ssl-app sweep --resume sweep-1a2b --draws 7.",
    ],
    ("OPEN", 3, "beyond"): [
        "No difference shown: 86.1 % balanced accuracy at 32 labels per class (two-stage from 3 "
        "pretrainings), scratch 84.1: +2.0 points [-4.7, +8.7], 3 draws, 1,066 test images.",
        "Gains up to 8.7 points are still possible; 7 draws would show +4.4 at this spread. Labels saved are "
        "not known: scratch would have to be tried with 64 labels per class or more.",
        "To settle it, type ssl-app sweep --resume sweep-1a2b --draws 7.",
    ],
}


@pytest.mark.parametrize(("outcome", "pretrainings", "saved"), WORDS)
def test_every_outcome_word_for_word(outcome: str, pretrainings: int, saved: str) -> None:
    found = {"HELPED": HELPED, "HURT": HURT, "SAME": SAME, "OPEN": OPEN}[outcome]
    found = found if pretrainings == 1 else three(found)
    factor = (REACHED if saved == "reached" else BEYOND)[outcome]
    assert (
        said(evidence(found, saved=factor), replace(AROUND, most_labels=500)) == WORDS[outcome, pretrainings, saved]
    )


def test_helped_with_labels_saved_beyond_the_budgets() -> None:
    beyond = LabelsSaved(1.0, 1.0, None, "at least", 32, None)
    assert said(evidence(HELPED, saved=beyond), replace(AROUND, most_labels=500))[1:] == [
        "Labels saved are not known: scratch would have to be tried with 64 labels per class or more.",
        "To see how many labels scratch needs, type ssl-app sweep --resume sweep-1a2b --baseline-per-class 64,128.",
    ]
    wider = LabelsSaved(4.0, 2.5, None, "at least", 32, None)
    assert said(evidence(three(HELPED), saved=wider, last_budget=128), replace(AROUND, most_labels=300))[1:] == [
        "Scratch needs at least 4.0 times the labels for this score [2.5 or more]; 256 labels per class for scratch "
        "would show more.",
        "To see how many labels scratch needs, type ssl-app sweep --resume sweep-1a2b --baseline-per-class 256.",
    ]
    assert said(evidence(three(HELPED), saved=wider))[2] == (
        "To use it, type ssl-app finetune --init rotnet --strategy two-stage --per-class 32."
    ), "no class has more labels"


def test_no_gain_is_possible_beyond_all_right() -> None:
    wide = evidence(difference([-60.0, 5.0, 90.0]), scratch=0.9, ours=0.95)
    assert said(wide)[1].startswith("Gains up to 10.0 points are still possible; ")


def test_nothing_saved_at_the_lowest_budget_of_scratch() -> None:
    none = LabelsSaved(1.0, None, 1.2, "at most", 1, None)
    assert said(evidence(HURT, saved=none, per_class=1))[1] == (
        "No labels are saved: scratch needs as many for this score, or fewer [1.2 or less]."
    )


def test_the_margin_grows_with_what_the_test_images_can_show_up_to_three_points() -> None:
    assert evidence(SAME).margin == 0.01
    coarse = evidence(difference([0.1, -0.1, 0.0], error=0.008))
    assert coarse.margin == pytest.approx(0.008 * 1.967 * 1.43, rel=1e-3)
    assert coarse.outcome == "no difference that matters"
    tiny = evidence(difference([0.1, -0.1, 0.0], error=0.04))
    assert tiny.margin == 0.03
    assert tiny.outcome == "no difference shown"


def test_no_difference_shown_several_pretrainings() -> None:
    apart = difference([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [-3.0, -2.0, -1.0])
    assert said(evidence(apart)) == [
        "No difference shown: 85.8 % balanced accuracy at 32 labels per class (two-stage from 3 pretrainings), "
        "scratch "
        "84.1: +1.7 points [-5.9, +9.2], 3 draws, 1,066 test images.",
        "Gains up to 9.2 points are still possible; 8 pretrainings would show +4.6 at this spread. Scratch needs "
        "2.1 "
        "times the labels for this score [1.4, 3.0].",
        "To settle it, type ssl-app pretrain --resume rotnet --seeds 8, and then ssl-app sweep --resume sweep-1a2b.",
    ]
    assert "7 draws would show" in said(evidence(three(OPEN)))[1], "more pretrainings would not: draws differ"


def test_no_difference_shown_that_these_test_images_cannot_show() -> None:
    small = evidence(difference([-1.0, 0.0, 1.0], [-1.1, 0.1, 1.0], error=0.03), images=340)
    assert said(small)[1:] == [
        "Gains up to 6.0 points are still possible; 340 images cannot show less than 8.4 points. Scratch needs 2.1 "
        "times the labels for this score [1.4, 3.0].",
        "Once about 3,000 images are labeled to test on, type ssl-app sweep --init rotnet.",
    ]


def test_a_gain_that_is_ruled_out_is_not_looked_for() -> None:
    assert said(evidence(difference([-0.9, -0.7, -0.5], error=0.004)))[1:] == [
        "Gains above 0.2 points are ruled out, losses up to 1.6 points are not. Scratch needs 2.1 times the labels "
        "for this score [1.4, 3.0].",
        "To look for a method that suits these images, type ssl-app compare --data 'my scans/' --group patient.",
    ]


def test_one_draw_shows_nothing() -> None:
    null = LabelsSaved(None, None, None, None, 1, "one draw gives no interval")
    assert said(evidence(difference([3.1]), per_class=1, saved=null)) == [
        "No difference shown, for this pretraining: 87.2 % balanced accuracy at 1 label per class (two-stage from "
        "rotnet), scratch 84.1: +3.1 points, one draw, 1,066 test images.",
        "One draw gives no interval. Labels saved are not known: one draw gives no interval.",
        "For an interval, type ssl-app sweep --resume sweep-1a2b --draws 5.",
    ]


def test_weights_of_another_tool_are_not_made_again() -> None:
    assert said(evidence(HELPED), replace(AROUND, replicable=False))[2] == (
        "To use it, type ssl-app finetune --init rotnet --strategy two-stage --per-class 32."
    )


def test_a_leak_and_a_scratch_that_was_still_rising_are_told() -> None:
    around = replace(AROUND, overlap=SeenInPretraining(1012, 5216), rising=1920)
    assert said(evidence(HELPED), around)[1] == (
        "Scratch needs 2.1 times the labels for this score [1.4, 3.0]. Scratch was still rising at 1,920 steps. "
        "1,012 "
        "of 5,216 test images (or near copies, or their groups) were seen in pretraining, which may flatter it."
    )
    assert "seen" not in said(evidence(HELPED), replace(AROUND, overlap=SeenInPretraining(0, 5216)))[1]


@pytest.mark.parametrize(
    ("budgets", "chosen"),
    [([1, 2, 4, 8, 16, 32, 64], 32), ([1, 4, 16], 16), ([100, 8], 100), ([64, 16], 16), ([5], 5)],
)
def test_the_budget_is_32_or_the_nearest(budgets: list[int], chosen: int) -> None:
    assert nearest_budget(budgets) == chosen


def test_equal_draws_are_no_certainty() -> None:
    found = evidence(difference([3.0, 3.0]))
    assert found.difference.interval.low is not None
    assert found.difference.interval.low < 0.025
    assert evidence(difference([0.0, 0.0], error=0.0)).outcome == "no difference that matters"
