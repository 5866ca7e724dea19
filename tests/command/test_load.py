"""`ssl_app.load`: a finished run in Python computes what `ssl-app predict` does."""

import contextlib
import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ssl_app
from ssl_app.data.spec import PixelSpec
from ssl_app.errors import DataError, RunError
from ssl_app.transfer.loaded import LoadedRun

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture(scope="module")
def classified(ssl, tiny, trained) -> dict[str, Any]:
    """A classifier `c` that is a mean of two networks, at sides other than the files'."""
    words = ["--strategy", "auto", "--steps", 4, "--batch-size", 8, "--per-class", 16, "--name", "c"]
    found: dict[str, Any] = ssl("finetune", "--init", "p", *words, "--out", trained.out, *tiny, "--json").result
    return found


@pytest.fixture
def classifier(classified, trained) -> LoadedRun:
    return ssl_app.load("c", out=trained.out, threads=1)


def predicted(path: str) -> tuple[list[str], np.ndarray]:
    """Paths and probabilities of a table of predictions."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith("p_")]
    return [row["path"] for row in rows], np.array([[float(row[name]) for name in names] for row in rows])


def test_the_lines_of_the_document_reproduce_the_accuracy(classified, trained, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "ssl-runs").symlink_to(trained.out)
    (trained.out / "my-run").symlink_to(trained.out / "c")
    (tmp_path / "scans").symlink_to(trained.data)
    monkeypatch.chdir(tmp_path)
    code = DOCUMENT.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/python.md", "exec"), {})
    (trained.out / "my-run").unlink()
    assert float(printed.getvalue()) == classified["test"]["accuracy"]
    assert len([line for line in code.splitlines() if line]) <= 10


def test_paths_images_and_arrays_are_predicted_as_by_the_verb(ssl, classifier, trained) -> None:
    result = ssl("predict", "c", "--data", trained.data, "--out", trained.out, "--threads", 1, "--json").result
    keys, wanted = predicted(result["predictions"])
    paths = [trained.data / key for key in keys]
    found = classifier.predict([str(path) for path in paths])
    assert np.abs(found - wanted).max() < 1e-6, "as many decimals as the table has"
    assert classifier.classes == ("class0", "class1", "class2")
    some = paths[::9]
    with contextlib.ExitStack() as files:
        images = [files.enter_context(Image.open(path)) for path in some]
        arrays = [np.asarray(image) for image in images]
        kinds = (
            images,
            arrays,
            [array[..., None] for array in arrays],
            np.stack(arrays),
            np.stack(arrays)[..., None],
        )
        for kind in (some, *kinds):
            assert np.allclose(classifier.predict(kind), found[::9], atol=1e-6)
        for alone in (some[0], images[0], arrays[0], arrays[0][..., None]):
            assert np.allclose(classifier.predict(alone), found[:1], atol=1e-6)
        colored = [image.convert("RGB") for image in images]
        assert np.allclose(classifier.predict(colored), found[::9], atol=1e-6), "R = G = B is gray, as in a file"
        assert np.allclose(classifier.predict([image.convert("RGBA") for image in images]), found[::9], atol=1e-6)


def test_an_image_is_turned_as_its_file_says(classifier, tmp_path: Path) -> None:
    turns = Image.Exif()
    turns[274] = 6
    Image.fromarray(np.arange(20 * 16, dtype=np.uint8).reshape(20, 16)).save(tmp_path / "t.png", exif=turns)
    with Image.open(tmp_path / "t.png") as image:
        assert torch.equal(classifier.preprocess(image), classifier.preprocess(tmp_path / "t.png"))


def test_it_is_a_torch_module(classifier, trained) -> None:
    paths = sorted(trained.data.glob("class1/*.png"))[:3]
    batch = classifier.preprocess(paths)
    assert batch.shape == (3, 1, 16, 16)
    assert np.allclose(classifier(batch).detach().numpy(), classifier.predict(paths), atol=1e-6)
    classifier(batch).sum().backward()
    assert classifier.features(paths).shape == (3, 128), "two networks of 64 features"
    assert classifier.features(paths, "stage3").shape[0] == 3
    assert classifier.pixels == PixelSpec(16, 1, "range", 16)
    assert any(isinstance(module, torch.nn.Conv2d) for module in classifier.modules())


def test_a_pretraining_has_features_and_says_why_it_cannot_predict(trained) -> None:
    model = ssl_app.load(trained.out / "p", threads=1)
    paths = sorted(trained.data.glob("class0/*.png"))[:5]
    features = model.features(paths)
    assert features.shape == (5, 64)
    with torch.no_grad():
        assert np.allclose(model(model.preprocess(paths)).numpy(), features, atol=1e-5)
    assert model.classes == ()
    with pytest.raises(RunError) as refusal:
        model.predict(paths)
    assert str(refusal.value) == (
        "p is a pretraining, which has features and no classes; type ssl-app finetune --init p"
    )


def test_what_is_no_image_is_refused_in_one_line(classifier, trained, tmp_path: Path) -> None:
    path = next(trained.data.glob("class0/*.png"))
    shutil.copy(Path(__file__), tmp_path / "text.png")
    cases = {
        "no image is given; expected one or more": [],
        "torch.Tensor is no image; expected a path, an image of Pillow, or a numpy array (H, W) or (H, W, C); "
        "give one, or a list of them": torch.zeros(1, 16, 16),
        f"{tmp_path / 'missing.png'} cannot be read: the file is missing": [path, tmp_path / "missing.png"],
        f"{tmp_path / 'text.png'} cannot be read: not an image of a known format": tmp_path / "text.png",
        "image 0 has 5 channels, 1 are requested (2 of 2 images)": np.zeros((2, 16, 16, 5), np.uint8),
        f"image 1 is uint16 and {path} is uint8; expected one bit depth": [path, np.zeros((16, 16), np.uint16)],
    }
    for sentence, given in cases.items():
        with pytest.raises(DataError) as refusal:
            classifier.predict(given)
        assert str(refusal.value) == sentence
    with pytest.raises(DataError, match=r"^what is given holds uint16 images, the network was trained on uint8 "):
        classifier.predict(np.zeros((16, 16), np.uint16))


def test_a_run_without_a_network_is_refused(trained, tmp_path: Path) -> None:
    from ssl_app import runs

    folder = runs.new_run(tmp_path, "s", "sweep", {})
    with pytest.raises(RunError) as refusal:
        ssl_app.load("s", out=tmp_path)
    assert str(refusal.value) == f"run {folder} holds no network; expected a finished pretrain or finetune run"


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, ssl_app; print(sorted({'torch', 'numpy', 'mlflow', 'click'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
