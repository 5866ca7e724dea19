"""What a report is about, of sweeps that have not finished too."""

import numpy as np

from ssl_app.evaluation.comparison import Answered, Trial
from ssl_app.evaluation.difference import ScoredPart
from ssl_app.report import class_section
from ssl_app.report.findings import Findings

SCRATCH = ("scratch", "full-fine-tuning")


def findings(*trials: Trial, pooled: tuple[str, ...] = ("a",)) -> Findings:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20)
    right = {trial: random.random(40) < 0.8 for trial in trials}
    tested = Answered(ScoredPart(labels), right, {32: 0.1, 64: 0.2})
    return Findings(tested, pooled, lambda trial: random.random((40, 2)).astype(np.float16))


def test_scratch_with_other_budgets_only_is_no_baseline() -> None:
    found = findings(("a", "auto", 32, 0), (*SCRATCH, 64, 0))
    assert (found.per_class, found.baseline) == (32, None)
    assert len(class_section._recalls(found, ["x", "y"], found.predicted(found.subject))) > 0


def test_pretrainings_without_a_draw_in_common_have_no_figure() -> None:
    found = findings(("a", "auto", 32, 0), ("b", "auto", 32, 1), (*SCRATCH, 32, 0), pooled=("a", "b"))
    assert (found.per_class, found.baseline) == (32, None)
    assert "–" in str(class_section._recalls(found, ["x", "y"], found.predicted(found.subject)))


def test_the_baseline_shares_draws_with_the_subject() -> None:
    found = findings(("a", "auto", 32, 0), ("a", "auto", 64, 0), (*SCRATCH, 64, 0))
    assert (found.per_class, found.baseline) == (64, SCRATCH)
