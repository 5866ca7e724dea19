"""Signals that tell a process to stop: raised where it stands, noted in a training, once where they come twice."""

import signal
from collections.abc import Iterator

import pytest

from ssl_app.training import signals
from ssl_app.training.signals import HEARD, Stopped, StopRequest, received, stops_raise


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_DFL) for number in HEARD}  # a shell may have them ignored
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) == signal.SIG_DFL
        signal.signal(number, handler)
    signals._received.clear()


@pytest.mark.parametrize("number", HEARD)
def test_a_signal_raises_where_the_process_stands(number: int) -> None:
    with pytest.raises(Stopped) as stopped, stops_raise():
        signal.raise_signal(number)
    assert stopped.value.code == 128 + number
    assert received() == number


def test_a_signal_that_is_sent_twice_does_not_end_the_clean_up() -> None:
    cleaned = False

    def work() -> None:
        nonlocal cleaned
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)  # as `timeout` does
            signal.raise_signal(signal.SIGHUP)
            cleaned = True

    with pytest.raises(Stopped), stops_raise():
        work()
    assert cleaned


def test_one_who_asks_again_later_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "REPEATED", 0.0)

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped) as stopped, stops_raise():
        work()
    assert stopped.value.code == 128 + signal.SIGTERM


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by nohup
    try:
        with stops_raise(), StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", HEARD)
def test_a_training_hears_it_and_goes_on_to_its_checkpoint(number: int) -> None:
    with stops_raise(), StopRequest() as stop:
        signal.raise_signal(number)
        signal.raise_signal(number)  # at once: the same one again
        assert stop.number == number


def test_a_second_one_ends_the_training_as_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "REPEATED", 0.0)

    def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped), stops_raise(), StopRequest():
        work()
