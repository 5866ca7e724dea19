"""Workers of a Ray cluster: each trial is a task, run again elsewhere where its process or its node dies.

Nodes need no folder in common. Images, features and weights go into Ray's object store, and from there once to each
node; results come back, and the process that the user started writes all files and the tracking. A node needs the
same ssl-app and the same torch, which its first trial checks.
"""

import hashlib
import io
import logging
import pickle
import platform
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ssl_app
from ssl_app import runs
from ssl_app.errors import Change, Fix, RunError, Set, SettingsError, Unset, UserError
from ssl_app.training import frozen
from ssl_app.training.hardware import Hardware
from ssl_app.training.machine import processor
from ssl_app.transfer.trial import TrialSetup
from ssl_app.transfer.workers import Finished, Place, PlannedTrial, finish, prepare_process

logger = logging.getLogger(__name__)

RETRIES = 3  # of a trial whose process or node died
Reference = Any  # ray.ObjectRef: Ray is loaded where it is wanted only


@dataclass(frozen=True)
class Shared:
    """What all trials of a sweep have in common, in the object store."""

    token: str  # one for each, so that a process takes it once
    setups: Reference  # bytes of the setups, as uint8, without the arrays
    arrays: Sequence[Reference]  # of memory-mapped files
    features: Sequence[tuple[str, Reference]]  # by name of their file in the cache
    threads: int  # of a trial
    versions: tuple[tuple[str, str], ...]  # of what the bits depend on
    path: tuple[str, ...]  # where modules of the user's own lie, if a node has them


