"""MLflow's own pages in headless Chromium: the saved view is a format that nothing documents, so this looks."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from ssl_app.commands.ui import serve
from ssl_app.environment import prepare_environment
from ssl_app.tracking import TrialRecord, open_tracker, views
from ssl_app.tracking.pages import pages_of

prepare_environment()
pytestmark = pytest.mark.browser

ARMS = {("two-stage", "pretrain-1"): 0.5, ("feature-extraction", "pretrain-1"): 0.4, ("full", "none"): 0.2}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of 3 arms, 4 budgets and 9 draws: 108 trials, more than the 100 runs that the page reads."""
    out = tmp_path_factory.mktemp("runs")
    tracker = open_tracker(out, None, "digits")
    tracker.start("sweep-1", out / "sweep-1", {}).finish()  # of which the trials are parts
    run = tracker.start("pretrain-1", out / "pretrain-1", {})
    for epoch in range(4):
        run.metrics({"loss": 1 / (epoch + 1)}, epoch)
    run.finish()
    trials = [
        TrialRecord(
            f"{strategy}-{per_class}-{draw}",
            out / "sweep-1" / f"{strategy}-{per_class}-{draw}",
            {"init": init, "strategy": strategy, "draw": str(draw)},
            per_class,
            {"balanced_accuracy": base + 0.08 * step + 0.01 * draw, "accuracy": base + 0.08 * step},
        )
        for (strategy, init), base in ARMS.items()
        for step, per_class in enumerate((1, 4, 16, 64))
        for draw in range(9)
    ]
    tracker.log_trials(trials, out / "sweep-1")
    assert tracker.save_views("sweep-1")
    return out


@pytest.fixture(scope="module")
def address(out: Path) -> Iterator[str]:
    """MLflow's own pages over these runs, served once."""
    with serve(out, 0) as server:
        yield server.address


# what the first chart draws, and the page's words
LOOK = """
const chart = document.querySelector('.js-plotly-plot');
const traces = chart && chart.data ? Array.from(chart.data) : [];
return {
  lines: traces.filter(t => !t.fill).map(t => ({x: Array.from(t.x), y: Array.from(t.y)})),
  bands: traces.filter(t => t.fill).map(t => ({x: Array.from(t.x), y: Array.from(t.y)})),
  drawn: chart ? chart.querySelectorAll('.scatterlayer path.js-line[d]').length : 0,
  axis: chart && chart._fullLayout ? chart._fullLayout.xaxis.type : null,
  words: document.body.innerText,
};
"""


def look(
    browser: Chrome, address: str, enough: Callable[[dict[str, Any]], object], script: str = LOOK
) -> dict[str, Any]:
    """Open a page: what it shows as soon as it is enough, or what it showed when the time was up."""
    seen: list[dict[str, Any]] = []

    def looked_enough(browser: Chrome) -> bool:
        seen.append(browser.execute_script(script))
        return bool(enough(seen[-1]))

    browser.get(address)
    with suppress(TimeoutException):
        WebDriverWait(browser, 300).until(looked_enough)
    return seen[-1]


def test_the_printed_address_shows_label_efficiency_without_a_click(out: Path, address: str, browser: Chrome) -> None:
    title, path = pages_of(out)[0]
    assert title == "Label efficiency of sweep-1"
    seen = look(
        browser,
        f"{address}/{path}",
        lambda seen: seen["drawn"] and [len(line["x"]) for line in seen["lines"]] == [4] * 6,
    )
    assert "Error loading shared view state" not in seen["words"]
    assert "Group by: arm" in seen["words"]
    assert "27 matching runs" in seen["words"]  # 3 arms x 9 draws: all of them, though there are 108 trials
    for arm in ("two-stage from pretrain-1", "feature-extraction from pretrain-1", "full from scratch"):
        assert f"{arm} (label_efficiency/balanced_accuracy)" in seen["words"]  # the legend
    assert seen["axis"] == "log"
    # the page draws each line twice, with and without smoothing
    means = sorted((line["y"][0], line["x"], line["y"]) for line in seen["lines"])[::2]
    for base, (_, budgets, scores) in zip(sorted(ARMS.values()), means, strict=True):
        assert budgets == [1, 4, 16, 64]
        assert scores == pytest.approx([base + 0.08 * step + 0.04 for step in range(4)])  # over draws
    bands = sorted(max(y for y in band["y"] if y is not None) for band in seen["bands"])
    assert bands == pytest.approx([base + 0.24 + 0.08 for base in sorted(ARMS.values())])  # the best draw


PARALLEL = "Parallel Coordinates"  # title of the chart
# the dots of scatter plots, and the page's words
TRIALS = """
const plots = Array.from(document.querySelectorAll('.js-plotly-plot')).filter(each => each.data);
return {
  dots: plots.map(each => each.data.filter(t => t.mode === 'markers')
    .map(t => Array.from(t.x).map((x, k) => [x, t.y[k]])).flat()),
  axes: plots.map(each => [each._fullLayout.xaxis.title.text, each._fullLayout.yaxis.title.text]),
  words: document.body.innerText,
};
"""


def test_the_view_of_trials_shows_each_by_itself_without_a_click(out: Path, address: str, browser: Chrome) -> None:
    title, path = pages_of(out)[1]
    assert title == "Trials of sweep-1"
    seen = look(
        browser,
        f"{address}/{path}",
        lambda seen: (
            len(seen["dots"]) == 2 and min(map(len, seen["dots"])) >= 100 and "test_accuracy\n" in seen["words"]
        ),
        TRIALS,
    )
    assert "Error loading shared view state" not in seen["words"]
    assert "100 matching runs" in seen["words"]  # of 108: the page reads so many at first
    assert seen["axes"] == [["per_class", "test_balanced_accuracy"], ["arm", "test_balanced_accuracy"]]
    scores = {base + 0.08 * step + 0.01 * draw for base in ARMS.values() for step in range(4) for draw in range(9)}
    for dots in seen["dots"]:
        assert len(dots) == 100
        assert all(min(abs(score - one) for one in scores) < 1e-6 for _, score in dots)
    assert PARALLEL in seen["words"]
    assert "per_class\n" in seen["words"]
    assert "test_accuracy\n" in seen["words"]  # axes of the parallel coordinates


def test_the_view_of_training_runs_has_their_metrics(out: Path, address: str, browser: Chrome) -> None:
    experiment = pages_of(out)[2][1].split("/")[2]
    path = views.view_path(experiment, views.view_id(views.TRAINING))
    seen = look(browser, f"{address}/{path}", lambda seen: seen["lines"] and len(seen["lines"][0]["x"]) == 4)
    assert "pretrain-1 (loss)" in seen["words"]
    assert "2 matching runs" in seen["words"]  # with the sweep's own, and none of its trials
    assert seen["lines"][0]["y"] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
