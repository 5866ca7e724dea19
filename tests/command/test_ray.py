"""Trials on a Ray cluster: the same table to the bit, and a killed node costs its running trials only."""

import io
import json
import pickle
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ssl_app.errors import RunError
from ssl_app.training import ray_cluster
from ssl_app.training.hardware import Hardware
from ssl_app.training.ray_cluster import Call, _Receiver, _Sender
from ssl_app.transfer import ray_workers
from ssl_app.transfer.replicates import with_replicates
from ssl_app.transfer.workers import finish

SLOW_STRATEGY = """
import os, time
from pathlib import Path
from ssl_app.transfer.strategies.feature_extraction import FeatureExtraction

class Slow(FeatureExtraction):
    def fit(self, classifier, draw, budget):
        with (Path(__file__).parent / "begun.txt").open("a") as file:
            file.write(f"{os.environ.get('RAY_RAYLET_PID')} {len(draw.rows.labeled.indices)}-{draw.fold_seed}\\n")
        time.sleep(5 if "RAY_RAYLET_PID" in os.environ else 0)
        return super().fit(classifier, draw, budget)
"""


@pytest.fixture(scope="module")
def narrow_networks() -> None:
    """As wide as the processes of the nodes make them."""


def kept(result: dict[str, Any]) -> dict[str, Any]:
    """A sweep's answer without its name and times."""
    trials = [{k: v for k, v in trial.items() if k != "seconds"} for trial in result["trials"]]
    names = ("comparisons", "labels_saved", "labels_saved_by_budget", "scratch_steps", "outcome", "overlap")
    return {"trials": trials, **{name: result[name] for name in names}}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--jobs", 2, "--ray", "auto"],
            "--jobs 2 is of this machine, and a Ray cluster runs as many trials as it has room for; "
            "leave --jobs out, or leave --ray out",
        ),
        (["--gpu-share", 0.5], "--gpu-share 0.5 is of a Ray cluster; type --ray auto"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(words: list[object], said: str, trained, ssl, tiny) -> None:
    assert ssl("sweep", "--init", "p", "--out", trained.out, *tiny, *words).error == said


def test_a_sweep_goes_on_from_a_cluster_to_this_machine_and_back(
    trained, ssl, tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []  # draws

    class Stub:
        at_once = 3

        def run(self, setups: Any, trials: Any, place: Any) -> Iterator[Any]:
            for one in trials:
                asked.append(one.job.draw)
                found = finish(setups[one.init], one, place)
                found.keep(place.folder, one.key)
                yield one, found.content

    @contextmanager
    def connected(address: str, hardware: object, gpu_share: float) -> Iterator[Stub]:
        assert (address, gpu_share) == ("head:6379", 1)
        yield Stub()

    monkeypatch.setattr(ray_workers, "connected", connected)
    where = ["--out", trained.out, *tiny, "--json"]
    words = ["sweep", "--init", "p", "--strategy", "feature-extraction", "--per-class", 2, "--draws", 1, *where]
    words += ["--steps", 2, "--batch-size", 8, "--baseline", "none", "--evaluate-on", "test", "--name", "stub"]
    answer = ssl(*words, "--ray", "head:6379")
    assert "; 3 trials at a time" in answer.err
    again = ssl(*words, "--jobs", 1)
    assert "1 trial, 0 to do" in again.err
    assert kept(again.result) == kept(answer.result)
    assert ssl("sweep", "--resume", "stub", "--draws", 2, "--ray", "head:6379", *where).code == 0
    assert asked == [0, 1]
    assert ssl("sweep", "--resume", "stub", "--draws", 3, *where).code == 0, "without the flag it runs here"
    assert asked == [0, 1]


class StubCluster:
    """One node, this process: what is sent to it and what comes back is pickled as by Ray."""

    at_once = 2

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self.asked: list[str] = []

    def pack(self, value: object) -> Any:
        file = io.BytesIO()
        sender = _Sender(file)
        sender.dump(value)
        return SimpleNamespace(
            unpacked=lambda: _Receiver(io.BytesIO(file.getvalue()), [*sender.arrays.values()]).load()
        )

    def run(self, calls: Sequence[Call], lost: str) -> Iterator[tuple[Call, Any]]:
        for one in reversed(calls):
            self.asked.append(one.name)
            yield one, pickle.loads(pickle.dumps(one.function(*one.arguments)))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> list[StubCluster]:
    """The clusters that were connected to."""
    found: list[StubCluster] = []

    @contextmanager
    def connected(address: str, hardware: Hardware, gpu_share: float) -> Iterator[StubCluster]:
        found.append(StubCluster(hardware))
        yield found[-1]

    monkeypatch.setattr(ray_cluster, "connected", connected)
    return found


def same_pretrainings(one: Path, other: Path, names: Sequence[str]) -> None:
    for name in names:
        ours, theirs = (load_file(out / name / "backbone.safetensors") for out in (one, other))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        left = [{path.name for path in (out / name).iterdir()} for out in (one, other)]
        assert left[0] == left[1]
        results: list[dict[str, Any]] = [json.loads((out / name / "result.json").read_text()) for out in (one, other)]
        for one_result in results:
            del one_result["final"]["images_per_second"]
        for key in ("verb", "chance", "warning", "unreadable", "labeled", "final"):
            assert results[0][key] == results[1][key]
        assert results[0]["checkpoint"] == str(one / name / "backbone.safetensors")


def test_pretrainings_on_a_cluster_are_those_of_this_machine(stub, ssl, tiny, images, tmp_path: Path) -> None:
    data = images(tmp_path / "scans", per_class=20)
    words = ["pretrain", "--data", data, "--epochs", 2, "--batch-size", 8, "--name", "s", *tiny]
    here, there = tmp_path / "here", tmp_path / "there"
    assert ssl(*words, "--seeds", 3, "--out", here).code == 0
    answer = ssl(*words, "--seeds", 2, "--out", there, "--ray", "auto", "--json")
    assert answer.code == 0, answer.err
    assert Path(answer.result["run"]) == there / "s"
    assert stub[0].asked == ["pretraining s-seed1", "pretraining s"]
    assert answer.err.rstrip().endswith(
        f"2 pretrainings that differ in their seed; now type ssl-app sweep --init s --out {there}"
    )
    grown = ssl("pretrain", "--resume", "s", "--seeds", 3, "--out", there, "--ray", "auto", *tiny)
    assert grown.code == 0, grown.err
    assert stub[1].asked == ["pretraining s-seed2"]
    same_pretrainings(here, there, ("s", "s-seed1", "s-seed2"))


def test_a_cluster_that_stops_keeps_what_has_come_back(
    stub, ssl, tiny, images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = images(tmp_path / "scans", per_class=20), tmp_path / "o"
    run = StubCluster.run

    def broken(self: StubCluster, calls: Sequence[Call], lost: str) -> Iterator[tuple[Call, Any]]:
        yield next(run(self, calls, lost))
        raise RunError(f"{calls[0].name} was killed 4 times; {lost}")

    words = ["--epochs", 1, "--batch-size", 8, "--seeds", 3, "--out", out, *tiny, "--ray", "auto"]
    with monkeypatch.context() as patch:
        patch.setattr(StubCluster, "run", broken)
        error = ssl("pretrain", "--data", data, "--name", "s", *words).error
    assert error == "pretraining s was killed 4 times; the finished pretrainings are kept"
    assert [(out / name / "result.json").is_file() for name in ("s", "s-seed1", "s-seed2")] == [False, False, True]
    answer = ssl("pretrain", "--resume", "s", "--out", out, "--ray", "auto", *tiny)
    assert answer.code == 0, answer.err
    assert stub[1].asked == ["pretraining s-seed1", "pretraining s"]
    assert with_replicates(out, "s") == ["s", "s-seed1", "s-seed2"]


def test_one_pretraining_may_run_on_a_cluster(stub, ssl, tiny, images, tmp_path: Path) -> None:
    data, out = images(tmp_path / "scans", per_class=20), tmp_path / "o"
    answer = ssl("pretrain", "--data", data, "--epochs", 1, "--batch-size", 8, "--ray", "auto", "--out", out, *tiny)
    assert answer.code == 0, answer.err
    (run,) = out.glob("pretrain-*")
    assert answer.err.rstrip().endswith(f"now type ssl-app finetune --init {run.name} --out {out}")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray of two nodes of one core each, the second of which may be killed."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")  # of a machine that has much else to do
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    found = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        found.add_node(**small)
        yield found
    finally:
        found.shutdown()


@pytest.mark.slow
def test_two_nodes_give_the_table_of_two_jobs_and_a_killed_node_costs_its_running_trials_only(
    cluster, trained, ssl, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_strategies.py").write_text(SLOW_STRATEGY)
    monkeypatch.syspath_prepend(tmp_path)
    begun = tmp_path / "begun.txt"
    words = ["sweep", "--init", "p", "--strategy", "auto,slow_strategies:Slow", "--per-class", "1,2", "--draws", 2]
    words += ["--steps", 4, "--batch-size", 8, "--evaluate-on", "test", "--out", trained.out, *tiny, "--json"]
    local = ssl(*words, "--name", "local", "--jobs", 2).result
    begun.unlink()
    (node,) = cluster.worker_nodes
    raylet = str(node.all_processes["raylet"][0].process.pid)
    begun_before: list[str] = []
    ended = threading.Event()

    def kill_amid_a_trial() -> None:
        while not ended.wait(0.05):
            if begun.is_file() and any(line.startswith(raylet) for line in begun.read_text().splitlines()):
                begun_before.extend(begun.read_text().splitlines())
                cluster.remove_node(node, allow_graceful=False)
                return

    killer = threading.Thread(target=kill_amid_a_trial)
    killer.start()
    try:
        answer = ssl(*words, "--name", "ray", "--ray", cluster.address)
    finally:
        ended.set()
        killer.join()
    assert kept(answer.result) == kept(local)
    run, other = trained.out / "ray", trained.out / "local"
    assert json.loads((run / "sweep.json").read_text()) == json.loads((other / "sweep.json").read_text())
    lost = {line.split()[1] for line in begun_before if line.startswith(raylet)}
    assert len(lost) == 1, "it was killed amid its first trial"
    times = Counter(line.split()[1] for line in begun.read_text().splitlines())
    assert {trial for trial, count in times.items() if count > 1} == lost
    again = ssl(*words, "--name", "ray", "--jobs", 2)
    assert "12 trials, 0 to do" in again.err
    assert kept(again.result) == kept(local)


@pytest.mark.slow
def test_a_killed_node_costs_its_running_pretraining_only(cluster, ssl, tiny, images, tmp_path: Path) -> None:
    data = images(tmp_path / "scans", per_class=20)
    words = ["pretrain", "--data", data, "--batch-size", 8, "--epochs", 40, "--seeds", 3, "--name", "s", *tiny]
    words += ["--threads", 1]
    here, there = tmp_path / "here", tmp_path / "there"
    assert ssl(*words, "--out", here).code == 0
    (node,) = cluster.worker_nodes
    killer = threading.Timer(8, lambda: cluster.remove_node(node, allow_graceful=False))
    killer.start()
    try:
        answer = ssl(*words, "--out", there, "--ray", cluster.address)
    finally:
        killer.join()
    assert answer.code == 0, answer.err
    same_pretrainings(here, there, ("s", "s-seed1", "s-seed2"))