@dataclass
class RayWorkers:
    """The nodes of a cluster that this process is connected to."""

    hardware: Hardware
    gpu_share: float
    stored: dict[object, Reference] = field(default_factory=dict)  # files that lie in the object store
    processors: set[str] = field(default_factory=lambda: {processor()})  # that have been seen

    @property
    def at_once(self) -> int:
        """As many trials as the nodes have cores for, or shares of GPUs."""
        return sum(self._room(node["Resources"]) for node in self._nodes())

    def run(
        self, setups: dict[str, TrialSetup], trials: Sequence[PlannedTrial], place: Place
    ) -> Generator[tuple[PlannedTrial, dict[str, Any]]]:
        """See `Workers`. This process writes what comes back."""
        import ray

        if not trials:
            return
        shared = self._share(setups)
        options = {"num_cpus": shared.threads, "num_gpus": self._gpus, "max_retries": RETRIES}
        task = ray.remote(_run).options(**options)
        waiting = {task.remote(shared, one, place): one for one in trials}
        try:
            while waiting:
                for done in ray.wait(list(waiting))[0]:
                    one = waiting.pop(done)
                    found, on = self._result(done, one)
                    self._remark_on(on)
                    found.keep(place.folder, one.key)
                    yield one, found.content
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)

    @property
    def _gpus(self) -> float:
        return self.gpu_share if self.hardware.device.type == "cuda" else 0

    def _nodes(self) -> list[dict[str, Any]]:
        import ray

        return [node for node in ray.nodes() if node["Alive"] and self._room(node["Resources"])]

    def _room(self, resources: dict[str, float]) -> int:
        """Trials that fit into a node at a time."""
        room = int(resources.get("CPU", 0) // torch.get_num_threads())
        return min(room, int(resources.get("GPU", 0) / self._gpus)) if self._gpus else room

    def _share(self, setups: dict[str, TrialSetup]) -> Shared:
        """Put what trials need into the object store, each file once."""
        features = {path.name: path for one in setups.values() for path in _feature_files(one)}
        file = io.BytesIO()
        sender = _Sender(file)
        sender.dump(setups)
        return Shared(
            token=uuid.uuid4().hex,
            setups=self._put(None, np.frombuffer(file.getvalue(), dtype=np.uint8)),
            arrays=[self._put(name, array) for name, array in sender.arrays.items()],
            features=[(name, self._put(path, np.load(path, mmap_mode="r"))) for name, path in features.items()],
            threads=torch.get_num_threads(),
            versions=_versions(),
            path=tuple(sys.path),
        )

    def _put(self, name: object, array: NDArray[Any]) -> Reference:
        """A reference to an array; one with a name is put once. Raises RunError where a node could not hold it."""
        import ray

        if name is not None and name in self.stored:
            return self.stored[name]
        for node in self._nodes():
            room = node["Resources"].get("object_store_memory", 0)
            if array.nbytes > room:
                raise RunError(
                    f"the images or their features take {array.nbytes / 2**20:,.0f} MB, and the object store of the "
                    f"Ray node {node['NodeName']} holds {room / 2**20:,.0f} MB",
                    fix=(Fix("start the node with a larger object-store-memory"), Unset("ray")),
                )
        found = ray.put(array.view(np.ndarray))
        if name is not None:
            self.stored[name] = found
        return found

    def _result(self, done: Reference, one: PlannedTrial) -> tuple[Finished, str]:
        """What a trial found, and the processor that it ran on. Raises RunError, TrialDiverged."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            found: tuple[Finished, str] = ray.get(done)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from error
            if isinstance(error.cause, ModuleNotFoundError):
                raise RunError(
                    f"a Ray node cannot run trial {one.key} ({error.cause})", fix=Fix("install it on every node")
                ) from error
            raise
        except RayError as error:
            raise RunError(
                f"trial {one.key} was killed {RETRIES + 1} times, perhaps for memory ({type(error).__name__}); the "
                "finished trials are kept",
                fix=Fix("the same command goes on"),
            ) from error
        return found

    def _remark_on(self, on: str) -> None:
        """Warn where a trial ran on another processor than those before."""
        if on not in self.processors:
            logger.warning(
                f"warning: trials run on {on} and on {' and '.join(sorted(self.processors))}: the same trial may "
                "differ in its last bits from one to the other"
            )
            self.processors.add(on)


@contextmanager
def connected(address: str, hardware: Hardware, gpu_share: float) -> Iterator[RayWorkers]:
    """Workers of the cluster at an address, or `auto`. Raises RunError where there is none, or no Ray here."""
    if hardware.device.index is not None:
        raise SettingsError(f"{hardware.device} names a GPU of this machine alone", fix=Set("device", "cuda"))
    if address.startswith("ray://"):
        raise SettingsError(
            f"{address} is the address of a Ray client",
            expected="HOST:PORT, as ray start shows it, typed on a node of the cluster",
            fix=Change("ray"),
        )
    before = signal.getsignal(signal.SIGTERM)
    try:
        _reach(address)
        import ray

        ours = not ray.is_initialized()
        if ours:
            ray.init(address, log_to_driver=False, configure_logging=False)
    except ModuleNotFoundError as error:
        raise RunError("Ray is not installed", fix=Fix('type pip install "ssl-app[ray]"')) from error
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        why = str(error).partition(". ")[0]
        raise RunError(
            f"no Ray cluster answers at {address} ({why})",
            expected="auto or HOST:PORT",
            fix=(Fix("start one with ray start"), Change("ray"), Unset("ray")),
        ) from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own would end the process without a word
        workers = RayWorkers(hardware, gpu_share)
        if not workers.at_once:
            raise RunError(
                f"no node of the Ray cluster at {address} has room for a trial of {hardware.place()}",
                fix=(Change("threads", "fewer"), Change("ray")),
            )
        yield workers
    finally:
        if ours:
            ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError or ValueError where nobody listens: Ray would try for a minute, and log of it."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


# in the processes of the nodes

HERE: dict[str, dict[str, TrialSetup]] = {}  # setups by their token, the last ones


def _run(shared: Shared, one: PlannedTrial, place: Place) -> tuple[Finished, str]:
    """A trial in a process of a node."""
    return finish(_setups(shared)[one.init], one, place), processor()


def _setups(shared: Shared) -> dict[str, TrialSetup]:
    """The setups, with features in a folder of this node. Raises RunError where the node computes otherwise."""
    import ray

    if shared.token not in HERE:
        context = ray.get_runtime_context()
        for (name, theirs), (_, ours) in zip(shared.versions, _versions(), strict=True):
            if theirs != ours:
                raise RunError(
                    f"the Ray node {platform.node()} has {name} {ours}, and this sweep {theirs}",
                    fix=Fix(f"install the same {name} on every node"),
                )
        prepare_process(shared.threads)
        sys.path += [place for place in shared.path if place not in sys.path]
        folder = Path(context.get_temp_dir()) / context.get_session_name() / "ssl-app"
        for name, reference in shared.features:
            _keep(folder / frozen.FOLDER / name, reference)
        found = _Receiver(io.BytesIO(ray.get(shared.setups)), ray.get(list(shared.arrays))).load()
        HERE.clear()
        HERE[shared.token] = {
            init: setup if setup.cache is None else replace(setup, cache=folder) for init, setup in found.items()
        }
    return HERE[shared.token]


def _keep(path: Path, features: Reference) -> None:
    """Write features into the node's folder, where they do not lie there yet."""
    import ray

    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with runs.draft(path) as draft, draft.open("wb") as file:
        np.save(file, ray.get(features))


# on both sides


def _feature_files(setup: TrialSetup) -> list[Path]:
    """Features that lie in the setup's cache from the start."""
    if setup.cache is None:
        return []
    files = [one.features_file(setup.config.layer) for one in (setup, *setup.further())]
    return [path for path in files if path.is_file()]


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    """What a trial's bits depend on beside its setup: torch, and our own source."""
    digest = hashlib.blake2b(digest_size=4)
    root = Path(ssl_app.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return ("torch", torch.__version__), ("ssl-app", f"with the source {digest.hexdigest()}")


class _Sender(pickle.Pickler):
    """Leaves memory-mapped files out, each once."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.arrays: dict[object, np.memmap[Any, Any]] = {}

    def persistent_id(self, value: object) -> int | None:
        """The number of a memory-mapped file."""
        if not isinstance(value, np.memmap):
            return None
        name = (value.filename, value.dtype.str, value.offset, value.shape)
        self.arrays.setdefault(name, value)
        return list(self.arrays).index(name)


class _Receiver(pickle.Unpickler):
    """Puts arrays in the places of files that were left out."""

    def __init__(self, file: io.BytesIO, arrays: Sequence[NDArray[Any]]) -> None:
        super().__init__(file)
        self.arrays = arrays

    def persistent_load(self, number: Any) -> NDArray[Any]:
        """The array of a file's number."""
        found: NDArray[Any] = self.arrays[number]
        return found
