"""pretrain --seeds: several pretrainings with one command, gone on with as one, and taken as one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ssl_app.training.initialization import load_initialization
from ssl_app.transfer.replicates import first_of, why_apart, with_replicates


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, ssl, tiny, images):
    folder = tmp_path_factory.mktemp("seeds")
    data, out = images(folder / "scans", per_class=20), folder / "runs"
    words = ["--data", data, "--epochs", 1, "--batch-size", 8, "--out", out, "--name", "s", *tiny]
    answer = ssl("pretrain", *words, "--seeds", 3, "--seed", 4, "--json")
    return out, answer


def test_one_command_makes_a_run_for_each_seed(several) -> None:
    out, answer = several
    assert Path(answer.result["run"]) == out / "s"
    found = [
        json.loads((out / name / "settings.json").read_text())["settings"] for name in ("s", "s-seed5", "s-seed6")
    ]
    assert [one["seed"] for one in found] == [4, 5, 6]
    assert [one["seeds"] for one in found] == [3, 1, 1]
    weights = {(out / name / "backbone.safetensors").read_bytes() for name in ("s", "s-seed5", "s-seed6")}
    assert len(weights) == 3
    assert answer.err.rstrip().endswith(
        f"done: 3 pretrainings that differ in their seed; now type ssl-app sweep --init s --out {out}"
    )
    assert with_replicates(out, "s") == ["s", "s-seed5", "s-seed6"]
    assert with_replicates(out, "s-seed5") == ["s-seed5"]
    assert first_of(out, "s-seed6") == "s"
    assert first_of(out, "s") == "s"


def test_the_newest_pretraining_is_the_first_of_its_seeds(several, ssl, tiny) -> None:
    out, _ = several
    answer = ssl("finetune", "--per-class", 2, "--steps", 2, "--out", out, *tiny)
    assert answer.code == 0, answer.err
    assert "init: s, the newest finished pretraining" in answer.err


def test_it_goes_on_where_it_was_stopped_and_grows(several, ssl, tiny) -> None:
    out, _ = several
    before = load_file(out / "s-seed5" / "backbone.safetensors")
    (out / "s-seed5" / "result.json").unlink()  # killed before its first checkpoint
    answer = ssl("pretrain", "--resume", "s", "--seeds", 4, "--out", out, "--json", *tiny)
    assert Path(answer.result["run"]) == out / "s"
    after = load_file(out / "s-seed5" / "backbone.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert json.loads((out / "s-seed7" / "settings.json").read_text())["settings"]["seed"] == 7
    assert "s-seed6" not in answer.err, "it was there"
    assert with_replicates(out, "s") == ["s", "s-seed5", "s-seed6", "s-seed7"]


def test_what_has_a_replicates_name_and_is_none_is_refused(several, ssl, tiny) -> None:
    out, _ = several
    other = out / "s-seed8"
    other.mkdir()
    (other / "settings.json").write_text(json.dumps({"verb": "evaluate", "settings": {}}))
    assert ssl("pretrain", "--resume", "s", "--seeds", 5, "--out", out, *tiny).error == (
        f"run {other} is no pretraining of s with seed 8; remove it"
    )


def test_seeds_of_a_time_budget_are_as_long_as_the_first(ssl, tiny, images, tmp_path: Path) -> None:
    data, out = images(tmp_path / "scans", per_class=20), tmp_path / "runs"
    words = ["--data", data, "--batch-size", 8, "--budget", "1s", "--seeds", 2, "--out", out, "--name", "b", *tiny]
    assert ssl("pretrain", *words).code == 0
    first, second = (json.loads((out / name / "settings.json").read_text())["settings"] for name in ("b", "b-seed1"))
    assert first["budget"] == "1s"
    length = ("epochs", "steps_per_epoch", "batch_size", "progressive_resizing")
    assert [second[name] for name in length] == [first[name] for name in length]
    starts = [load_initialization(name, out, None) for name in ("b", "b-seed1")]
    assert why_apart(starts[1], starts[:1]) is None
    assert why_apart(starts[0], starts[1:]) is None, "in either order"
    assert ssl("pretrain", "--resume", "b", "--out", out, *tiny).code == 0, "they are gone on with"
