"""compare from argv: every method the same time, one sweep, a ranking, and reasons; --budget and --probe-data."""

import csv
import fcntl
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch

from ssl_app.commands import compare, pretrain
from ssl_app.errors import DataError
from ssl_app.evaluation import verdict
from ssl_app.pretext.rotnet import RotNet
from ssl_app.pretraining.time_budget import seconds_of

WORDS = ["--budget", "1s", "--per-class", 2, "--draws", 2, "--steps", 2, "--jobs", 1, "--name", "which"]


METHODS = "rotnet,colorization,sela"


class Compared(NamedTuple):
    """A set, a folder of runs, and what comparing three methods there came to."""

    data: Path
    out: Path
    answer: Any

    def words(self, *tiny: object) -> list[object]:
        """The command that was typed, up to --json."""
        return ["compare", "--data", self.data, "--out", self.out, "--methods", METHODS, *WORDS, *tiny]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, ssl, tiny, images) -> Compared:
    folder = tmp_path_factory.mktemp("compare")
    data, out = images(folder / "scans", per_class=16), folder / "runs"
    words = Compared(data, out, None).words(*tiny)
    return Compared(data, out, ssl(*words, "--json"))


def test_methods_are_ranked_and_those_that_do_not_apply_have_their_reason(
    compared: Compared,
) -> None:
    _, out, answer = compared
    result = answer.result
    assert {one["name"] for one in result["ranking"]} == {"rotnet", "sela"}
    assert set(result["frozen"]) == {"rotnet", "sela", "scratch"}
    assert all(0 <= result["frozen"]["scratch"][kind] <= 1 for kind in ("knn", "linear"))
    assert set(result["seconds_each"]) == {"rotnet", "sela"}
    assert re.search(r"one pretraining of (about )?1s( \([^)]*\))? each, \d+ held-out images", result["advice"])
    assert "Pretraining " not in answer.err, "the sweep's verdict would be that of the first method"
    assert result["does_not_apply"]["colorization"].startswith(
        "colorization needs color images: these have 1 channels"
    )
    assert set(result["overlap"]) == {"rotnet", "sela"}, "they saw the images that are scored, and it is said"
    assert "scored images seen" in answer.err
    assert re.search(r"\n3 methods of 1s, then 8 trials: about \d+ (s|min), first method in 1s\n", answer.err)
    assert re.search(r"\nsela +\d+\.\d +12 of 12 ", answer.err)
    assert "not ranked: colorization (colorization needs color images" in answer.err
    assert result["advice"] in answer.err
    assert "balanced accuracy, %" in answer.err
    best = result["ranking"][0]["name"]
    assert answer.err.rstrip().endswith(
        f"to see {best} on the test part, type ssl-app sweep --init which-{best} --per-class 1,2,4,8 --out {out}\n"
        "to claim it, type the same command with --name which --confirm"
    )


def test_the_test_part_is_left_alone(compared: Compared, ssl, tiny) -> None:
    _, out, _ = compared
    drawn: set[str] = set()
    for path in (out / "which-sweep" / "draws").glob("*.csv"):
        with path.open() as file:
            drawn |= {row["path"] for row in csv.DictReader(file)}
    assert drawn
    words = ["finetune", "--init", "which-sela", "--per-class", 2, "--steps", 2, "--out", out, "--name", "t"]
    assert ssl(*words, *tiny).code == 0
    with (out / "t" / "test.csv").open() as file:
        tested = {row["path"] for row in csv.DictReader(file)}
    assert len(tested) == 6
    assert not drawn & tested
    assert " held-out training images." in ssl(
        "sweep", "--init", "which-sela", "--strategy", "two-stage", "--per-class", 2, "--draws", 2, "--steps", 2,
        "--evaluate-on", "validation", "--out", out, "--jobs", 1, *tiny,
    ).err  # fmt: skip


