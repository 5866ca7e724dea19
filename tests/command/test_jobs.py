"""Trials in several processes: the same figures as in one, and a process that is killed."""

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_app.training.hardware import choose
from tests import forked

SWEEP = ("--per-class", 2, "--draws", 2, "--steps", 2, "--batch-size", 8, "--evaluate-on", "test")
Sweep = Callable[..., Any]


@pytest.fixture(scope="module")
def narrow_networks() -> None:
    """As wide as the further processes make them."""


@pytest.fixture
def preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers come from a server that has imported torch; the slow test starts them as a sweep does."""
    context = forked.context()
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)


@pytest.fixture
def sweep(ssl, tiny, trained) -> Sweep:
    """Type `ssl-app sweep` of the tiny pretraining: the answer."""
    return lambda *words: ssl("sweep", "--init", "p", *SWEEP, *words, "--out", trained.out, *tiny, "--json")


def trials_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in trial.items() if k != "seconds"} for trial in result["trials"]]


@pytest.mark.usefixtures("preloaded")
def test_the_number_of_jobs_changes_no_metric(sweep: Sweep) -> None:
    words = ["--strategy", "auto,two-stage"]
    one, two = (sweep(*words, "--jobs", jobs, "--name", f"jobs-{jobs}").result for jobs in (1, 2))
    assert len(two["trials"]) == 6
    assert trials_of(one) == trials_of(two)
    assert two["verdict"].replace("--resume jobs-2", "--resume jobs-1") == one["verdict"]


@pytest.mark.usefixtures("preloaded")
def test_a_killed_trial_costs_one_line(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "killed_strategies.py").write_text(
        "import os, signal\n"
        "from ssl_app.transfer.strategies.feature_extraction import FeatureExtraction\n"
        "class Killed(FeatureExtraction):\n"
        "    def fit(self, classifier, draw, budget):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert sweep("--strategy", "killed_strategies:Killed", "--baseline", "none", "--jobs", 2).error == (
        "a trial's process was killed, perhaps for memory; the finished trials are kept; type --jobs 1"
    )
    sys.modules.pop("killed_strategies", None)


@pytest.mark.slow
def test_the_number_of_jobs_changes_no_metric_in_bf16(sweep: Sweep) -> None:
    if not choose("cpu", "auto", torch.get_num_threads()).bf16:
        pytest.skip("the CPU has no bf16 units")
    words = ["--strategy", "feature-extraction", "--baseline", "none", "--precision", "bf16"]
    one, two = (sweep(*words, "--jobs", jobs, "--name", f"bf16-{jobs}").result for jobs in (1, 2))
    assert trials_of(one) == trials_of(two)
