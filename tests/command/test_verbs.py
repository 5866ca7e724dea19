"""What each verb does and leaves, on a tiny set and with tiny trainings."""

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_app import checkpoints, registry, runs
from ssl_app.commands.sweep import USUAL_STRATEGIES
from ssl_app.errors import Notice, Set
from ssl_app.pretext.rotnet import RotNet
from ssl_app.training import initialization
from ssl_app.transfer import trained as classifiers

SHORT = ("--steps", 4, "--batch-size", 8, "--per-class", 4)
BASE = {"verb", "run", "seconds", "settings"}
STRATEGIES = registry.names("transfer.strategies")


@pytest.fixture(scope="module")
def figures() -> None:
    """Rendered, as for a user."""


def saved(run: str) -> dict[str, Any]:
    """result.json of a run."""
    content: dict[str, Any] = json.loads((Path(run) / "result.json").read_text())
    return content


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_set(root: Path, pictures: np.ndarray) -> Path:
    """(N, S, S) uint8 -> a folder of N PNG files."""
    import cv2

    root.mkdir()
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(root / f"{number:03d}.png"), picture)
    return root


@pytest.fixture
def type_beside(ssl, tiny, trained) -> Callable[..., Any]:
    """Type a verb in the folder of the tiny pretraining: its result, which result.json holds too."""

    def typed(*words: object) -> dict[str, Any]:
        found: dict[str, Any] = ssl(*words, "--out", trained.out, *tiny, "--json").result
        assert saved(found["run"]) == found
        assert set(found) > BASE
        return found

    return typed


# pretrain


def test_pretrain_leaves_a_checkpoint_and_the_result_of_the_table(trained) -> None:
    result = trained.answer.result
    assert result == saved(result["run"])
    assert set(result) > BASE | {"checkpoint", "final"}
    assert result["verb"] == "pretrain"
    assert Path(result["run"]) == trained.out / "p"
    assert Path(result["checkpoint"]).is_file()
    assert set(result["final"]) >= {"loss", "accuracy", "val_loss", "val_accuracy", "images_per_second"}
    assert result["settings"]["epochs"] == 1
    assert result["settings"]["backbone"] == "small-resnet"
    assert {path.name for path in (trained.out / "p").iterdir()} - {".lock"} == {
        "backbone.safetensors",
        "history.png",
        "result.json",
        "settings.json",
        "data.json",
        "machine.json",
        "views.png",
    }  # fmt: skip
    stored = json.loads((trained.out / "p" / "settings.json").read_text())
    assert stored["settings"]["method_settings"] == {"rotation_head": "auto"}


def test_every_decision_is_printed_with_its_reason(trained) -> None:
    for line in (
        "cpu, 1 thread, precision fp32 (as set: fp32)",
        "image size: 16 px (the first image's short side is 16 px)",
        "3 sub-folders taken as classes: class0, class1, class2",
        "labels of the data: class0 24, class1 24, class2 24",
        "split by image content (no group column), 20 % of images, seed 0: 57 train, 0 val, 15 test",
        "backbone: small-resnet from random weights, seed 0",
        "chance: a network that knows nothing has accuracy 0.250",
        f"now type ssl-app finetune --per-class 16 --out {trained.out}",
    ):
        assert line in trained.answer.err


def test_without_json_stdout_stays_empty(ssl, tiny, trained) -> None:
    words = ["finetune", "--init", "p", "--strategy", "feature-extraction", *SHORT, "--out", trained.out, *tiny]
    answer = ssl(*words)
    assert (answer.code, answer.out) == (0, "")
    assert "balanced accuracy" in answer.err


def test_a_recipe_fills_in_flags_and_a_flag_beats_it(ssl, tiny, trained, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'data = "{trained.data}"\nseed = 3\n[pretrain]\nbatch-size = 16\nepochs = 4\nlr = 1e-3\n'
        'rotation_head = "linear"\nseed = 5\n[finetune]\nsteps = 7\n'
    )
    words = [
        "pretrain",
        "--method",
        "rotnet",
        "--recipe",
        recipe,
        "--epochs",
        1,
        "--out",
        tmp_path / "o",
        *tiny,
        "--json",
    ]
    result = ssl(*words).result
    settings = result["settings"]
    assert settings["epochs"] == 1, "the flag beats the recipe"
    assert (settings["batch_size"], settings["lr"]) == (16, 0.001), "the recipe beats the default"
    assert settings["seed"] == 5, "the verb's own table beats the top"
    assert settings["data"] == str(trained.data)
    assert settings["weight_decay"] == 5e-4, "the default"
    stored = json.loads((Path(result["run"]) / "settings.json").read_text())
    assert stored["settings"]["method_settings"] == {"rotation_head": "linear"}


