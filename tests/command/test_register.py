"""`register`, and what MLflow then serves: pixels in, what `predict` writes out, for one image and for several."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from ssl_app import checkpoints, runs
from ssl_app.data.intensity import PixelScaling
from ssl_app.models import backbones
from ssl_app.models.heads import build_head
from ssl_app.training.classifier import Classifier
from ssl_app.training.initialization import BACKBONE
from ssl_app.transfer import trained

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # MLflow's own
CLASSES = ("cat", "dog", "<b>鳥</b>")
KINDS = {"gray": (1, "uint8"), "gray16": (1, "uint16"), "color": (3, "uint8")}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each kind of image a classifier that nothing has trained, and seven images; and a backbone."""
    out = tmp_path_factory.mktemp("register") / "runs"
    out.mkdir()
    random = np.random.default_rng(0)
    for name, (channels, dtype) in KINDS.items():
        folder = runs.new_run(out, name, "finetune", {})
        torch.manual_seed(0)
        backbone = backbones.build("small-resnet", channels, 16)
        for norm in [one for one in backbone.modules() if isinstance(one, nn.BatchNorm2d)]:
            norm.running_mean.normal_(std=0.1)
        one = Classifier(backbone, build_head("linear", backbone.shape(), 3), None, torch.zeros(0))
        high = float(np.iinfo(dtype).max)
        scaling = PixelScaling("range", 0.0, high, (0.5,) * channels, (0.1,) * channels, dtype)
        meta = {"pixels": scaling.to_json(), "backbone": "small-resnet", "channels": channels, "image_size": 16}
        meta |= {"pack_side": 18, "bf16": False, "mirrored": True, "temperature": 0.7, "layer": None}
        about = meta | {"kind": "classifier", "classes": CLASSES, "head": "linear"}
        checkpoints.write(folder / trained.CLASSIFIER, one.state_dict(), about)
        runs.write_json(folder / runs.RESULT, {})
        (out.parent / name).mkdir()
        for number in range(7):
            image = random.integers(0, high, (24, 20) if channels == 1 else (24, 20, channels), dtype=dtype)
            cv2.imwrite(str(out.parent / name / f"{number}.png"), image)
    folder = runs.new_run(out, "backbone", "pretrain", {})
    checkpoints.write(
        folder / BACKBONE, {f"backbone.{k}": t for k, t in backbone.state_dict().items()},
        meta | {"kind": "backbone", "settings": {}},
    )  # fmt: skip
    runs.write_json(folder / runs.RESULT, {})
    return out


@pytest.fixture
def store(out: Path) -> Iterator[None]:
    """Where the registry is, for MLflow's own functions."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{out / 'mlflow.db'}")
    yield
    mlflow.set_tracking_uri(None)


def pixels(folder: Path) -> np.ndarray:
    """The pixels of a folder's PNGs as MLflow is given them: (7, H, W), or (7, H, W, 3) as red, green, blue."""
    read = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.glob("*.png"))]
    return np.stack([image if image.ndim == 2 else image[..., ::-1] for image in read])


@pytest.fixture
def served(store: None) -> Callable[[str, Any], Any]:
    """What MLflow's scoring server answers, without its socket: served("models:/gray@champion", images)."""
    from mlflow import pyfunc
    from mlflow.pyfunc.scoring_server import invocations

    loaded: dict[str, Any] = {}

    def answer(uri: str, images: Any) -> Any:
        model = loaded.setdefault(uri, None) or pyfunc.load_model(uri)
        loaded[uri] = model
        content = json.dumps({"inputs": images.tolist()})
        found = invocations(content, "application/json", model, model.metadata.get_input_schema())
        assert found.status == 200, found.response
        return json.loads(found.response)["predictions"]

    return answer


@pytest.mark.parametrize("name", KINDS)
def test_a_registered_classifier_answers_pixels_as_predict_does(name: str, ssl, out: Path, served) -> None:
    result = ssl("register", name, "--name", f"the {name}", "--out", out, "--json").result
    assert (result["name"], result["version"], result["alias"]) == (f"the {name}", 1, "champion")
    table = ssl("predict", name, "--data", out.parent / name, "--out", out, "--threads", 1, "--json").result
    with open(table["predictions"], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    images = pixels(out.parent / name)
    for some in (slice(0, 1), slice(1, 3), slice(0, 7)):
        found = served(result["model"], images[some])
        assert len(found) == len(rows[some])
        for mine, wanted in zip(found, rows[some], strict=True):
            assert list(mine) == ["label", *(f"p_{each}" for each in CLASSES)]
            assert mine["label"] == wanted["label"]
            assert all(abs(mine[key] - float(wanted[key])) < 1e-5 for key in mine if key != "label")


def test_a_backbone_answers_with_features(ssl, out: Path, served) -> None:
    import ssl_app

    result = ssl("register", "backbone", "--name", "features", "--alias", "next", "--out", out, "--json").result
    assert result["model"] == "models:/features@next"
    images = pixels(out.parent / "color")
    found = np.array(served("models:/features@next", images[:2]))
    assert np.allclose(found, ssl_app.load("backbone", out, threads=1).features(images[:2]), atol=1e-4)


def test_it_says_how_to_serve_and_again_makes_no_second_version(ssl, out: Path) -> None:
    for _ in range(2):
        answer = ssl("register", "gray", "--name", "again", "--alias", "new", "--out", out)
        assert answer.code == 0
        assert f"gray is version 1 of again at {out / 'mlflow.db'}, alias new" in answer.err
    command = "mlflow models serve --model-uri models:/again@new --env-manager local --port 5001"
    assert f"type MLFLOW_TRACKING_URI=sqlite:///{out / 'mlflow.db'} {command}" in answer.err


def test_mistakes_are_one_line(ssl, out: Path, tmp_path: Path) -> None:
    cases = {
        "register needs a name for the network; type --name, such as --name scans": ["gray"],
        "--name is 'a/b'; expected a name without / : and quotes": ["gray", "--name", "a/b"],
        "--alias is 'v1'; expected letters, digits, - and _, and neither latest nor v1, v2 ...": [
            "gray", "--name", "a", "--alias", "v1",
        ],
        f"no run 'gry' in {out}; did you mean 'gray'?": ["gry", "--name", "a"],
    }  # fmt: skip
    for sentence, words in cases.items():
        assert ssl("register", *words, "--out", out).error == sentence
    folder = runs.new_run(tmp_path, "s", "sweep", {})
    error = ssl("register", "s", "--name", "a", "--out", tmp_path).error
    assert error == f"run {folder} holds no finished network; expected a pretrain or finetune run that ended"
    shutil.copy(out / "gray" / trained.CLASSIFIER, folder)
    assert "holds no finished network" in ssl("register", "s", "--name", "a", "--out", tmp_path).error