def test_the_same_command_again_does_nothing_twice(compared: Compared, ssl, tiny) -> None:
    data, out, first = compared
    changed = (out / "which-rotnet" / "result.json").stat().st_mtime_ns
    words = ["compare", "--data", data, "--out", out, "--methods", METHODS]
    again = ssl(*words, *WORDS, *tiny, "--json")
    assert again.result["ranking"] == first.result["ranking"]
    assert (out / "which-rotnet" / "result.json").stat().st_mtime_ns == changed
    assert ssl(*words[:5], *WORDS, *tiny).error == (
        f"run {out / 'which'} was started with other settings; type those, or another --name"
    )


@pytest.mark.slow  # it trains and evaluates once more
def test_what_was_stopped_midway_is_made_anew(compared: Compared, ssl, tiny) -> None:
    _data, out, first = compared
    words = [*compared.words(*tiny), "--json"]
    evaluated = out / "which-evaluate-sela"
    (evaluated / "result.json").unlink()  # as a kill in the midst of an evaluation leaves it
    old = json.loads((out / "which-evaluate-rotnet" / "settings.json").read_text())
    (out / "which-evaluate-rotnet" / "settings.json").write_text(json.dumps(old | {"started": 1.0}))
    again = ssl(*words)
    assert again.result["frozen"] == first.result["frozen"]
    assert json.loads((out / "which-evaluate-rotnet" / "settings.json").read_text())["started"] > old["started"]
    (out / "which-rotnet").rename(out / "aside")
    (out / "which-rotnet").mkdir()
    (out / "which-rotnet" / "settings.json").write_bytes((out / "aside" / "settings.json").read_bytes())
    try:  # killed before its first checkpoint: trained anew; the sweep is another one where the weights are
        answer = ssl(*words)
        assert answer.code == 0 or "which-sweep" in answer.error
        assert (out / "which-rotnet" / "result.json").is_file()
    finally:
        shutil.rmtree(out / "which-rotnet")
        (out / "aside").rename(out / "which-rotnet")


@pytest.mark.slow  # six pretrainings and a sweep
def test_the_first_two_are_confirmed_on_what_has_chosen_nothing(
    compared: Compared, ssl, tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "USUAL_PRETRAININGS", 2)  # three take their time
    _data, out, first = compared
    words = [*compared.words(*tiny), "--json"]
    answer = ssl(*words, "--confirm")
    found = answer.result["confirmation"]
    assert answer.result["ranking"] == first.result["ranking"]
    assert [(one["name"], one["other"]) for one in found["claims"]][2] in (("sela", "rotnet"), ("rotnet", "sela"))
    assert found["sentence"].startswith("Confirmed on new pretrainings and draws: ")
    assert found["sentence"].endswith(", 2 draws, 2 pretrainings of 1s each, 6 test images).")
    swept = json.loads((out / "which-confirm" / "settings.json").read_text())["settings"]
    assert (swept["seed"], swept["evaluate_on"]) == (1000, "test")
    seeds = [json.loads((out / init / "settings.json").read_text())["settings"]["seed"] for init in swept["init"]]
    assert seeds == [1000, 1001] * 2
    assert "to claim it" not in answer.err
    again = ssl(*words, "--confirm")
    assert again.result["confirmation"] == found, "nothing is done twice"


def test_one_comparison_is_not_made_twice_at_once(compared: Compared, ssl, tiny) -> None:
    _data, out, _ = compared
    words = compared.words(*tiny)
    with (out / "which" / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert ssl(*words).error == (
            f"run {out / 'which'} is under way: another process; wait for it, or type another --name"
        )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--budget", "5min"], "the budget is '5min'; expected a time such as 90s, 5m or 1h"),
        (["--tracking-uri", "nonsense://here"], "nonsense"),
        (["--methods", "json:loads"], "no pretext method"),
        (["--methods", "colorization"], "none of the methods applies"),
    ],
)
def test_a_mistake_costs_one_line_at_once_and_leaves_the_name_free(
    compared: Compared, tmp_path: Path, flags: list[str], sentence: str, ssl, tiny
) -> None:
    data, _, _ = compared
    words = ["compare", "--data", data, "--out", tmp_path, *WORDS, *tiny, "--methods", "rotnet", *flags]
    assert sentence in ssl(*words).error
    assert not (tmp_path / "which").exists()


