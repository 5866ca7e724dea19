"""A sweep of three pretrainings that is killed again and again ends with the verdict of one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 10


@pytest.fixture(scope="module")
def narrow_networks() -> None:
    """As wide as its processes make them."""


@pytest.mark.slow
@pytest.mark.parametrize("how", [("--jobs", 2, "--steps", 6), ("--jobs", 1)], ids=["workers", "length of scratch"])
def test_a_sweep_killed_ten_times_ends_with_the_same_verdict(
    how: tuple[object, ...], tmp_path: Path, ssl, tiny, images
) -> None:
    data, out = images(tmp_path / "scans", per_class=40), tmp_path / "runs"
    words = ["--data", data, "--epochs", 1, "--batch-size", 16, "--out", out, "--name", "p", "--seeds", 3, *tiny]
    assert ssl("pretrain", *words).code == 0
    words = ["--init", "p", "--strategy", "two-stage", "--per-class", "2,8", "--draws", 2, "--batch-size", 8]
    words += ["--out", out, *tiny, "--json", *how]
    # few steps where none are named; worker processes would not know of it
    steps = "import ssl_app.transfer.draw as d; d.FEWEST_STEPS, d.STEPS_PER_LABEL, d.PASSES = 6, 0, 0"
    start = f"{steps}; from ssl_app.cli import main; main()"

    def typed(name: str) -> "subprocess.Popen[bytes]":
        line = [sys.executable, "-c", start, "sweep", *map(str, words), "--name", name]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)

    began = time.monotonic()
    whole = typed("whole")
    answer, said = whole.communicate()
    assert whole.returncode == 0, said.decode()
    took = time.monotonic() - began
    generator = random.Random(0)
    stopped = 0
    for _ in range(KILLS):
        again = typed("killed")
        try:
            again.communicate(timeout=generator.uniform(0.2, 0.8) * took)
        except subprocess.TimeoutExpired:
            os.killpg(again.pid, signal.SIGKILL)
            again.communicate()
            stopped += 1
    last = typed("killed")
    found, said = last.communicate()
    assert last.returncode == 0, said.decode()
    assert stopped >= 5, "it was killed while it had work to do"
    expected, result = json.loads(answer), json.loads(found)
    assert result["verdict"].replace("--resume killed", "--resume whole") == expected["verdict"]
    assert result["scratch_steps"] == expected["scratch_steps"]
    assert result["labels_saved_by_budget"] == expected["labels_saved_by_budget"]
