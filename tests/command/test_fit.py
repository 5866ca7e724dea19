"""fit: pretrain, finetune and sweep within a time, each a command that can be typed."""

import json
import shlex
from pathlib import Path

import pytest

from ssl_app import tables
from ssl_app.commands import fit
from ssl_app.errors import RunError
from ssl_app.transfer import draw
from ssl_app.transfer.sweep_cost import SweepCost


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, ssl, tiny, images):
    folder = tmp_path_factory.mktemp("fit")
    data, out = images(folder / "scans", per_class=20), folder / "runs"
    words = ["fit", "--data", data, "--budget", "4s", "--out", out, "--name", "f", "--jobs", 1, *tiny, "--json"]
    with pytest.MonkeyPatch.context() as patch:  # in this process: no trial has one of its own
        for name in ("FEWEST_STEPS", "STEPS_PER_LABEL", "PASSES"):
            patch.setattr(draw, name, 1)
        yield out, words, ssl(*words)


@pytest.mark.slow  # three verbs
def test_it_leaves_a_classifier_a_verdict_and_commands_that_can_be_typed(fitted, ssl) -> None:
    out, _, answer = fitted
    result = answer.result
    assert Path(result["classifier"]).is_file()
    assert result["runs"] == ["f-pretrain", "f-finetune", "f-sweep"]
    assert result["verdict"]
    for number, command in enumerate(result["commands"], 1):
        assert f"step {number} of 3: {command}\n" in answer.err
        verb, *flags = shlex.split(command)[1:]
        name = f"again-{verb}"
        again = ssl(verb, *[name if flag == result["runs"][number - 1] else flag for flag in flags])
        assert again.code == 0, again.err
        kept, ours = (
            json.loads((out / run / "settings.json").read_text())["settings"]
            for run in (name, result["runs"][number - 1])
        )
        apart = {key for key in ours if kept[key] != ours[key]}
        assert apart <= {"name", "steps_per_epoch", "epochs", "batch_size"}, "what fits a time differs a little"


@pytest.mark.slow
def test_the_same_again_does_nothing_twice(fitted, ssl) -> None:
    out, words, answer = fitted
    before = {path: path.stat().st_mtime_ns for path in out.glob("f-*/result.json")}
    again = ssl(*words)
    assert again.result["verdict"] == answer.result["verdict"]
    changed = [path.parent.name for path, at in before.items() if path.stat().st_mtime_ns != at]
    assert changed in ([], ["f-sweep"]), "a sweep says again what it found"
    other = ssl(*[word if word != "4s" else "9s" for word in words])
    assert other.error == f"run {out / 'f'} was started with other settings; type those, or another --name"


@pytest.mark.slow
def test_a_step_of_other_settings_or_labels_is_not_taken_for_its_own(fitted) -> None:
    out, *_ = fitted
    folder = out / "f-finetune"
    kept = json.loads((folder / "settings.json").read_text())["settings"]
    labels = {row[0]: row[1] for row in tables.read(folder / "draw.csv")[1]}
    fit._refuse_another(folder, kept, labels)
    with pytest.raises(RunError, match=r"f-finetune is of other settings \(strategy\); remove it, or"):
        fit._refuse_another(folder, kept | {"strategy": "two-stage"}, labels)
    first = next(iter(labels))
    with pytest.raises(RunError, match=r"f-finetune was trained on other labels \(2 changed\); remove it"):
        fit._refuse_another(folder, kept, labels | {first: "other", "new.png": labels[first]})


@pytest.mark.slow
def test_a_classifier_that_was_killed_is_trained_anew(fitted, ssl) -> None:
    out, words, _ = fitted
    (out / "f-finetune" / "result.json").unlink()
    (out / "f" / "result.json").unlink()
    again = ssl(*words)
    assert again.code == 0, again.err
    assert (out / "f-finetune" / "result.json").is_file()


def test_without_labels_it_ends_before_anything_is_trained(ssl, tiny, images, tmp_path: Path) -> None:
    data = images(tmp_path / "scans", per_class=4, classes=1)
    answer = ssl("fit", "--data", data, "--budget", "4s", "--out", tmp_path / "runs", *tiny)
    assert "has no labels; type --labels FILE" in answer.error or "class" in answer.error
    assert not list((tmp_path / "runs").glob("fit-*"))


@pytest.mark.parametrize(("labels", "held"), [(None, True), (Path("labels.csv"), False)])
def test_a_column_of_the_table_of_labels_is_none_of_the_images(labels: Path | None, held: bool) -> None:
    settings = fit.Settings(data="scans", labels=labels, label="kind")
    assert ("--label kind" in fit._pretraining(settings, "f", "9s").command()) == held


def test_a_budget_that_is_no_time_is_refused(ssl, tmp_path: Path) -> None:
    answer = ssl("fit", "--budget", "soon", "--out", tmp_path)
    assert answer.error == "the budget is 'soon'; expected a time such as 90s, 5m or 1h"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(1000, (8, 5)), (130, (8, 3)), (60, (4, 5)), (25, (2, 5)), (11, (2, 3)), (7, (2, 3)), (0, (2, 3))],
)
def test_the_sweep_takes_as_many_labels_and_draws_as_fit(seconds: float, expected: tuple[int, int]) -> None:
    cost = SweepCost(1.0, 0.0, None, 1)  # type: ignore[arg-type]
    cost.predicted = {"a 2": 2.0, "scratch 2": 1.0, "a 4": 4.0, "scratch 4": 4.0, "a 8": 20.0, "scratch 8": 10.0}
    assert fit._largest([2, 4, 8], cost, seconds) == expected
