"""The page of suggested images in headless Chromium, opened from the disk: names, and the table that they go into."""

import time
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from ssl_app.data.label_tables import read_labels
from ssl_app.report.suggested import Row, Suggestion, write_page, write_table

ODD = "odd/\"<script>alert(1)</script>, ü'&amp;.png"
PROGRESS = "return document.getElementById('progress').textContent"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five suggested images of two patients, and two that are labeled; beside the page lies its table."""
    paths = [f"scans/{i}.png" for i in range(4)] + [ODD]
    suggestion = Suggestion(
        run="my-run",
        identity="1763720000.5",
        data="scans",
        suggested=[Row(path, "", i % 3, f"{i % 2}" if i < 4 else "") for i, path in enumerate(paths)],
        labeled=[Row("scans/8.png", "cat", 2, ""), Row("test/9.png", 'a "dog", brown', None, "")],
        group="patient",
    )
    folder = tmp_path_factory.mktemp("suggested")
    pictures = [np.random.default_rng(i).integers(0, 255, (20, 30 + i, 1), dtype=np.uint8) for i in range(5)]
    write_table(folder / "suggested.csv", suggestion)
    write_page(folder / "suggested.html", suggestion, pictures)
    return folder / "suggested.html"


def complaints(browser: Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def test_names_go_into_the_table_and_come_back(browser: Chrome, page: Path, tmp_path: Path) -> None:
    browser.get(page.as_uri())
    table = page.with_name("suggested.csv").read_bytes().decode()
    assert browser.execute_script("return namesCsv()") == table, "nothing is named: the table as it was written"
    assert browser.execute_script(PROGRESS) == "0 of 5 images named"
    shown = "return [...document.querySelectorAll('.picture')].map(one => [one.naturalWidth, one.naturalHeight])"
    end = time.monotonic() + 20
    while browser.execute_script(shown) != [[30 + i, 20] for i in range(5)] and time.monotonic() < end:
        time.sleep(0.1)
    assert browser.execute_script(shown) == [[30 + i, 20] for i in range(5)]

    fields = browser.find_elements(By.CSS_SELECTOR, ".name")
    fields[0].send_keys("cat")
    ActionChains(browser, duration=0).send_keys(Keys.ENTER + ' <img src=x>, "ü" ').perform()
    fields[4].send_keys("cat")
    assert browser.execute_script(PROGRESS) == "3 of 5 images named as 2 classes"
    offered = "return [...document.querySelectorAll('#names option')].map(one => one.value)"
    assert browser.execute_script(offered) == ['<img src=x>, "ü"', 'a "dog", brown', "cat"]

    (tmp_path / "down").mkdir()
    behavior = {"behavior": "allow", "downloadPath": str(tmp_path / "down")}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
    browser.find_element(By.ID, "download").click()
    path = tmp_path / "down" / "labels-my-run.csv"
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.1)
    keys = ["scans/0.png", "scans/1.png", "scans/2.png", ODD, "scans/8.png", "test/9.png"]
    assert read_labels(path, keys)[0].of(keys) == [["cat", '<img src=x>, "ü"', None, "cat", "cat", 'a "dog", brown']]

    browser.execute_script("localStorage.clear()")
    browser.get(page.as_uri())
    assert browser.execute_script(PROGRESS) == "0 of 5 images named"
    browser.find_element(By.ID, "upload").send_keys(str(path))
    while browser.execute_script(PROGRESS) != "3 of 5 images named as 2 classes" and time.monotonic() < end:
        time.sleep(0.1)
    browser.get(page.as_uri())
    assert browser.execute_script(PROGRESS) == "3 of 5 images named as 2 classes", "the browser keeps them"
    assert browser.execute_script("return document.querySelectorAll('script').length") == 2
    assert complaints(browser) == []


def test_a_table_without_labels_is_refused(browser: Chrome, page: Path) -> None:
    browser.get(page.as_uri())

    def load(text: str) -> str:
        return str(browser.execute_script("return loadNames(arguments[0], 'n.csv')", text))

    assert load("path,name\na,b\n") == (
        "n.csv has the columns path, name; expected path and label, as Download table writes them."
    )
    assert load("path,label\ngone.png,a\nscans/0.png,\n") == "n.csv names none of the 5 images here."
    assert load("\ufefflabel;path\nb;scans/0.png\n") == "1 image named from n.csv."


def test_a_picture_is_enlarged_and_named_there(browser: Chrome, page: Path) -> None:
    browser.get(page.as_uri())
    seen = (
        "const dialog = document.querySelector('dialog');"
        "return dialog.open ? [dialog.querySelector('.stage img').alt, dialog.querySelector('input').value] : null"
    )
    focus = "return document.activeElement.getAttribute('aria-label')"
    type_in = lambda keys: ActionChains(browser, duration=0).send_keys(keys).perform()  # noqa: E731
    browser.find_element(By.CSS_SELECTOR, ".name").send_keys("cat")
    browser.find_element(By.CSS_SELECTOR, ".open").click()
    assert browser.execute_script(seen) == ["scans/0.png", "cat"]
    box = "const one = document.querySelector('dialog .stage img').getBoundingClientRect(); return one.width"
    assert browser.execute_script(box) > 400, "30 pixels"
    type_in(Keys.RIGHT)
    assert browser.execute_script(seen) == ["scans/1.png", ""]
    browser.find_element(By.CSS_SELECTOR, "dialog input").send_keys("dog" + Keys.ENTER)
    assert browser.execute_script(seen) == ["scans/2.png", ""]
    type_in(Keys.ESCAPE)
    assert browser.execute_script(seen) is None
    WebDriverWait(browser, 20).until(lambda _: browser.execute_script(focus) == "Enlarge image 3")  # after an event
    assert browser.execute_script(PROGRESS) == "2 of 5 images named as 2 classes"
    type_in(Keys.ENTER)
    assert browser.execute_script(seen) == ["scans/2.png", ""], "without a mouse, too"
    assert complaints(browser) == []
