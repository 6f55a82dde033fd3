"""A real browser for tests of the page, and a server for apps, both on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement
    from starlette.types import ASGIApp

PATIENCE = 60.0
"""Seconds in which something has to show, also on a busy machine; most is there within three."""


@contextlib.contextmanager
def loopback(app: ASGIApp) -> Iterator[str]:
    """Serves an app on a free port; its address."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings = uvicorn.Config(app, log_level="error", ws="none", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def chromium(profile: Path, downloads: Path) -> Iterator[Chrome]:
    """A browser without a window, which writes down what pages log and ask for. Skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("chromium and its driver are not installed (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("headless=new", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,900", "no-first-run"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={profile}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # It refuses to start one for root.
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


class Page:
    """A tab that shows the page of one service."""

    def __init__(self, browser: Chrome, origin: str) -> None:
        self.browser, self.origin = browser, origin
        self.addresses: list[str] = []
        self.complaints: list[str] = []

    def open(self, route: str = "#/jobs") -> None:
        """Loads the page anew, also where only the part after `#` differs."""
        self.browser.get("about:blank")
        self.browser.get(f"{self.origin}/{route}")

    def all(self, css: str) -> list[WebElement]:
        return self.browser.find_elements("css selector", css)

    def text(self, css: str) -> str:
        """The text of all elements that fit, also of what is scrolled out of sight."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent).join('\\n')"
        return str(self.browser.execute_script(script, css))

    def button(self, name: str) -> WebElement:
        found = [element for element in self.all("button") if element.text == name and element.is_displayed()]
        assert len(found) == 1, f"{len(found)} buttons are called '{name}'"
        return found[0]

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Waits until something holds; elements that were replaced meanwhile are looked for again."""
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(StaleElementReferenceException):
                if holds():
                    return
            time.sleep(0.05)
        raise AssertionError(f"within {PATIENCE:g} s: {what}; shown is\n{self.text('body')[:3000]}")

    def shows(self, css: str, text: str) -> None:
        self.until(lambda: text in self.text(css), f"'{text}' in {css}")

    def collect(self) -> None:
        """Takes in what was logged and asked for until now."""
        for entry in self.browser.get_log("browser"):
            self.complaints.append(entry["message"])
        for entry in self.browser.get_log("performance"):
            message: dict[str, Any] = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.addresses.append(message["params"]["request"]["url"])


@contextlib.contextmanager
def tab(browser: Chrome, origin: str) -> Iterator[Page]:
    """A fresh tab. At the end nothing may have been complained about, and nothing asked of anybody else."""
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    opened = Page(browser, origin)
    opened.collect()  # What is there is the last tab's.
    opened.addresses.clear()
    opened.complaints.clear()
    yield opened
    browser.get("about:blank")
    opened.collect()
    browser.close()
    browser.switch_to.window(first)
    # Whether a job that ended has a manifest is known by asking for it; the browser notes that there was none.
    complaints = [text for text in opened.complaints if not re.search(r"/artifacts - .* 404 ", text)]
    asked = [address for address in opened.addresses if not address.startswith(("about:", "blob:", "chrome:", "data:"))]
    assert asked
    assert [address for address in asked if not address.startswith(f"{origin}/")] == []
    assert complaints == []
