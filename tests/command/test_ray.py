"""Trials on a Ray cluster: the same table to the bit, and a killed node costs its running trials only."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ssl_app.transfer import ray_workers
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
        (["--gpu-share", 0.5], "--gpu-share 0.5 is of trials on a Ray cluster; type --ray auto"),
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
    assert "1 trials, 0 to do" in again.err
    assert kept(again.result) == kept(answer.result)
    assert ssl("sweep", "--resume", "stub", "--draws", 2, "--ray", "head:6379", *where).code == 0
    assert asked == [0, 1]
    assert ssl("sweep", "--resume", "stub", "--draws", 3, *where).code == 0, "without the flag it runs here"
    assert asked == [0, 1]


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
