"""Reports in headless Chromium, opened from the disk: nothing is asked of any host, curves are there, keys do all."""

import time
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.keys import Keys

from ssl_app.commands import report
from tests.saved_runs import Made, make_pretraining, make_sweep

CLASSES = ("<b>bold</b>", "正常な組織", '"quoted" & co')
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a finished sweep, with markup and Japanese in the names of its classes."""
    out = tmp_path_factory.mktemp("runs")
    return report.write(make_sweep(out, "swept", Made(classes=CLASSES)))


@pytest.fixture(scope="module")
def unlabeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a pretraining on images without labels."""
    return report.write(make_pretraining(tmp_path_factory.mktemp("runs"), "pre"))


def looked_at(browser: Chrome, path: Path) -> dict[str, Any]:
    """What a page shows, once it is open."""
    browser.get(path.as_uri())
    found: dict[str, Any] = browser.execute_script(
        "return {text: document.body.innerText, bold: document.querySelectorAll('main table b').length,"
        " lines: document.querySelectorAll('#curves svg.wide .series .line').length,"
        " bands: document.querySelectorAll('#curves svg.wide .series .band').length,"
        " pictures: [...document.querySelectorAll('.picture')].map(one => one.alt),"
        " asked: performance.getEntriesByType('resource').map(one => one.name)"
        "   .filter(name => !name.startsWith('data:'))}"
    )
    return found


def complaints(browser: Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def test_a_sweeps_report_shows_its_curves_and_asks_nobody(browser: Chrome, page: Path) -> None:
    seen = looked_at(browser, page)
    assert seen["asked"] == []
    assert (seen["lines"], seen["bands"]) == (3, 3)
    for name in CLASSES:
        assert name in seen["text"]
    assert seen["bold"] == 0, "a name is no markup"
    assert seen["pictures"][0].startswith("scans/<i>")
    time.sleep(0.2)
    assert complaints(browser) == []


def test_a_curve_is_hidden_and_its_points_are_read_by_keyboard(browser: Chrome, page: Path) -> None:
    browser.get(page.as_uri())
    shown = (
        "return [...document.querySelectorAll('#curves svg.wide .series')].map(one => !one.hasAttribute('hidden'))"
    )
    visible = (
        "return [...document.querySelectorAll('#curves svg.wide .series')]"
        ".map(one => getComputedStyle(one).display !== 'none')"
    )
    browser.execute_script("document.querySelector('#curves .legend input').focus()")
    ActionChains(browser, duration=0).send_keys(Keys.SPACE).perform()
    assert browser.execute_script(shown) == browser.execute_script(visible) == [False, True, True]
    ActionChains(browser, duration=0).send_keys(Keys.SPACE).perform()
    assert browser.execute_script(visible) == [True, True, True]

    browser.execute_script("document.querySelector('#curves svg.wide .series').focus()")
    ActionChains(browser, duration=0).send_keys(Keys.RIGHT + Keys.RIGHT).perform()
    tip = "const tip = document.querySelector('.tip'); return tip.hidden ? null : tip.textContent"
    words = browser.execute_script(tip)
    assert words.startswith("auto from pre\n8 labels per class: ")
    assert words.endswith("%\nn = 3")
    ActionChains(browser, duration=0).send_keys(Keys.ESCAPE).perform()
    assert browser.execute_script(tip) is None
    assert complaints(browser) == []


OVERLAPPING = """
const found = [];
for (const chart of document.querySelectorAll(".chart")) {
  const words = [...chart.querySelectorAll("text")].map(one => [one.textContent, one.getBoundingClientRect()]);
  for (const [k, [name, a]] of words.entries()) for (const [other, b] of words.slice(k + 1))
    if (a.width && a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
      found.push(`${name} / ${other}`);
}
return found;
"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", ["sweep", "pretraining"])
def test_nothing_overlaps_or_stands_out_of_the_window(
    browser: Chrome, page: Path, unlabeled: Path, kind: str, dark: bool
) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get((page if kind == "sweep" else unlabeled).as_uri())
    browser.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    beyond = "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    charts = (
        "return [...document.querySelectorAll('#curves .chart:is(.wide, .narrow)')]"
        ".map(one => one.getBoundingClientRect().width > 0)"
    )
    paper = "return getComputedStyle(document.body).backgroundColor"
    for width in (400, 900, 1600):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert browser.execute_script(beyond) == 0, width
        assert browser.execute_script(OVERLAPPING) == [], width
        assert (browser.execute_script(paper) == "rgb(255, 255, 255)") == (not dark)
        if kind == "sweep":
            assert browser.execute_script(charts) == [width > 700, width <= 700], "one size of the two"


def test_a_run_without_labels_shows_its_curves_and_asks_nobody(browser: Chrome, unlabeled: Path) -> None:
    seen = looked_at(browser, unlabeled)
    assert seen["asked"] == []
    assert "Finished without a warning" in seen["text"]
    assert "without a label" in seen["text"]
    curves = "return document.querySelectorAll('#curves .panels .series .line').length"
    assert browser.execute_script(curves) == 4
    browser.execute_script("document.querySelector('#curves .series[tabindex]').focus()")
    ActionChains(browser, duration=0).send_keys(Keys.RIGHT).perform()
    tip = "const tip = document.querySelector('.tip'); return tip.hidden ? null : tip.textContent"
    assert browser.execute_script(tip).endswith("epoch 1: 0.25")
    assert complaints(browser) == []


def test_what_is_not_whole_is_shown_as_far_as_it_goes(browser: Chrome, tmp_path: Path) -> None:
    for number, (made, words) in enumerate(
        (
            (Made(done=0.5), "trials have finished"),
            (Made(done=0.7, ended="trial x: the loss became nan"), "the loss became nan"),
            (Made(done=0.0), "0 of 27 trials have finished"),
            (Made(draws=1, per_class=(8,)), "One draw gives no interval."),
            (Made(classes=tuple(f"class {k}" for k in range(30)), per_class=(8,)), "The commonest confusions"),
        )
    ):
        seen = looked_at(browser, report.write(make_sweep(tmp_path, f"swept-{number}", made)))
        assert words in seen["text"]
        assert seen["asked"] == []
        assert complaints(browser) == []