def test_a_seed_repeats_a_pretraining(ssl, tiny, trained, tmp_path: Path) -> None:
    words = [
        "pretrain",
        "--method",
        "rotnet",
        "--data",
        trained.data,
        "--epochs",
        1,
        "--batch-size",
        16,
        "--out",
        tmp_path,
        *tiny,
        "--json",
    ]
    again, other = ssl(*words).result, ssl(*words, "--seed", 1).result
    pace = {"images_per_second"}
    first = trained.answer.result["final"]
    assert {k: v for k, v in again["final"].items() if k not in pace} == {
        k: v for k, v in first.items() if k not in pace
    }
    assert again["final"]["loss"] != other["final"]["loss"]


# the warnings


def test_a_task_that_is_too_easy_gives_a_warning(ssl, tiny, tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 40, (160, 8, 8), dtype=np.uint8)
    pictures[:, :4] += 200  # the top half is bright: one look at a corner or two tells the turn
    words = ["--data", write_set(tmp_path / "bright", pictures), "--image-size", 8, "--epochs", 3, "--batch-size", 4]
    words += ["--lr", 0.05]
    answer = ssl("pretrain", "--method", "rotnet", *words, "--out", tmp_path / "o", *tiny, "--json")
    assert "rotnet is too easy on these images" in answer.result["warning"]
    assert answer.err.count("warning: rotnet is too easy") == 1


def test_few_held_out_images_give_no_warning_by_their_score(ssl, tiny, images, tmp_path: Path) -> None:
    words = ["--data", images(tmp_path / "few", per_class=12, side=16), "--epochs", 1, "--batch-size", 8]
    answer = ssl("pretrain", "--method", "rotnet", *words, "--out", tmp_path / "o", *tiny, "--json")
    assert answer.result["warning"] is None
    assert "images are held out for validation, too few for a warning by the score" in answer.err
    assert answer.result["final"]["effective_rank"] > 1.5
    assert "rotnet: epoch 1 of 1, " in answer.err


def test_noise_stays_near_chance_and_is_not_too_easy(ssl, tiny, tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (400, 8, 8), dtype=np.uint8)
    words = ["--data", write_set(tmp_path / "noise", pictures), "--image-size", 8, "--epochs", 3, "--batch-size", 4]
    words += ["--lr", 1e-3]
    answer = ssl("pretrain", "--method", "rotnet", *words, "--out", tmp_path / "o", *tiny, "--json")
    warning = answer.result["warning"]
    assert warning.startswith("rotnet stays near chance on these images: validation score 0.")
    assert "(chance is 0.250). They may hold no usable signal for it; try another method" in warning
    assert answer.result["chance"] == 0.25
    assert answer.err.count("\nwarning: rotnet stays near chance on these images: ") == 1
    assert "too easy" not in answer.err


def test_a_warning_is_logged_when_it_begins_and_when_it_ends(ssl, tiny, trained, tmp_path: Path, monkeypatch) -> None:
    flat = Notice("all flat", fixes=(Set("lr", 0.1),))
    monkeypatch.setattr("ssl_app.pretraining.run.collapse", lambda *about: flat)
    monkeypatch.setattr(RotNet, "warning", lambda self, history: Notice("look out") if len(history) == 1 else None)
    words = ["--data", trained.data, "--epochs", 3, "--batch-size", 16, "--out", tmp_path / "o", *tiny, "--json"]
    answer = ssl("pretrain", "--method", "rotnet", *words)
    logged = [line for line in answer.err.splitlines() if line.startswith(("warning: ", "the warning "))]
    assert logged == [
        "warning: all flat; type --lr 0.1",
        "warning: look out",
        "the warning about the method no longer holds",
    ]
    assert answer.result["warning"] == "all flat; type --lr 0.1"


