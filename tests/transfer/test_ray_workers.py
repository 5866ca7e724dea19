"""What a sweep asks of its workers, and what travels to the nodes of a Ray cluster; no Ray is started."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_app.errors import RunError, SettingsError
from ssl_app.training.hardware import Hardware, choose
from ssl_app.training.ray_cluster import _Receiver, _Sender
from ssl_app.transfer.ray_workers import connected
from ssl_app.transfer.trial import Job
from ssl_app.transfer.workers import Finished, Place, PlannedTrial, read_trial


def test_a_memory_mapped_file_travels_once_and_beside_the_rest(tmp_path: Path) -> None:
    array = np.lib.format.open_memmap(tmp_path / "pack.npy", "w+", np.uint8, (3, 2))
    array[:] = np.arange(6).reshape(3, 2)
    again = np.load(tmp_path / "pack.npy", mmap_mode="r")
    file = io.BytesIO()
    sender = _Sender(file)
    sender.dump({"one": array, "two": (again, np.arange(3)), "name": "p"})
    assert len(sender.arrays) == 1
    file.seek(0)
    sent = np.arange(6, dtype=np.uint8).reshape(3, 2)
    found = _Receiver(file, [sent]).load()
    assert found["one"] is sent
    assert found["two"][0] is sent
    found["two"][1][0] = 7  # what is small is a copy of the process's own
    assert found["name"] == "p"


def test_what_comes_back_from_a_node_is_kept_as_a_local_trial_is(tmp_path: Path) -> None:
    one = PlannedTrial("a", "run", 4, Job("two-stage", np.arange(4), 0))
    place = Place(tmp_path, {"run": "this sweep"})
    content = {"identity": "this sweep", "draw": 0, "accuracy": 0.5}
    Finished(content, {"confusion": [[1, 0], [0, 1]]}, np.array([[0.25, 0.75]])).keep(tmp_path, "a")
    assert read_trial(place, one) == content
    assert np.load(tmp_path / "trials" / "a" / "probabilities.npy").tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize(
    ("address", "device", "said"),
    [
        ("auto", "cuda:1", "cuda:1 names a GPU of this machine alone; type device cuda"),
        (
            "ray://head:10001",
            "cpu",
            "ray://head:10001 is the address of a Ray client; expected HOST:PORT, as ray start shows it, typed on a "
            "node of the cluster; type another ray",
        ),
    ],
)
def test_what_a_cluster_cannot_do_is_refused_before_it_is_asked(address: str, device: str, said: str) -> None:
    with (
        pytest.raises(SettingsError) as refused,
        connected(address, Hardware(torch.device(device), False, "", 1), 1.0),
    ):
        pass
    assert str(refused.value) == said


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "head", "local", "127.0.0.1:"])
def test_an_address_where_nobody_listens_is_refused_at_once(address: str) -> None:
    with pytest.raises(RunError) as refused, connected(address, choose("cpu", "fp32"), 1.0):
        pass
    assert str(refused.value).startswith(f"no Ray cluster answers at {address} (")
    assert str(refused.value).endswith(
        "); expected auto or HOST:PORT; start one with ray start, or type another ray, or leave ray out"
    )


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError) as refused, connected("auto", choose("cpu", "fp32"), 1.0):
        pass
    assert str(refused.value) == 'Ray is not installed; type pip install "ssl-app[ray]"'
