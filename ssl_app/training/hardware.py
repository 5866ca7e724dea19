"""Device, arithmetic and threads of a training, each chosen with a reason that is printed."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ssl_app.errors import SettingsError
from ssl_app.training.memory import keep_freed_memory


@dataclass(frozen=True)
class Hardware:
    """Where and how a training computes."""

    device: torch.device
    bf16: bool
    reason: str  # of the precision
    threads: int

    @property
    def memory_format(self) -> torch.memory_format:
        """NHWC, which convolutions of today's CPUs and GPUs are fastest in."""
        return torch.channels_last

    def autocast(self) -> AbstractContextManager[None]:
        """The arithmetic of a forward pass."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def sentence(self) -> str:
        """`cpu, 2 threads, precision bf16 (the CPU has AMX)`."""
        place = str(self.device) if self.device.type != "cpu" else f"cpu, {self.threads} threads"
        return f"{place}, precision {'bf16' if self.bf16 else 'fp32'} ({self.reason})"


def choose(device: str = "auto", precision: str = "auto", threads: int | None = None) -> Hardware:
    """The hardware of this process; sets torch's threads. Raises SettingsError for a device that is not there."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        place = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"--device is '{name}'; expected auto, cpu, cuda or cuda:N") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"--device is '{name}', and torch finds no GPU here; type --device cpu")
    if place.type not in ("cpu", "cuda"):
        raise SettingsError(f"--device is '{name}'; expected auto, cpu, cuda or cuda:N")
    if threads is not None:
        torch.set_num_threads(threads)
    if place.type == "cpu":
        keep_freed_memory()
    fast, why = _fast_bf16(place)
    if precision != "auto":
        fast, why = precision == "bf16", f"--precision {precision}"
    return Hardware(place, fast, why, torch.get_num_threads())


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fast_bf16(place: torch.device) -> tuple[bool, str]:
    if place.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return fast, "the GPU supports it" if fast else "the GPU has no bf16"
    flags = Path("/proc/cpuinfo")
    words = flags.read_text().split() if flags.is_file() else []
    for flag, known_as in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512 bf16")):
        if flag in words:
            return True, f"the CPU has {known_as}"
    return False, "the CPU has no bf16 units"


@contextmanager
def same_threads() -> Iterator[None]:
    """Afterwards torch has as many threads as before: a sweep gives each trial one."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
