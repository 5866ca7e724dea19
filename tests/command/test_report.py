"""ssl-app report: what it writes of every kind of run, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_app import config, runs
from ssl_app.commands import compare, pretrain, report
from ssl_app.report.blocks import percent_with
from ssl_app.report.run_facts import RunFacts
from ssl_app.transfer import kept_predictions
from tests.saved_runs import Made, make_sweep

CLASSES = ("<b>bold</b>", "正常な組織", '"quoted" & co')
Type = Callable[..., Any]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep."""
    return make_sweep(tmp_path_factory.mktemp("runs"), "swept", Made(classes=CLASSES))


def page(folder: Path) -> str:
    return read(report.write(folder))


def read(path: Path | str) -> str:
    """A page; the words of a command are not apart."""
    return Path(path).read_text(encoding="utf-8").replace("<span>", "").replace("</span>", "")


def test_a_sweeps_report_is_one_file_with_its_verdict_and_asks_nobody(ssl: Type, swept: Path) -> None:
    answer = ssl("report", "swept", "--out", swept.parent, "--json")
    assert answer.result["report"] == str(swept / "report.html")
    text = read(answer.result["report"])
    result = json.loads((swept / "result.json").read_text())
    assert result["verdict"].splitlines()[0] in text
    assert f"<code>{result['next'][0]}</code>" in text
    assert "http" not in text.replace("http-equiv", "")
    for key in ("curves", "saved", "differences", "stages", "classes", "calibration", "trials", "data", "settings"):
        assert f'<section id="{key}">' in text, key


def test_names_are_text_and_never_markup(swept: Path) -> None:
    text = page(swept)
    assert "<b>bold</b>" not in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text
    assert "正常な組織" in text
    assert "&quot;quoted&quot; &amp; co" in text
    assert "scans/<i>" not in text


def test_figures_are_those_of_the_predictions(swept: Path) -> None:
    text, trials = page(swept), [("pre", "auto", 32, draw) for draw in range(3)]
    tested = kept_predictions.answered(swept, trials, {32: 0.1})
    assert f"32 labels per class: {percent_with(tested.curve(('pre', 'auto'))[32].interval)} %" in text
    kept = kept_predictions.probabilities(swept, [kept_predictions.key_of(*one) for one in trials])
    wrong = np.any([one.argmax(1) != tested.part.labels for one in kept.values()], axis=0)
    assert 0 < wrong.sum() < 60
    assert f"{wrong.sum()} images of 60 were wrongly classified by one trial or more" in text
    assert text.count('class="mistake"') == min(24, wrong.sum())


def test_pictures_are_names_where_the_cache_is_gone(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, "swept", Made(per_class=(8,)))
    assert 'class="picture small"' in page(folder)
    (tmp_path / "cache" / "abc" / "images.npy").unlink()
    text = page(folder)
    assert 'class="picture small"' not in text
    assert "no longer in the cache" in text


def test_a_sweep_without_its_summary_is_reported_without_names(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, "swept", Made(per_class=(8,)))
    for name in ("data.json", "machine.json"):
        (folder / name).unlink()
    text = page(folder)
    assert "made before its data were summarized" in text
    assert "class 2" in text


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Made(done=0.5), "Not finished: it is under way, or was killed. 14 of 27 trials have finished."),
        (Made(done=0.7, ended="the loss became nan"), "Failed: the loss became nan. 19 of 27 trials have finished."),
        (Made(done=0.0), "0 of 27 trials have finished."),
    ],
)
def test_a_sweep_that_has_not_finished_says_so_and_how_to_go_on(tmp_path: Path, made: Made, words: str) -> None:
    text = page(make_sweep(tmp_path, "swept", made))
    assert words in text
    assert f"ssl-app sweep --resume swept --out {tmp_path}" in text
    assert ('id="curves"' in text) == (made.done > 0)


def test_several_pretrainings_are_one_curve_in_a_small_file(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, "swept", Made(inits=("a", "b"), per_class=(4, 16), draws=2, images=200))
    text = page(folder)
    assert len(text) < 500_000
    assert "auto from 2 pretrainings" in text


