"""Loader processes: a stop of the whole group is their parent's, and they end with it at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import signal, sys, time
from tests import toys

stopped = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *_: stopped.append(1))
loader = toys.loader(workers=2)
batches = loader.epoch(0, 40)
next(batches)
print(*[worker.pid for worker in __import__("multiprocessing").active_children()], flush=True)
while not stopped and len(sys.argv) > 1:
    time.sleep(0.01)
left = sum(1 for _ in batches)
print(left, flush=True)
time.sleep(60 if len(sys.argv) == 1 else 0)
"""


def started(*words: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A process with a loader of two workers, and their numbers."""
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *words],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert parent.stdout is not None
    return parent, [int(number) for number in parent.stdout.readline().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked at in /proc")
def test_workers_end_with_their_parent_that_was_killed() -> None:
    parent, workers = started()
    assert len(workers) == 2
    assert all(map(alive, workers))
    parent.kill()
    parent.wait()
    until = time.monotonic() + 60  # a hang, not a slow machine
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(alive, workers))
    assert parent.stdout is not None
    parent.stdout.close()


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        signal.SIGTERM,
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_stop_of_the_whole_group_is_the_parents(number: int) -> None:
    parent, workers = started("wait")
    assert len(workers) == 2
    os.killpg(parent.pid, number)
    out, _ = parent.communicate(timeout=120)
    assert out.split() == ["39"], "all the batches come after the signal"
    assert parent.returncode == 0
