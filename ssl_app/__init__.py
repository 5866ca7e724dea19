"""ssl-app: unlabeled images of your own, turned into fewer labels needed."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_app.transfer.loaded import LoadedRun

__all__ = ["load"]


def load(
    run: str | Path, out: str | Path = "ssl-runs", device: str = "auto", threads: int | None = None
) -> "LoadedRun":
    """A finished run as a torch module, by its name in `out` or by its folder: docs/python.md.

    Raises errors.RunError for a run without a network.
    """
    from ssl_app.environment import prepare_environment

    prepare_environment()  # before the libraries that read it
    from ssl_app.transfer.loaded import load_run

    return load_run(run, out, device, threads)
