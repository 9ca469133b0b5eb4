"""Headless Chromium, driven through Debian's own driver; nothing is fetched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def missing_browser() -> str | None:
    """Why no page can be opened here; None when one can."""
    missing = [] if browser() else [BROWSERS[0]]
    missing += [] if shutil.which("chromedriver") else ["chromedriver"]
    return f"no browser here: {', '.join(missing)} missing (apt: chromium chromium-driver)" if missing else None


def browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def chromium(*, width: int = 1100, height: int = 1400) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = browser() or ""
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", f"--window-size={width},{height}"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to start as root with it, as containers do
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()