def test_a_pretraining_shows_its_curves_and_pictures(ssl: Type, trained: Any) -> None:
    (trained.out / "p" / "views.png").write_bytes(b"png")
    answer = ssl("report", "p", "--out", trained.out, "--json")
    text = read(answer.result["report"])
    assert "Pretraining by rotnet" in text
    assert '<section id="curves">' in text
    assert text.count("data:image/png;base64,") == 1
    assert "ssl-app pretrain --data" in text
    assert "--method rotnet" in text


def test_a_finetune_shows_its_test(ssl: Type, trained: Any, tiny: tuple[str, ...]) -> None:
    words = ["--init", "p", "--per-class", 4, "--steps", 2, "--strategy", "two-stage", "--name", "ft", "--json"]
    result = ssl("finetune", *words, "--out", trained.out, *tiny).result
    text = page(trained.out / "ft")
    assert f"{100 * result['test']['balanced_accuracy']:.1f} % balanced accuracy" in text
    for key in ("classes", "calibration", "data", "settings", "machine"):
        assert f'<section id="{key}">' in text, key


def compared(out: Path) -> Path:
    """A comparison of two methods with its sweep; it has not finished."""
    make_sweep(out, "which-sweep", Made(strategies=("auto",), inits=("which-sela", "which-mae"), per_class=(8,)))
    return runs.new_run(out, "which", "compare", config.as_json(compare.Settings(methods=("sela", "mae"))))


def test_a_comparison_shows_its_advice_ranking_and_curves(tmp_path: Path) -> None:
    folder = compared(tmp_path)
    assert "No recommendation yet" in page(folder)

    def interval(mean: float) -> dict[str, Any]:
        return {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "n": 3}

    ranked = [{"name": "sela", "mean": 0.7, "over_scratch": interval(0.1), "behind_best": None}]
    ranked.append({"name": "mae", "mean": 0.65, "over_scratch": interval(0.05), "behind_best": interval(0.05)})
    both = {"knn": 0.5, "linear": 0.6}
    result = {
        "verb": "compare", "run": str(folder), "seconds": 60.0, "settings": {}, "ranking": ranked, "wanted": ["sela"],
        "frozen": {"sela": both, "mae": both, "scratch": both}, "seconds_each": {"sela": 30.0, "mae": 31.0},
        "does_not_apply": {"colorization": "it needs color"}, "overlap": {}, "advice": "sela may help here.",
    }  # fmt: skip
    runs.write_json(folder / "result.json", result)
    text = page(folder)
    for words in ("Take sela", "sela may help here.", "+10.0 [+8.0, +12.0]", "colorization: it needs color"):
        assert words in text
    for key in ("ranking", "curves", "left-out", "data"):
        assert f'<section id="{key}">' in text, key


def test_the_command_to_type_again_has_one_length_and_quotes_its_words(tmp_path: Path) -> None:
    stored = config.as_json(pretrain.Settings(data="my scans/", budget="5m")) | {"epochs": 7}
    folder = runs.new_run(tmp_path, "p", "pretrain", stored)
    facts = RunFacts.read(folder)
    assert report.typed(facts) == f"ssl-app pretrain --data 'my scans/' --epochs 7 --out {tmp_path}"
    text = page(folder)
    assert "No epoch is known." in text
    assert f"ssl-app pretrain --resume p --out {tmp_path}" in text


def test_what_has_no_report_is_refused(ssl: Type, swept: Path, tmp_path: Path) -> None:
    other = tmp_path / "p"
    other.mkdir()
    (other / "settings.json").write_text(json.dumps({"verb": "probe", "settings": {}}))
    assert ssl("report", "p", "--out", tmp_path).error == (
        f"run {other} is of verb probe; expected one of sweep, pretrain, finetune, compare"
    )
    assert "no run 'swpt'" in ssl("report", "swpt", "--out", swept.parent).error
    assert "is of no known kind" in ssl("report", "swept", "--output", "a.pdf", "--out", swept.parent).error
