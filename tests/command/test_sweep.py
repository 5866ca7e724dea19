"""What a sweep compares, what it refuses to compare, and how it goes on after a stop; one tiny set throughout."""

import csv
import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ssl_app.commands import sweep
from ssl_app.config import flag
from ssl_app.errors import Run
from ssl_app.settings import SweepSettings
from ssl_app.training.initialization import Initialization, load_initialization
from ssl_app.transfer import draw, joined, replicates, trial
from ssl_app.transfer.draw import TransferConfig

SHORT = ("--steps", 4, "--batch-size", 8, "--per-class", 4)
SWEPT = (*SHORT, "--jobs", 1, "--evaluate-on", "test")
ONCE = (*SWEPT, "--draws", 1, "--baseline", "none")
TWO_STAGE = ("--strategy", "two-stage", *SWEPT, "--draws", 2)


@dataclass(frozen=True)
class Place:
    """A set of 60 pictures, a folder of runs, and how to type a verb there."""

    data: Path
    out: Path
    type: Callable[..., Any]

    def pretrained(self, name: str, *more: object) -> str:
        if not (self.out / name / "result.json").is_file():
            words = ["--data", self.data, "--epochs", 1, "--batch-size", 16, "--name", name, *more]
            assert self.type("pretrain", *words).code == 0
        return name