def test_a_run_of_another_comparison_is_not_ranked(compared: Compared, ssl, tiny) -> None:
    data, out, _ = compared
    words = ["compare", "--data", data, "--out", out, "--methods", "rotnet,sela", *tiny, *WORDS]
    rest = ["--seed", 1, "--name", "other"]
    (out / "other-rotnet").symlink_to(out / "which-rotnet")
    try:
        assert ssl(*words, *rest).error == (
            f"run {out / 'other-rotnet'} is of other settings (seed); remove it, or type another --name"
        )
    finally:
        (out / "other-rotnet").unlink()


def test_a_method_that_fails_is_reported_and_the_others_go_on(
    compared: Compared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ssl, tiny
) -> None:
    data, _, _ = compared
    monkeypatch.setattr(RotNet, "defaults", replace(RotNet.defaults, lr=1e30))
    words = ["compare", "--data", data, "--out", tmp_path, "--methods", "rotnet,sela", *WORDS, *tiny, "--json"]
    answer = ssl(*words)
    assert {one["name"] for one in answer.result["ranking"]} == {"sela"}
    assert "loss became" in answer.result["does_not_apply"]["rotnet"]
    assert "rotnet has failed:" in answer.err
    assert answer.result["advice"].count("held-out") == 1
    monkeypatch.undo()
    again = ssl(*words)  # it is not tried again, or the sweep would be another one
    assert again.result["ranking"] == answer.result["ranking"]
    assert "loss became" in again.result["does_not_apply"]["rotnet"]


