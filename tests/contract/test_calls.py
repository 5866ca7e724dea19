"""From the command line to a method's loss a reader follows five calls of our own code, see docs/design.md."""

import sys
from pathlib import Path
from types import FrameType

import pytest
from torch import Tensor

import ssl_app
from ssl_app.cli import main
from ssl_app.data.batch import Batch
from ssl_app.pretext.rotnet import RotNet
from ssl_app.training.task import Metrics

PACKAGE = Path(ssl_app.__file__).parent
TINY = (
    *("--epochs", "1", "--steps-per-epoch", "1", "--batch-size", "8"),
    *("--threads", "1", "--precision", "fp32", "--tracking-uri", "none"),
)


def own_callers(frame: FrameType | None) -> list[str]:
    """Functions of the package between `main` and a frame, outermost first, `main` too."""
    found: list[str] = []
    while frame is not None:
        if PACKAGE in Path(frame.f_code.co_filename).parents:
            found.append(frame.f_code.co_qualname)
            if frame.f_code is main.__code__:
                break
        frame = frame.f_back
    return found[::-1]


def test_from_main_to_the_loss_are_at_most_five_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths: list[list[str]] = []
    original = RotNet.loss

    def loss(self: RotNet, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        path = own_callers(sys._getframe(1))
        if self.training and "Pretraining.draw_views" not in path:  # validation and a picture come a longer way
            paths.append(path)
        return original(self, batch, player)

    monkeypatch.setattr(RotNet, "loss", loss)
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", "--method", "rotnet", "--out", str(tmp_path), *TINY])
    assert ended.value.code == 0, capsys.readouterr().err
    assert paths
    for path in paths:
        assert path[0] == "main"
        assert len(path) <= 5, f"{len(path)} calls: {' -> '.join([*path, 'loss'])}"
