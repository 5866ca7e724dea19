"""SIGKILL loses nothing: a run that is killed ten times ends as one that is left alone.

A pretraining, and a sweep from its checkpoint, are killed with their whole process group: in their
first seconds, at moments when something is half made (a pack, the MLflow database, a run folder, a
checkpoint of a training or of its backbone), and at random ones between. After each kill the same is
typed again (with --resume once the run folder is there). A run that ends before its moment makes room
for another.

    python benchmarks/kill.py [--kills 10] [--seed 0] [--out DIR] [--only pretrain|sweep]

Exit code 1, with what differs, where the weights are not equal to the bit, a table differs, the
MLflow database is damaged or holds something twice or not at all, or a half-made file remains.
"""

import argparse
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

EPOCHS, IMAGE_SIZE = 5, 16
PRETRAIN = ["pretrain", "--data", "digits", "--image-size", str(IMAGE_SIZE), "--epochs", str(EPOCHS),
            "--batch-size", "64", "--save-every", "0.5", "--threads", "1"]  # fmt: skip
SWEEP = ["sweep", "--data", "digits", "--steps", "12", "--batch-size", "32", "--per-class", "1,4", "--draws", "2",
         "--threads", "1", "--name", "table"]  # fmt: skip
HALF_MADE = re.compile(r"\..+|.+\.\d+-[0-9a-f]{8}")
LONGEST = 600.0  # seconds that one process may take before it counts as hung


@dataclass(frozen=True)
class Moment:
    """When to kill: `delay` seconds after the start, or after something new that matches `sign` lies in --out."""

    sign: str | None
    most: float  # seconds; the delay is drawn below it
    least: float = 0.0


FIRST_SECONDS = Moment(None, 3.0)
OF_PRETRAINING = [
    FIRST_SECONDS,
    Moment("cache/.packing.*", 0.05),
    Moment(".mlflow-*.db", 3.0),
    FIRST_SECONDS,
    Moment("{run}/settings.json", 0.3),
    Moment("{run}/.training.safetensors.*", 0.01),
    Moment("{run}/training.safetensors", 4.0),
    FIRST_SECONDS,
    Moment("{run}/training.safetensors", 8.0),
    Moment("{run}/backbone.safetensors", 0.5),
]
OF_SWEEP = [
    FIRST_SECONDS,
    Moment(".mlflow-*.db", 3.0),
    Moment("{run}/settings.json", 0.01),
    Moment("{run}/draws/*", 0.02),
    FIRST_SECONDS,
    Moment("{run}/trials/*/result.json", 0.1),
    Moment("{run}/trials/*/mlflow.json", 0.05),
    FIRST_SECONDS,
    Moment("{run}/trials/*/result.json", 3.0),
    Moment("{run}/trials.csv", 0.3),
]


class Different(Exception):
    """What was killed is not what was left alone."""


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--kills", type=int, default=10)
    reader.add_argument("--seed", type=int, default=0)
    reader.add_argument("--out", type=Path, help="a new folder to work in; default: a temporary one")
    reader.add_argument("--only", choices=["pretrain", "sweep"])
    asked = reader.parse_args()
    with tempfile.TemporaryDirectory(prefix="ssl-app-kill-") as temporary:
        work = asked.out or Path(temporary)
        chance = random.Random(asked.seed)
        sentences = []
        try:
            whole = whole_pretraining(work)
            if asked.only != "sweep":
                sentences.append(kill_pretraining(work, whole, asked.kills, chance))
            if asked.only != "pretrain":
                sentences.append(kill_sweep(work, whole, asked.kills, chance))
        except Different as difference:
            print(f"different: {difference}")
            sys.exit(1)
    print("; ".join(sentences))


def whole_pretraining(work: Path) -> Path:
    """The pretraining that nobody disturbs; its run folder."""
    started = time.monotonic()
    finish(start([*PRETRAIN, "--name", "whole", "--out", str(work / "undisturbed")], work / "undisturbed.log"))
    print(f"undisturbed pretraining: {time.monotonic() - started:.0f} s", flush=True)
    return work / "undisturbed" / "whole"


def kill_pretraining(work: Path, whole: Path, kills: int, chance: random.Random) -> str:
    out = work / "killed"
    names = []

    def command(number: int) -> tuple[str, list[str]]:
        name = "broken" if number == 0 else f"broken-{number + 1}"
        resumes = (out / name / "settings.json").is_file()
        if name not in names:
            names.append(name)
        how = ["pretrain", "--resume", name] if resumes else [*PRETRAIN, "--name", name]
        return name, [*how, "--out", str(out)]

    done = disturb(command, out, moments(OF_PRETRAINING, kills), chance)
    for name in names:
        same_weights(whole / "backbone.safetensors", out / name / "backbone.safetensors")
        clean(out / name)
        once_an_epoch(out, name)
    whole_database(out)
    return f"{done} kills of pretraining: weights equal to the bit"


