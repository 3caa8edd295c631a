"""The page in a real browser: silent, offline, drawn, sortable, narrow, dark and printed."""

import re
import shutil
from contextlib import contextmanager

import pytest

from molhpft.report.page import write_report
from tests.runs import write_run

pytestmark = pytest.mark.slow

BRIGHT = """
(selector) => {
  const colour = getComputedStyle(document.querySelector(selector)).%s;
  const [r, g, b] = colour.match(/\\d+/g).map(Number);
  return (r + g + b) / 3;
}
"""
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
        self.messages, self.requests = [], []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
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


@pytest.fixture(scope="module")
def path(tree, tmp_path_factory):
    return write_report(tree, tmp_path_factory.mktemp("page")).page


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def desktop(browser, path):
    return Visit(browser, path)


@pytest.fixture(scope="module")
def phone(browser, path):
    return Visit(browser, path, width=390)


@pytest.fixture(scope="module")
def dark(browser, path):
    return Visit(browser, path, scheme="dark")


@pytest.mark.parametrize("which", ["desktop", "phone", "dark"])
def test_the_page_logs_nothing_and_requests_nothing(which, request, path):
    visit = request.getfixturevalue(which)
    assert visit.messages == []
    assert [url for url in visit.requests if not url.startswith("data:")] == [path.as_uri()]


def test_every_figure_is_drawn_with_its_data(desktop):
    figures = desktop.page.locator(".figure")
    assert figures.count() == 20
    for number in range(figures.count()):
        marks = figures.nth(number).locator(".scatterlayer .trace, .heatmaplayer image, .hm")
        assert marks.count() > 0, number


@pytest.mark.parametrize("which", ["desktop", "phone"])
def test_nothing_is_wider_than_the_screen(which, request):
    visit = request.getfixturevalue(which)
    assert visit.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert (
        visit.page.evaluate(
            "Math.max(...[...document.querySelectorAll('.figure .main-svg')]"
            ".map(s => s.getBoundingClientRect().right)) - innerWidth"
        )
        <= 0
    )


def test_a_click_sorts_a_table_and_another_turns_it_round(desktop):
    table = "section.table:nth-of-type(1) table >> nth=0"
    body = f"{table} >> tbody tr"

    def tests():
        cells = desktop.page.locator(body).all_inner_texts()
        return [float(re.split(r"[\s±]+", row)[1]) for row in cells]

    def names():
        return [row.split()[0] for row in desktop.page.locator(body).all_inner_texts()]

    first = names()
    heading = desktop.page.locator(f"{table} >> th").nth(1)
    heading.locator("button").click()
    assert tests() == sorted(tests(), reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    falling = names()
    heading.locator("button").click()
    assert tests() == sorted(tests())
    assert names() != falling
    assert sorted(names()) == sorted(first)
    desktop.page.locator(f"{table} >> th").nth(0).locator("button").click()
    assert names() == sorted(names(), reverse=True)
    assert heading.get_attribute("aria-sort") is None


def test_a_missing_value_is_last_in_both_directions(desktop):
    table = desktop.page.locator("table", has_text="tried").first
    heading = table.locator("th", has_text="tau")
    for _ in range(2):
        heading.locator("button").click()
        cells = table.locator("tbody tr td:nth-child(5)").all_inner_texts()
        assert cells[-1].strip() == "-"
        assert cells.count("-") == 1


def test_dark_is_dark_for_page_and_figures(desktop, dark):
    def brightness(visit, selector, what):
        return visit.page.evaluate(BRIGHT % what, selector)

    assert brightness(desktop, "body", "backgroundColor") > 200
    assert brightness(dark, "body", "backgroundColor") < 60
    assert brightness(desktop, ".figure .xtick text", "fill") < 60
    assert brightness(dark, ".figure .xtick text", "fill") > 200


def test_figures_follow_when_the_theme_changes(browser, path):
    visit = Visit(browser, path)
    visit.page.emulate_media(color_scheme="dark")
    visit.wait_for(f"({BRIGHT % 'fill'})('.figure .xtick text') > 200")
    assert visit.messages == []
    visit.page.close()


def test_molecules_are_drawn(desktop):
    pictures = desktop.page.locator(".molecules figure")
    assert pictures.count() == 12
    assert all(svg.bounding_box()["width"] > 60 for svg in pictures.locator("svg").all())


def test_a_printed_page_has_light_figures_of_the_width_of_paper(browser, path):
    visit = Visit(browser, path, scheme="dark")
    visit.page.emulate_media(media="print")
    visit.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    visit.wait_for(f"({BRIGHT % 'fill'})('.figure .xtick text') < 60")
    widths = visit.page.evaluate(
        "[...document.querySelectorAll('.figure .main-svg')].map(s => s.clientWidth)"
    )
    assert set(widths) == {680}
    printed = visit.page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    visit.page.close()


def test_a_long_table_opens_on_a_click_and_has_all_its_rows(browser, tmp_path):
    for number in range(13):
        rate = {"epochs": 3, "lr": 0.001 * (number + 1)}
        write_run(tmp_path / "runs", {0: (0.7, 0.7), 4: (0.8, 0.7)}, finetune=rate)
    page = write_report(tmp_path / "runs", tmp_path / "report").page
    closed = Visit(browser, page).page.locator("details")
    assert closed.count() > 0
    for number in range(closed.count()):
        one = closed.nth(number)
        assert one.locator("table").is_hidden()
        one.locator("summary").click()
        assert one.locator("table").is_visible()
        rows = int(one.locator("summary .note").inner_text().split()[0])
        assert one.locator("tbody tr").count() == rows > 12


def test_what_is_absent_is_listed_once_and_at_the_end(desktop):
    assert desktop.page.locator(".panel:not(:has(.figure))").count() == 0
    for title in desktop.page.locator(".absent li").all_inner_texts():
        assert (
            desktop.page.get_by_role("heading", name=title.partition(":")[0], exact=True).count()
            == 0
        )
