"""A headless Chromium for the tests that open a page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@contextmanager
def headless_browser(folder: Path) -> Iterator["Chrome"]:
    """Chromium, driven by Selenium; its profile lies in `folder`.

    Skips the test where Chromium or its driver is missing, unless PIPELINE_ALL_TESTS is 1: then the test fails.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        reason = "chromium or chromedriver is missing (Debian's packages chromium and chromium-driver)"
        if os.environ.get("PIPELINE_ALL_TESTS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "headless=new",
        "no-sandbox",  # root, as in a container, has no sandbox
        "disable-dev-shm-usage",
        "disable-gpu",
        # No requests beside those of the page under test.
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=1400,1600",
        f"user-data-dir={folder / 'chromium'}",
    ):
        options.add_argument(f"--{argument}")
    browser = Chrome(options=options, service=Service(driver))
    try:
        browser.set_page_load_timeout(60)
        yield browser
    finally:
        browser.quit()
