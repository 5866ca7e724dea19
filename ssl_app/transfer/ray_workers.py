"""Workers of a Ray cluster: each trial is a call, run again elsewhere where its process or its node dies.

Results come back, and the process that the user started writes all files and the tracking.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_app import runs
from ssl_app.training import frozen
from ssl_app.training.hardware import Hardware
from ssl_app.training.ray_cluster import Call, Cluster, Packed, Reference
from ssl_app.training.ray_cluster import connected as connected_cluster
from ssl_app.transfer.trial import TrialSetup
from ssl_app.transfer.workers import Finished, Place, PlannedTrial, finish


@dataclass(frozen=True)
class Shared:
    """What all trials of a sweep have in common, in the object store."""

    setups: Packed
    features: Sequence[tuple[str, Reference]]  # by name of their file in the cache


@dataclass(frozen=True)
class RayWorkers:
    """The nodes of a cluster that this process is connected to."""

    cluster: Cluster

    @property
    def at_once(self) -> int:
        """As many trials as the nodes have cores for, or shares of GPUs."""
        return self.cluster.at_once

    def run(
        self, setups: dict[str, TrialSetup], trials: Sequence[PlannedTrial], place: Place
    ) -> Generator[tuple[PlannedTrial, dict[str, Any]]]:
        """See `Workers`. This process writes what comes back."""
        if not trials:
            return
        features = {path.name: path for one in setups.values() for path in _feature_files(one)}
        stored = [(name, self.cluster.put(path, np.load(path, mmap_mode="r"))) for name, path in features.items()]
        shared = Shared(self.cluster.pack(setups), stored)
        calls = [Call(f"trial {one.key}", _run, (shared, one, place)) for one in trials]
        for call, found in self.cluster.run(calls, "the finished trials are kept"):
            one = call.arguments[1]
            found.keep(place.folder, one.key)
            yield one, found.content


@contextmanager
def connected(address: str, hardware: Hardware, gpu_share: float) -> Iterator[RayWorkers]:
    """Workers of the cluster at an address, or `auto`. Raises RunError where there is none, or no Ray here."""
    with connected_cluster(address, hardware, gpu_share) as cluster:
        yield RayWorkers(cluster)


# in the processes of the nodes

HERE: dict[str, dict[str, TrialSetup]] = {}  # setups by their token, the last ones


def _run(shared: Shared, one: PlannedTrial, place: Place) -> Finished:
    """A trial in a process of a node."""
    return finish(_setups(shared)[one.init], one, place)


def _setups(shared: Shared) -> dict[str, TrialSetup]:
    """The setups, with features in a folder of this node. Raises RunError where the node computes otherwise."""
    import ray

    token = shared.setups.token
    if token not in HERE:
        found: dict[str, TrialSetup] = shared.setups.unpacked()
        context = ray.get_runtime_context()
        folder = Path(context.get_temp_dir()) / context.get_session_name() / "ssl-app"
        for name, reference in shared.features:
            _keep(folder / frozen.FOLDER / name, reference)
        HERE.clear()
        HERE[token] = {
            init: setup if setup.cache is None else replace(setup, cache=folder) for init, setup in found.items()
        }
    return HERE[token]


def _keep(path: Path, features: Reference) -> None:
    """Write features into the node's folder, where they do not lie there yet."""
    import ray

    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with runs.draft(path) as draft, draft.open("wb") as file:
        np.save(file, ray.get(features))


def _feature_files(setup: TrialSetup) -> list[Path]:
    """Features that lie in the setup's cache from the start."""
    if setup.cache is None:
        return []
    files = [one.features_file(setup.config.layer) for one in (setup, *setup.further())]
    return [path for path in files if path.is_file()]
