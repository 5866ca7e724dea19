"""The machine and the software of a run, kept in its folder: what its times and its bits depend on."""

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_app import runs

if TYPE_CHECKING:
    from ssl_app.training.hardware import Hardware

FILE = "machine.json"
PACKAGES = ("ssl-app", "torch", "torchvision", "albumentations", "scikit-learn", "numpy", "mlflow")


def write_machine(folder: Path, hardware: "Hardware") -> None:
    """Write it: names of processor and device, cores, memory in bytes, the arithmetic, versions."""
    import torch  # not at the top: a page of what was found in a set reads this file's name, and needs no torch

    from ssl_app.training.hardware import cores

    found: dict[str, object] = {
        "arithmetic": hardware.sentence(),
        "processor": processor(),
        "cores": cores(),
        "memory": _memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: known for name in PACKAGES if (known := _version(name)) is not None},
    }
    if hardware.device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(hardware.device)
    runs.write_json(folder / FILE, found)


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    """Bytes of the machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
