"""Find the method that these images want: each pretrains for the same time, then one small sweep over all of them.

Scores are taken on a fifth of the training part, so that the test part is still unseen when the chosen method is
swept for good. Methods that do not apply are listed with their reason. The same command again goes on where it was
stopped, given the --name that the first one said.
"""

import fcntl
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from shlex import quote
from typing import Any

from ssl_app import config, registry, runs
from ssl_app.config import option
from ssl_app.errors import CheckpointError, DataError, RunError, SettingsError, UserError
from ssl_app.runs import Result, Say
from ssl_app.saying import to_stderr
from ssl_app.settings import DataSettings, PixelSettings, PretrainSettings, RunSettings, SweepSettings

EXAMPLES = """
ssl-app compare --data labeled.csv --budget 5m
ssl-app compare --data labeled.csv --group patient --methods rotnet,sela,autoencoder --budget 20m --name which
"""
STRATEGY = "two-stage"
FAILED = "failed.json"  # in the comparison's folder: methods that diverged, which going on does not try again
FAR_OFF = 0.15  # of the time that all should have had, from where the sentence tells what they had
FEW = 10  # images of a class: below it one of them moves the score by points
APART = ("out", "name", "jobs", "tracking_uri", "max_unreadable")  # may differ when a comparison goes on
ALIKE = (
    "budget", "data", "label", "group", "split", "test_fraction", "split_seed", "image_size", "channels", "intensity",
    "seed", "method", "backbone",
)  # fmt: skip


@dataclass(frozen=True)
class Settings(RunSettings, PixelSettings, DataSettings):
    """Settings of a comparison."""

    methods: tuple[str, ...] = option((), "comma list of methods; default: all", metavar="M,M")
    budget: str = option("5m", "time that each method pretrains, such as 90s, 5m or 1h", metavar="TIME")
    backbone: str = option("small-resnet", "network of all of them", metavar="B")
    per_class: tuple[int, ...] = option((8, 32), "labeled images of each class", at_least=1, metavar="N,N")
    draws: int = option(3, "labeled draws of each size; they carry the intervals", at_least=1)
    steps: int | None = option(
        None, "optimizer steps of a trial; default: ten a label, 300 to 1000, 30 passes at least", at_least=2
    )
    labels: Path | None = option(
        None, "table of path and label that takes the place of the data's own labels", metavar="FILE"
    )
    jobs: int | None = option(None, "trials at a time; default: one a core, up to 8; one on a GPU", at_least=1)


def run(settings: Settings, say: Say = to_stderr) -> Result:
    """Compare, and say which method to take."""
    from ssl_app.pacing import seconds_of
    from ssl_app.tracking import open_tracker
    from ssl_app.training.hardware import same_threads

    started = time.monotonic()
    methods = _methods(settings.methods)
    seconds_of(settings.budget)
    with same_threads():
        scored, fitting = _scored_on(settings, say)
    runs.prepare_out(settings.out)
    open_tracker(settings.out, settings.tracking_uri, "ssl-app")
    folder = _folder(settings)
    with _alone(folder):
        say(f"run {folder}; where it is stopped, the same command with --name {folder.name} goes on")
        pretrained, reasons = _all_pretrained(settings, methods, folder, say)
        more = _answer(settings, pretrained, reasons, folder.name, scored, say)
        result = Result("compare", folder, time.monotonic() - started, config.as_json(settings), more)
        runs.write_json(folder / runs.RESULT, result.to_json())
    best = (more["wanted"] or [more["ranking"][0]["name"]])[0]
    labels = "" if settings.labels is None else f" --labels {quote(str(settings.labels))}"
    flags = f"{labels}{fitting}{runs.out_flag(settings.out)}"
    say(f"to see {best} on the test part, type ssl-app sweep --init {folder.name}-{best}{flags}")
    return result