@pytest.fixture(scope="module")
def place(ssl, tiny, images, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("sweep")

    def typed(verb: str, *words: object) -> Any:
        return ssl(verb, "--out", folder / "runs", *tiny, "--json", *words)

    return Place(images(folder / "scans", per_class=20), folder / "runs", typed)


@pytest.fixture(scope="module")
def one(place: Place) -> str:
    return place.pretrained("one", "--seed", 1)


@pytest.fixture(scope="module")
def overlapping(place: Place) -> str:
    """A pretraining whose test part is another than that of --split-seed 0."""
    return place.pretrained("overlapping", "--split-seed", 1)


@pytest.fixture
def strategies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's own strategies."""
    (tmp_path / "swept_strategies.py").write_text(
        "from ssl_app.transfer.strategies.feature_extraction import FeatureExtraction\n"
        "class Own(FeatureExtraction):\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "swept_strategies"
    sys.modules.pop("swept_strategies", None)


def without_seconds(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in trial.items() if k != "seconds"} for trial in trials]


# what a trial may see


def test_test_images_that_were_seen_are_counted_in_the_verdict_and_by_finetune(
    place: Place, overlapping: str
) -> None:
    words = ["--init", overlapping, "--data", place.data, "--split-seed", 0]
    result = place.type("sweep", *words, *TWO_STAGE).result
    seen = int(result["overlap"]["overlapping"].split()[0])
    assert seen > 0
    share = f"{seen} of {result['n_test']} test images (or near copies, or their groups) were seen in pretraining"
    assert share in result["verdict"]
    one_trial = place.type("finetune", *words, *SHORT, "--strategy", "feature-extraction").result
    assert one_trial["overlap"] == result["overlap"]["overlapping"]
    assert f"{seen} of {result['n_test']} test images" in one_trial["overlap"]
    fixes = f"type ssl-app pretrain --exclude {place.data}, or leave --strict out"
    for verb, more in (("finetune", SHORT), ("sweep", TWO_STAGE)):
        assert place.type(verb, *words, *more, "--strict").error == (f"overlapping: {one_trial['overlap']}; {fixes}")


def test_the_split_is_that_of_the_pretraining_where_the_data_are_named_too(place: Place, overlapping: str) -> None:
    words = ["--init", overlapping, "--data", place.data, *SHORT, "--strategy", "feature-extraction"]
    answer = place.type("finetune", *words)
    assert "split seed 1, as in overlapping" in answer.err
    assert answer.result["overlap"] is None


def test_of_plain_weights_it_is_said_that_their_images_are_not_known(
    place: Place, one: str, ssl, tmp_path: Path
) -> None:
    exported = tmp_path / "theirs.safetensors"
    assert ssl("export", one, "--output", exported, "--out", place.out).code == 0
    words = ["--init", one, "--init", exported, "--backbone", "small-resnet", "--image-size", 16]
    words += ["--data", place.data]
    answer = place.type("sweep", *words, *TWO_STAGE)
    assert answer.result["overlap"] == {one: None, "theirs": "what theirs was trained on is not known"}
    assert "remark: theirs: what theirs was trained on is not known" in answer.err
    assert ssl("export", one, "--output", exported.with_suffix(".pt"), "--out", place.out).error == (
        f"{exported.with_suffix('.json')} exists already, and the pixels and classes of "
        f"{exported.with_suffix('.pt')} would go there; type --output {tmp_path / 'theirs-2.pt'}, or remove "
        f"{exported.with_suffix('.json')}"
    )


# what is compared


def test_the_verdict_pools_the_seeds_of_one_pretraining(place: Place, one: str) -> None:
    two = place.pretrained("two", "--seed", 2)
    longer = place.pretrained("longer", "--seed", 3, "--epochs", 2)
    inits = [word for name in (one, two, longer) for word in ("--init", name)]
    answer = place.type("sweep", *inits, *TWO_STAGE)
    assert "(two-stage from 2 pretrainings)" in answer.result["verdict"]
    assert "for this pretraining" not in answer.result["verdict"]
    assert "outside the verdict: longer (other settings: epochs 2, not 1)\n" in answer.err
    assert answer.err.count(" images packed as ") == 1, "what all share is logged once"


def start(name: str, **changed: Any) -> Initialization:
    settings = {"method": "rotnet", "epochs": None, "method_settings": {"head": "linear"}, "data_hash": "a"} | changed
    return Initialization(name, "small-resnet", settings=settings, content=name)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (start("other", seed=5, threads=3, workers=1, save_every=2.0, data="./scans"), None),
        (start("other", method="sela", method_settings={}, epochs=9), "other settings: method sela, not rotnet"),
        (start("other", budget="5m", epochs=3), "other settings: budget 5m, not the default"),
        (start("other", epochs=5), "other settings: epochs 5, not the default"),
        (start("other", method_settings={"head": "mlp"}), "other settings: head mlp, not linear"),
        (start("other", data_hash="b"), "other settings: other data"),
        (replace(start("other"), content="first"), "the same weights as first"),
        (Initialization("imagenet", "small-resnet"), "no pretraining of ssl-app"),
    ],
)
def test_why_a_pretraining_is_outside_the_verdict(other: Initialization, reason: str | None) -> None:
    assert replicates.why_apart(other, [start("first")]) == reason


def test_what_fits_the_same_time_is_a_replicate() -> None:
    one, other = (start(str(epochs), budget="5m", epochs=epochs, steps_per_epoch=9 * epochs) for epochs in (3, 4))
    assert replicates.why_apart(other, [one]) is None


def test_others_weights_pool_with_nothing() -> None:
    plain = Initialization("imagenet", "small-resnet", content="i")
    assert replicates.why_apart(replace(plain, name="places", content="p"), [plain]) == "no pretraining of ssl-app"
    assert replicates.why_apart(start("p"), [plain]) == "imagenet, named first, is no pretraining of ssl-app"


def test_inits_on_different_data_or_splits_are_refused(
    place: Place, one: str, overlapping: str, images, tmp_path
) -> None:
    data = images(tmp_path / "other", per_class=20, seed=9)
    place.pretrained("elsewhere", "--data", data)
    assert place.type("sweep", "--init", one, "--init", "elsewhere", *ONCE).error == (
        f"the initializations one and elsewhere would see different data ({place.data} and {data}); "
        f"expected one set for all; type --data D"
    )
    error = place.type("sweep", "--init", one, "--init", overlapping, *ONCE).error
    names = "the initializations one and overlapping"
    assert error.startswith(f"{names} would be tested on different images of {place.data} (split by image content")
    split = f"--data {place.data} --split-seed 0 --test-fraction 0.2"
    assert error.endswith(f"); expected one split for all; type {split}")