def test_one_image_held_out_is_enough_for_pictures(ssl, tiny, images, tmp_path: Path) -> None:
    words = ["--data", images(tmp_path / "few", per_class=9), "--method", "autoencoder", "--backbone", "resnet18"]
    words += ["--image-size", 32, "--steps-per-epoch", 1, "--epochs", 1, "--batch-size", 8, "--out", tmp_path / "o"]
    answer = ssl("pretrain", *words, *tiny, "--json")
    assert answer.code == 0, answer.err
    assert "note: 1 image is held out for validation, too few" in answer.err
    assert (Path(answer.result["run"]) / "restored.png").is_file()


def test_what_is_left_to_the_method_is_saved_as_it_was_settled(ssl, tiny, tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (120, 8, 8), dtype=np.uint8)
    words = ["--data", write_set(tmp_path / "noise", pictures), "--image-size", 8, "--epochs", 1]
    answer = ssl("pretrain", "--method", "rotnet", *words, "--out", tmp_path / "o", *tiny, "--json")
    settings, defaults = answer.result["settings"], RotNet.defaults
    for name in ("optimizer", "lr", "weight_decay", "schedule", "warmup", "augment", "backbone"):
        assert settings[name] == getattr(defaults, name), name
    batch = settings["batch_size"]
    assert defaults.smallest_batch <= batch < defaults.batch_size, "few images: more steps of fewer"
    assert f"batch size: {batch} (of {defaults.batch_size}, 1 epochs of {2 * batch + 1} images would be" in answer.err


# a method of one's own

METHOD = '''"""{name}: predict the mean of an image."""

from dataclasses import dataclass

from torch import nn

from ssl_app.config import option
from ssl_app.pretext.base import Pretext


@dataclass(frozen=True)
class {name}Config:
    """Settings."""

    strength: float = option(1.0, "weight of the loss", at_least=0)


class {name}(Pretext):
    """Regression."""

    Config = {name}Config

    def __init__(self, backbone, config, data):
        super().__init__(backbone, config, data)
        self.head = nn.Linear(backbone.shape()[0], 1)

    def loss(self, batch, player):
        error = (self.head(self.backbone(batch.images))[:, 0] - batch.images.mean((1, 2, 3))).square().mean()
        return self.config.strength * error, {{"error": error.detach()}}
'''


@pytest.fixture(params=["module:Class", "file name"])
def own_method(request, tmp_path: Path, monkeypatch) -> Iterator[str]:
    """A method that is one file: of the user's own, or in the folder of the package's methods."""
    if request.param == "module:Class":
        (tmp_path / "my_methods.py").write_text(METHOD.format(name="MeanOf"))
        monkeypatch.syspath_prepend(tmp_path)
        yield "my_methods:MeanOf"
        sys.modules.pop("my_methods", None)
        return
    import ssl_app.pretext

    copy = tmp_path / "package"
    shutil.copytree(registry.ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "pretext" / "mean_of.py").write_text(METHOD.format(name="MeanOf"))
    monkeypatch.setattr(registry, "ROOT", copy)
    monkeypatch.setattr(ssl_app.pretext, "__path__", [*ssl_app.pretext.__path__, str(copy / "pretext")])
    yield "mean-of"
    sys.modules.pop("ssl_app.pretext.mean_of", None)


def test_one_file_adds_a_method(own_method: str, ssl, tiny, trained, tmp_path: Path) -> None:
    assert "--strength X" in ssl("pretrain", "--method", own_method, "--help").out
    assert "--strength" not in ssl("pretrain", "--help").out
    words = [
        "pretrain",
        "--method",
        own_method,
        "--data",
        trained.data,
        "--epochs",
        1,
        "--out",
        tmp_path / "o",
        *tiny,
    ]
    result = ssl(*words, "--strength", 0.5, "--name", "mine", "--json").result
    assert result["final"]["loss"] == pytest.approx(0.5 * result["final"]["error"], rel=1e-5)
    assert result["warning"] is None
    assert ssl(*words, "--strength", -1).error == "--strength is -1.0; expected at least 0"
    if own_method == "mean-of":
        assert "mean-of              MeanOf: predict the mean of an image." in ssl("methods").out
    words = ["finetune", "--strategy", "feature-extraction", *SHORT, "--out", tmp_path / "o", *tiny, "--json"]
    assert ssl(*words).result["init"] == "mine"


