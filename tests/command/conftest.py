"""The command line as the user meets it: in this process, with what it prints on either side."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_app.cli import main
from tests.toys import NARROW

TINY = ("--threads", "1", "--precision", "fp32", "--tracking-uri", "none")


@dataclass(frozen=True)
class Answer:
    """What one command line came to."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a refusal."""
        assert self.code == 2, self.err
        assert "Traceback" not in self.err + self.out
        lines = [line for line in self.err.splitlines() if line.startswith("error")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        assert self.err.rstrip().endswith(lines[0]), "the error is the last that is said"
        assert "error" not in self.out
        return lines[0].removeprefix("error: ")

    @property
    def result(self) -> dict[str, Any]:
        """The one JSON object on stdout, and nothing beside it."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1
        found: dict[str, Any] = json.loads(self.out, parse_constant=_no_constant)
        return found


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


Type = Callable[..., Answer]


def type_in(*words: object) -> Answer:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return Answer(ended.value.code, out.getvalue(), err.getvalue())


def make_images(
    root: Path, per_class: int = 24, classes: int = 3, side: int = 16, channels: int = 1, seed: int = 0
) -> Path:
    """A folder of class sub-folders of PNG images, each its own, that a classifier can tell apart."""
    import cv2

    generator = np.random.default_rng(seed)
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for number in range(per_class):
            image = generator.integers(0, 60, (side, side, channels), dtype=np.uint8)
            image[: side // 2, label * side // classes : (label + 1) * side // classes] += 150
            cv2.imwrite(str(root / f"class{label}" / f"{number:03d}.png"), image)
    return root


@pytest.fixture(scope="module", autouse=True)
def narrow_networks() -> Iterator[None]:
    """A small-resnet of a quarter of its width: half the time of a tiny run.

    Further processes do not know of it: a file that starts some overrides this.
    """
    from ssl_app.models.backbones import small_resnet

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_resnet, "WIDTHS", NARROW)
        yield


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    """Files of figures are empty: to draw them is a third of the time of a tiny run; test_verbs draws them."""
    from matplotlib.figure import Figure

    from ssl_app.report import plots

    def empty(path: Path, *about: object, **more: object) -> None:
        Path(path).write_bytes(b"")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("history", "confusion", "label_efficiency", "labels_saved"):
            patch.setattr(plots, name, empty)
        patch.setattr(Figure, "savefig", lambda figure, path, **how: empty(path))
        yield


@pytest.fixture(scope="session")
def ssl() -> Type:
    """Type a command line: ssl("pretrain", "--data", folder) -> Answer."""
    return type_in


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Flags that make every verb small, repeatable and offline."""
    return TINY


@pytest.fixture(scope="session")
def images() -> Callable[..., Path]:
    """Make a folder of images: images(root, per_class=24, classes=3, side=16, channels=1)."""
    return make_images


@dataclass(frozen=True)
class Trained:
    """A set, and a pretraining `p` of it."""

    data: Path
    out: Path
    answer: Answer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("command")
    data, out = make_images(folder / "scans"), folder / "runs"
    words = [
        "pretrain",
        "--data",
        data,
        "--method",
        "rotnet",
        "--epochs",
        1,
        "--batch-size",
        16,
        "--name",
        "p",
        "--json",
    ]
    return Trained(data, out, type_in(*words, "--out", out, *TINY))
