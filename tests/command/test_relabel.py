"""`ssl-app relabel` and what is trained on its maps, from one tiny teacher."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from ssl_app.data import class_maps
from ssl_app.data.class_maps import read as read_maps
from ssl_app.training import dense_classifier
from ssl_app.training.signals import Stopped
from ssl_app.transfer.trained import load_classifier

QUICK = ("--steps", 4, "--batch-size", 8)


@dataclass(frozen=True)
class Mapped:
    """A set, its teacher `t` and its maps `m`."""

    data: Path
    out: Path
    answer: Any

    @property
    def maps(self) -> Path:
        return self.out / "m" / "maps.safetensors"


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory, ssl, tiny, images) -> Mapped:
    folder = tmp_path_factory.mktemp("relabel")
    data, out = images(folder / "scans", per_class=20), folder / "runs"
    taught = ssl(
        "finetune", "--init", "none", "--strategy", "full-fine-tuning", "--data", data, "--per-class", 6,
        "--name", "t", "--out", out, *QUICK, *tiny,
    )  # fmt: skip
    assert taught.code == 0, taught.err
    return Mapped(data, out, ssl("relabel", "--teacher", "t", "--k", 2, "--name", "m", "--json", "--out", out, *tiny))


@pytest.fixture
def relabel(ssl, tiny, mapped) -> Callable[..., Any]:
    """Type `ssl-app relabel ...`: the answer."""
    return lambda *words: ssl("relabel", *words, "--out", mapped.out, *tiny)


@pytest.fixture
def finetune(ssl, tiny, mapped) -> Callable[..., Any]:
    """Type `ssl-app finetune ...` from random weights on the set: the answer."""
    words = ("finetune", "--init", "none", "--per-class", 6, "--out", mapped.out, *QUICK, *tiny)
    return lambda *more: ssl(*words, *(() if "--data" in more else ("--data", mapped.data)), *more)


def runs_in(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()} - {"cache"}


def test_the_maps_of_every_image_are_in_one_file(mapped) -> None:
    result = mapped.answer.result
    assert set(result) == {
        "verb", "run", "seconds", "settings", "maps", "n", "grid", "k", "classes", "bytes", "teacher_labels",
        "crop_labels", "sentence",
    }  # fmt: skip
    assert (result["n"], result["grid"], result["k"], result["teacher_labels"]) == (60, [2, 2], 2, 18)
    assert result["classes"] == ["class0", "class1", "class2"]
    assert result["bytes"] == mapped.maps.stat().st_size
    cells = 60 * 4 * (4 * 2 + 2)
    assert cells < result["bytes"] < cells + 60 * 8 + 18 * 8 + 1024, "an index, and nothing else"
    found = result["crop_labels"]
    assert 0 <= found["whole"] <= 1
    assert found["crops"] == 20
    assert result["sentence"] in mapped.answer.err
    lines = mapped.answer.err.splitlines()
    announced = next(line for line in lines if line.startswith("class maps: "))
    assert announced.startswith("class maps: 60 images x 2x2 places x 10 bytes, 0.0 MB in ")
    assert sorted(path.name for path in (mapped.out / "m").iterdir() if path.suffix != ".json") == [
        ".lock", "class-maps.png", "crop-labels.png", "maps.safetensors",
    ]  # fmt: skip


def test_another_tool_reads_the_file(mapped) -> None:
    from safetensors.numpy import load_file

    tensors = load_file(mapped.maps)
    maps = class_maps.read(mapped.maps)
    assert set(tensors) == {"content", "labeled", "cells"}
    np.testing.assert_array_equal(tensors["cells"], maps.cells)
    np.testing.assert_array_equal(tensors["content"], maps.index.content)
    assert isinstance(maps.cells, np.memmap)


def test_finetune_pools_the_labels_of_its_draw(finetune) -> None:
    answer = finetune("--relabel", "m", "--json")
    result = answer.result
    assert result["settings"]["strategy"] == "label-pooling"
    assert "strategy: label-pooling (auto takes no class maps)" in answer.err
    assert (result["labels_used"], result["unlabeled_used"], result["teacher_labels"]) == (18, 0, 0)
    pooled = finetune("--relabel", "m", "--draw", 1, "--cutmix", 0.5, "--json")
    one = pooled.result
    assert one["teacher_labels"] > 0
    assert f"targets by a teacher with {one['teacher_labels']} labels outside the draw" in pooled.err
    labeled = load_classifier(Path(one["run"])).labeled
    assert labeled is not None
    assert len(labeled) == 18 + one["teacher_labels"], "whoever learns from it has seen them, too"


def test_the_relabel_strategy_uses_all_training_images(finetune, mapped) -> None:
    result = finetune("--relabel", mapped.maps, "--strategy", "relabel", "--json").result
    assert result["unlabeled_used"] > 0
    assert "averaged weights" in result["how"]
    alone = finetune("--strategy", "relabel", "--json").result
    assert alone["teacher_labels"] == 0
    assert alone["how"].startswith("labels: 2 steps"), "without maps the draw teaches"


def test_a_teacher_that_knows_the_draw_leaves_nothing_to_calibrate_by(finetune, mapped) -> None:
    for strategy in ("relabel", "label-pooling"):
        taught = finetune("--relabel", mapped.maps, "--strategy", strategy, "--calibrate", "folds", "--json").result
        assert taught["calibration"]["temperature"] is None
        assert taught["calibration"]["how"] == (
            "the teacher of the class maps may know the labels of the draw: none is held out"
        )
    selected = finetune("--relabel", mapped.maps, "--validation", "separate", "--per-class", 3).error
    assert "was trained on the labels of " in selected
    assert selected.endswith(" validation images; make the maps with a teacher of the same split")


def test_maps_of_another_form_are_other_maps(mapped) -> None:
    maps = read_maps(mapped.maps)
    assert replace(maps, form=replace(maps.form, k=1)).digest != maps.digest


def test_label_smoothing_is_a_strategy(finetune) -> None:
    assert finetune("--strategy", "label-smoothing", "--smoothing", 0.3, "--json").result["labels_used"] == 18
    error = finetune("--strategy", "label-smoothing", "--smoothing", 2).error
    assert error == "--smoothing is 2.0; expected at most 1"


@pytest.mark.slow
def test_a_sweep_has_pooled_beside_plain_and_smoothed_labels(ssl, tiny, mapped) -> None:
    answer = ssl(
        "sweep", "--init", "none", "--data", mapped.data, "--relabel", "m", "--baseline-strategy",
        "label-smoothing,label-pooling", "--per-class", 4, "--draws", 1, "--baseline-length", "same", "--evaluate-on",
        "test", "--name", "s", "--out", mapped.out, "--json", *QUICK, *tiny,
    )  # fmt: skip
    trials = answer.result["trials"]
    assert {one["strategy"] for one in trials} == {"full-fine-tuning", "label-smoothing", "label-pooling"}
    assert all(one["teacher_labels"] > 0 for one in trials if one["strategy"] == "label-pooling")
    assert "remark: the class maps of label-pooling come from a teacher with labels outside the draws (" in answer.err
    assert not any("teacher_labels" in one for one in trials if one["strategy"] != "label-pooling")


# one line each, and nothing half-written


def test_mistakes_of_the_maps_cost_one_line(relabel, mapped, images, tmp_path) -> None:
    before = runs_in(mapped.out)
    neither = "class maps come from a teacher, or are published ones; expected one of both; "
    assert relabel().error == neither + "type --teacher RUN of finetune, or --published DIR"
    assert relabel("--teacher", "tt").error.startswith("no run 'tt' in")
    assert "holds no classifier.safetensors; expected a finished finetune run" in relabel("--teacher", "m").error
    others = images(tmp_path / "others", per_class=4, classes=2)
    assert relabel("--teacher", "t", "--data", others).error == (
        f"the teacher knows the classes class0, class1, class2, the labels of {others} are class0, class1; "
        "expected the same classes; type another --teacher, or --label COLUMN, or --labels FILE"
    )
    moved = tmp_path / "moved"
    shutil.copytree(mapped.out / "t", moved)
    settings = json.loads((moved / "settings.json").read_text())
    settings["settings"] |= {"data": None, "init": "gone"}
    (moved / "settings.json").write_text(json.dumps(settings))
    assert relabel("--teacher", moved).error == (
        "teacher moved was trained on the data of gone, which is no run here; type --data D"
    )
    transposed = relabel("--teacher", "t", "--transposed", "yes").error
    assert transposed == "maps of a teacher are never transposed; leave --transposed out"
    assert relabel("--resume", "t").error.endswith("expected class maps; type another --resume")
    assert relabel("--resume", "m").error.endswith("has finished; type ssl-app finetune --relabel m")
    assert runs_in(mapped.out) == before


def test_a_teacher_with_a_head_on_a_grid_is_refused(relabel, finetune, mapped) -> None:
    taught = finetune("--strategy", "full-fine-tuning", "--layer", "stage3", "--name", "grid")
    assert taught.code == 0, taught.err
    before = runs_in(mapped.out)
    assert relabel("--teacher", "grid").error == (
        "the head on layer stage3 has weights for each of 4x4 places, and gives no class maps; expected a head "
        "on the mean over all places"
    )
    assert runs_in(mapped.out) == before


def test_maps_that_do_not_fit_are_refused_by_finetune(finetune, relabel, mapped, images, tmp_path) -> None:
    before = runs_in(mapped.out)
    refused = finetune("--relabel", "m", "--strategy", "two-stage").error
    assert refused == (
        "class maps are given, and two-stage takes none; type --strategy label-pooling, or --strategy relabel, "
        "or leave --relabel out"
    )
    short = tmp_path / "short.safetensors"
    short.write_bytes(mapped.maps.read_bytes()[:-7])
    size = mapped.maps.stat().st_size
    assert finetune("--relabel", short).error == (
        f"{short} is cut short: it has {size - 7:,} of {size:,} bytes; copy it again, or make the maps anew"
    )
    short.write_bytes(b"")
    empty = f"{short} holds no class maps; expected a file that ssl-app relabel wrote"
    assert finetune("--relabel", short).error == empty
    weights = mapped.out / "t" / "classifier.safetensors"
    assert "holds no class maps" in finetune("--relabel", weights).error
    assert finetune("--relabel", "t").error == (
        f"run {mapped.out / 't'} holds no maps.safetensors; expected finished class maps; type ssl-app relabel "
        "--teacher t"
    )
    others = images(tmp_path / "others", per_class=20, seed=1)
    error = finetune("--relabel", "m", "--data", others).error
    assert error.startswith(f"{mapped.maps} has no map of ")
    assert error.endswith(f"; type ssl-app relabel --teacher RUN --data {others}")
    assert "training images of" in error
    seen = finetune("--relabel", "m", "--split-seed", 7).error
    assert seen.startswith("the teacher of ")
    assert seen.endswith("; make the maps with a teacher of the same split")
    assert runs_in(mapped.out) == before


def test_stopped_maps_go_on_where_they_were(relabel, finetune, mapped, monkeypatch) -> None:
    monkeypatch.setattr(dense_classifier, "AT_ONCE", 16)
    whole, write = class_maps.MapWriter.add, []

    def stops(self, cells) -> None:
        whole(self, cells)
        write.append(len(cells))
        if len(write) == 2:
            raise Stopped(15)

    monkeypatch.setattr(class_maps.MapWriter, "add", stops)
    stopped = relabel("--teacher", "t", "--k", 2, "--name", "part")
    assert stopped.code == 128 + 15
    assert "stopped; to go on, type ssl-app relabel --resume part" in stopped.err
    folder = mapped.out / "part"
    part = folder / "maps.safetensors.part"
    assert not (folder / "maps.safetensors").exists()
    refused = finetune("--relabel", "part").error
    assert refused.endswith(
        "holds no maps.safetensors; expected finished class maps; type ssl-app relabel --resume part"
    )
    with part.open("ab") as file:
        file.write(b"half a map")  # a kill in the middle of a write
    monkeypatch.setattr(class_maps.MapWriter, "add", whole)
    done = relabel("--resume", "part", "--json")
    assert done.result["n"] == 60
    assert "32 of 60 maps are there already" in done.err
    assert (folder / "maps.safetensors").read_bytes() == mapped.maps.read_bytes()
    assert not part.exists()
    shutil.rmtree(folder)


# published maps


def published(folder: Path, data: Path, transposed: bool) -> None:
    """Maps (2, 2, 4, 4) of torch whose class is the label where the image is bright, and another elsewhere."""
    for path in sorted(data.rglob("*.png")):
        label = int(path.parent.name[-1])
        bright = cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (4, 4), interpolation=cv2.INTER_AREA) > 60
        ids = np.where(bright, label, (label + 1) % 3)
        tensor = torch.from_numpy(np.stack([[np.full((4, 4), 9.0), np.full((4, 4), 2.0)], [ids, (ids + 1) % 3]]))
        target = folder / path.relative_to(data).with_suffix(".pt")
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save(tensor.float().transpose(2, 3).clone() if transposed else tensor.float(), target)


@pytest.mark.parametrize("transposed", [False, True])
def test_published_maps_are_taken_as_the_images_lie(relabel, finetune, mapped, tmp_path, transposed: bool) -> None:
    published(tmp_path / "maps", mapped.data, transposed)
    name = f"published-{transposed}"
    answer = relabel(
        "--published", tmp_path / "maps", "--data", mapped.data, "--image-size", 16, "--name", name, "--json"
    )
    assert (answer.result["n"], answer.result["k"], answer.result["grid"]) == (60, 2, [4, 4])
    assert f": taken {'transposed' if transposed else 'as stored'}\n" in answer.err
    maps = class_maps.read(mapped.out / name / "maps.safetensors")
    assert maps.form.about["transposed"] is transposed
    ids, values, rest = maps.at(np.arange(60))
    assert ids.shape == (60, 2, 4, 4)
    total = np.exp(9) + np.exp(2) + 1
    np.testing.assert_allclose(np.exp(values[0, 0]), np.exp(9) / total, rtol=1e-3)
    np.testing.assert_allclose(np.exp(rest[0]), 1 / total, rtol=1e-2)
    used = finetune("--relabel", name)
    assert used.code == 0, used.err
    assert "targets by a teacher whose labels are not known" in used.err


def test_mistakes_of_published_maps_cost_one_line(relabel, mapped, tmp_path) -> None:
    folder, before = tmp_path / "maps", runs_in(mapped.out)
    data = ("--data", mapped.data, "--image-size", 16)
    assert relabel("--published", folder, *data).error == (
        f"{folder} is no folder; expected published maps, a .pt for each image"
    )
    folder.mkdir()
    assert relabel("--published", folder, *data).error == (
        f"60 of 60 images have no map in {folder}, first class0/000.png; expected files named as the images, ending "
        "in .pt"
    )
    assert relabel("--published", folder).error == "published maps are of images of yours; type --data D"
    published(folder, mapped.data, False)
    one = folder / "class1" / "003.pt"
    for content in (b"no torch", b""):
        one.write_bytes(content)
        expected = f"{one} is no published class map; expected a tensor (2, k, h, w) of logits and class ids"
        assert relabel("--published", folder, *data, "--transposed", "no").error == expected
    torch.save({"maps": torch.zeros(2, 2, 4, 4)}, one)
    assert relabel("--published", folder, *data, "--transposed", "no").error == expected
    torch.save(torch.full((2, 2, 4, 4), 5.0), one)
    assert (
        "names class 5, the data have 3 classes" in relabel("--published", folder, *data, "--transposed", "no").error
    )
    torch.save(torch.zeros(2, 2, 4, 5), one)
    assert relabel("--published", folder, *data, "--transposed", "no").error == (
        f"{one} has 2 classes at 4x5 places; expected 2 at 4x4, as the first map has"
    )
    assert runs_in(mapped.out) == before


def test_a_run_of_maps_says_what_settings_it_had(mapped) -> None:
    stored = json.loads((mapped.out / "m" / "settings.json").read_text())
    assert (stored["verb"], stored["settings"]["teacher"], stored["settings"]["k"]) == ("relabel", "t", 2)