def kill_sweep(work: Path, whole: Path, kills: int, chance: random.Random) -> str:
    init = ["--init", str(whole / "backbone.safetensors")]
    finish(start([*SWEEP, *init, "--jobs", "1", "--out", str(work / "table")], work / "table.log"))
    expected = table(work / "table" / "table")
    outs: list[Path] = []

    def command(number: int) -> tuple[str, list[str]]:
        out = work / f"killed-sweep-{number + 1}"
        if out not in outs:
            outs.append(out)
        return "table", [*SWEEP, *init, "--jobs", "2", "--out", str(out)]

    done = disturb(command, None, moments(OF_SWEEP, kills), chance)
    for out in outs:
        found = table(out / "table")
        for what, content in expected.items():
            if found[what] != content:
                raise Different(f"{what} of the sweep in {out}: {found[what]} instead of {content}")
        clean(out / "table")
        trials_once(out, expected["trials"])
        whole_database(out)
    return f"{done} kills of a sweep: table equal"


def moments(pattern: list[Moment], kills: int) -> list[Moment]:
    return [pattern[number % len(pattern)] for number in range(kills)]


def disturb(
    command: Callable[[int], tuple[str, list[str]]], out: Path | None, plan: list[Moment], chance: random.Random
) -> int:
    """Start, kill, start again until all kills are spent; then let it finish. -> the kills.

    `command` gives the name of a run and how to start or resume it; its number rises when one has ended.
    """
    number = kills = 0
    while kills < len(plan):
        name, words = command(number)
        place = out or Path(words[words.index("--out") + 1])
        moment = plan[kills]
        delay = chance.uniform(moment.least, moment.most)
        log = place.with_name(f"{place.name}.log")
        process = start(words, log)
        begun = time.time()
        after = "the start"
        if moment.sign is not None and not wait_for(process, place, moment.sign.format(run=name), begun):
            after = ""
        elif moment.sign is not None:
            after = f"{moment.sign.format(run=name)} appeared"
        if after:
            time_out = time.monotonic() + delay
            while process.poll() is None and time.monotonic() < time_out:
                time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            seconds = time.time() - begun
            print(
                f"kill {kills}: {name}, {seconds:.2f} s after its start, {delay:.3f} s after {after}; there: "
                f"{', '.join(exists(place, name)) or 'nothing'}",
                flush=True,
            )
            if out is not None and (out / name / "result.json").is_file():
                number += 1  # it had all but exited: nothing to resume
            continue
        finish(process)
        print(f"{name} in {place.name} ended before its moment came; another takes its place", flush=True)
        if plan[kills].sign is not None and not after:
            plan[kills] = Moment(None, 12.0)  # its sign is past: a random moment in its stead
        number += 1
    name, words = command(number)
    finish(start(words, place.with_name("last.log")))
    return kills


