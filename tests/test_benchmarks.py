"""Every benchmark starts as its first lines say, from the top of the project."""

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
BENCHMARKS = sorted(path.relative_to(TOP).as_posix() for path in (TOP / "benchmarks").glob("*.py"))


@pytest.mark.slow  # each imports torch; the types of their calls are part of `make check`
@pytest.mark.parametrize("path", BENCHMARKS)
def test_it_starts_and_says_how_it_is_called(path: str) -> None:
    ended = subprocess.run([sys.executable, path, "--help"], cwd=TOP, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"usage: {Path(path).name}")
    assert path in (TOP / path).read_text(encoding="utf-8")
