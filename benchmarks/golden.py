"""Golden runs: whether two revisions compute the same bits, on one machine.

    python benchmarks/golden.py BEFORE [AFTER] [--only WORD]

BEFORE and AFTER are git revisions; without AFTER it is the working tree. Each revision runs, in a process of its
own: every pretext method for a few steps, every transfer strategy at two budgets, a small sweep, evaluate, label and
predict, on images that this script makes and on the built-in digits. Of each run it keeps a hash of the weights
(of the values, so that a parameter may be renamed), of the tables (without their headers) and the numbers of
result.json (without times). Results of a commit are kept in .golden/ and not computed again.

The exit code is 1 where anything differs or is missing in AFTER; what only AFTER has is listed.
"""

import argparse
import contextlib
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".golden"
COMMON = ("--threads", "1", "--precision", "fp32", "--tracking-uri", "none")
LENGTH = ("--epochs", "2", "--steps-per-epoch", "3", "--batch-size", "16")
TIMES = {"seconds", "images_per_second", "training_seconds", "started", "ended"}
NEWER = {"unlabeled_used"}  # numbers and columns that older revisions do not have
STRATEGIES = ("feature-extraction", "full-fine-tuning", "two-stage")


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("before")
    reader.add_argument("after", nargs="?")
    reader.add_argument("--only", default="", help="runs whose name contains this word")
    reader.add_argument("--here", type=Path, help=argparse.SUPPRESS)  # in the process of a revision: where to write
    given = reader.parse_args()
    if given.here is not None:
        given.here.write_text(json.dumps(dict(record(given.only))))
        return
    both = [start(revision, given.only) for revision in (given.before, given.after)]
    before, after = (finish(*one) for one in both)
    sys.exit(compare(before, after))


def start(revision: str | None, only: str) -> tuple[Path, Path | None, "subprocess.Popen[bytes] | None"]:
    """Begin the runs of a revision. -> where its results will lie, its checkout, its process; None: there already."""
    folder = Path(tempfile.mkdtemp(prefix="golden-"))
    tree: Path | None = None
    target = folder / "result.json"
    if revision is not None:
        commit = git("rev-parse", f"{revision}^{{commit}}")
        target = KEPT / f"{commit}{'-' + only if only else ''}.json"
        if target.is_file():
            return target, None, None
        KEPT.mkdir(exist_ok=True)
        tree = folder / "tree"
        git("worktree", "add", "--detach", str(tree), commit)
    place = tree or ROOT
    environment = os.environ | {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    words = [sys.executable, __file__, "-", "--only", only, "--here", str(target)]
    log = (folder / "log").open("wb")
    print(f"{revision or 'working tree'}: log in {folder / 'log'}", flush=True)
    return target, tree, subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log)


def finish(target: Path, tree: Path | None, process: "subprocess.Popen[bytes] | None") -> dict[str, str]:
    """The results of a revision, by what was run."""
    if process is not None and process.wait() != 0:
        sys.exit(f"the runs of {target} ended with {process.returncode}; see the log")
    if tree is not None:
        git("worktree", "remove", "--force", str(tree))
    found: dict[str, str] = json.loads(target.read_text())
    return found


def compare(before: dict[str, str], after: dict[str, str]) -> int:
    """Print what differs. -> the exit code."""
    differ = [name for name in before if name in after and before[name] != after[name]]
    missing = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    for title, names in (("differs", differ), ("missing", missing), ("new", new)):
        for name in names:
            print(f"{title}: {name}  {before.get(name, '-')} -> {after.get(name, '-')}")
    equal = len(before) - len(differ) - len(missing)
    print(f"{equal} of {len(before)} equal, {len(differ)} differ, {len(missing)} missing, {len(new)} new")
    return int(bool(differ or missing))


