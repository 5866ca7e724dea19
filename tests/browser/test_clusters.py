"""The cluster page in headless Chromium, opened from the disk as people open it: filters, names, and their table."""

import csv
import io
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from ssl_app.data.intensity import PixelScaling
from ssl_app.data.label_tables import read_labels
from ssl_app.report.clusters import Labeling, write_page

ODD = "odd/\"<script>alert(1)</script>, ü'&amp;.png"
N = 60

pytestmark = pytest.mark.browser


def make_page(folder: Path, identity: str = "1763720000.5") -> str:
    """60 images, ever less confident: clusters 0 to 3 of 40, 10, 8 and 2, a second head of three times 20."""
    generator = np.random.default_rng(0)
    sizes = [40, 10, 8, 2]
    first = np.repeat(np.arange(4), sizes)
    paths = [f"scans/{'ab'[i % 2]}/{i:03d}.png" for i in range(N)]
    paths[N - 1] = ODD
    labeling = Labeling(
        run="my-run",
        identity=identity,
        data="scans",
        paths=paths,
        rows=np.arange(N),
        confidence=np.stack([np.linspace(1, 0.4, N), np.linspace(0.3, 0.9, N)]).round(4),
        heads=(1, 2),
        sizes=(5, 3),
        clusters=np.stack([first, np.arange(N) % 3]).astype(np.int64),
        classes=("cat", "<b>dog</b>"),
        labels=np.where(np.arange(N) % 10 == 0, 1, 0),
    )
    images = generator.integers(0, 255, (N, 16, 16, 1), dtype=np.uint8)
    page = write_page(
        folder / "clusters", labeling, images, PixelScaling("dtype", 0, 255, (), ()), side=24, per_sheet=8
    )
    return page.absolute().as_uri()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_page(tmp_path_factory.mktemp("page"))


