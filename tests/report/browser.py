"""A headless Chromium of the system, for tests of pages that scripts bring to life."""

import shutil
from contextlib import contextmanager

import pytest

# quiet: a browser that looks for updates or tries QUIC makes requests of its own
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium():
    """A browser with a fresh profile, closed afterwards; skips where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page that is open, and everything it complained of or asked for on the way."""

    def __init__(self, browser, path, *, width=1280, scheme="light"):
        size = {"width": width, "height": 900}
        self.page = browser.new_page(viewport=size, color_scheme=scheme)
        self.said, self.requests = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        drawn = "[...document.querySelectorAll('.figure')].every(f => f.querySelector('.main-svg'))"
        self.wait_for(drawn)

    def wait_for(self, condition):
        """Until a JavaScript expression holds; the page's own policy forbids to poll it there."""
        for _ in range(1200):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        pytest.fail(f"never true: {condition}")

    def number(self, script):
        return self.page.evaluate(script)
