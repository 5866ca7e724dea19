"""`--init A+B`: several pretrainings as one initialization, each with its seeds."""

import json
from pathlib import Path

import pytest

from ssl_app.transfer.replicates import with_replicates


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, ssl, tiny, images):
    folder = tmp_path_factory.mktemp("joined")
    data, out = images(folder / "scans", per_class=20), folder / "runs"
    for method, seeds in (("rotnet", 3), ("autoencoder", 2)):
        words = ["--data", data, "--method", method, "--epochs", 1, "--batch-size", 8, "--out", out, *tiny]
        assert ssl("pretrain", *words, "--name", method, "--seeds", seeds).code == 0
    return out


def test_a_sweep_pools_the_seeds_of_joined_pretrainings(two: Path, ssl, tiny) -> None:
    init = "rotnet+autoencoder"
    assert with_replicates(two, init) == [init, "rotnet-seed1+autoencoder-seed1"]
    words = [
        "--strategy",
        "auto",
        "--per-class",
        2,
        "--draws",
        1,
        "--steps",
        2,
        "--jobs",
        1,
        "--baseline-length",
        "same",
    ]
    answer = ssl("sweep", "--init", init, *words, "--out", two, "--name", "w", "--json", *tiny)
    assert answer.code == 0, answer.err
    assert "as many seeds of rotnet+autoencoder as all of them have (rotnet: 3, autoencoder: 2)" in answer.err
    found = {one["init"] for one in answer.result["trials"]}
    assert found == {init, "rotnet-seed1+autoencoder-seed1", "scratch"}
    assert answer.result["pooled"] == [init, "rotnet-seed1+autoencoder-seed1"]
    hows = {one["how"] for one in answer.result["trials"] if one["strategy"] == "auto" and one["init"] == init}
    assert hows == {"mean of 4 frozen candidates of 2 pretrainings, by rule below 16 labels per class"}


def test_a_classifier_of_joined_pretrainings_predicts(two: Path, ssl, tiny) -> None:
    words = ["--init", "rotnet+autoencoder", "--per-class", 2, "--steps", 2, "--out", two, "--name", "f", *tiny]
    assert ssl("finetune", *words).code == 0
    data = json.loads((two / "rotnet" / "settings.json").read_text())["settings"]["data"]
    answer = ssl("predict", "f", "--data", data, "--out", two, "--json", "--threads", 1)
    assert answer.code == 0, answer.err
    assert answer.result["n"] > 0


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("rotnet+nothing", "nothing"),
        ("rotnet+none", "scratch is no pretraining of ssl-app, and only those can be joined by a plus"),
        ("rotnet+rotnet", "rotnet and rotnet hold the same weights"),
        ("rotnet+rotnet-seed1", "rotnet and rotnet-seed1 differ in their seed alone"),
        ("+", "'+' names no run on one side of a plus; expected A+B"),
    ],
)
def test_what_cannot_be_joined_is_one_line(two: Path, ssl, tiny, init: str, words: str) -> None:
    for verb in ("finetune", "sweep"):
        answer = ssl(verb, "--init", init, "--per-class", 2, "--out", two, *tiny)
        assert answer.code == 2
        assert words in answer.error, answer.err