class Page:
    """A page that is open: scripts run in it, words typed into it, and what it complained about."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser
        self.load = browser.get
        self.run = browser.execute_script

    def find(self, where: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, where)

    def type_in(self, where: str, words: str) -> None:
        """As a person does: with the keys, in place of what is there."""
        element = self.find(where)
        element.clear()
        element.send_keys(words)

    def press(self, keys: str) -> None:
        ActionChains(self.browser, duration=0).send_keys(keys).perform()

    def until(self, script: str, expected: Any) -> None:
        """Wait until the script gives what is expected: filters take a moment, sheets too."""
        found: list[Any] = []

        def enough(_: Chrome) -> bool:
            found.append(self.run(script))
            return bool(found[-1] == expected)

        with suppress(TimeoutException):
            WebDriverWait(self.browser, 20, 0.1).until(enough)
        assert found[-1] == expected

    def shown(self) -> list[int]:
        """Numbers of the clusters on the page."""
        found: list[int] = self.run(SHOWN)
        return found

    def complaints(self) -> list[str]:
        """Errors of scripts, of the policy and of files that are not there, since the last time."""
        return [str(line["message"]) for line in self.browser.get_log("browser")]


SHOWN = "return [...document.querySelectorAll('.card h2')].map(one => Number(one.textContent.split(' ')[1]))"
PROGRESS = "return document.getElementById('progress').textContent"
FOCUS = "return document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"


@pytest.fixture
def open_page(browser: Chrome, page: str) -> Page:
    """The page, just opened."""
    browser.get(page)
    return Page(browser)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_names_are_kept_downloaded_and_taken_up_again(open_page: Page, page: str) -> None:
    assert open_page.run("return document.title") == "Clusters of my-run"
    assert open_page.shown() == [0, 1, 2, 3], "largest first"
    assert open_page.run(PROGRESS) == "0 of 4 clusters named, covering 0 of 60 images"
    assert open_page.run("return document.getElementById('download').disabled")

    name = "input[aria-label='Name of cluster {}']".format
    open_page.type_in(name(1), "mitosis")
    assert open_page.run(PROGRESS) == "1 of 4 clusters named, covering 10 of 60 images"
    open_page.type_in(name(3), ' <img src=x onerror=alert(1)>, "ü" ')
    open_page.type_in(name(2), "mitosis")
    told = "3 of 4 clusters named as 2 classes, covering 20 of 60 images"
    assert open_page.run(PROGRESS) == told

    text = open_page.run("return namesCsv()")
    assert text.endswith("\r\n")
    assert text.splitlines()[0] == "path,cluster,label"
    found = rows(text)
    assert len(found) == 20
    assert found[0] == {"path": "scans/a/040.png", "cluster": "1", "label": "mitosis"}
    assert found[-1] == {"path": ODD, "cluster": "3", "label": '<img src=x onerror=alert(1)>, "ü"'}
    assert [row["cluster"] for row in found] == ["1"] * 10 + ["2"] * 8 + ["3"] * 2

    open_page.load(page)  # again
    assert open_page.run(PROGRESS) == told
    values = "return [...document.querySelectorAll('.name')].map(one => one.value.trim())"
    assert open_page.run(values) == ["", "mitosis", "mitosis", '<img src=x onerror=alert(1)>, "ü"']

    open_page.run("localStorage.clear()")
    open_page.load(page)
    assert open_page.run(values) == [""] * 4
    said = open_page.run("return loadNames(arguments[0], 'names.csv')", text)
    assert said == "3 clusters named from names.csv."
    assert open_page.run("return namesCsv()") == text
    assert open_page.run(PROGRESS) == told
    open_page.load(page)
    assert open_page.run(PROGRESS) == told, "what was uploaded is kept as well"

    assert open_page.run("return document.querySelectorAll('script').length") == 2
    assert open_page.run("return document.querySelectorAll('b, img[src=x]').length") == 0
    assert open_page.complaints() == []


def test_a_download_is_the_table(open_page: Page, page: str, tmp_path: Path) -> None:
    (tmp_path / "down").mkdir()
    behavior = {"behavior": "allow", "downloadPath": str(tmp_path / "down")}
    open_page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
    open_page.type_in(".name", "Zelle, groß")
    open_page.find("#download").click()
    path = tmp_path / "down" / "names-my-run-head-1.csv"
    end = time.monotonic() + 20
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.1)
    with path.open(newline="", encoding="utf-8") as file:
        text = file.read()
    assert text == open_page.run("return namesCsv()")
    assert rows(text)[0]["label"] == "Zelle, groß"
    labels = read_labels(path).of(["scans/a/000.png", "scans/b/039.png", ODD])
    assert labels == [["Zelle, groß", "Zelle, groß", None]], "as --labels takes it"

    # and the way back, through the file field
    open_page.run("localStorage.clear()")
    open_page.load(page)
    open_page.find("#upload").send_keys(str(path))
    open_page.until(PROGRESS, "1 of 4 clusters named, covering 40 of 60 images")
    assert open_page.complaints() == []


def test_filters_and_orders(open_page: Page) -> None:
    def choose(order: str) -> None:
        script = "const one = document.getElementById('order'); one.value = arguments[0]; "
        open_page.run(script + "one.dispatchEvent(new Event('change'))", order)

    for order, expected in (
        ("smallest", [3, 2, 1, 0]),
        ("doubtful", [3, 2, 1, 0]),
        ("purest", [3, 0, 1, 2]),  # 2 of 2, 36 of 40, 9 of 10, 7 of 8
        ("mixed", [2, 0, 1, 3]),
        ("number", [0, 1, 2, 3]),
    ):
        choose(order)
        assert open_page.shown() == expected, order
    for field, words, expected in (
        ("#least", "9", [0, 1]),
        ("#most", "9", [2, 3]),
        ("#purity", "0.95", [3]),
        ("#text", "SCANS/A/04", [1]),
        ("#text", "<SCRIPT>alert", [3]),
        ("#text", "nowhere", []),
    ):
        open_page.type_in(field, words)
        open_page.until(SHOWN, expected)
        open_page.run(
            "const one = document.querySelector(arguments[0]); one.value = ''; one.dispatchEvent(new Event('input'))",
            field,
        )
        open_page.until(SHOWN, [0, 1, 2, 3])
    open_page.type_in("input[aria-label='Name of cluster 2']", "Anaphase")
    open_page.type_in("#text", "anaph")
    open_page.until(SHOWN, [2])
    open_page.type_in("#text", "scans")
    open_page.until(SHOWN, [0, 1, 2, 3])
    open_page.find("#unnamed").click()
    assert open_page.shown() == [0, 1, 3]
    shown = open_page.run("return document.getElementById('shown').textContent")
    assert shown == "3 of 4 clusters shown, with 52 images."

    open_page.type_in("#find", "040")
    open_page.until("return document.querySelectorAll('#hits button').length", 1)
    open_page.type_in("#find", "/a/056")
    open_page.until("return document.getElementById('hits').textContent", "scans/a/056.png — cluster 2, Anaphase")
    open_page.find("#hits button").click()
    assert open_page.shown() == [0, 1, 2, 3], "its cluster was hidden: all are shown"
    assert open_page.run(FOCUS) == "Name of cluster 2"
    found = open_page.run("return document.querySelector('.aimed .thumb.found').alt")
    assert found == "scans/a/056.png"
    assert open_page.complaints() == []


def test_sheets_are_cut_into_thumbnails_nearest_first(open_page: Page) -> None:
    alts = "return [...document.querySelectorAll('.card')[0].querySelectorAll('.thumb')].map(one => one.alt)"
    loaded = (
        "return [...document.querySelectorAll('.card')[0].querySelectorAll('.thumb')]"
        ".every(one => one.complete && one.naturalWidth === 72)"
    )
    open_page.until(alts, [f"scans/{'ab'[i % 2]}/{i:03d}.png" for i in range(8)])
    open_page.until(loaded, True)
    assert open_page.run(
        "const {src, style} = document.querySelectorAll('.card')[0].querySelectorAll('.thumb')[5];"
        "return [src.split('/').slice(-3).join('/'), style.objectPosition]"
    ) == ["sheets/1/0-0.jpg", "-48px -24px"]
    framed = "return [...document.querySelectorAll('.thumb.other')].map(one => one.alt)"
    open_page.until(framed, ["scans/a/000.png", "scans/a/040.png", "scans/a/050.png"])

    more = "return [...document.querySelectorAll('.card')[0].querySelectorAll('button')].map(one => one.textContent)"
    open_page.until(more, ["Least confident first", "8 more, of 32"])
    open_page.run("document.querySelectorAll('.card')[0].querySelectorAll('button')[1].click()")
    open_page.until(alts, [f"scans/{'ab'[i % 2]}/{i:03d}.png" for i in range(16)])
    open_page.run("document.querySelectorAll('.card')[0].querySelectorAll('button')[0].click()")
    open_page.until(alts, [f"scans/{'ab'[i % 2]}/{i:03d}.png" for i in range(39, 31, -1)])
    open_page.until(loaded, True)

    facts = "return document.querySelectorAll('.card .facts')[3].textContent"
    open_page.until(facts, "2 images · confidence 0.41\nmostly cat · purity 1.00")
    assert open_page.complaints() == []


def test_each_head_has_its_own_clusters_and_names(open_page: Page) -> None:
    choose = "at('head').value = arguments[0]; at('head').dispatchEvent(new Event('change'))"
    open_page.type_in("input[aria-label='Name of cluster 0']", "one")
    open_page.run(choose, "2")
    assert open_page.run(PROGRESS) == "0 of 3 clusters named, covering 0 of 60 images"
    alts = "return [...document.querySelectorAll('.card')[0].querySelectorAll('.thumb')].map(one => one.alt)"
    assert open_page.run(alts)[:2] == ["scans/b/057.png", "scans/a/054.png"], "by its own confidence"
    facts = "return document.querySelectorAll('.card .facts')[0].textContent"
    assert open_page.run(facts).startswith("20 images · confidence 0.59")
    open_page.type_in("input[aria-label='Name of cluster 0']", "two")
    images = "return [...document.querySelectorAll('.card')[0].querySelectorAll('.thumb')].map(one => one.src)"
    sheets = {address.split("/sheets/")[1] for address in open_page.run(images)}
    assert sheets == {"2/0-0.jpg"}, "one sheet for what is seen first"
    open_page.run("document.querySelector('.card button:last-child').click()")
    sheets = {address.split("/sheets/")[1] for address in open_page.run(images)}
    assert sheets > {"2/0-0.jpg"}, "and those of the first head for what follows"
    broken = "return [...document.querySelectorAll('.thumb')].filter(one => one.complete && !one.naturalWidth).length"
    time.sleep(0.3)
    assert open_page.run(broken) == 0
    taken = rows(open_page.run("return namesCsv()"))
    assert {(row["cluster"], row["label"]) for row in taken} == {("0", "two")}
    assert [row["path"] for row in taken][:2] == ["scans/b/057.png", "scans/a/054.png"]
    open_page.run(choose, "1")
    assert {row["label"] for row in rows(open_page.run("return namesCsv()"))} == {"one"}
    assert open_page.complaints() == []


def test_a_table_that_is_not_of_this_head_is_refused(open_page: Page) -> None:

    def load(text: str) -> str:
        return str(open_page.run("return loadNames(arguments[0], 'n.csv')", text))

    assert load("path,name\na,b\n") == (
        "n.csv has the columns path, name; expected path, cluster and label, as Download names writes them."
    )
    assert load("path,cluster,label\nx.png,0,a\n") == "n.csv names none of the 60 images here."
    other = "".join(f"scans/{'ab'[i % 2]}/{i:03d}.png,{i % 3},x\n" for i in range(1, N - 1))
    assert load(f"path,cluster,label\n{other}").startswith("n.csv is of another head or run: ")
    assert open_page.run(PROGRESS) == "0 of 4 clusters named, covering 0 of 60 images"
    # as a spreadsheet saves it: a mark at the start, semicolons, another order of columns
    assert load('\ufefflabel;cluster;path\n"a; ""b""";1;scans/a/040.png\nc;0;gone.png\n') == (
        "1 cluster named from n.csv; 1 row of no image here, or without a label."
    )
    assert open_page.run("return head.names.get(1)") == 'a; "b"'


def test_tab_and_enter_go_from_name_to_name(open_page: Page) -> None:
    open_page.run("document.querySelector('.name').focus()")
    for key, expected in (
        (Keys.TAB, "Name of cluster 1"),
        (Keys.ENTER, "Name of cluster 2"),
        (Keys.ESCAPE, "Least confident first"),
        (Keys.ESCAPE, "Name of cluster 2"),
        (Keys.TAB, "Name of cluster 3"),
    ):
        open_page.press(key)
        assert open_page.run(FOCUS) == expected
    open_page.run("document.querySelector('.name').focus()")
    open_page.press(Keys.ESCAPE + Keys.RIGHT)
    assert open_page.run(FOCUS) == "8 more, of 32"
    assert open_page.complaints() == []


def test_the_policy_stops_what_is_not_the_pages_own(open_page: Page) -> None:
    said = open_page.browser.execute_async_script(
        "fetch('http://127.0.0.1:9/').then(() => arguments[0]('sent'), () => arguments[0]('no'))"
    )
    assert said == "no"
    assert any("Content Security Policy" in line for line in open_page.complaints())