def test_inits_of_two_networks_are_refused(place: Place, one: str) -> None:
    other = place.pretrained("nin", "--backbone", "nin", "--image-size", 32, "--steps-per-epoch", 1)
    assert place.type("sweep", "--init", one, "--init", other, *ONCE).error == (
        "the initializations one and nin differ in backbone (small-resnet and nin), image size (16 px and 32 px), "
        "and one scratch cannot serve both; run one sweep for each"
    )


def test_inits_that_scale_pixels_in_two_ways_are_remarked_on(place: Place, one: str) -> None:
    other = place.pretrained("scaled", "--intensity", "per-image")
    answer = place.type("sweep", "--init", one, "--init", other, "--strategy", "feature-extraction", *ONCE)
    assert answer.code == 0, answer.err
    assert (
        "\nremark: scaled scales pixels in another way than one, each as its weights need it; scratch" in answer.err
    )


def test_random_weights_that_are_named_are_swept_whatever_the_baseline(place: Place, one: str) -> None:
    words = ["--data", place.data, "--init", one, "--init", "none", "--strategy", "feature-extraction", *ONCE]
    result = place.type("sweep", *words).result
    assert [trial["init"] for trial in result["trials"]] == ["one", "scratch"]


# how it goes on


def test_a_sweep_killed_before_its_identity_was_written_goes_on(place: Place, one: str) -> None:
    words = ["sweep", "--init", one, "--strategy", "feature-extraction", *ONCE, "--name", "early"]
    first = place.type(*words).result
    run = Path(first["run"])
    for name in ("sweep.json", "result.json"):
        (run / name).unlink()
    shutil.rmtree(run / "trials")
    again = place.type(*words)
    assert "1 trial, 1 to do" in again.err
    assert without_seconds(again.result["trials"]) == without_seconds(first["trials"])
    shutil.copy(run / "sweep.json", run / "kept.json")
    older = json.loads((run / "sweep.json").read_text())
    (run / "sweep.json").write_text(json.dumps({name: older[name] for name in older if name != "layout"}))
    assert place.type(*words).error == (
        f"run {run} was written by another version of ssl-app, which kept other files of its trials; type another "
        "--name, or remove it"
    )
    (run / "sweep.json").unlink()
    assert place.type(*words).error == f"run {run} exists already; type another --name"


def test_a_draw_that_was_changed_is_refused(place: Place, one: str) -> None:
    words = ["sweep", "--init", one, "--strategy", "feature-extraction", *ONCE, "--name", "drawn"]
    run = Path(place.type(*words).result["run"])
    assert len(json.loads((run / "sweep.json").read_text())["inits"]["one"]["train"]) == 16
    path = run / "draws" / "k4_d0.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    path.write_text("\n".join(",".join(row) for row in rows[:-1]))
    assert place.type(*words).error == (
        f"{path} lists other images or labels than this sweep draws; type another --name, or remove {run}"
    )


