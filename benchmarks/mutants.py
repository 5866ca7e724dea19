"""Damaged files and size lies crash nothing: every one is read, or listed with its reason.

Small files of every format are mutated (bits, bytes, sizes, cuts, pieces of each other), and others are made
that promise or unfold to gigabytes. A process of its own reads them one by one. It must not end, take more than
5 seconds of CPU time over one image, or hold more than 2 GB; an error that is not for people is a failure too.

    python benchmarks/mutants.py [--count 10000] [--seed 0] [--keep DIR]

Exit code 1, with the names, where anything failed; those files are written to DIR.
"""

import argparse
import multiprocessing
import multiprocessing.connection
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ssl_app.data.decoding.limits import Unreadable
from ssl_app.data.images import decode
from ssl_app.data.reduction import reduce
from ssl_app.data.sources.base import Columns, open_source
from ssl_app.errors import DataError
from tests.bombs import bombs
from tests.small_files import small_files

LONGEST, MOST_MB = 5.0, 2048  # seconds of CPU time, which other programs do not stretch, and megabytes
SETS = (".npz", ".tar", ".gz", ".npy", ".dcm", ".nii", ".parquet", ".csv")  # read as a set of images
SPINS = 120  # seconds of CPU time over one file, after which a process is ended
HANGS = 900.0  # seconds without an answer, after which a process is ended
ENOUGH = 20_000  # images of one archive
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 30000, 65500)


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    name: str
    result: str  # read, listed, or what went wrong
    detail: str
    seconds: float
    megabytes: int

    @property
    def failed(self) -> bool:
        """Neither read nor listed."""
        return self.result not in ("read", "listed")


def mutants(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(name, content) of files that were changed in one to four places."""
    rng = random.Random(seed)
    whole = list(small_files().items())
    for number in range(count):
        name, content = whole[number % len(whole)]
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            content = mutated(content, rng.choice(whole)[1], rng)
        yield f"{number:05d}-{name}", content


def mutated(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """One change; the front of a file, where its sizes are, is changed as often as all the rest."""
    if not content:
        return other
    at = rng.randrange(min(len(content), 100) if rng.random() < 0.5 else len(content))
    stop = at + rng.randrange(1, 40)
    value = rng.choice(EXTREMES).to_bytes(4, rng.choice(("little", "big")))
    changes: list[Callable[[], bytes]] = [
        lambda: content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :],
        lambda: content[:at] + rng.randbytes(1) + content[at + 1 :],
        lambda: content[:at] + value + content[at + 4 :],
        lambda: content[:at] + value[:2] + content[at + 2 :],
        lambda: content[:at],
        lambda: content[:at] + content[stop:],
        lambda: content[:at] + content[at:stop] * rng.randrange(2, 20) + content[stop:],
        lambda: content[:at] + other[at:stop] + content[stop:],
        lambda: content[:at] + rng.randbytes(stop - at) + content[stop:],
    ]
    return rng.choice(changes)()


def read(name: str, content: bytes, folder: Path) -> tuple[str, str, float]:
    """Read a file as a set of images is packed -> read or listed, in what words, seconds of CPU time of one image."""
    started, longest = time.process_time(), 0.0
    try:
        if name.endswith(SETS):
            path, found = folder / name, Counter[str]()
            path.write_bytes(content)
            try:
                source = open_source(str(path), Columns())
                started = time.process_time()
                for _, one in islice(source.each(lambda array: array.shape), ENOUGH):
                    found["listed" if isinstance(one, Unreadable) else "read"] += 1
                    longest, started = max(longest, time.process_time() - started), time.process_time()
                return "read" if found["read"] else "listed", str(dict(found)), longest
            except DataError as reason:
                return "listed", str(reason), longest
        array = decode(content, name)
        longest = time.process_time() - started
        return "read", str(reduce(array, 32).small.shape), longest
    except Unreadable as reason:
        return "listed", str(reason), time.process_time() - started


def serve(connection: multiprocessing.connection.Connection) -> None:
    """In a process of its own: read what comes, and answer with what became of it."""
    folder = Path(tempfile.mkdtemp())
    connection.send("ready")
    while True:
        name, content = connection.recv()
        forget_peak()
        cpu = int(time.process_time() + SPINS)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, resource.RLIM_INFINITY))  # else one may spin for ever
        try:
            answer = read(name, content, folder)
        except BaseException as error:
            answer = ("error", repr(error), 0.0)
        connection.send((*answer, peak_mb()))


def forget_peak() -> None:
    """Start the measurement of memory anew, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> int:
    """Most memory that this process has held, since it was last forgotten."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) // 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


class Reader:
    """A process that reads files; a new one where it ended or was ended."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("spawn")
        self.start()

    def start(self) -> None:
        """A fresh process."""
        self.here, there = self.context.Pipe()
        self.process = self.context.Process(target=serve, args=(there,), daemon=True)
        self.process.start()
        there.close()
        self.here.recv()

    def read(self, name: str, content: bytes) -> Outcome:
        """What becomes of one file."""
        started = time.monotonic()
        self.here.send((name, content))
        try:
            if not self.here.poll(HANGS):
                self.stop()
                self.start()
                return Outcome(name, "hang", "", time.monotonic() - started, 0)
            result, detail, seconds, megabytes = self.here.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            self.start()
            kind = "hang" if code == -signal.SIGXCPU else "crash"
            return Outcome(name, kind, f"exit code {code}", time.monotonic() - started, 0)
        if result in ("read", "listed") and seconds > LONGEST:
            result = "slow"
        if result in ("read", "listed") and megabytes > MOST_MB:
            result = "memory"
        return Outcome(name, result, detail, seconds, megabytes)

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def kind_of(name: str) -> str:
    """The format, by the ending of a name."""
    return name.rsplit(".", 1)[1]


def report(outcomes: list[Outcome]) -> str:
    """A row a format: how many were read and listed, the slowest, the largest."""
    lines = [f"{'format':8} {'files':>6} {'read':>6} {'listed':>7} {'failed':>7} {'seconds':>8} {'MB':>6}"]
    for kind in sorted({kind_of(one.name) for one in outcomes}):
        some = [one for one in outcomes if kind_of(one.name) == kind]
        count = Counter(one.result for one in some)
        slowest, largest = max(one.seconds for one in some), max(one.megabytes for one in some)
        failed = sum(one.failed for one in some)
        lines.append(
            f"{kind:8} {len(some):6} {count['read']:6} {count['listed']:7} {failed:7} {slowest:8.2f} {largest:6}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="read damaged files and size lies")
    parser.add_argument("--count", type=int, default=10_000, help="mutants (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: 0)")
    parser.add_argument("--keep", type=Path, help="folder for the files that failed")
    parser.add_argument("--small-bombs", action="store_true", help="leave out size lies that take seconds to unfold")
    options = parser.parse_args(arguments)
    reader, failures = Reader(), 0
    for title, files in (
        ("mutants", mutants(options.count, options.seed)),
        ("size lies", bombs(large=not options.small_bombs)),
    ):
        outcomes = []
        for name, content in files:
            outcomes.append(reader.read(name, content))
            if outcomes[-1].failed:
                print(outcomes[-1], flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / name).write_bytes(content)
        failures += sum(one.failed for one in outcomes)
        print(f"{title}: {len(outcomes)}, failed: {sum(one.failed for one in outcomes)}")
        print(report(outcomes))
    reader.stop()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
