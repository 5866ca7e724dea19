"""The history of a training, and its progress: a bar on a terminal, a plain line now and then elsewhere."""

import logging
import sys
import time

from tqdm import tqdm

logger = logging.getLogger(__name__)

EpochMetrics = dict[str, float]
History = list[EpochMetrics]  # one entry an epoch
LINE_EVERY = 30.0  # seconds between plain lines within an epoch
UNUSUAL = 2  # steps that are no measure: what comes before the first of them may take minutes


class Progress:
    """Steps done of steps in all, with the time left."""

    def __init__(self, title: str, steps: int, done: int) -> None:
        self.title, self.steps, self.done = title, steps, done
        self.started, self.first, self.last_line = time.monotonic(), done, time.monotonic()
        self.unusual = UNUSUAL
        shown = sys.stderr.isatty()
        self.bar = tqdm(total=steps, initial=done, desc=title, unit="step", leave=False) if shown else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def step(self) -> None:
        """One step further."""
        self.done += 1
        if self.unusual:
            self.unusual -= 1
            self.started, self.first = time.monotonic(), self.done
        if self.bar is not None:
            self.bar.update()
        elif time.monotonic() - self.last_line > LINE_EVERY:
            self.line(f"step {self.done} of {self.steps}")

    def line(self, text: str) -> None:
        """Say a line with the time left behind it."""
        self.last_line = time.monotonic()
        known = self.first < self.done < self.steps
        left = f", {duration(self.left())} left" if known else ""
        if self.bar is not None:
            self.bar.clear()
        logger.info(f"{self.title}: {text}{left}")

    def left(self) -> float:
        """Seconds to the end at the pace so far."""
        made = self.done - self.first
        return (time.monotonic() - self.started) / made * (self.steps - self.done) if made else float("nan")

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `1 h 05 min`."""
    if seconds != seconds:
        return "unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
