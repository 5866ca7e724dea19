"""Damaged files and size lies are read, or listed with a reason: the small version of benchmarks/mutants.py."""

import warnings
from pathlib import Path

from benchmarks.mutants import forget_peak, mutants, peak_mb, read
from ssl_app.data.decoding.limits import Limit
from tests.bombs import bombs

HANGS = 60  # seconds of CPU time; how fast each one is, the benchmark tells


def test_mutants_are_read_or_listed(tmp_path: Path) -> None:
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged EXIF
        for name, content in mutants(400, seed=1):
            result, reason, seconds = read(name, content, tmp_path)
            assert seconds < HANGS, name
            assert "\n" not in reason, name
            results.append(result)
    assert results.count("read") > 40
    assert results.count("listed") > 100


def test_size_lies_take_no_memory(tmp_path: Path) -> None:
    count = 0
    for name, content in bombs(large=False):
        forget_peak()
        before = peak_mb()
        _, _, seconds = read(name, content, tmp_path)
        assert seconds < HANGS, name
        assert peak_mb() - before < 200, name
        count += 1
    assert count > 300
    assert Limit.held == 0  # else large images wait for ever