def test_a_sweep_grows_by_its_name_in_draws_sizes_and_pretrainings(place: Place) -> None:
    base = place.pretrained("grown", "--seed", 5)
    words = [*TWO_STAGE, "--baseline-length", "same"]
    first = place.type("sweep", "--init", base, *words, "--name", "growing")
    assert "for this pretraining" in first.result["verdict"]
    assert place.type("pretrain", "--resume", base, "--seeds", 2).code == 0
    more = ["sweep", "--resume", "growing", "--draws", 3, "--baseline-per-class", 8, "--jobs", 1]
    (place.out / "grown-seed6" / "result.json").rename(place.out / "aside")
    assert "init: " not in (without := place.type("sweep", "--resume", "growing").err)
    assert "4 trials, 0 to do" in without
    assert (
        "grown is one of 2 seeds, of which 1 have not finished and are left out; type ssl-app pretrain --resume grown"
    ) in without
    (place.out / "aside").rename(place.out / "grown-seed6" / "result.json")
    again = place.type(*more)
    assert "12 trials, 8 to do" in again.err  # 3 draws of 2 pretrainings and of scratch at two sizes; 4 were there
    assert "(two-stage from 2 pretrainings)" in again.result["verdict"]
    kept = [one for one in again.result["trials"] if one["init"] != "grown-seed6" and one["per_class"] == 4]
    before = {(one["init"], one["draw"]): one for one in without_seconds(first.result["trials"])}
    assert {(one["init"], one["draw"]): one for one in without_seconds(kept) if one["draw"] < 2} == before
    assert "12 trials, 0 to do" in place.type("sweep", "--resume", "growing", "--draws", 2, "--per-class", 4).err
    assert place.type("sweep", "--resume", "growing", "--steps", 9).error == (
        "--steps 9 is not what sweep growing was started with (4); leave it out, or start a new sweep"
    )
    lost = place.type("sweep", "--init", "grown-seed6", *words, "--name", "growing").error
    assert lost.startswith(f"run {place.out / 'growing'} is another sweep (")


def test_scratch_trains_twice_as_long_where_a_part_of_its_labels_says_so(
    place: Place, one: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draw, "FEWEST_STEPS", 6)
    monkeypatch.setattr(draw, "STEPS_PER_LABEL", 0)
    monkeypatch.setattr(draw, "PASSES", 0)
    words = ["sweep", "--init", one, "--strategy", "feature-extraction", "--batch-size", 8, "--per-class", "1,8"]
    answer = place.type(*words, "--draws", 2, "--jobs", 1, "--evaluate-on", "test")
    steps = answer.result["scratch_steps"]
    assert set(steps) == {"1", "8"}
    assert (steps["1"]["steps"], steps["1"]["how"]) == (6, "6: too few labels to choose by")
    assert steps["8"]["steps"] in (6, 12)
    trials = [trial for trial in answer.result["trials"] if trial["init"] == "scratch" and trial["per_class"] == 8]
    assert {trial["steps"] for trial in trials} == {steps["8"]["steps"]}
    assert "trainings, 2 of them to choose the length of scratch: about " in answer.err
    assert "steps of scratch at 8 per class: " in answer.err