def _all_pretrained(
    settings: Settings, methods: list[str], folder: Path, say: Say
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """result.json of each method's pretraining, and why others have none. Raises DataError where all have none."""
    from ssl_app.training.loop import Diverged

    pretrained: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = runs.read_json(folder / FAILED) if (folder / FAILED).is_file() else {}
    reasons: dict[str, str] = {}
    for number, method in enumerate(methods, 1):
        say(f"method {number} of {len(methods)}: {method}")
        try:
            if method in failed:
                raise Diverged(failed[method])
            pretrained[method] = _pretrained(settings, method, f"{folder.name}-{method}", say)
        except (DataError, SettingsError, Diverged) as reason:
            reasons[method] = str(reason)
            say(f"{method} {'has failed' if isinstance(reason, Diverged) else 'does not apply'}: {reason}")
            if isinstance(reason, Diverged):
                failed[method] = str(reason)
                runs.write_json(folder / FAILED, failed)
    if not pretrained:
        shutil.rmtree(folder)  # so that its name is free for the corrected command
        raise DataError(f"none of the methods applies; {methods[0]}: {reasons[methods[0]]}")
    return pretrained, reasons


def _answer(
    settings: Settings,
    pretrained: Mapping[str, Mapping[str, Any]],
    reasons: Mapping[str, str],
    name: str,
    scored: str,
    say: Say,
) -> dict[str, Any]:
    """Sweep and probe what has been pretrained, print the table and the sentence. -> what result.json adds."""
    from ssl_app import comparing
    from ssl_app.evaluation.ranking import advice, ranking, wanted
    from ssl_app.handover import SCRATCH
    from ssl_app.training.health import ANOTHER

    inits = {f"{name}-{method}": method for method in pretrained}
    frozen = {}
    for init, method in [("none", SCRATCH), *inits.items()]:
        frozen[method] = _frozen(settings, init, f"{name}-probe-{method}", name)
        found = " and ".join(f"{100 * value:.1f} ({kind})" for kind, value in frozen[method].items())
        say(f"frozen features, {'random weights' if init == 'none' else method}: {found}")
    swept = _swept(settings, tuple(inits), name, say)
    seconds = {method: float(one["training_seconds"]) for method, one in pretrained.items()}
    trials = comparing.scores(swept["trials"])
    means = {arm: comparing.means_by_draw(curve) for arm, curve in trials.items()}
    scratch = next(values for arm, values in means.items() if arm[0] == SCRATCH)
    ranked = ranking({inits[arm[0]]: values for arm, values in means.items() if arm[0] != SCRATCH}, scratch)
    budgets = sorted(set(settings.per_class))
    told = advice(ranked, budgets, settings.draws, _each(settings.budget, seconds), scored)
    if any(swept["leaks"].values()):
        told += " The methods had seen the scored images, without their labels."
    rows = comparing.ranking_rows(ranked, trials, {m: init for init, m in inits.items()}, frozen, seconds)
    for line in comparing.aligned(rows):
        say(line)
    for one in pretrained.values():
        if one.get("alarm"):
            say(f"alarm: {one['alarm'].removesuffix(ANOTHER)}")
    for method, why in reasons.items():
        say(f"not ranked: {method} ({why})")
    say(told)
    return {
        "ranking": [config.as_json(one) for one in ranked],
        "wanted": [one.name for one in wanted(ranked)],
        "frozen": frozen,
        "seconds_each": seconds,
        "does_not_apply": dict(reasons),
        "sweep": f"{name}-sweep",
        "leaks": {inits[init]: found for init, found in swept["leaks"].items()},
        "advice": told,
    }


def _each(budget: str, seconds: Mapping[str, float]) -> str:
    """The time of each method: as it should have been, and as it was where that is far from it."""
    from ssl_app.pacing import seconds_of

    least, most = min(seconds.values()), max(seconds.values())
    if max(most / seconds_of(budget), seconds_of(budget) / least) <= 1 + FAR_OFF:
        return budget
    span = f"{least:.0f} to {most:.0f} s" if most < 90 else f"{least / 60:.1f} to {most / 60:.1f} minutes"
    return f"about {budget} ({span})"


def _methods(asked: tuple[str, ...]) -> list[str]:
    from ssl_app.commands.pretrain import method_of

    methods = list(dict.fromkeys(asked)) or registry.names("pretext")
    alone = [method for method in methods if method_of(method).compared]
    for method in asked:
        if method not in alone:
            raise SettingsError(f"{method} cannot be compared: it learns what another run found; leave it out")
    return alone


def _scored_on(settings: Settings, say: Say) -> tuple[str, str]:
    """What the methods will be scored on, and the flag of a sweep's sizes that the labels allow, where not all.

    Raises now what the sweep would once every method has had its time.
    """
    from ssl_app import sweeping
    from ssl_app.data import splits
    from ssl_app.training.hardware import choose

    hardware = choose(settings.device, settings.precision, settings.threads or 1)
    make = _shared(SweepSettings, settings, name="")
    benches = sweeping.open_benches(make(init=("none",), strategy=(STRATEGY,), judge="held-out"), hardware, say)
    opened = next(iter(benches.values())).opened
    dataset, parts = opened.dataset, opened.parts
    name, count = splits.fewest(dataset, parts.test)
    few = f", of which only {count} '{name}'" if count < FEW else ""
    usual = SweepSettings().per_class
    fitting = [str(size) for size in usual if size <= splits.fewest(dataset, parts.train)[1]]
    flag = "" if len(fitting) == len(usual) else f" --per-class {','.join(fitting)}"
    return f"{len(parts.test):,} held-out images{few}", flag


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raises RunError where another process works on the same comparison."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            told = f"run {folder} is under way in another process; wait for it, or type another --name"
            raise RunError(told) from error
        yield


def _folder(settings: Settings) -> Path:
    """A new folder, or that of the same comparison that was stopped."""
    if settings.name is not None and (settings.out / settings.name / runs.SETTINGS).is_file():
        folder = settings.out / settings.name
        content = runs.read_json(folder / runs.SETTINGS)
        if content["verb"] != "compare" or _kept(content["settings"]) != _kept(config.as_json(settings)):
            raise RunError(f"run {folder} was started with other settings; type those, or another --name")
        return folder
    return runs.new_run(settings.out, settings.name, "compare", config.as_json(settings))


def _kept(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in APART}


def _pretrained(settings: Settings, method: str, name: str, say: Say) -> dict[str, Any]:
    """result.json of a method's pretraining: as it is, gone on with, or new."""
    from ssl_app.commands import pretrain
    from ssl_app.pretraining import TRAINING

    folder = settings.out / name
    make = _shared(PretrainSettings, settings, name=name)
    asked = make(method=method, budget=settings.budget, data=settings.data or "digits")
    if (folder / runs.SETTINGS).is_file():
        _refuse_another(folder, config.as_json(asked))
    if runs.finished(folder):
        found: dict[str, Any] = runs.read_json(folder / runs.RESULT)
        return found
    if (folder / TRAINING).is_file():
        resumed = PretrainSettings(out=settings.out, resume=name, tracking_uri=settings.tracking_uri)
        try:
            return dict(pretrain.run(resumed, None, say).to_json())
        except CheckpointError as error:
            cure = f"ssl-app pretrain --resume {name} --any-threads{runs.out_flag(settings.out)}"
            raise CheckpointError(f"{error}: {cure}, and then the same again") from error
    if (folder / runs.SETTINGS).is_file():  # killed before its first checkpoint
        shutil.rmtree(folder)
    try:
        return dict(pretrain.run(asked, None, say).to_json())
    except (RunError, CheckpointError) as error:  # of the place, not of the method
        raise UserError(str(error)) from error


def _refuse_another(folder: Path, asked: Mapping[str, Any]) -> None:
    """Raise RunError where a run of this name is no pretraining of this comparison."""
    content = runs.read_json(folder / runs.SETTINGS)
    kept = content["settings"]
    unlike = [key for key in ALIKE if asked[key] is not None and kept.get(key) != asked[key]]
    if content["verb"] != "pretrain" or unlike:
        what = f"other settings ({', '.join(unlike)})" if unlike else "another verb"
        raise RunError(f"run {folder} is of {what}; remove it, or type another --name")


def _swept(settings: Settings, inits: tuple[str, ...], name: str, say: Say) -> Mapping[str, Any]:
    """What the sweep over all of them found."""
    from ssl_app.commands import sweep
    from ssl_app.pool import TrialDiverged
    from ssl_app.training.hardware import same_threads

    make = _shared(SweepSettings, settings, name=f"{name}-sweep")
    try:
        with same_threads():
            return sweep.run(make(init=inits, strategy=(STRATEGY,), judge="held-out"), say, part_of=name).more
    except TrialDiverged as error:
        others = " ".join(f"--init {init}" for init in inits if init != error.init)
        raise RunError(
            f"{error}; to sweep the others type ssl-app sweep {others} --strategy {STRATEGY} --judge held-out"
            f"{runs.out_flag(settings.out)}"
        ) from error


def _frozen(settings: Settings, init: str, name: str, comparison: str) -> dict[str, float]:
    """Balanced accuracy of nearest neighbors and of a linear probe on the frozen features."""
    from ssl_app.commands import probe

    folder = settings.out / name
    if (folder / runs.SETTINGS).is_file():  # of what was there before, or stopped midway
        if runs.read_json(folder / runs.SETTINGS)["verb"] != "probe":
            raise RunError(f"run {folder} is of another verb; remove it, or type another --name")
        before = [comparison] if init == "none" else [comparison, init]
        since = max(runs.started(settings.out / run) for run in before)
        if not runs.finished(folder) or runs.started(folder) < since:
            shutil.rmtree(folder)
    if runs.finished(folder):
        found = runs.read_json(folder / runs.RESULT)
    else:
        make = _shared(probe.Settings, settings, name=name)
        backbone = settings.backbone if init == "none" else None
        found = probe.run(make(run=init, judge="held-out", backbone=backbone), _quiet).to_json()
    pooled = found["probe"][probe.POOLED]
    return {kind: float(pooled[kind]["balanced_accuracy"]) for kind in ("knn", "linear")}


def _quiet(sentence: str) -> None:
    """What a probe says is in its run."""


def _shared(kind: Any, settings: Settings, name: str) -> Any:
    """Makes settings of another verb, with what it has in common with ours filled in."""
    common = {field.name for field in fields(kind)} & {field.name for field in fields(settings)} - {"budget"}
    return lambda **own: replace(kind(**{n: getattr(settings, n) for n in common}), name=name, **own)
