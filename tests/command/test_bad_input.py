"""A mistake at the keyboard costs one line: what was found, what was expected, what to type; nothing half-made."""

import csv
import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssl_app import checkpoints, runs
from ssl_app.errors import UserError

SHORT = ("--steps", 2, "--batch-size", 8, "--per-class", 2)
ONCE = ("--epochs", 1, "--batch-size", 16)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refuse(ssl, tiny, tmp_path: Path) -> Callable[..., str]:
    """Type what must be refused, with --out new: its one line, and no run nor draft is left in --out."""

    def refused(*words: object) -> str:
        error = ssl(*words, "--out", "new", *tiny).error
        assert half_made(tmp_path / "new") == []
        return error

    return refused


@pytest.fixture
def refuse_beside(ssl, tiny, trained) -> Callable[..., str]:
    """The same, in the folder of the pretraining, which stays as it was."""

    def refused(*words: object) -> str:
        before = half_made(trained.out)
        error = ssl(*words, "--out", trained.out, *tiny).error
        assert half_made(trained.out) == before
        return error

    return refused


def half_made(out: Path) -> list[str]:
    """What lies in --out but the cache of decoded images."""
    return sorted(path.name for path in out.glob("*") if path.name != "cache") if out.is_dir() else []


def manifest(name: str, rows: list[dict[str, Any]]) -> str:
    with open(name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return name


def write_png(path: Path, pixels: np.ndarray) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


# The data


def test_an_empty_folder(refuse) -> None:
    Path("empty").mkdir()
    assert refuse("pretrain", "--data", "empty").startswith("no images found in empty; expected .bmp, .gif, ")


def test_a_path_that_does_not_exist(refuse) -> None:
    Path("scans").mkdir()
    assert refuse("pretrain", "--data", "scan") == "scan does not exist; did you mean scans?"
    assert refuse("pretrain", "--data", "digit") == "digit does not exist; did you mean digits?"
    assert refuse("pretrain", "--data", "elsewhere/far") == (
        "elsewhere/far does not exist; expected a folder or file of images, a manifest (.csv, .tsv, .parquet), an "
        ".npz, tar shards or a built-in name (digits)"
    )


def test_an_empty_flag_is_not_its_default(refuse) -> None:
    assert refuse("pretrain", "--data", "") == "--data is empty; give it a value, or leave it out"


def test_a_missing_column(refuse, images) -> None:
    images(Path("scans"), per_class=2)
    data = manifest("set.csv", [{"path": "scans/class0/000.png", "label": "a", "patient": "x"}])
    assert refuse("pretrain", "--data", data, "--group", "patientt") == (
        "set.csv has no column 'patientt'; did you mean 'patient'?"
    )
    assert refuse("pretrain", "--data", "scans", "--group", "patient").startswith(
        "the group is column patient, and the folder scans has no columns; write a manifest"
    )


def test_a_class_with_too_few_images(refuse_beside, trained) -> None:
    assert refuse_beside("finetune", "--init", "p", "--per-class", 500, "--steps", 2) == (
        "class 'class0', the largest, has 21 labeled training images, 500 per class are requested; type --per-class "
        "21 or less"
    )
    assert "64 per class are requested; type --per-class 2" in refuse_beside(
        "sweep", "--init", "p", "--per-class", "2,64", "--draws", 1, "--name", "never"
    )


def test_one_class_only(refuse_beside, trained) -> None:
    one = [{"path": str(path), "label": "healthy"} for path in sorted(trained.data.glob("class0/*.png"))]
    assert refuse_beside("finetune", "--init", "p", "--data", manifest("one.csv", one), *SHORT) == (
        "one.csv has one class, 'healthy'; expected two or more"
    )


def test_groups_that_leave_a_class_out_of_the_test_set(refuse_beside, trained) -> None:
    rows = [
        {"path": str(path), "label": label, "patient": patient(label, number)}
        for label in ("class0", "class1")
        for number, path in enumerate(sorted((trained.data / label).glob("*.png")))
    ]
    error = refuse_beside("finetune", "--init", "p", "--data", manifest("g.csv", rows), "--group", "patient", *SHORT)
    assert error in (
        "class 'class1' has no test image: its only patient falls into the training part; "
        "give it images of another patient",
        "class 'class1' has no training image: its only patient falls into the test part; "
        "give it images of another patient",
    )


def patient(label: str, number: int) -> str:
    return f"patient {number}" if label == "class0" else "the one"


def test_a_split_column_that_cuts_a_group(refuse, ssl) -> None:
    rows = []
    for number in range(8):
        write_png(Path(f"i/{number}.png"), np.full((16, 16), 30 * number, np.uint8))
        mark = "test" if number in (0, 1) else "train"
        rows.append({"path": f"i/{number}.png", "label": number % 2, "patient": number // 2 * 2, "split": mark})
    rows[2]["patient"] = 0
    data = manifest("set.csv", rows)
    assert refuse("pretrain", "--data", data, "--group", "patient", *ONCE) == (
        "column split puts 2 of 2 test images beside a train image of the same patient; "
        "type --split none to split by patient, or --allow-leak"
    )
    words = ("--per-class", 1, "--group", "patient", "--out", "o", *SHORT, "--threads", 1, "--tracking-uri", "none")
    answer = ssl("finetune", "--init", "none", "--data", data, "--image-size", 16, "--allow-leak", "--json", *words)
    assert answer.code == 0, answer.err
    assert answer.result["overlap"] == "2 of 2 test images have a train image of the same patient"
    sizes = ("--strategy", "full-fine-tuning", "--draws", 1)
    swept = ssl(
        "sweep", "--init", "none", "--data", data, "--image-size", 16, "--allow-leak", "--json", *words, *sizes
    )
    assert swept.code == 0, swept.err


def test_color_beside_gray(refuse, images) -> None:
    images(Path("mixed/gray"), per_class=2)
    images(Path("mixed/color"), per_class=2, channels=3)
    assert refuse("pretrain", "--data", "mixed", *ONCE) == (
        "color/class0/000.png has color and gray/class0/000.png has one channel (6 and 6 of 12 images); "
        "type --channels 3 (gray is repeated), or --channels 1 (color becomes gray)"
    )


def test_an_unreadable_image(refuse, ssl, tiny, images) -> None:
    images(Path("scans"), per_class=4)
    Path("scans/class1/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand then nothing of the kind, for long enough")
    error = refuse("pretrain", "--data", "scans", *ONCE)
    assert error.startswith("1 of 13 images cannot be read, first class1/broken.png: ")
    assert error.endswith("; fix or remove it, or type --max-unreadable 1")
    done = ssl("pretrain", "--data", "scans", "--max-unreadable", 1, *ONCE, "--out", "new", "--json", *tiny)
    assert done.code == 0
    assert "left out, unreadable: class1/broken.png" in done.err
    assert [key for key, _ in done.result["unreadable"]] == ["class1/broken.png"]


def test_a_pipe_in_a_folder_is_not_waited_for(refuse, images) -> None:
    images(Path("scans"), per_class=4)
    os.mkfifo("scans/class1/pipe.jpg")
    os.mkfifo("scans/class1/pipe")
    error = refuse("pretrain", "--data", "scans", *ONCE)
    assert error.startswith("1 of 13 images cannot be read, first class1/pipe.jpg: it is no regular file")


def test_an_output_that_is_there_is_not_written_over(ssl, trained, tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("path,label\n")
    for verb in (["predict", "p", "--data", mine], ["label", "p"]):
        answer = ssl(*verb, "--output", mine, "--out", trained.out)
        assert answer.error == f"{mine} exists already; remove it, or type another --output"
    assert mine.read_text() == "path,label\n"


def test_a_name_longer_than_a_file_may_have(refuse) -> None:
    assert "longer than a file's name may be" in refuse("pretrain", "--data", "a" * 300, *ONCE)


def test_no_labels_for_finetune(ssl, tiny, images) -> None:
    images(Path("scans"), per_class=12, classes=1)
    pretrained = ssl("pretrain", "--data", "scans", *ONCE, "--out", "o", "--name", "7", *tiny)
    assert "now type ssl-app finetune --per-class 32 --labels FILE --out o\n" in pretrained.err
    scans = Path("scans").absolute()
    assert ssl("finetune", *SHORT, "--out", "o", *tiny).error == (
        f"run 7 was trained on {scans}, which has no labels; type --label COLUMN, or --labels FILE, or --data D"
    )
    assert ssl("finetune", "--data", "scans", *SHORT, "--out", "o", *tiny).error == (
        "scans has no labels; type --label COLUMN, or --labels FILE, or put images into one folder a class"
    )
    assert half_made(Path("o")) == ["7"]


def test_nothing_is_left_to_pretrain_on(refuse_beside, trained) -> None:
    assert refuse_beside("pretrain", "--data", trained.data, "--exclude", trained.data) == (
        f"0 images are left to pretrain on after the exclusion of {trained.data}, 15 are the test part; "
        f"expected at least 4; type another --exclude, or another --data"
    )


# Weights


def test_a_checkpoint_of_another_architecture(refuse_beside, trained) -> None:
    found = f"{trained.out}/p/backbone.safetensors holds a small-resnet, a resnet18 is requested; "
    for verb in ("finetune", "pretrain", "sweep"):
        more = SHORT if verb != "pretrain" else ()
        error = refuse_beside(verb, "--init", "p", "--backbone", "resnet18", "--data", trained.data, *more)
        assert error == found + "leave --backbone out"


def test_a_plain_weights_file_of_another_net(refuse_beside, trained) -> None:
    tensors, _ = checkpoints.read(trained.out / "p" / "backbone.safetensors")
    body = {k.removeprefix("backbone.body."): t for k, t in tensors.items() if k.startswith("backbone.body.")}
    torch.save(body, "theirs.pth")
    assert refuse_beside("finetune", "--init", "theirs.pth", "--data", trained.data, *SHORT) == (
        "theirs.pth does not say which network it is of; type --backbone B, such as resnet18"
    )
    error = refuse_beside(
        "finetune", "--init", "theirs.pth", "--backbone", "nin", "--data", trained.data, "--image-size", 32, *SHORT
    )
    assert error.endswith("; type --backbone small-resnet, which the file looks like")
    assert error.startswith("theirs.pth: 0 of 72 backbone tensors fit nin")


def test_of_two_networks_in_a_weights_file_one_is_named(refuse_beside, trained, ssl) -> None:
    tensors, _ = checkpoints.read(trained.out / "p" / "backbone.safetensors")
    body = {k.removeprefix("backbone.body."): t for k, t in tensors.items() if k.startswith("backbone.body.")}
    torch.save({"student": body, "teacher": {k: t * 2 for k, t in body.items()}}, "two.ckpt")
    words = ("--backbone", "small-resnet", "--data", trained.data, "--image-size", 32, *SHORT)
    assert refuse_beside("finetune", "--init", "two.ckpt", *words) == (
        "two.ckpt holds 2 networks that fit, 'student', 'teacher'; type --init two.ckpt:teacher"
    )
    assert refuse_beside("finetune", "--init", "two.ckpt:ema", *words) == (
        "two.ckpt holds no network under 'ema' with tensors of this backbone; expected 'student', 'teacher'; type "
        "another --init"
    )
    words += ("--strategy", "feature-extraction", "--threads", 1, "--tracking-uri", "none", "--json", "--out", "o")
    scores = {}
    for network in ("teacher", "student"):
        answer = ssl("finetune", "--init", f"two.ckpt:{network}", *words, "--name", network)
        assert answer.code == 0, answer.err
        assert f"named '{network}.*'" in answer.err
        scores[network] = (Path("o") / network / "test.csv").read_text()
    assert scores["teacher"] != scores["student"]


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed").absolute(),)


@pytest.mark.parametrize("name", ["evil.pth", "evil.pt", "evil.safetensors"])
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_is_never_executed(name: str, writer: str, refuse_beside, trained) -> None:
    content = {"weight": Malicious()}
    if writer == "torch":
        torch.save(content, name)
    else:
        Path(name).write_bytes(pickle.dumps(content))
    words = ["--init", name, "--backbone", "resnet18", "--data", trained.data]
    for verb in (["finetune", *SHORT], ["pretrain", *ONCE]):
        error = refuse_beside(*verb, *words)
        assert error.startswith(f"{name} ")
        assert "running what a file brings along is refused" in error or "cannot be read as safetensors" in error
        assert not Path("executed").exists()
    os.rename(trained.out / "p" / "backbone.safetensors", "aside")
    try:
        os.rename(name, trained.out / "p" / "backbone.safetensors")
        assert "pickles never" in refuse_beside("finetune", "--init", "p", *SHORT)
    finally:
        os.replace("aside", trained.out / "p" / "backbone.safetensors")
    assert not Path("executed").exists()
    pickle.loads(pickle.dumps(Malicious()))  # it would have worked
    assert Path("executed").exists()


def test_a_missing_init(refuse_beside, refuse, trained) -> None:
    assert refuse_beside("finetune", "--init", "nosuch.pth", *SHORT) == (
        "nosuch.pth is not a file; expected a run, a checkpoint or a weights file"
    )
    assert refuse_beside("finetune", "--init", "P", *SHORT) == f"no run 'P' in {trained.out}; known: p"
    assert refuse("finetune", *SHORT) == (
        "no finished pretraining in new; type ssl-app pretrain, or --init none for random weights, or another --out"
    )


def test_a_missing_init_names_the_nearest_run(ssl, tiny) -> None:
    for name in ("scans-sela", "digits"):
        runs.new_run(Path("o"), name, "pretrain", {})
    assert ssl("finetune", "--init", "scan-sela", *SHORT, "--out", "o", *tiny).error == (
        "no run 'scan-sela' in o; did you mean 'scans-sela'?"
    )
    assert ssl("finetune", "--init", "digits", *SHORT, "--out", "o", *tiny).error == (
        "run o/digits has not finished; type ssl-app pretrain --resume digits, or another --init"
    )


def test_the_state_of_a_training_is_no_init(refuse_beside, trained) -> None:
    state = Path("half/training.safetensors")
    state.parent.mkdir()
    checkpoints.write(state, {"task.a": torch.zeros(1)}, {"position": {}})
    assert refuse_beside("finetune", "--init", state, "--data", trained.data, *SHORT) == (
        "half/training.safetensors is the state of a pretraining that has not finished; "
        "type ssl-app pretrain --resume half, or another --init"
    )


def test_pixels_other_than_those_of_the_weights(refuse_beside, trained) -> None:
    assert refuse_beside("finetune", "--init", "p", "--channels", 3, *SHORT) == (
        "p was pretrained on 1 channels, 3 are requested; leave --channels out, or type --init none"
    )
    assert refuse_beside("pretrain", "--init", "p", "--intensity", "dtype", "--data", trained.data) == (
        "p was pretrained on the intensity range, not dtype; leave --intensity out, or type --init none"
    )


def test_an_image_too_small_for_the_backbone(refuse, trained) -> None:
    for verb in (["pretrain"], ["finetune", "--init", "none", *SHORT]):
        error = refuse(*verb, "--data", trained.data, "--backbone", "alexnet", "--image-size", 32)
        assert error == (
            "an image size of 32 px is too small for alexnet; expected at least 63 px; "
            "type --image-size 64, or --backbone small-resnet"
        )


def test_a_layer_that_is_not_there(refuse_beside) -> None:
    assert refuse_beside("finetune", "--init", "p", "--layer", "stage9", *SHORT) == (
        "small-resnet has no layer 'stage9'; did you mean 'stage4'?"
    )


def test_two_inits_of_one_name(refuse_beside, trained) -> None:
    file = trained.out / "p" / "backbone.safetensors"
    assert refuse_beside("sweep", "--init", "p", "--init", file, "--per-class", 2) == (
        f"two initializations have the same name, p ({file} is the second); rename one of them"
    )
    assert refuse_beside("sweep", "--init", "p", "--init", "p") == "--init names p twice; name each once"


# Words


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pretain"], "no verb is named 'pretain'; did you mean 'pretrain'?"),
        (["doctor", "--data", "scans"], "ssl-app doctor takes DATA without a flag; type ssl-app doctor DATA"),
        (["suggest", "--run", "x"], "ssl-app suggest takes RUN without a flag; type ssl-app suggest RUN"),
        (["pretrain", "--epoch", "3"], "ssl-app pretrain has no flag --epoch; did you mean '--epochs'?"),
        (
            ["pretrain", "--zzz"],
            "ssl-app pretrain has no flag --zzz; type ssl-app pretrain --help for those it has",
        ),
        (["pretrain", "--epochs"], "--epochs needs a value; give it one, or leave it out"),
        (["export"], "ssl-app export needs RUN; type ssl-app export --help"),
        (
            ["pretrain", "scans/"],
            "Got unexpected extra argument (scans/); type ssl-app pretrain --help",
        ),
        (["pretrain", "--method", "rotnt"], "no method is named 'rotnt'; did you mean 'rotnet'?"),
        (["pretrain", "--method", "rotnt", "--help"], "no method is named 'rotnt'; did you mean 'rotnet'?"),
        (["pretrain", "--backbone", "resnet1"], "no backbone is named 'resnet1'; did you mean 'resnet18'?"),
        (
            ["pretrain", "--method", ":"],
            "':' names no object; expected module:name, such as my_package.my_module:MyClass",
        ),
        (
            ["pretrain", "--method", "nowhere:Mine"],
            "'nowhere:Mine' cannot be imported (No module named 'nowhere'); expected module:name",
        ),
        (
            ["pretrain", "--method", "json:dumps"],
            "--method json:dumps is no pretext method (no 'Config'); derive from ssl_app.pretext.base.Pretext",
        ),
        (["finetune", "--strategy", "two-stag"], "no strategy is named 'two-stag'; did you mean 'two-stage'?"),
        (["sweep", "--strategy", "two-stage,al"], "no strategy is named 'al'; known: "),
        (["finetune", "--per-class", "x"], "--per-class is 'x'; expected a whole number"),
        (["finetune", "--per-class", "0"], "--per-class is 0; expected at least 1"),
        (["sweep", "--per-class", "1,,2"], "--per-class is empty; give it a value, or leave it out"),
        (["sweep", "--per-class", "1,two"], "--per-class is 'two'; expected a whole number"),
        (["pretrain", "--lr", "inf"], "--lr is 'inf'; expected a finite number"),
        (["pretrain", "--lr", "nan"], "--lr is 'nan'; expected a finite number"),
        (["pretrain", "--seed", str(10**20)], f"--seed is {10**20}; expected at most 4294967295"),
        (["pretrain", "--schedule", "cosin"], "--schedule is 'cosin'; did you mean 'cosine'?"),
        (["pretrain", "--device", "gpu"], "the device is 'gpu'; expected auto, cpu, cuda or cuda:N"),
        (["pretrain", "--name", "a/b"], "'a/b' cannot be a run's name; expected at most 100 letters"),
        (["pretrain", "--name", "x" * 300], "expected at most 100 letters, digits and -; type another --name"),
        (["predict", "p"], "predict has nothing to classify; type --data FOLDER"),
        (["methods", "--kind", "method"], "--kind is 'method'; did you mean 'methods'?"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_word_that_is_not_known(words: list[str], sentence: str, ssl) -> None:
    error = ssl(*words, *(["--data", "digits"] if "--backbone" in words else [])).error
    assert error.startswith(sentence) or error.endswith(sentence)
    assert half_made(Path("ssl-runs")) == []


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("epoch = 3", "recipe r.toml has an unknown key 'epoch'; did you mean 'epochs'?"),
        (
            "[pretrain]\nrotation_head = 3",
            "--rotation-head is a setting of rotnet, and no method is named; type --method rotnet",
        ),
        (
            "[pretain]\nepochs = 3",
            "recipe r.toml has a table [pretain], and no verb is named so; did you mean 'pretrain'?",
        ),
        ("epochs: 3", "recipe r.toml is not valid TOML: "),
        ("epochs = 2.5", "key epochs of the recipe is '2.5'; expected a whole number"),
        ("lr = true", "key lr of the recipe is 'True'; expected a finite number"),
        ("data = ['a', 'b']", "key data of the recipe is '['a', 'b']'; expected text"),
        ("name = 3", "key name of the recipe is '3'; expected text"),
        ("mirror = 'yes'", "key mirror of the recipe is 'yes'; expected true or false"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_used(recipe: str, sentence: str, refuse) -> None:
    Path("r.toml").write_text(recipe)
    assert refuse("pretrain", "--recipe", "r.toml").startswith(sentence)


def test_a_recipe_that_is_not_there_or_is_no_text(refuse) -> None:
    assert refuse("pretrain", "--recipe", "no.toml") == (
        "recipe no.toml is not a file; expected a TOML file such as recipes/digits.toml"
    )
    Path("r.toml").write_bytes(b"\xff\xfe\x00")
    assert refuse("finetune", "--recipe", "r.toml").startswith("recipe r.toml is not valid TOML: ")


def test_a_method_of_ones_own_that_is_broken(refuse, monkeypatch) -> None:
    Path("broken_method.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(os.getcwd())
    assert refuse("pretrain", "--method", "broken_method:Mine") == (
        "'broken_method:Mine' cannot be imported: broken_method raises SyntaxError "
        "(invalid syntax (broken_method.py, line 1)); fix it"
    )


def test_a_batch_that_cannot_be_cut(refuse, trained) -> None:
    assert refuse("pretrain", "--data", trained.data, "--batch-size", 7, "--accumulate", 2) == (
        "a batch of 7 cannot be cut into 1 processes x 2 micro-batches; type --batch-size 6"
    )


def test_a_rate_that_breaks_the_weights(refuse, refuse_beside, trained) -> None:
    words = ["--data", trained.data, "--lr", "1e37", "--name", "boom"]
    assert refuse("pretrain", *ONCE, *words).endswith("type a smaller --lr, or --clip 1")
    assert refuse_beside("finetune", "--init", "p", "--strategy", "two-stage", *SHORT, *words).endswith(
        "type a smaller --lr, or --clip 1"
    )


# Places


def test_out_where_a_file_lies(ssl, tiny, trained) -> None:
    Path("file").write_text("mine")
    for verb in (["pretrain", "--data", trained.data], ["finetune"], ["sweep"]):
        assert ssl(*verb, "--out", "file", *tiny).error == (
            "file is a file; expected a folder, or a name that is free; type another --out"
        )
        assert ssl(*verb, "--out", "file/below", *tiny).error == (
            "file/below cannot be made (Not a directory); type another --out"
        )
    for verb in (["predict", "p", "--data", trained.data], ["export", "p"]):
        assert ssl(*verb, "--out", "file").error == (
            "no run 'p', because file is no folder; type --out the folder of your runs"
        )
    assert Path("file").read_text() == "mine"


def test_a_name_that_is_taken_is_refused_before_the_data_are_read(ssl, tiny, trained) -> None:
    taken = f"run {trained.out}/p exists already; type another --name"
    for verb in ("pretrain", "finetune", "sweep"):
        answer = ssl(verb, "--name", "p", "--data", trained.data, "--out", trained.out, *tiny)
        assert answer.error == taken
        assert answer.err.count("\n") == 1


def test_a_name_of_a_run_that_has_not_finished(ssl, tiny) -> None:
    for verb in ("pretrain", "finetune"):
        runs.new_run(Path("o"), verb, verb, {})
    assert ssl("pretrain", "--name", "pretrain", "--out", "o", *tiny).error == (
        "run o/pretrain exists already; type --resume pretrain, or another --name"
    )
    assert ssl("finetune", "--name", "finetune", "--out", "o", *tiny).error == (
        "run o/finetune exists already; remove it (it has not finished), or type another --name"
    )


def test_resume_of_a_run_that_does_not_exist_or_has_finished(refuse_beside, trained) -> None:
    assert refuse_beside("pretrain", "--resume", "q") == f"no run 'q' in {trained.out}; known: p"
    assert refuse_beside("pretrain", "--resume", "p") == (
        f"run {trained.out}/p has finished; type ssl-app finetune --init p"
    )
    runs.new_run(Path("o"), "f", "finetune", {})
    error = refuse_beside("pretrain", "--resume", "o/f")
    assert error == "run o/f is of verb finetune; --resume of pretrain takes a pretraining"


def test_predict_and_export_of_what_is_not_there(ssl, trained, tmp_path: Path) -> None:
    out = ["--out", trained.out]
    assert ssl("predict", "p", "--data", trained.data, *out).error == (
        f"run {trained.out}/p holds no classifier.safetensors; expected a finished finetune run"
    )
    assert ssl("export", "p", "--what", "classifier", *out).error == (
        f"run {trained.out}/p is a pretraining and has no classifier; type --what backbone"
    )
    for output, sentence in (
        ("no/x.pt", "no/x.pt lies in no folder; make no first, or type another --output"),
        (tmp_path, f"{tmp_path} is a folder; expected a file's name; type another --output"),
        ("x.onnx", "x.onnx is of no known kind; expected .safetensors or .pt or .pth; type another --output"),
    ):
        assert ssl("export", "p", "--output", output, *out).error == sentence
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_run_is_named(ssl, tiny) -> None:
    (runs.new_run(Path("o"), "torn", "pretrain", {}) / "settings.json").write_text("{")
    error = ssl("finetune", *SHORT, "--out", "o", *tiny).error
    assert error.startswith("o/torn/settings.json cannot be read (")
    assert error.endswith("; expected a file that ssl-app wrote")


# A full disk


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["os.fsync", "os.replace", "ssl_app.checkpoints.save"])
def test_a_full_disk_costs_one_line_and_the_same_command_works_afterwards(
    where: str, ssl, tiny, trained, tmp_path: Path, monkeypatch
) -> None:
    words = ["pretrain", "--data", trained.data, *ONCE, "--name", "a", "--out", "o", *tiny]
    with monkeypatch.context() as small:
        small.setattr(where, full)
        error = ssl(*words).error
    assert "disk is full" in error or error.startswith("no space left in o/cache")
    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".")] == []
    assert ssl(*words).code == 0


@pytest.fixture
def full_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """From now on the disk is full when a checkpoint of this name is written: full_at("backbone.safetensors")."""
    write = checkpoints.write

    def prepare(name: str) -> None:
        def refuse(path: Path, *content: Any) -> None:
            return full() if path.name == name else write(path, *content)

        monkeypatch.setattr(checkpoints, "write", refuse)

    return prepare


def test_a_full_disk_at_the_end_of_a_training_says_how_to_go_on(ssl, tiny, trained, full_at) -> None:
    full_at("backbone.safetensors")
    words = ["pretrain", "--data", trained.data, *ONCE, "--name", "a", "--out", "o", *tiny]
    assert ssl(*words).error == (
        "the disk is full (while writing); free some space and type ssl-app pretrain --resume a --out o"
    )
    full_at("classifier.safetensors")
    assert ssl("pretrain", "--resume", "a", "--out", "o").code == 0
    words = ["finetune", "--init", "a", *SHORT, "--name", "b", "--out", "o", *tiny]
    assert ssl(*words).error == "the disk is full (while writing); free some space and type the same again"
    assert half_made(Path("o")) == ["a"]
    full_at("nothing")
    assert ssl(*words).code == 0


def test_rights_that_are_missing(ssl, tiny, trained, monkeypatch) -> None:
    """The folder of runs is named, and not a draft in it, which nobody knows."""

    def closed(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "o/.draft")

    monkeypatch.setattr("ssl_app.runs.write_json", closed)
    assert ssl("pretrain", "--data", trained.data, *ONCE, "--out", "o", *tiny).error == (
        "o may not be used (Permission denied); fix its permissions, or name another place"
    )


def test_a_mistake_of_ours_is_not_dressed_up_as_the_users(ssl, tiny, trained, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("ssl_app.runs.new_run", broken)
    with pytest.raises(ZeroDivisionError):
        ssl("pretrain", "--data", trained.data, *ONCE, "--out", "o", *tiny)


def test_an_error_is_one_line_whatever_it_holds() -> None:
    assert str(UserError("a\n  b\tc")) == "a b c"


def test_colors_that_are_to_be_learned_are_not_changed(refuse) -> None:
    assert refuse("pretrain", "--method", "colorization", "--augment", "strong") == (
        "colorization learns colors, and the augmentation strong changes them; type --augment standard"
    )


@pytest.mark.parametrize("method", ["rotnet", "jigsaw", "relative-patch"])
def test_images_have_no_bars_where_up_is_to_be_learned(method: str, refuse) -> None:
    assert refuse("pretrain", "--method", method, "--fit", "pad") == (
        f"{method} learns where up is, which the bars beside images that are not square give away; type --fit crop, "
        "or --fit stretch"
    )


@pytest.mark.parametrize("method", ["rotnet", "jigsaw", "relative-patch"])
def test_images_are_not_flipped_vertically_where_up_is_to_be_learned(method: str, refuse) -> None:
    assert refuse("pretrain", "--method", method, "--vertical-flip") == (
        f"{method} learns where up is, which a vertical flip changes; leave --vertical-flip out"
    )


def test_another_split_seed_wants_another_pretraining(ssl, tiny, tmp_path: Path, images) -> None:
    data, out = images(tmp_path / "scans", per_class=40, classes=1), tmp_path / "o"
    assert ssl("pretrain", "--data", data, *ONCE, "--name", "p", "--out", out, *tiny).code == 0
    keys = sorted(str(path.relative_to(data)) for path in data.rglob("*.png"))
    table = tmp_path / "few.csv"
    table.write_text("\n".join(["path,label", *(f"{key},{'ab'[i < 3]}" for i, key in enumerate(keys))]))
    error = ssl("finetune", "--init", "p", "--labels", table, *SHORT, "--out", out, *tiny).error
    assert error.startswith("class 'b' has no ")
    assert " part; type --split-seed " in error
    assert error.endswith(" (and pretrain with the same: p has seen what is test then), or give a split column")


def test_a_verb_names_no_flag_that_it_does_not_have(ssl, tiny, trained, images, tmp_path: Path) -> None:
    """What a network takes was settled when it was trained: predict has no --channels, and no --fit."""
    words = ["finetune", "--init", "p", "--per-class", 2, "--steps", 2, "--out", trained.out, *tiny]
    assert ssl(*words, "--name", "to-predict").code == 0
    np.save(tmp_path / "bands.npy", np.random.default_rng(0).integers(0, 255, (3, 16, 64, 5), dtype=np.uint8))
    answer = ssl("predict", "to-predict", "--data", tmp_path / "bands.npy", "--out", trained.out)
    assert "has 5 channels, 1 are requested" in answer.error
    assert "--channels" not in answer.err
    assert "--fit" not in answer.err