# finetune


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        *((name, ()) for name in STRATEGIES),
        ("two-stage", ("--validation", "separate")),
        ("feature-extraction", ("--head", "mlp")),
        ("two-stage", ("--layer", "stage2")),
    ],
)
def test_finetune(strategy: str, more: tuple[str, ...], type_beside, trained) -> None:
    result = type_beside("finetune", "--init", "p", "--strategy", strategy, *SHORT, *more)
    assert result["verb"] == "finetune"
    assert result["labels_used"] == 12
    assert result["unlabeled_used"] in (0, 57 - 12)
    assert result["validation"] == ("separate" if "separate" in more else "within")
    test = result["test"]
    assert set(test) >= {"n", "accuracy", "balanced_accuracy", "macro_f1", "low", "high"}
    assert test["n"] == 15
    assert 0 <= test["low"] <= test["balanced_accuracy"] <= test["high"] <= 1
    run = Path(result["run"])
    drawn, tested = rows_of(run / "draw.csv"), rows_of(run / "test.csv")
    assert list(drawn[0]) == ["path", "label", "group"]
    assert sorted(row["label"] for row in drawn) == sorted([f"class{k}" for k in range(3)] * 4)
    assert all(row["path"].split("/")[0] == row["label"] for row in drawn)
    assert list(tested[0]) == ["path", "label", "truth", "p_class0", "p_class1", "p_class2"]
    assert len(tested) == 15
    assert np.mean([row["label"] == row["truth"] for row in tested]) == pytest.approx(test["accuracy"])
    assert not {row["path"] for row in drawn} & {row["path"] for row in tested}
    classifier = classifiers.load_classifier(run)
    assert classifier.meta["classes"] == ["class0", "class1", "class2"]
    assert classifier.meta["layer"] == ("stage2" if "stage2" in more else None)
    assert Path(result["checkpoint"]) == run / classifiers.CLASSIFIER
    assert (run / "confusion.png").is_file()
    if strategy == "feature-extraction":
        before, _ = initialization.load_initialization("p", trained.out, None).load(1, 16, 0)
        after = classifier.predictor.classifiers[0].backbone.state_dict()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.state_dict().items()), "frozen"


def test_draws_are_nested_and_two_draws_differ(type_beside) -> None:
    def drawn(per_class: int, draw: int) -> set[str]:
        words = ["--strategy", "feature-extraction", "--steps", 4, "--per-class", per_class, "--draw", draw]
        run = type_beside("finetune", "--init", "p", *words)["run"]
        return {row["path"] for row in rows_of(Path(run) / "draw.csv")}

    assert drawn(2, 0) < drawn(5, 0)
    assert drawn(2, 0) != drawn(2, 1)


def test_finetune_takes_the_newest_pretraining_and_its_data(ssl, tiny, trained) -> None:
    answer = ssl("finetune", "--strategy", "feature-extraction", *SHORT, "--out", trained.out, *tiny)
    assert f"init: p, the newest finished pretraining in {trained.out} (--init says otherwise)" in answer.err
    assert f"data: {trained.data}, as in p (--data says otherwise)" in answer.err
    assert "72 of 72 backbone tensors from " in answer.err


def test_finetune_from_random_weights(type_beside, trained) -> None:
    words = ["--init", "none", "--strategy", "full-fine-tuning", "--data", trained.data]
    result = type_beside("finetune", *words, *SHORT)
    assert (result["init"], result["overlap"]) == ("none", None)


# predict


@pytest.fixture(scope="module")
def classified(ssl, tiny, trained) -> dict[str, Any]:
    words = ["--strategy", "full-fine-tuning", "--steps", 12, "--batch-size", 8, "--per-class", 8, "--name", "c"]
    found: dict[str, Any] = ssl("finetune", "--init", "p", *words, "--out", trained.out, *tiny, "--json").result
    return found