def test_methods_train_on_all_threads(compared: Compared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = ("rotnet", "sela")
    settings = compare.Settings(str(compared[0]), out=tmp_path, methods=methods, per_class=(2,), tracking_uri="none")
    found: list[int] = []

    def stand_in(*anything: object) -> None:
        found.append(torch.get_num_threads())
        raise DataError("enough")

    monkeypatch.setattr(pretrain, "run", stand_in)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(DataError, match="none of the methods applies"):
            compare.run(settings)
    finally:
        torch.set_num_threads(before)
    assert found == [2, 2]


def test_from_labels_is_not_compared(compared: Compared, tmp_path: Path, ssl, tiny) -> None:
    data, _, _ = compared
    words = ["compare", "--data", data, "--out", tmp_path, "--methods", "rotnet,from-labels", *WORDS, *tiny]
    assert ssl(*words).error == ("from-labels cannot be compared: it learns what another run found; leave it out")


def test_too_few_labels_are_refused_before_any_method_has_its_time(
    compared: Compared, tmp_path: Path, ssl, tiny
) -> None:
    data, _, _ = compared
    (tmp_path / "bare").mkdir()
    for path in list(data.rglob("*.png"))[:9]:
        (tmp_path / "bare" / f"{path.parent.name}{path.name}").write_bytes(path.read_bytes())
    out = tmp_path / "runs"
    assert "has no labels" in ssl("compare", "--data", tmp_path / "bare", "--out", out, *WORDS, *tiny).error
    many = ssl("compare", "--data", data, "--out", out, *WORDS, *tiny, "--per-class", 500)
    assert "500" in many.error
    assert not (out / "which").exists()


def test_a_rare_class_is_held_out_all_the_same_and_never_costs_the_test_part(
    tmp_path: Path, ssl, tiny, images
) -> None:
    data = images(tmp_path / "scans")
    rows = ["path,label,split"]
    for number, path in enumerate(sorted(data.rglob("*.png"))):
        label, tested = path.parent.name, number % 4 == 0
        rare = label == "class2" and not tested and sum("class2,train" in row for row in rows) >= 3
        if not rare:
            rows.append(f"{path.relative_to(tmp_path)},{label},{'test' if tested else 'train'}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    words = ["sweep", "--init", "none", "--backbone", "small-resnet", "--draws", 1]
    words += [
        "--per-class",
        1,
        "--steps",
        2,
        "--evaluate-on",
        "validation",
        "--out",
        tmp_path / "r",
        "--jobs",
        1,
        *tiny,
    ]
    answer = ssl(*words, "--data", tmp_path / "manifest.csv", "--json")
    assert answer.code == 0, answer.err
    kept = [row for row in rows if "class2,train" not in row]
    first = next(row for row in rows if "class2,train" in row)
    (tmp_path / "manifest.csv").write_text("\n".join([*kept, first]))
    assert ssl(*words, "--data", tmp_path / "manifest.csv").error.startswith(
        "class 'class2' has too few images in the training part to train on some and evaluate on others: 1, or all of"
    )


def test_a_time_is_turned_into_epochs_and_kept(compared: Compared, tmp_path: Path, ssl, tiny) -> None:
    data, out, answer = compared
    settings = json.loads((out / "which-rotnet" / "settings.json").read_text())["settings"]
    epochs, steps = settings["epochs"], settings["steps_per_epoch"]
    said = re.search(r"budget of 1 s: (\d+) epochs? of (\d+) steps", answer.err)
    assert said is not None
    assert (int(said[1]), int(said[2])) == (epochs, steps)
    ended = (f"step {epochs * steps} of {epochs * steps}", f"rotnet: epoch {epochs} of {epochs}")
    assert any(line in answer.err for line in ended)
    words = ["pretrain", "--data", data, "--out", tmp_path, *tiny]
    assert ssl(*words, "--budget", "soon").error == "the budget is 'soon'; expected a time such as 90s, 5m or 1h"
    assert ssl(*words, "--budget", "1s", "--epochs", 3).error == (
        "--budget 1s and --epochs 3 are two lengths; leave one out"
    )
    assert ssl(*words, "--budget", "1s", "--steps-per-epoch", 3).error == (
        "--budget 1s and --steps-per-epoch 3 are two lengths; leave one out"
    )
    assert [seconds_of(text) for text in ("90s", "5m", "1.5h")] == [90, 300, 5400]


def test_the_knn_monitor_changes_nothing(compared: Compared, tmp_path: Path, ssl, tiny, images) -> None:
    data, _, _ = compared
    words = ["pretrain", "--data", data, "--epochs", 2, "--batch-size", 16, "--out", tmp_path, *tiny, "--json"]
    plain = ssl(*words)
    watched = ssl(*words, "--probe-data", data, "--probe-every", 1)
    assert re.search(r"kNN monitor on .*, it chooses nothing: \d+ labeled queries, a bank of \d+, split", watched.err)
    final = watched.result["final"]
    assert 0 <= final.pop("probe_knn") <= 1
    kept = {name: value for name, value in plain.result["final"].items() if name != "images_per_second"}
    assert {name: final[name] for name in kept} == kept
    assert kept["effective_rank"] >= 1
    (tmp_path / "bare").mkdir()
    for path in list(data.rglob("*.png"))[:6]:
        (tmp_path / "bare" / f"{path.parent.name}{path.name}").write_bytes(path.read_bytes())
    assert ssl(*words, "--probe-data", tmp_path / "bare").error == (
        f"the probe data {tmp_path / 'bare'} have no labels; take labeled images, or leave the probe data out"
    )
    deep = images(tmp_path / "deep", per_class=4)
    for path in deep.rglob("*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16) * 200)
    assert ssl(*words, "--probe-data", deep).error == (
        f"the probe data {deep} hold uint16 images, the data uint8; expected the same depth; type --intensity dtype, "
        f"or leave the probe data out"
    )


def test_the_knn_monitor_reads_its_images_by_their_own_columns(compared: Compared, tmp_path: Path, ssl, tiny) -> None:
    data, _, _ = compared
    table = tmp_path / "all.csv"
    table.write_text("\n".join(["path,patient", *(f"{path},{path.stem}" for path in sorted(data.rglob("*.png")))]))
    words = ["pretrain", "--data", table, "--group", "patient", "--epochs", 1, "--batch-size", 16, "--out", tmp_path]
    answer = ssl(*words, "--probe-data", data, *tiny)
    assert answer.code == 0, answer.err
    assert "note: the probe data are read by their own columns (the group is column patient, and the folder" in (
        answer.err
    )
    assert re.search(r"\d+ labeled queries, a bank of \d+, split by image content", answer.err)
