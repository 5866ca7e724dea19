"""The outbox: sends a record, or keeps it in the run's journal and tries again without holding up the run."""

import time
from pathlib import Path

from ssl_app.tracking.base import Say
from ssl_app.tracking.delivery import Delivery, Refused, Unreachable
from ssl_app.tracking.journal import JOURNAL, Journal, Record

SHORTEST_PAUSE = 30.0  # seconds between tries while the store is silent
SHARE = 20  # and at most a twentieth of the run's time is spent on trying


class Silent(Exception):
    """The store does not answer, or did not just now."""


class Outbox:
    """Keeps the order of each run's records: while one waits, those after it wait behind it."""

    def __init__(self, delivery: Delivery, say: Say) -> None:
        self.delivery = delivery
        self.say = say
        self._try_at: float | None = None  # while silent: when to try again, on the monotonic clock
        self._seen: set[Path] = set()
        self._behind: set[Path] = set()  # folders with a record that waits

    def send(self, folder: Path, record: Record) -> bool:
        """Whether MLflow has the record. One that could not be sent lies in the journal."""
        journal = self._journal(folder)
        if folder not in self._seen:
            self._seen.add(folder)
            if journal.waiting():
                self._behind.add(folder)
        if folder not in self._behind:
            try:
                return self._deliver(folder, record)
            except Silent:
                self._behind.add(folder)
        journal.append(record)
        self._catch_up()
        return folder not in self._behind

    def replay_all(self, out: Path) -> None:
        """Send what earlier processes left in the journals of `out` and of the runs in it."""
        journals = [*sorted(out.glob(f"*/{JOURNAL}")), out / JOURNAL]
        folders = [path.parent.absolute() for path in journals if path.is_file()]
        self._behind |= {folder for folder in folders if self._journal(folder).waiting()}
        if self._behind:
            count = len(self._behind)
            self._catch_up()
            if not self._behind:
                self.say(f"tracking: sent what {count} earlier {'run' if count == 1 else 'runs'} could not")

    def waiting_trials(self, folder: Path) -> set[str]:
        """The trials in a journal, by their folders."""
        return {record["folder"] for record, _ in self._journal(folder).unsent() if record["do"] == "trial"}

    def _catch_up(self) -> None:
        """Send what waits, until the store falls silent."""
        was_silent = self._try_at is not None
        for folder in sorted(self._behind, reverse=True):  # runs before --out, whose views look at them
            try:
                self._replay(folder)
            except Silent:
                return
        if was_silent:
            self.say(f"tracking: {self.delivery.store.where} answers again, and has all that waited")

    def _replay(self, folder: Path) -> None:
        journal = self._journal(folder)
        position = None
        try:
            for record, after in journal.unsent():
                self._deliver(folder, record)
                position = after
        finally:
            if position is not None:
                journal.mark(position)
        self._behind.discard(folder)

    def _deliver(self, folder: Path, record: Record) -> bool:
        """Whether it was taken; a record that was refused is lost, and said so. Raises Silent."""
        if self._try_at is not None and time.monotonic() < self._try_at:
            raise Silent
        started = time.monotonic()
        try:
            self.delivery.deliver(folder, record)
        except Refused as refusal:
            self._try_at = None
            where, what = self.delivery.store.where, record["do"]
            self.say(f"tracking: {where} refused '{what}' of {folder.name} ({refusal})")
            return False
        except Unreachable as silence:
            if self._try_at is None:
                self.say(
                    f"tracking: {self.delivery.store.where} does not take what is sent ({silence}); "
                    f"the run goes on, and {folder / JOURNAL} keeps it until it does"
                )
            ended = time.monotonic()
            self._try_at = ended + max(SHORTEST_PAUSE, SHARE * (ended - started))
            raise Silent from silence
        self._try_at = None
        return True

    def _journal(self, folder: Path) -> Journal:
        return Journal(folder, self.delivery.store.identity)
