"""Time left: what comes before the first steps is no measure of those that follow."""

import logging

import pytest

from ssl_app.training import history


def test_what_comes_before_the_first_steps_does_not_count(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(history.time, "monotonic", lambda: now[0])
    progress = history.Progress("sela", 1000, 0)
    with caplog.at_level(logging.INFO):
        for seconds in (600.0, 30.0):  # labels are made, the first steps of a process are slow
            now[0] += seconds
            progress.step()
        progress.line("begun")
        for _ in range(8):
            now[0] += 1.0
            progress.step()
        progress.line("step 10 of 1000")
    assert "sela: begun" in caplog.messages, "nothing is known yet"
    assert caplog.messages[-1] == "sela: step 10 of 1000, 16 min left"