def test_few_labels_are_tested_fold_by_fold(place: Place, one: str) -> None:
    table = place.out.parent / "few.csv"
    with table.open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for path in sorted(place.data.rglob("*.png")):
            label, number = path.parent.name, int(path.stem)
            writer.writerow([path, label if number < (7 if label == "class2" else 10) else ""])
    words = ["--init", one, "--data", table, "--steps", 2, "--batch-size", 8, "--per-class", 8, "--jobs", 1]
    words += ["--strategy", "two-stage", "--draws", 2, "--name", "few"]
    answer = place.type("sweep", *words)
    assert "no fixed test part: cross-validation over all 27 labeled images" in answer.err
    assert "classes with fewer than 8 labeled training images give all that they have: 'class2' " in answer.err
    assert answer.result["n_test"] == 27
    assert ", 2 draws, 27 images by cross-validation." in answer.result["verdict"]
    trials = answer.result["trials"]
    assert sorted({trial["fold"] for trial in trials}) == [0, 1, 2, 3, 4]
    for number in (0, 1):
        some = [t for t in trials if (t["draw"], t["per_class"], t["init"]) == (number, 8, one)]
        assert sum(trial["n"] for trial in some) == 27, "every image is tested once"
    run = Path(answer.result["run"])
    with (run / "trials.csv").open() as file:
        rows = [(row["init"], row["per_class"], row["draw"], row["fold"]) for row in csv.DictReader(file)]
    assert len(rows) == len(set(rows)) == 20, "each fold is a row of its own"
    for number in range(5):
        with (run / "draws" / f"k8_d0_f{number}.csv").open() as file:
            drawn = {row["path"] for row in csv.DictReader(file)}
        assert len(drawn) <= 8 + 8 + 7
    assert "20 trials, 0 to do" in place.type("sweep", *words).err
    shutil.rmtree(run / "trials" / f"{one}-two-stage-k8-d1-f3")
    again = place.type("sweep", *words)
    assert "20 trials, 1 to do" in again.err
    assert again.result["verdict"] == answer.result["verdict"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_sweep_says_what_to_type(
    number: int, place: Place, one: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "run", lambda *about: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    answer = place.type("sweep", "--init", one, "--strategy", "feature-extraction", *ONCE, "--steps", 5)
    assert (answer.code, answer.out) == (128 + number, "")
    assert answer.err.splitlines()[-1] == "stopped; type the same command to go on"
    assert answer.err.count("stopped") == 1
    assert signal.getsignal(number) is before


def test_a_strategy_of_ones_own_keeps_its_underscores(place: Place, one: str, strategies: str) -> None:
    result = place.type("sweep", "--init", one, "--strategy", f"{strategies}:Own", *ONCE).result
    assert [trial["strategy"] for trial in result["trials"]] == ["swept_strategies:Own"]


@pytest.mark.parametrize(
    ("labels", "steps"),
    [(3, 300), (30, 300), (31, 310), (96, 960), (100, 1000), (2000, 1000), (2134, 1010), (50_000, 23_440)],
)
def test_steps_grow_with_the_labels_where_none_are_named(labels: int, steps: int) -> None:
    config = TransferConfig(
        steps=None, batch_size=SweepSettings().batch_size, lr=0.1, weight_decay=0, clip=5, optimizer="sgd",
        augment="none", mirror=None, head="linear", layer=None, validation="within", seed=0,
    )  # fmt: skip
    assert config.steps_for(labels) == steps
    assert replace(config, steps=7).steps_for(labels) == 7
    assert replace(config, batch_size=128).steps_for(labels) <= steps


def test_a_sweep_under_way_is_not_begun_twice(place: Place, one: str) -> None:
    words = ["sweep", "--init", one, "--strategy", "feature-extraction", *ONCE, "--name", "twice"]
    assert place.type(*words).code == 0
    before = (place.out / "twice" / "settings.json").read_bytes()
    with (place.out / "twice" / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        for again in (words, ["sweep", "--resume", "twice", "--draws", 2]):
            assert place.type(*again).error == (
                f"run {place.out / 'twice'} is under way: another process; wait for it, or type another --name"
            )
        assert (place.out / "twice" / "settings.json").read_bytes() == before


def test_a_sweep_grows_to_the_usual_number_of_draws(place: Place, one: str) -> None:
    words = ["sweep", "--init", one, "--strategy", "two-stage", *SWEPT, "--draws", 1, "--name", "usual"]
    first = place.type(*words)
    assert first.result["verdict"].endswith(
        f"For an interval, type ssl-app sweep --resume usual --draws 5 --out {place.out}."
    )
    assert "10 trials, 8 to do" in place.type("sweep", "--resume", "usual", "--draws", 5).err


def test_what_to_type_next_names_the_data_and_files(place: Place, one: str, ssl, tmp_path: Path) -> None:
    table = tmp_path / "my labels.csv"
    rows = [f"{path},{path.parent.name}" for path in sorted(place.data.rglob("*.png"))]
    table.write_text("\n".join(["path,label", *rows]))
    exported = tmp_path / "their weights.safetensors"
    assert ssl("export", one, "--output", exported, "--out", place.out).code == 0
    words = ["--init", exported, "--backbone", "small-resnet", "--image-size", 16, "--data", table, *TWO_STAGE]
    following = place.type("sweep", *words).result["verdict"].split("\n")[2]
    assert f"--data '{table}'" in following or "--resume" in following
    if "--init" in following:
        assert f"--init '{exported}'" in following
        assert "--backbone small-resnet" in following


def test_settings_left_alone_are_not_typed_again(place: Place, one: str) -> None:
    """A pretraining's settings come from JSON, which has lists where ours are tuples."""
    held, usual = load_initialization(one, place.out, None).settings, SweepSettings()
    files = ("omit", "unlabeled", "one_spelling")
    assert [held[name] for name in files] == [getattr(usual, name) for name in files]


def test_the_classifier_to_use_is_the_one_that_was_measured() -> None:
    """What `To use it` adds to finetune: all that says how a classifier is trained."""
    usual = SweepSettings()
    for name in sweep.TRAINED:
        kind = type(getattr(usual, name))
        other = {bool: False, int: 7, float: 0.5, str: "mlp", type(None): False if name == "mirror" else "x"}[kind]
        assert (name, other) in sweep._typed(replace(usual, **{name: other}), *sweep.TRAINED)
    typed = Run("finetune", (("mirror", False), ("head", "mlp"))).command(flag)
    assert typed == "ssl-app finetune --no-mirror --head mlp"


def test_the_optimizer_is_that_of_the_pretrained_network(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"none": Initialization("scratch", "small-resnet"), "vit": Initialization("vit", "vit-tiny", tensors={})}
    monkeypatch.setattr(joined, "load_joined", lambda name, out, backbone: known[name])
    usual = SweepSettings(out=place.out, strategy=("two-stage",), per_class=(4,), data="digits")
    configs = [
        sweep._spec(replace(usual, init=names)).config for names in (("vit",), ("none", "vit"), ("vit", "none"))
    ]
    assert configs[0] == configs[1] == configs[2]
    assert configs[0] != sweep._spec(replace(usual, init=("none",), strategy=("full-fine-tuning",))).config


def test_strategies_without_a_pretraining_are_refused(place: Place) -> None:
    error = place.type(
        "sweep", "--init", "none", "--strategy", "fixmatch,two-stage", *SWEPT, "--data", place.data
    ).error
    assert error == (
        "there is no pretraining to train by fixmatch,two-stage from: scratch is trained by full-fine-tuning; type "
        "--baseline-strategy fixmatch,two-stage in the place of --strategy, or another --init"
    )


def test_a_sweep_that_is_refused_leaves_its_name_free(place: Place, one: str, tmp_path: Path) -> None:
    table = tmp_path / "rare.csv"
    paths = [path for path in sorted(place.data.rglob("*.png")) if path.parent.name != "class2" or path.stem == "000"]
    table.write_text("\n".join(["path,label", *(f"{path},{path.parent.name}" for path in paths)]))
    words = ["sweep", "--init", one, "--data", table, "--strategy", "two-stage", *SHORT, "--name", "rare"]
    assert place.type(*words).error.startswith(
        "class 'class2' has 1 labeled image: none to train on and others to test on; type --unlabeled class2, or "
    )
    assert not (place.out / "rare").exists()


def test_scratch_may_be_trained_by_further_strategies(place: Place, one: str) -> None:
    words = ["--init", one, "--strategy", "feature-extraction", *SWEPT, "--draws", 1, "--name", "semi"]
    answer = place.type("sweep", *words, "--baseline-strategy", "fixmatch,self_training")
    variants = {(trial["init"], trial["strategy"]) for trial in answer.result["trials"]}
    assert variants == {
        (one, "feature-extraction"),
        *(("scratch", name) for name in ("full-fine-tuning", "fixmatch", "self-training")),
    }
    assert "fixmatch from scratch" in answer.err
    twice = place.type("sweep", *words, "--baseline-strategy", "full-fine-tuning")
    assert twice.error == "--baseline-strategy names full-fine-tuning, which is the baseline itself; leave it out"
    none = place.type("sweep", *words, "--baseline-strategy", "fixmatch", "--baseline", "none")
    assert none.error == "--baseline-strategy has no scratch to train; leave out --baseline none"
