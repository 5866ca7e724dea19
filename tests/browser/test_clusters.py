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
from ssl_app.report.clusters import Labeling, Sizes, write_page
from tests.toys import InMemory

ODD = "odd/\"<script>alert(1)</script>, ü'&amp;.png"
N = 60

pytestmark = pytest.mark.browser


def make_page(folder: Path, identity: str = "1763720000.5") -> str:
    """60 images, ever less confident: clusters 0 to 3 of 40, 10, 8 and 2, a second head of three times 20.

    They are twice as wide as high, and white; their files hold more than a thumbnail shows.
    """
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
    source = InMemory([np.full((100, 200, 1), 255, np.uint8)] * N)
    pixels = PixelScaling("dtype", 0, 255, (), ())
    return write_page(folder / "clusters", labeling, source, pixels, Sizes(24, 150, 8)).page.absolute().as_uri()


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


ALTS = "return [...document.querySelectorAll('.card')[0].querySelectorAll('.thumb img')].map(one => one.alt)"
BUTTONS = (
    "return [...document.querySelectorAll('.card')[0].querySelectorAll('.buttons button')]"
    ".filter(one => !one.hidden).map(one => one.textContent)"
)
ASKED = (
    "return performance.getEntriesByType('resource').map(one => one.name)"
    ".filter(name => !name.startsWith('data:') && !name.startsWith('file:'))"
)
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
    keys = ["scans/a/000.png", "scans/b/039.png", ODD]
    assert read_labels(path, keys)[0].of(keys) == [["Zelle, groß", "Zelle, groß", None]], "as --labels takes it"

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
    open_page.until(FOCUS, "Name of cluster 2")
    found = open_page.run("return document.querySelector('.aimed .thumb.found img').alt")
    assert found == "scans/a/056.png"
    assert open_page.complaints() == []


def test_sheets_are_cut_into_thumbnails_nearest_first(open_page: Page) -> None:
    open_page.until(ALTS, [f"scans/{'ab'[i % 2]}/{i:03d}.png" for i in range(8)])
    loaded = (
        "return [...document.querySelectorAll('.card')[0].querySelectorAll('.thumb img')]"
        ".every(one => one.complete && one.naturalWidth === 72)"
    )
    open_page.until(loaded, True)
    where = (
        "const thumb = document.querySelectorAll('.card')[0].querySelectorAll('.thumb')[5];"
        "const img = thumb.querySelector('img');"
        "const [outer, inner] = [thumb, img].map(one => one.getBoundingClientRect());"
        "const side = outer.width - 2;"  # within its frame
        "return [img.src.split('/').slice(-3).join('/'), Math.round((inner.left - outer.left - 1) / side),"
        " Math.round((inner.top - outer.top - 1) / side), Math.round(inner.width / side)]"
    )
    assert open_page.run(where) == ["sheets/1/0-0.jpg", -2, -1, 3], "the sixth of three by three"
    framed = "return [...document.querySelectorAll('.thumb.other img')].map(one => one.alt)"
    open_page.until(framed, ["scans/a/000.png", "scans/a/040.png", "scans/a/050.png"])
    frame = "const of = getComputedStyle(document.querySelector('.thumb')); return [of.borderStyle, of.borderColor]"
    style, color = open_page.run(frame)
    assert style == "solid"
    assert max(map(int, color.removeprefix("rgb(").rstrip(")").split(", "))) < 170, "a white image is framed on white"

    open_page.until(BUTTONS, ["Least confident first", "8 more, of 32"])
    open_page.run("document.querySelectorAll('.card')[0].querySelectorAll('.buttons button')[2].click()")
    open_page.until(ALTS, [f"scans/{'ab'[i % 2]}/{i:03d}.png" for i in range(16)])
    open_page.run("document.querySelectorAll('.card')[0].querySelectorAll('.buttons button')[0].click()")
    open_page.until(ALTS, [f"scans/{'ab'[i % 2]}/{i:03d}.png" for i in range(39, 31, -1)])
    open_page.until(loaded, True)

    facts = "return document.querySelectorAll('.card .facts')[3].textContent"
    open_page.until(facts, "2 images · confidence 0.41\nmostly cat · purity 1.00")
    assert open_page.complaints() == []


