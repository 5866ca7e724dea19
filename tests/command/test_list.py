"""`ssl-app list` and `ssl-app show`: what lies in --out, and what one run is."""

import fcntl
import json
import time
from pathlib import Path

import pytest

from ssl_app import commands, runs
from ssl_app.commands import RunSpec, record
from ssl_app.commands.list import Settings as ListSettings
from ssl_app.commands.list import entry, figure
from ssl_app.commands.list import run as list_runs
from ssl_app.locks import LOCK


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Four runs: a pretraining, a finetune run of it, one that failed, one that was killed."""

    def made(run: str, verb: str, started: float, **settings: object) -> Path:
        folder = runs.new_run(tmp_path, run, verb, settings)
        held = runs.read_json(folder / runs.SETTINGS)
        runs.write_json(folder / runs.SETTINGS, held | {"started": started})
        return folder

    pretrained = made("p", "pretrain", 1000.0, method="rotnet", data="scans/", lr=0.2, out="x", name="p", seed=0)
    final = {"loss": 1.0, "val_accuracy": 0.875}
    runs.write_json(
        pretrained / runs.RESULT,
        {"verb": "pretrain", "settings": {}, "final": final, "seconds": 90.0, "warning": "all flat"},
    )
    tuned = made("f", "finetune", 2000.0, init="p", data=None, strategy="auto", per_class=8)
    test = {"balanced_accuracy": 0.7, "low": 0.6, "high": 0.8}
    runs.write_json(
        tuned / runs.RESULT,
        {"verb": "finetune", "settings": {}, "test": test, "seconds": 30.0, "how": "mean of 4 frozen candidates"},
    )
    failed = made("broken", "sweep", 3000.0, init=["p"], strategy=["auto", "two-stage"])
    runs.write_json(failed / runs.ENDED, {"status": "FAILED", "why": "ValueError: no", "at": 3060.0})
    made("killed", "pretrain", 4000.0, method="sela", data="scans/")
    return tmp_path


def test_the_list_has_every_run_the_newest_first(out: Path, ssl) -> None:
    answer = ssl("list", "--out", out)
    assert answer.code == 0, answer.err
    assert [line.split() for line in answer.out.splitlines()] == [
        ["run", "state", "verb", "method", "data", "figure", "minutes"],
        ["killed", "stopped", "pretrain", "sela", "scans/"],
        ["broken", "failed", "sweep", "auto,", "two-stage", "scans/", "1.0"],
        ["f", "finished", "finetune", "auto", "scans/", "balanced", "accuracy", "0.700", "[0.600,", "0.800]", "0.5"],
        ["p", "finished", "pretrain", "rotnet", "scans/", "pretext", "accuracy", "0.875,", "warning", "1.5"],
    ]


def test_the_list_as_json(out: Path, ssl) -> None:
    found = ssl("list", "--out", out, "--verb", "finetune", "--json").result["runs"]
    assert found == [
        {
            "run": "f",
            "state": "finished",
            "verb": "finetune",
            "method": "auto",
            "data": "scans/",
            "figure": "balanced accuracy 0.700 [0.600, 0.800]",
            "minutes": 0.5,
            "started": 2000.0,
        }
    ]


def test_a_run_under_way_is_running_whatever_lies_there(out: Path) -> None:
    for name in ("p", "killed", "broken"):
        before = commands.state_of(out / name)
        with (out / name / LOCK).open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert commands.state_of(out / name) == "running"
        assert commands.state_of(out / name) == before


def test_how_a_run_ends_is_what_the_list_says(tmp_path: Path) -> None:
    def ending(error: BaseException | None) -> str:
        about = RunSpec("pretrain", tmp_path, None, {}, keep="kept")
        try:
            with record(about) as one:
                (one.folder / "kept").touch()
                assert commands.state_of(one.folder) == "running"
                if error is not None:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
        return commands.state_of(one.folder)

    assert [ending(e) for e in (None, ValueError("no"), KeyboardInterrupt())] == ["finished", "failed", "stopped"]
    assert {one["state"] for one in list_runs(ListSettings(out=tmp_path)).more["runs"]} == {
        "finished",
        "failed",
        "stopped",
    }


def test_damaged_runs_are_named_and_none_is_no_mistake(out: Path, ssl, tmp_path: Path) -> None:
    (out / "p" / runs.SETTINGS).write_text("{")
    answer = ssl("list", "--out", out)
    assert f"left out: {out / 'p' / runs.SETTINGS} cannot be read" in answer.err
    assert answer.out.count("\n") == 4
    empty = ssl("list", "--out", tmp_path / "none")
    assert (empty.code, empty.out) == (0, "")
    assert "holds no runs; ssl-app pretrain makes one" in empty.err


@pytest.mark.parametrize(
    ("final", "words"),
    [
        ({"probe_knn": 0.5, "accuracy": 0.09}, "kNN accuracy 0.500"),
        ({"accuracy": 0.09, "ami_labels": 0.2}, "AMI with labels 0.200"),
        ({"accuracy": 0.09, "val_accuracy": 0.08, "loss": 4.0}, "pretext accuracy 0.080 (chance 0.010)"),
        ({"retrieval": 0.5, "val_loss": 3.0}, "pretext retrieval 0.500 (chance 0.010)"),
        ({"val_loss": 3.0}, "val loss 3.000"),
        ({}, None),
    ],
)
def test_a_pretrainings_figure_is_the_one_that_says_the_most(final: dict[str, float], words: str | None) -> None:
    assert figure("pretrain", {"final": final, "chance": 0.01, "warning": None}) == words


def test_minutes_are_those_of_all_commands_and_never_negative(tmp_path: Path) -> None:
    def minutes(started: float, **files: dict[str, object]) -> float | None:
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        runs.write_json(folder / runs.SETTINGS, {"verb": "pretrain", "settings": {}, "started": started})
        for name, content in files.items():
            runs.write_json(folder / f"{name}.json", content)
        return entry(folder).minutes

    finished = {"verb": "pretrain", "settings": {"jobs": 2}, "seconds": 60.0, "final": {}}
    trial = {"init": "a", "strategy": "auto", "per_class": 1, "draw": 0, "seconds": 240.0}
    failed = {"status": "FAILED", "why": "no", "at": 1000.0}
    assert minutes(9.0, result=finished) == 1
    assert minutes(9.0, result=finished | {"training_seconds": 180.0}) == 3, "it was resumed"
    assert minutes(9.0, result=finished | {"trials": [trial] * 2}) == 4
    assert minutes(940.0, ended=failed) == 1
    assert minutes(10.0, ended=failed | {"seconds": 30.0}) == 0.5, "the night before it was resumed does not count"
    assert minutes(2000.0, ended=failed) is None, "the clock was set back"
    assert minutes(0.0, ended=failed) is None
    with (tmp_path / "run-0" / LOCK).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (tmp_path / "run-0" / runs.RESULT).unlink()
        assert entry(tmp_path / "run-0").minutes > 10_000, "nobody knows when it was resumed"
        file.write(json.dumps({"since": time.time() - 120}).encode())
        file.flush()
        assert 2 <= (entry(tmp_path / "run-0").minutes or 0) < 60


def test_show_has_what_was_set_what_came_of_it_and_the_files(out: Path, ssl) -> None:
    answer = ssl("show", "f", "--out", out)
    assert answer.code == 0, answer.err
    lines = [line.strip() for line in answer.out.splitlines()]
    assert lines[0].startswith(f"finetune {out / 'f'}: finished, begun 1970-01-01 ")
    assert lines[0].endswith(", 0.5 minutes")
    assert lines[1:4] == ["settings that differ from the defaults", "--init p", "--per-class 8"]
    assert lines[4:7] == ["result", "balanced accuracy 0.700 [0.600, 0.800]", "mean of 4 frozen candidates"]
    assert lines[7] == "files"
    assert [line.split()[0] for line in lines[8:]] == ["result.json", "settings.json"]


def test_show_knows_the_defaults_of_a_method(out: Path, ssl) -> None:
    from ssl_app.pretext.rotnet import RotNet

    path = out / "p" / runs.SETTINGS
    held = json.loads(path.read_text())
    epochs, own = RotNet.defaults.epochs, {"rotation_head": "linear"}
    held["settings"] |= {"epochs": epochs, "method_settings": own}
    path.write_text(json.dumps(held))
    found = ssl("show", "p", "--out", out, "--json").result
    assert found["changed"] == {"method": "rotnet", "data": "scans/", "lr": 0.2, "rotation_head": "linear"}
    assert found["sentences"] == ["pretext accuracy 0.875, warning", "all flat"]


def test_show_says_why_a_run_has_no_result(out: Path, ssl) -> None:
    assert ssl("show", "broken", "--out", out, "--json").result["sentences"] == ["failed: ValueError: no"]
    assert ssl("show", "brocken", "--out", out).error == f"no run 'brocken' in {out}; did you mean 'broken'?"