def test_predict_on_the_test_images_gives_the_test_metrics(ssl, classified, trained, tmp_path: Path) -> None:
    table = rows_of(Path(classified["run"]) / "test.csv")
    for row in table:
        (tmp_path / "test" / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(trained.data / row["path"], tmp_path / "test" / row["path"])
    words = ["predict", "c", "--data", tmp_path / "test", "--out", trained.out, "--threads", 1]
    result = ssl(*words, "--json").result
    assert result["n"] == len(table) == 15
    assert result["test"] == {k: v for k, v in classified["test"].items() if k not in ("low", "high")}
    predicted = rows_of(Path(result["predictions"]))
    assert predicted == [{k: v for k, v in row.items() if k != "truth"} for row in table]
    wanted = tmp_path / "mine.csv"
    assert ssl(*words, "--output", wanted).code == 0
    assert rows_of(wanted) == predicted


def test_labels_outside_the_test_part_alone_cannot_be_tested_once(ssl, classified, trained, tmp_path: Path) -> None:
    tested = {row["path"] for row in rows_of(Path(classified["run"]) / "test.csv")}
    keys = sorted(path.relative_to(trained.data).as_posix() for path in trained.data.rglob("*.png"))
    rows = [f"{key},{key.partition('/')[0]}" for key in keys if key not in tested]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    answer = ssl("finetune", "--init", "p", "--labels", tmp_path / "labels.csv", "--out", trained.out)
    assert answer.error == (
        f"no test image of {trained.data} has a label, {len(rows)} others have; type ssl-app sweep --evaluate-on "
        "folds, or label images of the test part too"
    )


def test_predict_tells_images_apart_whose_labels_were_trained_on(ssl, classified, trained) -> None:
    words = ["predict", "c", "--out", trained.out, "--threads", 1, "--json"]
    answer = ssl(*words, "--data", trained.data)
    drawn = {row["path"] for row in rows_of(Path(classified["run"]) / "draw.csv")}
    result, table = answer.result, rows_of(Path(answer.result["predictions"]))
    others = [row for row in table if row["path"] not in drawn]
    assert result["trained_on"] == len(drawn) == 24
    right = [row["label"] == row["path"].partition("/")[0] for row in others]
    assert result["test_of_others"]["accuracy"] == pytest.approx(np.mean(right))
    score = result["test_of_others"]["balanced_accuracy"]
    told = f"it was trained on 24 of these labels; balanced accuracy on the other {len(others)} {score:.3f}\n"
    assert told in answer.err


def test_predict_without_labels_and_with_others(ssl, classified, trained, images, tmp_path: Path) -> None:
    shutil.copytree(trained.data / "class1", tmp_path / "new")
    shutil.copy(trained.data / "class0" / "000.png", os.fsdecode(bytes(tmp_path / "new") + b"/R\xf6ntgen.png"))
    (tmp_path / "new" / "scan.dcm").write_bytes(bytes(128) + b"DICM")
    out = ["--out", trained.out, "--threads", 1]
    answer = ssl("predict", "c", "--data", tmp_path / "new", *out, "--json")
    result = answer.result
    assert "1 DICOM file found, not read beside 25 pictures; type --data with a folder of them alone" in answer.err
    assert result["n"] == 25
    assert (
        b"\nR\xf6ntgen.png,class" in Path(result["predictions"]).read_bytes()
    )  # the name's bytes, which are no UTF-8
    assert "test" not in result
    images(tmp_path / "other", per_class=2, classes=4)
    others = ssl("predict", "c", "--data", tmp_path / "other", *out).err
    assert "not scored: label 'class3' is none of the classifier's (class0, class1, class2)" in others


def test_export_of_a_mean_has_every_network_and_says_which_make_a_member(trained, ssl, tiny, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    words = [
        "--init",
        "p",
        "--strategy",
        "auto",
        "--per-class",
        16,
        "--steps",
        2,
        "--batch-size",
        8,
        "--name",
        "mean",
    ]
    assert ssl("finetune", *words, "--out", trained.out, *tiny).code == 0
    file = tmp_path / "mean.safetensors"
    assert ssl("export", "mean", "--output", file, "--out", trained.out).code == 0
    tensors, about = load_file(file), json.loads(file.with_suffix(".json").read_text())
    assert {name.split(".")[0] for name in tensors} == {"backbones", "heads"}
    assert [one["backbone"] for one in about["members"]] == [0, 0, 0, 0, 1]
    assert sum(one["weight"] for one in about["members"]) == pytest.approx(1)
    assert about["mirrored"]
    predicted = ssl("predict", "mean", "--data", trained.data, "--out", trained.out, "--json").result
    scored = json.loads((trained.out / "mean" / "result.json").read_text())
    assert predicted["n"] == 72
    assert {"balanced_accuracy"} <= set(scored["test"])
    only = ssl("export", "mean", "--what", "backbone", "--output", tmp_path / "b.pt", "--out", trained.out)
    assert only.code == 0
    start = load_file(trained.out / "p" / "backbone.safetensors")
    kept = torch.load(tmp_path / "b.pt", weights_only=True)
    assert torch.equal(kept["stem.0.weight"], start["backbone.body.stem.0.weight"])


# sweep

SWEEP = ("--init", "p", "--per-class", "2,4", "--draws", 2, "--steps", 2, "--batch-size", 8, "--evaluate-on", "test")


def without_seconds(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in trial.items() if k != "seconds"} for trial in trials]


@pytest.fixture(scope="module")
def swept(ssl, tiny, trained) -> dict[str, Any]:
    words = [*SWEEP, "--jobs", 1, "--name", "s", "--out", trained.out, *tiny, "--json"]
    found: dict[str, Any] = ssl("sweep", *words).result
    return found


def test_sweep_answers(swept, trained) -> None:
    assert swept == saved(swept["run"])
    assert set(swept) >= BASE | {"trials", "comparisons", "labels_saved", "verdict"}
    wanted = {("p", s, k, d) for s in USUAL_STRATEGIES for k in (2, 4) for d in (0, 1)}
    wanted |= {("scratch", "full-fine-tuning", k, d) for k in (2, 4) for d in (0, 1)}
    trials = swept["trials"]
    assert {(t["init"], t["strategy"], t["per_class"], t["draw"]) for t in trials} == wanted
    assert len(trials) == len(wanted)
    for trial in trials:
        assert {"n", "accuracy", "balanced_accuracy", "macro_f1"} <= set(trial)
        assert trial["labels_used"] == 3 * trial["per_class"]
        assert trial["unlabeled_used"] in (0, 57 - trial["labels_used"])
    score = {(t["init"], t["strategy"], t["per_class"], t["draw"]): t["balanced_accuracy"] for t in trials}
    for one in swept["comparisons"]:
        other, k = one["against"], one["per_class"]
        differences = [
            score[one["init"], one["strategy"], k, d]
            - score[other["init"], other["strategy"], other.get("per_class", k), d]
            for d in (0, 1)
        ]
        assert one["mean"] == pytest.approx(np.mean(differences))
        assert one["low"] <= one["mean"] <= one["high"]
    assert set(swept["labels_saved"]) >= {"factor", "low", "high", "bound", "per_class"}
    assert swept["labels_saved"]["per_class"] == 4, "the budget nearest to 32"
    found, saved_labels, following = swept["verdict"].split("\n")
    assert ", for this pretraining: " in found
    assert found.endswith(f", 2 draws, {swept['n_test']} test images.")
    assert "abels" in saved_labels
    assert ", type ssl-app " in following
    assert swept["outcome"] in ("helped", "hurt", "no difference that matters", "no difference shown")
    run = Path(swept["run"])
    with np.load(run / "predictions.npz") as kept:
        for one in trials:
            right = kept[f"{one['init']}-{one['strategy']}-k{one['per_class']}-d{one['draw']}"].argmax(1)
            recalls = [np.mean(right[kept["labels"] == k] == k) for k in range(3)]
            assert np.mean(recalls) == pytest.approx(one["balanced_accuracy"])
    assert not list(run.glob("trials/*/probabilities.npy"))
    assert {path.name for path in (run / "draws").iterdir()} == {f"k{k}_d{d}.csv" for k in (2, 4) for d in (0, 1)}
    assert len(rows_of(run / "trials.csv")) == len(wanted)
    assert (run / "label-efficiency.png").is_file()


def test_a_sweep_goes_on_with_what_is_missing_and_nothing_else(swept, ssl, tiny, trained) -> None:
    words = ["sweep", *SWEEP, "--jobs", 1, "--name", "s", "--out", trained.out, *tiny, "--json"]
    again = ssl(*words)
    assert f"{len(swept['trials'])} trials, 0 to do" in again.err
    same = ("trials", "comparisons", "labels_saved", "verdict")
    assert {k: again.result[k] for k in same} == {k: swept[k] for k in same}
    shutil.rmtree(Path(swept["run"]) / "trials" / "p-two-stage-k4-d1")
    once_more = ssl(*words)
    assert f"{len(swept['trials'])} trials, 1 to do" in once_more.err
    assert "trial 1 of 1: two-stage from p, 4 per class, draw 1: " in once_more.err
    assert without_seconds(once_more.result["trials"]) == without_seconds(swept["trials"])
    assert once_more.result["verdict"] == swept["verdict"]


def test_another_sweep_under_the_same_name_is_refused(swept, ssl, tiny, trained) -> None:
    words = ["sweep", *SWEEP, "--jobs", 1, "--name", "s", "--out", trained.out, *tiny]
    assert ssl(*words, "--steps", 3).error == (
        f"run {trained.out}/s is another sweep (it differs in steps); type another --name, or the same settings"
    )
    assert saved(swept["run"])["settings"]["steps"] == 2


def test_a_sweep_names_a_strategy_once(ssl, tiny, trained) -> None:
    words = ["--strategy", "feature_extraction,feature-extraction", "--baseline", "none", "--per-class", "2"]
    words += ["--evaluate-on", "test"]
    words += ["--draws", 1, "--jobs", 1, "--out", trained.out, *tiny, "--json"]
    answer = ssl("sweep", "--init", "p", *words)
    result = answer.result
    assert [trial["strategy"] for trial in result["trials"]] == ["feature-extraction"]
    assert result["verdict"] == "No verdict: the sweep holds no scratch."
    assert "to compare with random weights, type --baseline scratch\n" in answer.err


# export


@pytest.mark.slow  # test_export.py has a smaller one
def test_export_loads_into_torchvision_and_gives_the_same_features(ssl, tiny, trained, tmp_path: Path) -> None:
    import torchvision
    from safetensors.torch import load_file

    words = ["--backbone", "resnet18", "--image-size", 32, "--channels", 3, "--epochs", 1, "--batch-size", 16]
    words += ["--steps-per-epoch", 1]
    out = ["--out", tmp_path / "o"]
    assert ssl("pretrain", "--data", trained.data, *words, "--name", "r", *out, *tiny).code == 0
    result = ssl("export", "r", *out, "--json").result
    assert result["tensors"] == 120
    network = torchvision.models.resnet18(weights=None)
    network.fc = torch.nn.Identity()
    network.load_state_dict(load_file(result["export"]), strict=True)
    ours, loaded = initialization.load_initialization("r", tmp_path / "o", None).load(3, 32, 0)
    assert loaded.startswith("120 of 120 backbone tensors from ")
    pictures = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = network.eval()(pictures)
        assert torch.equal(features, ours.eval()(pictures))
    about = json.loads(Path(result["export"]).with_suffix(".json").read_text())
    assert (about["backbone"], about["channels"], about["image_size"]) == ("resnet18", 3, 32)

    words = ["--strategy", "feature-extraction", *SHORT, "--name", "f"]
    assert ssl("finetune", "--init", "r", *words, *out, *tiny).code == 0
    file = tmp_path / "whole.pt"
    assert ssl("export", "f", "--output", file, *out).code == 0
    whole = torchvision.models.resnet18(weights=None, num_classes=3)
    whole.load_state_dict(torch.load(file, weights_only=True), strict=True)
    classifier = classifiers.load_classifier(tmp_path / "o" / "f").predictor.classifiers[0]
    with torch.no_grad():
        assert torch.allclose(whole.eval()(pictures), classifier(pictures), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "last"),
    [("wide_resnet50_2", "fc"), ("vgg16_bn", "head"), ("efficientnet_b0", "classifier.1"), ("small-resnet", "head")],
)
def test_a_classifier_is_exported_under_the_networks_own_name(network: str, last: str, ssl, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = {"head.layers.0.weight": torch.zeros(2, 3), "backbone.body.conv.weight": torch.zeros(1)}
    for kind, name in (("linear", f"{last}.weight"), ("mlp", "head.0.weight")):
        folder = runs.new_run(tmp_path, kind, "finetune", {})
        meta = {"backbone": network, "head": kind, "layer": None}
        checkpoints.write(folder / classifiers.CLASSIFIER, tensors, meta)
        runs.write_json(folder / runs.RESULT, {})
        result = ssl("export", kind, "--out", tmp_path, "--json").result
        assert set(load_file(result["export"])) == {"conv.weight", name}


# methods


def test_methods_lists_what_can_be_named(ssl) -> None:
    out = ssl("methods").out
    for package in ("pretext", "transfer.strategies", "data.sources"):
        for name in registry.names(package):
            assert f"\n  {name} " in out
    assert "\n  small-resnet " in out
    for flag in ("--method", "--strategy", "--data", "--backbone"):
        assert flag in out
    assert "feature-extraction" not in ssl("methods", "--kind", "methods").out


def test_methods_as_json(ssl) -> None:
    assert set(ssl("methods", "--json").result) >= {"methods", "strategies", "data", "backbones"}


def test_the_library_is_the_same_function(trained, tiny, messages: list[str]) -> None:
    from ssl_app.commands import finetune

    settings = finetune.Settings(
        init="p", out=trained.out, per_class=2, strategy="feature-extraction", threads=1, tracking_uri="none"
    )
    result = finetune.run(settings)
    assert result.to_json()["labels_used"] == 6
    assert runs.finished(result.run)
    assert messages[-1].startswith("feature-extraction on 6 labels: balanced accuracy ")


def test_without_a_strategy_it_is_auto_or_what_can_train_an_mlp(trained, ssl, tiny) -> None:
    words = ["finetune", "--init", "p", *SHORT, "--out", trained.out, *tiny, "--json"]
    assert ssl(*words, "--name", "usual").result["settings"]["strategy"] == "auto"
    other = ssl(*words, "--name", "three-layers", "--head", "mlp")
    assert other.result["settings"]["strategy"] == "two-stage"
    assert "strategy: two-stage (auto fits linear heads, the head is an mlp)\n" in other.err


# from another working directory


def test_a_run_reads_the_same_set_from_anywhere(ssl, tiny, images, tmp_path, monkeypatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    images(here / "scans", per_class=20)
    images(there / "scans", per_class=20, seed=9)  # a trap: another set of the same name
    monkeypatch.chdir(here)
    out = tmp_path / "runs"
    pretrain = ("pretrain", "--data", "scans", "--epochs", 1, "--batch-size", 8, "--out", out, *tiny)
    assert ssl(*pretrain, "--name", "p").code == 0
    monkeypatch.chdir(there)
    words = ("--strategy", "feature-extraction", "--per-class", 2, "--steps", 2, "--out", out, "--json", *tiny)
    answer = ssl("finetune", "--init", "p", *words)
    assert answer.code == 0, answer.err
    assert answer.result["settings"]["data"] is None
    assert f"data: {here / 'scans'}, as in p" in answer.err
    names = sorted(path.relative_to(here / "scans").as_posix() for path in (here / "scans").rglob("*.png"))
    table = "".join(f"{name},{name[5] if number % 3 else 'none'}\n" for number, name in enumerate(names))
    (tmp_path / "labels.csv").write_text(f"path,label\n{table}")
    for more in (("--labels", tmp_path / "labels.csv", "--unlabeled", "none"), ("--unlabeled", "class2")):
        relabeled = ssl("finetune", "--init", "p", *words, *more)  # other labels of the same images
        assert relabeled.code == 0, relabeled.err
        assert "was trained on it" not in relabeled.err
    shutil.rmtree(here / "scans")
    images(here / "scans", per_class=21)
    changed = ssl("finetune", "--init", "p", *words)
    assert f"note: {here / 'scans'} has other images than when p was trained on it" in changed.err
    cheap = ("--baseline", "none", "--draws", 1, "--jobs", 1, "--name", "s")
    swept = ssl("sweep", "--data", "scans", "--init", "p", *cheap, *words)
    assert swept.code == 0, swept.err
    monkeypatch.chdir(here)
    again = ssl("sweep", "--resume", "s", "--out", out, "--json", *tiny)
    assert again.code == 0, again.err
    assert again.result["settings"]["data"] == str(there / "scans")


def test_images_that_are_held_out_of_training_are_not_called_test_images(trained, ssl, tiny) -> None:
    words = [
        "--init",
        "p",
        "--per-class",
        2,
        "--steps",
        2,
        "--evaluate-on",
        "validation",
        "--out",
        trained.out,
        *tiny,
    ]
    answer = ssl("finetune", *words)
    assert answer.code == 0, answer.err
    assert " held-out training images" in answer.err
    assert "(over held-out training images)" in answer.err
    assert "copies of pretraining images" not in answer.err, "they are of the training part, as a matter of course"