def record(only: str) -> Iterator[tuple[str, str]]:
    """Run everything with the ssl_app that this process imports. -> what, and its hash."""
    import ssl_app

    data, out = made_images(Path("golden.npz")), Path("runs")
    package = Path(ssl_app.__file__).parent
    methods = sorted(path.stem.replace("_", "-") for path in (package / "pretext").glob("*.py"))
    methods = [name for name in methods if name not in ("--init--", "base", "from-labels")]
    base = ("--out", out, *COMMON)
    pixels = ("--data", data, "--image-size", 32)
    runs: list[tuple[str, tuple[object, ...]]] = []
    words: tuple[object, ...]
    for method in methods:
        runs.append((method, ("pretrain", *pixels, "--method", method, *LENGTH, *base)))
    for method in ("rotnet", "sela", "deepcluster", "triplet", "gan"):
        runs.append((f"digits-{method}", ("pretrain", "--method", method, *LENGTH, *base)))
    runs.append(("digits-adamw", ("pretrain", "--optimizer", "adamw", "--augment", "standard", *LENGTH, *base)))
    runs.append(("nin", ("pretrain", *pixels, "--backbone", "nin", *LENGTH, *base)))
    runs.append(("label", ("label", "sela", "--out", out, "--threads", 1)))
    taught = ("--method", "from-labels", "--labels", out / "sela" / "labels.csv")
    runs.append(("from-labels", ("pretrain", *pixels, *taught, *LENGTH, *base)))
    for strategy in STRATEGIES:
        for size in (2, 8):
            words = (
                "finetune",
                "--init",
                "digits-rotnet",
                "--strategy",
                strategy,
                "--per-class",
                size,
                "--steps",
                20,
            )
            runs.append((f"{strategy}-{size}", (*words, *base)))
    words = ("finetune", "--init", "none", "--strategy", "full-fine-tuning", "--per-class", 4, "--steps", 20)
    runs.append(("scratch", (*words, *pixels, *base)))
    words = ("finetune", "--init", "rotnet", "--head", "mlp", "--layer", "stage3", "--per-class", 4, "--steps", 20)
    runs.append(("mlp", (*words, *base)))
    words = ("sweep", "--init", "digits-rotnet", "--per-class", "2,4", "--draws", 2, "--steps", 20, "--jobs", 1)
    articles = ("--strategy", ",".join(STRATEGIES))
    runs.append(("sweep", (*words, *articles, *base)))
    runs.append(("evaluate", ("evaluate", "digits-rotnet", *base)))
    scans = ("--data", data, "--threads", 1, "--out", out)
    runs.append(("predict", ("predict", "mlp", *scans)))
    named = {"label"}  # verbs that write into a run of another
    for name, typed in runs:
        if only and only not in name:
            continue
        command(*typed, *(() if name in named else ("--name", name)))
        yield from hashes(name, out / ("sela" if name == "label" else name))


def command(*words: object) -> None:
    """Type a command line in this process. Ends this process where it fails."""
    from ssl_app.cli import main

    print("$ ssl-app", *words, flush=True)
    try:
        main([str(word) for word in words])
    except SystemExit as ended:
        if ended.code:
            raise


def hashes(name: str, run: Path) -> Iterator[tuple[str, str]]:
    """Of the weights, the tables and the numbers of a run."""
    from safetensors import safe_open

    for path in sorted(run.rglob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            held = [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118
        parts = sorted(f"{one.dtype} {one.shape} {digest(one.tobytes())}" for one in held)
        yield f"{name}: {path.name}", digest("\n".join(parts).encode())
    for path in sorted(run.rglob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        places = [place for place, name in enumerate(header) if name not in NEWER]
        rows = [[row[place] for place in places] for row in rows]
        yield f"{name}: {path.relative_to(run)}", digest(json.dumps(rows).encode())
    if (run / "result.json").is_file():
        content = json.loads((run / "result.json").read_text())
        kept = {key: value for key, value in content.items() if key not in ("settings", "run")}
        yield f"{name}: result", digest(json.dumps(sorted(numbers(kept))).encode())


def numbers(content: Any) -> Iterator[float]:
    """Every number of a JSON value but times; without names, which may change."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key not in TIMES | NEWER:
                yield from numbers(value)
    elif isinstance(content, list):
        for value in content:
            yield from numbers(value)
    elif isinstance(content, float | int) and not isinstance(content, bool):
        yield float(content)


def made_images(path: Path) -> Path:
    """Colored textures of three classes, (144, 48, 48, 3), in an .npz."""
    import numpy as np

    generator = np.random.default_rng(0)
    labels = np.arange(144) % 3
    base = generator.integers(0, 120, (144, 6, 6, 3)).repeat(8, 1).repeat(8, 2)
    noise = generator.integers(0, 60, (144, 48, 48, 3))
    images = (base + noise).astype(np.uint8)
    for number, label in enumerate(labels):
        images[number, 16 * label : 16 * label + 16, :, label] += 70
    np.savez(path, images=images, labels=labels)
    return path


def digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def git(*words: str) -> str:
    with contextlib.chdir(ROOT):
        return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
