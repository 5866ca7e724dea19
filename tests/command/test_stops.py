"""A signal outside a training: every verb says `stopped`, exits as the signal would, and leaves nothing half made."""

import os
import signal
from pathlib import Path

import pytest

from ssl_app.errors import CheckpointError

SHORT = ("--per-class", 4, "--strategy", "feature-extraction")
# a function that the verb calls while its run is recorded, and the verb
MOMENTS = [
    ("ssl_app.data.splits.write_draw", ("finetune", "--init", "p", *SHORT, "--name", "n")),
    ("ssl_app.transfer.trial.run", ("finetune", "--init", "p", *SHORT, "--name", "n")),
    ("ssl_app.pretraining.run.Pretraining.train", ("pretrain", "--epochs", 1, "--name", "n")),
    ("ssl_app.evaluation.layer.measure", ("evaluate", "p", "--layers", "pooled", "--name", "n")),
    ("ssl_app.runs.new_run", ("suggest", "p", "--labels", "none", "--count", 3, "--name", "n")),
]


@pytest.fixture(autouse=True)
def heard() -> None:
    """A shell may have started the tests with signals ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(("where", "words"), MOMENTS)
def test_a_signal_leaves_nothing_half_made(
    where: str, words: tuple[object, ...], number: int, ssl, tiny, trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, lambda *args, **more: os.kill(os.getpid(), number))
    offline = ("--tracking-uri", "none") if words[0] == "suggest" else tiny
    data = ("--data", trained.data) if words[0] == "pretrain" else ()
    before = sorted(path.name for path in trained.out.iterdir())
    answer = ssl(*words, *data, "--out", trained.out, *offline)
    assert answer.code == 128 + number, answer.err
    assert answer.err.splitlines()[-1] == "stopped"
    assert "error" not in answer.err
    assert sorted(path.name for path in trained.out.iterdir()) == before


def test_what_a_library_makes_of_a_signal_is_no_damaged_file(ssl, tiny, trained, monkeypatch) -> None:
    def read(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException as error:
            raise CheckpointError("p is not a safetensors file") from error

    monkeypatch.setattr("ssl_app.checkpoints.read", read)
    answer = ssl("evaluate", "p", "--out", trained.out, *tiny)
    assert (answer.code, answer.err.splitlines()[-1]) == (130, "stopped")


# wrong-shaped files of ours

SHAPES = ["[]", "3", "null", '"text"', "", "{", "{}", '{"settings": [1]}', '{"verb": 3}', "\0", "[" * 100_000]


@pytest.mark.parametrize("content", SHAPES)
@pytest.mark.parametrize("words", [("show", "p"), ("report", "p"), ("pretrain", "--resume", "p"), ("label", "p")])
def test_settings_of_a_wrong_shape_are_one_line(content: str, words: tuple[str, ...], ssl, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "settings.json").write_text(content)
    (tmp_path / "p" / "result.json").write_text("{}" if words[0] == "label" else content)
    error = ssl(*words, "--out", tmp_path).error
    assert "expected a file that ssl-app wrote" in error or "no finished pretraining" in error


@pytest.mark.parametrize("content", SHAPES)
def test_the_list_names_what_it_leaves_out(content: str, ssl, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "settings.json").write_text(content)
    answer = ssl("list", "--out", tmp_path)
    assert answer.code == 0
    assert answer.err.startswith(f"left out: {tmp_path / 'p' / 'settings.json'} cannot be ")
