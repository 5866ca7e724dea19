"""A pretraining that torchrun starts anew goes on from its checkpoint, to the same bits."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_app.checkpoints import read
from ssl_app.commands import pretrain
from ssl_app.settings import PretrainSettings
from ssl_app.training.distributed import Launch

ROOT = Path(__file__).parents[2]
WORKER = """
import os, signal
from ssl_app.training import loop
from ssl_app.cli import main

loop.SYNC_EVERY = 2
original, steps = loop._Run.end_step, []

def end_step(run, position, *rest):
    steps.append(position.step)
    if len(steps) == KILLED_AT and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    original(run, position, *rest)

loop._Run.end_step = end_step
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", [7, 1], ids=["after a checkpoint", "before the first"])
def test_a_process_that_is_killed_costs_the_steps_since_the_last_checkpoint(
    killed_at: int, trained, tiny, tmp_path: Path
) -> None:
    out = tmp_path / "runs"

    def started(name: str, worker: Path) -> str:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        words = ["pretrain", "--data", trained.data, "--method", "rotnet", "--epochs", 2, "--batch-size", 8]
        words += ["--save-every", 0, "--name", name, "--out", out, *tiny]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        done = subprocess.run(
            [*torchrun, "--max-restarts", "1", str(worker), *map(str, words)],
            env=environment, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    for name, at in (("whole", 0), ("killed", killed_at)):
        worker = tmp_path / f"{name}.py"
        worker.write_text(WORKER.replace("KILLED_AT", str(at)))
        said = started(name, worker)
        restarted = "torchrun has started this anew: killed goes on from its checkpoint" in said
        assert restarted == (name == "killed" and killed_at > 1)
    first, second = (read(out / name / "backbone.safetensors")[0] for name in ("whole", "killed"))
    assert first.keys() == second.keys()
    assert not [name for name in first if not first[name].equal(second[name])]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """As if torchrun had started this process."""

    def launch(name: str, restarts: int, rank: int = 0) -> None:
        for variable, value in (("RUN_ID", name), ("RESTART_COUNT", restarts)):
            monkeypatch.setenv(f"TORCHELASTIC_{variable}", str(value))
        monkeypatch.setenv("RANK", str(rank))

    return launch


def run_of(out: Path, name: str, launch: tuple[str, int], *files: str) -> Path:
    folder = out / name
    folder.mkdir(parents=True)
    content = {"verb": "pretrain", "settings": {}, "started": 1.0, "launch": launch}
    (folder / "settings.json").write_text(json.dumps(content))
    for file in files:
        (folder / file).write_bytes(b"{}")
    return folder


def test_a_restart_goes_on_with_the_run_of_its_own_launch(tmp_path: Path, launched: Callable[..., None]) -> None:
    run_of(tmp_path, "mine", ("a", 0), "training.safetensors")
    run_of(tmp_path, "theirs", ("b", 0), "training.safetensors")
    given = PretrainSettings(out=tmp_path, name="mine", data="scans", threads=3)
    assert pretrain._restarted(given) is None, "not under torchrun"
    launched("a", 0)
    assert pretrain._restarted(given) is None, "the first start"
    launched("a", 1, rank=1)
    assert pretrain._restarted(given) == PretrainSettings(out=tmp_path, resume="mine", threads=3)
    launched("c", 1)
    assert pretrain._restarted(given) is None, "another launch"


def test_a_run_without_a_checkpoint_is_made_again_by_process_0(tmp_path: Path, launched: Callable[..., None]) -> None:
    early, done = run_of(tmp_path, "early", ("a", 0)), run_of(tmp_path, "done", ("a", 0), "result.json")
    new = run_of(tmp_path, "new", ("a", 1))  # that process 0 has made since the restart
    launched("a", 1, rank=1)
    assert pretrain._restarted(PretrainSettings(out=tmp_path)) is None
    assert early.is_dir()
    launched("a", 1)
    assert pretrain._restarted(PretrainSettings(out=tmp_path)) is None
    assert not early.exists()
    assert done.is_dir()
    assert new.is_dir()


def test_torchrun_without_a_name_is_known_by_its_process(launched: Callable[..., None]) -> None:
    launched("none", 2, rank=1)
    found = Launch.here()
    assert found is not None
    assert found.name.endswith(f" {os.getppid()}")
    assert (found.restarts, found.leads) == (2, False)
