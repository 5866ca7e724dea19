"""Headless Chromium through Selenium, with the driver that lies on PATH: nothing is looked for or fetched."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

FLAGS = (
    "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync window-size=1900,1100"
)


@pytest.fixture(scope="session", autouse=True)
def programs() -> tuple[str, str]:
    """Paths of Chromium and of its driver; without them the tests of this folder are skipped."""
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    chromium, driver = next(filter(None, found), None), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver on PATH")
    return chromium, driver


@pytest.fixture
def browser(programs: tuple[str, str], tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Chromium with a new profile, in which nobody has clicked anything."""
    options = webdriver.ChromeOptions()
    options.binary_location, driver = programs
    for flag in FLAGS.split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()