def start(words: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """A process of its own group, its words in a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    with log.open("ab") as file:
        file.write(f"$ ssl-app {' '.join(words)}\n".encode())
        file.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "ssl_app", *words],
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
        )
    process.log = log  # type: ignore[attr-defined]
    return process


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Let it end. Raises Different where it does not end well."""
    code = process.wait(LONGEST)
    if code:
        text = process.log.read_text(errors="replace")  # type: ignore[attr-defined]
        raise Different(f"a process ended with code {code}:\n{text[-3000:]}")


def wait_for(process: "subprocess.Popen[bytes]", out: Path, sign: str, begun: float) -> bool:
    """Whether a path newer than the process appeared before the process ended."""
    while process.poll() is None:
        if any(newer(path, begun) for path in out.glob(sign)):
            return True
        time.sleep(0.002)
    return False


def newer(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime > moment
    except FileNotFoundError:
        return False


def exists(out: Path, name: str) -> Iterator[str]:
    """What there is at this moment, in words."""
    run = out / name
    signs = {
        "a half-made pack": any((out / "cache").glob(".packing.*")),
        "the pack": any((out / "cache" / "index").glob("*.json")),
        "a half-made database": any(out.glob(".mlflow-*.db")),
        "the database": (out / "mlflow.db").is_file(),
        "a half-made run folder": any(out.glob(".*-*-*")),
        "the run folder": run.is_dir(),
        "a half-written file": any(HALF_MADE.fullmatch(path.name) for path in run.rglob("*")),
        "a training's checkpoint": (run / "training.safetensors").is_file(),
        "the backbone": (run / "backbone.safetensors").is_file(),
        "the table as CSV": (run / "trials.csv").is_file(),
        "the result": (run / "result.json").is_file(),
    }
    yield from (what for what, there in signs.items() if there)
    if trials := sum(1 for _ in run.glob("trials/*/result.json")):
        yield f"{trials} trials"


def same_weights(one: Path, other: Path) -> None:
    """Raise Different unless all tensors of two files hold the same bytes."""
    with safe_open(one, "pt") as first, safe_open(other, "pt") as second:
        names = set(first.keys())
        if names != set(second.keys()):
            raise Different(f"{other} has other tensors than {one}")
        for name in sorted(names):
            a, b = first.get_tensor(name), second.get_tensor(name)
            if a.dtype != b.dtype or a.shape != b.shape or a.numpy().tobytes() != b.numpy().tobytes():
                raise Different(f"{name} of {other} differs from {one}")


def table(run: Path) -> dict[str, Any]:
    """What a sweep found, without the seconds that it took."""
    result = json.loads((run / "result.json").read_text())
    trials = [{k: v for k, v in trial.items() if k != "seconds"} for trial in result["trials"]]
    kept = ("comparisons", "labels_saved", "verdict", "overlap", "n_test")
    return {"trials": trials} | {what: result[what] for what in kept}


def clean(run: Path) -> None:
    """Raise Different where something half made lies in a run folder."""
    left = [str(path.relative_to(run)) for path in run.rglob("*") if HALF_MADE.fullmatch(path.name)]
    if left:
        raise Different(f"half-made files remain in {run}: {', '.join(left)}")


def ask(out: Path, question: str, *values: str) -> list[Any]:
    connection = sqlite3.connect(f"file:{out / 'mlflow.db'}?mode=ro", uri=True)
    try:
        return connection.execute(question, values).fetchall()
    finally:
        connection.close()


def whole_database(out: Path) -> None:
    """Raise Different where SQLite finds the database damaged."""
    if (found := ask(out, "PRAGMA integrity_check")) != [("ok",)]:
        raise Different(f"{out / 'mlflow.db'}: {found}")


def once_an_epoch(out: Path, name: str) -> None:
    """Raise Different unless MLflow has the run once, finished, with one point an epoch of each metric."""
    runs = ask(out, "SELECT run_uuid, status FROM runs WHERE name = ?", name)
    if [status for _, status in runs] != ["FINISHED"]:
        raise Different(f"mlflow.db holds run {name} as {runs}")
    points = "SELECT key, count(*), count(DISTINCT step) FROM metrics WHERE run_uuid = ? GROUP BY key"
    for key, count, steps in ask(out, points, runs[0][0]):
        if (count, steps) != (EPOCHS, EPOCHS):
            raise Different(f"mlflow.db holds {count} points of {key} at {steps} epochs of run {name}, not {EPOCHS}")


def trials_once(out: Path, trials: list[dict[str, Any]]) -> None:
    """Raise Different unless MLflow has every trial exactly once, finished, and every curve one point a budget."""
    found = ask(
        out,
        "SELECT r.name, r.status FROM runs r JOIN tags t USING (run_uuid) "
        "WHERE t.key = 'ssl_app.kind' AND t.value = 'trial' ORDER BY r.name",
    )
    names = {name for name, _ in found}
    if len(found) != len(trials) or len(names) != len(trials) or {status for _, status in found} != {"FINISHED"}:
        raise Different(f"mlflow.db in {out} holds {len(found)} trials of {len(trials)}: {found}")
    twice = ask(
        out,
        "SELECT r.name, m.key, m.step, count(*) FROM metrics m JOIN runs r USING (run_uuid) "
        "GROUP BY m.run_uuid, m.key, m.step HAVING count(*) > 1",
    )
    curves = ask(
        out,
        "SELECT r.name, count(*) FROM runs r JOIN tags t USING (run_uuid) "
        "WHERE t.key = 'ssl_app.kind' AND t.value = 'curve' GROUP BY r.name HAVING count(*) > 1",
    )
    if twice or curves:
        raise Different(f"mlflow.db in {out} holds twice: {twice[:5]} {curves[:5]}")


if __name__ == "__main__":
    main()
