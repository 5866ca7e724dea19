"""A Ray cluster: calls on its nodes, run again elsewhere where a process or a node dies.

Nodes need no folder in common: memory-mapped arrays go into Ray's object store, and from there once to each node. A
node needs the same ssl-app and the same torch, which it checks when it unpacks what it is sent.
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
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ssl_app
from ssl_app.errors import Change, Fix, RunError, Set, SettingsError, Unset, UserError
from ssl_app.training.hardware import Hardware, prepare_process
from ssl_app.training.machine import processor

logger = logging.getLogger(__name__)

RETRIES = 3  # of a call whose process or node died
Reference = Any  # ray.ObjectRef: Ray is loaded where it is wanted only


@dataclass(frozen=True)
class Packed:
    """A value in the object store, its memory-mapped arrays apart."""

    token: str  # another one for each value, so that a process need unpack it once only
    content: Reference  # bytes, as uint8, without the arrays
    arrays: Sequence[Reference]
    threads: int  # of a call
    versions: tuple[tuple[str, str], ...]  # of what the bits depend on
    path: tuple[str, ...]  # where modules of the user's own lie, if a node has them

    def unpacked(self) -> Any:
        """The value, in a process of a node, which now computes as others do. Raises RunError for another torch."""
        import ray

        for (name, theirs), (_, ours) in zip(self.versions, _versions(), strict=True):
            if theirs != ours:
                raise RunError(
                    f"the Ray node {platform.node()} has {name} {ours}, and this run {theirs}",
                    fix=Fix(f"install the same {name} on every node"),
                )
        prepare_process(self.threads)
        sys.path += [place for place in self.path if place not in sys.path]
        return _Receiver(io.BytesIO(ray.get(self.content)), ray.get(list(self.arrays))).load()


@dataclass(frozen=True)
class Call:
    """What a node is to do."""

    name: str  # in words: trial a-b-c
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass
class Cluster:
    """The nodes that this process is connected to."""

    hardware: Hardware
    gpu_share: float  # of a GPU that a call takes
    stored: dict[object, Reference] = field(default_factory=dict)  # files that lie in the object store
    processors: set[str] = field(default_factory=lambda: {processor()})  # that have been seen

    @property
    def at_once(self) -> int:
        """As many calls as the nodes have cores for, or shares of GPUs."""
        return sum(self._room(node["Resources"]) for node in self._nodes())

    def run(self, calls: Sequence[Call], lost: str) -> Generator[tuple[Call, Any]]:
        """Run calls as nodes come free. -> (call, what its function returned), in order of completion.

        Raises what a function raises, and RunError where a process is killed each time: `lost` ends the sentence.
        """
        import ray

        if not calls:
            return
        options = {"num_cpus": torch.get_num_threads(), "num_gpus": self._gpus, "max_retries": RETRIES}
        task = ray.remote(_run).options(**options)
        waiting = {task.remote(one.function, *one.arguments): one for one in calls}
        try:
            while waiting:
                for done in ray.wait(list(waiting))[0]:
                    one = waiting.pop(done)
                    found, on = _result(done, one.name, lost)
                    self._remark_on(on)
                    yield one, found
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)

    def pack(self, value: object) -> Packed:
        """Put a value into the object store, each memory-mapped file once. RunError where there is no room."""
        file = io.BytesIO()
        sender = _Sender(file)
        sender.dump(value)
        return Packed(
            token=uuid.uuid4().hex,
            content=self.put(None, np.frombuffer(file.getvalue(), dtype=np.uint8)),
            arrays=[self.put(name, array) for name, array in sender.arrays.items()],
            threads=torch.get_num_threads(),
            versions=_versions(),
            path=tuple(sys.path),
        )

    def put(self, name: object, array: NDArray[Any]) -> Reference:
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

    @property
    def _gpus(self) -> float:
        return self.gpu_share if self.hardware.device.type == "cuda" else 0

    def _nodes(self) -> list[dict[str, Any]]:
        import ray

        return [node for node in ray.nodes() if node["Alive"] and self._room(node["Resources"])]

    def _room(self, resources: dict[str, float]) -> int:
        """Calls that fit into a node at a time."""
        room = int(resources.get("CPU", 0) // torch.get_num_threads())
        return min(room, int(resources.get("GPU", 0) / self._gpus)) if self._gpus else room

    def _remark_on(self, on: str) -> None:
        """Warn where a call ran on another processor than those before."""
        if on not in self.processors:
            logger.warning(
                f"warning: this runs on {on} and on {' and '.join(sorted(self.processors))}: the same may "
                "differ in its last bits from one to the other"
            )
            self.processors.add(on)


@contextmanager
def connected(address: str, hardware: Hardware, gpu_share: float) -> Iterator[Cluster]:
    """The cluster at an address, or `auto`. Raises RunError where there is none, or no Ray here."""
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
        cluster = Cluster(hardware, gpu_share)
        if not cluster.at_once:
            raise RunError(
                f"no node of the Ray cluster at {address} has room for a training of {hardware.place()}",
                fix=(Change("threads", "fewer"), Change("ray")),
            )
        yield cluster
    finally:
        if ours:
            ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError or ValueError where nobody listens: Ray would try for a minute, and log of it."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _result(done: Reference, name: str, lost: str) -> tuple[Any, str]:
    """What a call returned, and the processor that it ran on. Raises RunError."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        found: tuple[Any, str] = ray.get(done)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        if isinstance(error.cause, ModuleNotFoundError):
            raise RunError(
                f"a Ray node cannot run {name} ({error.cause})", fix=Fix("install it on every node")
            ) from error
        raise
    except RayError as error:
        raise RunError(
            f"{name} was killed {RETRIES + 1} times, perhaps for memory ({type(error).__name__}); {lost}",
            fix=Fix("the same command goes on"),
        ) from error
    return found


def _run(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """A call, in a process of a node."""
    return function(*arguments), processor()


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
