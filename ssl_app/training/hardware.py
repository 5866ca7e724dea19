"""Device, arithmetic and threads of a training, each chosen with a reason that is printed."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch

from ssl_app import environment, processor
from ssl_app.errors import Set, SettingsError
from ssl_app.training.memory import keep_freed_memory


@dataclass(frozen=True)
class Hardware:
    """Where and how a training computes."""

    device: torch.device
    bf16: bool
    reason: str  # of the precision
    threads: int
    undecided: bool = False  # whether bf16 may still turn out to be faster

    @property
    def memory_format(self) -> torch.memory_format:
        """NHWC, which convolutions of today's CPUs and GPUs are fastest in."""
        return torch.channels_last

    def autocast(self) -> AbstractContextManager[None]:
        """The arithmetic of a forward pass."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def seed(self, number: int) -> None:
        """Seed the generators of this device and of the CPU, as torch.manual_seed does.

        That function also notes the stack for every kind of device that has not started: .7 ms, in each batch.
        """
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed_all(number)

    @property
    def precision(self) -> str:
        """`bf16` or `fp32`."""
        return "bf16" if self.bf16 else "fp32"

    def place(self) -> str:
        """`cpu, 2 threads, precision bf16`."""
        device = (
            str(self.device)
            if self.device.type != "cpu"
            else f"cpu, {self.threads} thread{'' if self.threads == 1 else 's'}"
        )
        return f"{device}, precision {self.precision}"

    def sentence(self) -> str:
        """`cpu, 2 threads, precision bf16 (a step takes ...)`."""
        return f"{self.place()} ({self.reason})"


def choose(device: str = "auto", precision: str = "auto", threads: int | None = None) -> Hardware:
    """The hardware of this process; sets torch's threads. Raises SettingsError for a device that is not there.

    `auto` takes bf16 on a GPU that has it. On a CPU with bf16 units it is fp32 until `precision.measured` has timed
    both with the network at hand.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    unknown = SettingsError(f"the device is '{name}'", expected="auto, cpu, cuda or cuda:N")
    try:
        place = torch.device(name)
    except RuntimeError as error:
        raise unknown from error
    if place.type not in ("cpu", "cuda"):
        raise unknown
    if place.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"the device is '{name}', and torch finds no GPU here", fix=Set("device", "cpu"))
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise SettingsError(
            f"the device is '{name}', and torch finds {count} GPU{'s' * (count != 1)} here",
            fix=Set("device", "cuda:0"),
        )
    if threads is not None:
        torch.set_num_threads(threads)
    if place.type == "cpu":
        keep_freed_memory()
    if precision != "auto":
        return Hardware(place, precision == "bf16", f"as set: {precision}", torch.get_num_threads())
    if place.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return Hardware(
            place, fast, "the GPU supports it" if fast else "the GPU has no bf16", torch.get_num_threads()
        )
    units = bf16_units()
    reason = f"not yet timed against bf16: {units}" if units else "the CPU has no bf16 units"
    return Hardware(place, False, reason, torch.get_num_threads(), undecided=units is not None)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bf16_units() -> str | None:
    """What this CPU computes bf16 with, where it has anything."""
    named = (("amx_bf16", "the CPU has AMX"), ("avx512_bf16", "the CPU has AVX-512 bf16"))
    return next((name for flag, name in named if flag in processor.features()), None)


def prepare_process(threads: int) -> None:
    """Let a further process compute as every other does."""
    environment.prepare_environment()
    torch.set_num_threads(threads)
    keep_freed_memory()


@contextmanager
def same_threads() -> Iterator[None]:
    """Afterwards torch has as many threads as before: a sweep gives each trial one."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
