"""pretrain --limit: how many images were trained on, which, and what counts as seen."""

import json
from pathlib import Path

import pytest

from ssl_app.pretraining.run import Pretraining
from ssl_app.training.initialization import load_initialization


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Pretraining]:
    """The pretrainings of this test, as they were trained."""
    found: list[Pretraining] = []
    train = Pretraining.train

    def spy(self: Pretraining, *about: object) -> object:
        found.append(self)
        return train(self, *about)  # type: ignore[arg-type]

    monkeypatch.setattr(Pretraining, "train", spy)
    return found


def test_a_limit_trains_on_nested_images_and_leaves_the_others_unseen(
    ssl, tiny, images, tmp_path: Path, trained: list[Pretraining]
) -> None:
    words = ["--data", images(tmp_path / "scans", per_class=24), "--epochs", 1, "--batch-size", 8, *tiny]
    words += ["--out", tmp_path / "o"]
    for limit in (12, 30, None):
        more = [] if limit is None else ["--limit", limit]
        answer = ssl("pretrain", *words, *more, "--name", f"p{limit}")
        assert answer.code == 0, answer.err
        settings = json.loads((tmp_path / "o" / f"p{limit}" / "settings.json").read_text())["settings"]
        assert settings["limit"] == limit
        every = len(trained[-1].inputs.train)
        assert (limit is None) == ("limit: " not in answer.err)
        if limit is not None:
            assert every == limit
            assert f"limit: {limit} of " in answer.err
            assert " images are trained on (drawn by image, seed 0)\n" in answer.err
    few, more_images, all_images = (set(one.inputs.train.tolist()) for one in trained)
    assert few < more_images < all_images
    validation = [one.inputs.validation.tolist() for one in trained]
    assert validation[0] == validation[1] == validation[2], "scores are of the same images"
    seen = load_initialization(str(tmp_path / "o" / "p12" / "backbone.safetensors"), tmp_path / "o", None).seen
    assert seen is not None
    assert len(seen.content) == 12 + len(validation[0])


def test_a_limit_of_three_is_refused(ssl, tiny, images, tmp_path: Path) -> None:
    words = ["--data", images(tmp_path / "scans"), "--limit", 3, "--out", tmp_path / "o", *tiny]
    assert ssl("pretrain", *words).error == "--limit is 3; expected at least 4"