def test_a_click_enlarges_an_image_from_its_file_and_keys_step_and_close(open_page: Page) -> None:
    seen = (
        "const dialog = document.querySelector('dialog'), image = dialog.querySelector('.stage img');"
        "return dialog.open ? [image.alt, image.naturalWidth, image.naturalHeight] : null"
    )
    open_page.until(f"{ALTS}.length", 8)
    open_page.find(".thumb").click()
    open_page.until(seen, ["scans/a/000.png", 150, 75])
    words = open_page.run("return document.querySelector('dialog .facts').textContent")
    assert words == "scans/a/000.png\ncluster 0\nconfidence 1.00\nlabel <b>dog</b>"
    open_page.press(Keys.RIGHT * 2)
    open_page.until(seen, ["scans/a/002.png", 150, 75])
    open_page.press(Keys.LEFT * 9)
    open_page.until(seen, ["scans/a/000.png", 150, 75])
    open_page.press(Keys.ESCAPE)
    assert open_page.run(seen) is None
    open_page.until(FOCUS, "Enlarge scans/a/000.png")

    open_page.run("document.querySelector('.name').focus()")  # and without a mouse
    open_page.press(Keys.ESCAPE + Keys.RIGHT + Keys.ENTER)
    open_page.until(seen, ["scans/b/001.png", 150, 75])
    open_page.press(Keys.RIGHT * 9)
    open_page.until(seen, ["scans/a/010.png", 150, 75])
    assert open_page.run(f"{ALTS}.length") == 16, "stepped on, the card shows more"
    open_page.press(Keys.ESCAPE)
    open_page.until(FOCUS, "Enlarge scans/a/010.png")
    assert open_page.run(ASKED) == [], "nobody is asked"
    assert open_page.complaints() == []


def test_a_misfit_is_moved_and_the_table_says_so(open_page: Page, page: str, tmp_path: Path) -> None:
    belongs = (
        "const select = document.getElementById('target'); select.value = arguments[0];"
        "select.dispatchEvent(new Event('change'))"
    )
    enlarge = "enlarge(head.cards.get(arguments[0]), arguments[1])"
    for number, name in ((0, "cat"), (1, "dog"), (2, "cat")):
        open_page.type_in(f"input[aria-label='Name of cluster {number}']", name)
    open_page.run(enlarge, 0, 3)
    offered = open_page.run("return [...document.getElementById('target').options].map(one => one.textContent)")
    assert offered == [
        "cluster 0: cat (as found)", "no class", "a class that I type", "cluster 1: dog", "cluster 2: cat",
        "cluster 3",
    ]  # fmt: skip
    open_page.run(belongs, "1")
    open_page.run(enlarge, 0, 4)
    open_page.run(belongs, "none")
    open_page.run(enlarge, 0, 5)
    open_page.run(belongs, "3")  # which has no name
    open_page.run(enlarge, 3, 58)  # of that cluster
    open_page.run(belongs, "class")
    open_page.press("owl" + Keys.TAB + Keys.ESCAPE)
    moved = "3 of 4 clusters named, covering 57 of 60 images; 4 images moved"
    assert open_page.run(PROGRESS) == moved
    assert open_page.run(BUTTONS) == ["Least confident first", "3 moved away", "8 more, of 29"]
    away = "return [...head.cards.get(1).thumbs.querySelectorAll('.moved img')].map(one => one.alt)"
    assert open_page.run(away) == ["scans/b/003.png"], "it is shown where it is now"

    text = open_page.run("return namesCsv()")
    by_path = {row["path"]: (row["cluster"], row["label"]) for row in rows(text)}
    assert len(by_path) == len(rows(text)) == 59
    assert by_path["scans/a/002.png"] == ("0", "cat")
    assert by_path["scans/b/003.png"] == ("", "dog")
    assert by_path["scans/a/004.png"] == by_path["scans/b/005.png"] == ("", "")
    assert by_path["scans/a/058.png"] == ("", "owl")
    (tmp_path / "names.csv").write_text(text, encoding="utf-8")
    keys = [f"scans/{'ab'[i % 2]}/{i:03d}.png" for i in (2, 3, 4, 5, 58)]
    found = read_labels(tmp_path / "names.csv", keys)[0].of(keys)
    assert found == [["cat", "dog", None, None, "owl"]], "--labels takes it"

    open_page.load(page)  # the browser has kept them
    assert open_page.run(PROGRESS) == moved
    open_page.run("localStorage.clear()")
    open_page.load(page)
    assert (
        open_page.run("return loadNames(arguments[0], 'n.csv')", text)
        == "3 clusters named from n.csv; 4 images moved."
    )
    assert open_page.run(PROGRESS) == moved
    again = {row["path"]: (row["cluster"], row["label"]) for row in rows(open_page.run("return namesCsv()"))}
    assert again == by_path
    open_page.run("document.querySelectorAll('.card')[0].querySelectorAll('.buttons button')[1].click()")
    assert open_page.run(ALTS) == keys[1:4], "those moved away, to be looked at and moved back"
    open_page.run(enlarge, 0, 4)
    open_page.run(belongs, "stay")
    assert open_page.run(PROGRESS).endswith("covering 58 of 60 images; 3 images moved")
    assert open_page.complaints() == []


