"""Headless Chromium through Selenium, with the driver that lies on PATH: nothing is looked for or fetched."""

import shutil
from collections.abc import Iterator

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


@pytest.fixture(scope="session")
def chromium(programs: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One Chromium for all: to start and to end one takes longer than most of what is looked at in it."""
    options = webdriver.ChromeOptions()
    options.binary_location, driver = programs
    for flag in FLAGS.split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """Chromium in which nobody has clicked anything: nothing is stored, the window is as wide as at first."""
    yield chromium
    if chromium.current_url.startswith(("file:", "http:")):
        chromium.execute_script("localStorage.clear(); sessionStorage.clear()")
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    chromium.get("about:blank")
    chromium.get_log("browser")  # what is left of it
