"""Several processes train as one does: the same parameters, labels and metrics, and the same bits after a stop."""

import socket

import pytest
import torch
from torch import Tensor

from tests import forked
from tests.contract import processes_worker

BOTH = [
    "rotnet",
    "gan",
    "colorization",
    "duel",
    "labels",
    "half_size",
]  # what one process does as well, to be compared with
ALONE = ["gathered", "resumed", "mistakes"]
ROWS = ("balanced", "shared_features")
Found = dict[str, dict[str, object]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """Both runs at once: two processes as torchrun sets them up, and this one, which accumulates micro-batches."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("one", "two")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        forked.context().Process(
            target=processes_worker.compute_as, args=(rank, 2, port, folders["two"], 2, *BOTH, *ROWS, *ALONE)
        )
        for rank in (0, 1)
    ]
    try:
        for process in both:
            process.start()
        processes_worker.compute(folders["one"], 2, *BOTH, *ROWS)
        for process in both:
            process.join(300)
        assert [process.exitcode for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
    return {
        name: {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}
        for name, folder in folders.items()
    }


def parameters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters: statistics of one process that sees both halves in turn are not the mean of two that see one."""
    return {name: tensor for name, tensor in state.items() if "running" not in name and "num_batches" not in name}


@pytest.mark.parametrize("case", BOTH)
def test_two_processes_learn_what_one_does(case: str, found: dict[str, Found]) -> None:
    one, two = found["one"][f"{case}-0"], found["two"][f"{case}-0"]
    torch.testing.assert_close(parameters(two["state"]), parameters(one["state"]), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("case", BOTH)
def test_processes_end_with_the_same_bits(case: str, found: dict[str, Found]) -> None:
    first, second = found["two"][f"{case}-0"]["state"], found["two"][f"{case}-1"]["state"]
    assert first.keys() == second.keys()
    assert not [name for name in first if not torch.equal(first[name], second[name])]  # statistics are averaged


@pytest.mark.parametrize("case", BOTH)
def test_metrics_are_means_over_the_processes(case: str, found: dict[str, Found]) -> None:
    keys = [key for key in found["one"][f"{case}-0"]["history"][0] if key.startswith(("loss", "relabeled"))]
    assert keys
    three = (found[name][f"{case}-{rank}"]["history"] for name, rank in (("one", 0), ("two", 0), ("two", 1)))
    for one, two, other in zip(*three, strict=True):
        for key in keys:
            assert two.get(key) == other.get(key)
            assert two.get(key) == pytest.approx(one.get(key), rel=1e-4)


def test_labels_are_the_same_on_one_process_and_on_two(found: dict[str, Found]) -> None:
    one, *two = (
        found[name][f"labels-{rank}"]["state"]["past"] for name, rank in (("one", 0), ("two", 0), ("two", 1))
    )
    assert len({tuple(labels.tolist()) for labels in one}) > 1
    assert all(torch.equal(other, one) for other in two)


def test_map_dataset_gathers_rows_in_dataset_order(found: dict[str, Found]) -> None:
    for rank in (0, 1):
        for count, rows in found["two"][f"gathered-{rank}"]["rows"].items():
            assert rows.tolist() == [[i, 10 * i] for i in range(count)]


def test_features_of_which_each_process_computed_its_share_are_those_of_one(found: dict[str, Found]) -> None:
    one = found["one"]["shared_features-0"]["rows"]
    for rank in (0, 1):
        two = found["two"][f"shared_features-{rank}"]["rows"]
        assert all(torch.equal(two[count], rows) for count, rows in one.items())
        assert [len(rows) for rows in two.values()] == [7, 1]


def test_two_processes_balance_their_rows_as_one_does(found: dict[str, Found]) -> None:
    one = found["one"]["balanced-0"]
    assert one["error"] <= 1e-5
    for rank in (0, 1):
        two = found["two"][f"balanced-{rank}"]
        assert torch.equal(two["labels"], one["labels"])
        torch.testing.assert_close(two["potential"], one["potential"], atol=2e-3, rtol=1e-5)
    assert torch.equal(found["two"]["balanced-0"]["potential"], found["two"]["balanced-1"]["potential"])


def test_a_signal_to_one_process_stops_both_with_one_checkpoint(found: dict[str, Found]) -> None:
    first, second = found["two"]["resumed-0"], found["two"]["resumed-1"]
    assert first["code"] == second["code"] == 128 + 15
    assert first["written"] == [4, 6]  # the end of the first epoch, and where it was stopped
    assert second["written"] == []


def test_two_processes_that_were_stopped_go_on_to_the_same_bits(found: dict[str, Found]) -> None:
    for rank in (0, 1):
        whole, again = (found["two"][f"resumed-{rank}"][name] for name in ("whole", "again"))
        assert not [name for name in whole if not torch.equal(whole[name], again[name])]


def test_a_mistake_of_one_process_is_raised_in_all(found: dict[str, Found]) -> None:
    for rank in (0, 1):
        assert found["two"][f"mistakes-{rank}"] == {"error": "the disk is gone; mount it", "number": 3}