def test_pages_are_as_wide_as_their_window(open_page: Page) -> None:
    beyond = "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    for width in (400, 900, 1600):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        open_page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert open_page.run(beyond) == 0, width
        open_page.run("enlarge(head.cards.get(0), 0)")
        box = open_page.run("const box = document.querySelector('dialog').getBoundingClientRect(); return box.right")
        assert box <= width
        open_page.press(Keys.ESCAPE)


def test_each_head_has_its_own_clusters_and_names(open_page: Page) -> None:
    choose = "at('head').value = arguments[0]; at('head').dispatchEvent(new Event('change'))"
    open_page.type_in("input[aria-label='Name of cluster 0']", "one")
    open_page.run(choose, "2")
    assert open_page.run(PROGRESS) == "0 of 3 clusters named, covering 0 of 60 images"
    assert open_page.run(ALTS)[:2] == ["scans/b/057.png", "scans/a/054.png"], "by its own confidence"
    facts = "return document.querySelectorAll('.card .facts')[0].textContent"
    assert open_page.run(facts).startswith("20 images · confidence 0.59")
    open_page.type_in("input[aria-label='Name of cluster 0']", "two")
    images = "return [...document.querySelectorAll('.card')[0].querySelectorAll('.thumb img')].map(one => one.src)"
    sheets = {address.split("/sheets/")[1] for address in open_page.run(images)}
    assert sheets == {"2/0-0.jpg"}, "one sheet for what is seen first"
    open_page.run("document.querySelector('.card .buttons button:last-child').click()")
    sheets = {address.split("/sheets/")[1] for address in open_page.run(images)}
    assert sheets > {"2/0-0.jpg"}, "and those of the first head for what follows"
    broken = (
        "return [...document.querySelectorAll('.thumb img')].filter(one => one.complete && !one.naturalWidth).length"
    )
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
        (Keys.ESCAPE, "Enlarge scans/a/050.png"),
        (Keys.ESCAPE, "Name of cluster 2"),
        (Keys.TAB, "Name of cluster 3"),
    ):
        open_page.press(key)
        assert open_page.run(FOCUS) == expected
    open_page.run("document.querySelector('.name').focus()")
    open_page.press(Keys.ESCAPE + Keys.LEFT)
    open_page.until(FOCUS, "8 more, of 32")
    open_page.press(Keys.RIGHT + Keys.DOWN)
    assert open_page.run("return document.activeElement.dataset.image") == str(open_page.run("return across"))
    open_page.press(Keys.UP + Keys.UP)
    open_page.until(FOCUS, "Name of cluster 0")
    assert open_page.complaints() == []


def test_the_policy_stops_what_is_not_the_pages_own(open_page: Page) -> None:
    said = open_page.browser.execute_async_script(
        "fetch('http://127.0.0.1:9/').then(() => arguments[0]('sent'), () => arguments[0]('no'))"
    )
    assert said == "no"
    assert any("Content Security Policy" in line for line in open_page.complaints())
