"""Find the method that these images want: each pretrains for the same time, then one small sweep over all of them.

Scores are taken on a fifth of the training part, so that the test part is still unseen when the chosen method is
swept for good. Methods that do not apply are listed with their reason. The same command again goes on where it was
stopped, given the --name that the first one said.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ssl_app import config, registry, runs
from ssl_app.config import option
from ssl_app.errors import CheckpointError, DataError, RunError, SettingsError, UserError
from ssl_app.runs import Result, Say
from ssl_app.saying import to_stderr
from ssl_app.settings import DataSettings, PixelSettings, PretrainSettings, RunSettings, SweepSettings

EXAMPLES = """
ssl-app compare --data labelled.csv --budget 5m
ssl-app compare --data labelled.csv --group patient --methods rotnet,sela,autoencoder --budget 20m --name which
"""
STRATEGY = "two-stage"
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
    per_class: tuple[int, ...] = option((8, 32), "labelled images of each class", at_least=1, metavar="N,N")
    draws: int = option(3, "labelled draws of each size; they carry the intervals", at_least=1)
    steps: int | None = option(
        None, "optimizer steps of a trial; default: ten a label, 300 to 1000, 30 passes at least", at_least=2
    )
    labels: Path | None = option(
        None, "table of path and label that takes the place of the data's own labels", metavar="FILE"
    )
    jobs: int | None = option(None, "trials at a time; default: one a core, up to 8; one on a GPU", at_least=1)


def run(settings: Settings, say: Say = to_stderr) -> Result:
    """Compare, and say which method to take."""
    from ssl_app import comparing
    from ssl_app.commands import sweep
    from ssl_app.evaluation.ranking import advice, ranking
    from ssl_app.handover import SCRATCH
    from ssl_app.training.hardware import same_threads
    from ssl_app.training.loop import Diverged

    started = time.monotonic()
    methods = _methods(settings.methods)
    with same_threads():
        _refuse_too_few_labels(settings, say)
    folder = _folder(settings)
    name = folder.name
    say(f"run {folder}; where it is stopped, the same command with --name {name} goes on")
    pretrained: dict[str, dict[str, Any]] = {}
    reasons: dict[str, str] = {}
    for number, method in enumerate(methods, 1):
        say(f"method {number} of {len(methods)}: {method}")
        try:
            pretrained[method] = _pretrained(settings, method, f"{name}-{method}", say)
        except (DataError, SettingsError, Diverged) as reason:
            reasons[method] = str(reason)
            say(f"{method} {'has failed' if isinstance(reason, Diverged) else 'does not apply'}: {reason}")
    if not pretrained:
        raise DataError(f"none of the methods applies; {methods[0]}: {reasons[methods[0]]}")
    inits = {f"{name}-{method}": method for method in pretrained}
    make = _shared(SweepSettings, settings, name=f"{name}-sweep")
    with same_threads():
        swept = sweep.run(make(init=tuple(inits), strategy=(STRATEGY,), judge="held-out"), say).more
    knn = {
        method: _neighbours(settings, init, f"{name}-probe-{method}", say)
        for init, method in [*inits.items(), ("none", SCRATCH)]
    }
    trials = comparing.scores(swept["trials"])
    means = {arm: comparing.means_by_draw(curve) for arm, curve in trials.items()}
    scratch = next(values for arm, values in means.items() if arm[0] == SCRATCH)
    ranked = ranking({inits[arm[0]]: values for arm, values in means.items() if arm[0] != SCRATCH}, scratch)
    budgets = sorted(set(settings.per_class))
    told = advice(ranked, budgets, settings.draws, settings.budget)
    if any(swept["leaks"].values()):
        told += " The methods had seen the scored images, without their labels."
    rows = comparing.ranking_rows(ranked, trials, {method: init for init, method in inits.items()}, knn)
    for line in comparing.aligned(rows):
        say(line)
    for one in pretrained.values():
        if one.get("alarm"):
            say(f"alarm: {one['alarm']}")
    for method, why in reasons.items():
        say(f"not ranked: {method} ({why})")
    say(told)
    more = {
        "ranking": [config.as_json(one) for one in ranked],
        "knn": knn,
        "seconds_each": {method: one["seconds"] for method, one in pretrained.items()},
        "does_not_apply": reasons,
        "sweep": f"{name}-sweep",
        "leaks": {inits[init]: found for init, found in swept["leaks"].items()},
        "advice": told,
    }
    result = Result("compare", folder, time.monotonic() - started, config.as_json(settings), more)
    runs.write_json(folder / runs.RESULT, result.to_json())
    best = ranked[0].name
    say(f"now type ssl-app sweep --init {name}-{best} --out {settings.out}, which looks at the test part")
    return result


def _methods(asked: tuple[str, ...]) -> list[str]:
    methods = list(dict.fromkeys(asked)) or registry.names("pretext")
    alone = [method for method in methods if registry.find("pretext", method).compared]
    for method in asked:
        if method not in alone:
            raise SettingsError(f"{method} cannot be compared: it learns what another run found; leave it out")
    return alone


def _refuse_too_few_labels(settings: Settings, say: Say) -> None:
    """Raise now what the sweep would raise once every method has had its time."""
    from ssl_app import sweeping
    from ssl_app.training.hardware import choose

    hardware = choose(settings.device, settings.precision, settings.threads or 1)
    make = _shared(SweepSettings, settings, name="")
    sweeping.open_benches(make(init=("none",), strategy=(STRATEGY,), judge="held-out"), hardware, say)


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
        return dict(pretrain.run(resumed, None, say).to_json())
    if (folder / runs.SETTINGS).is_file():  # killed before its first checkpoint
        raise RunError(f"run {folder} was stopped before its first checkpoint; remove it and type the same again")
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


def _neighbours(settings: Settings, init: str, name: str, say: Say) -> float:
    """Balanced accuracy of nearest neighbours on the frozen features."""
    from ssl_app.commands import probe

    folder = settings.out / name
    if runs.finished(folder):
        found = runs.read_json(folder / runs.RESULT)
    else:
        make = _shared(probe.Settings, settings, name=name)
        backbone = settings.backbone if init == "none" else None
        found = probe.run(make(run=init, judge="held-out", backbone=backbone), _quiet).to_json()
    return float(found["probe"][probe.POOLED]["knn"]["balanced_accuracy"])


def _quiet(sentence: str) -> None:
    """What a probe says is in its run."""


def _shared(kind: Any, settings: Settings, name: str) -> Any:
    """Makes settings of another verb, with what it has in common with ours filled in."""
    common = {field.name for field in fields(kind)} & {field.name for field in fields(settings)} - {"budget"}
    return lambda **own: replace(kind(**{n: getattr(settings, n) for n in common}), name=name, **own)
