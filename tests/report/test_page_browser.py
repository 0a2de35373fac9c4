"""report.html in a real headless Chromium: both languages, hovering, no request, no overflow."""

import pytest
from test_page import one_run
from test_report import whole_run

from minimind.report.files import write_report


@pytest.fixture
def opened(chromium, tmp_path):
    """Open a report; at the end nothing was asked of anyone and no script failed."""
    asked, errors, pages = [], [], []

    def visit(path, *, width=1280):
        page = chromium.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(300_000)  # a shared machine may take long
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield visit
    assert all(url.startswith("file:") for url in asked)
    assert len(asked) == len(pages)
    assert errors == []
    for page in pages:
        page.close()


def test_the_languages_change_without_a_reload(opened, tmp_path):
    page = opened(write_report(whole_run(tmp_path))[0])
    assert page.locator("h1:visible").inner_text() == "A language model that you trained yourself"
    page.click("button[data-lang=zh]")
    assert page.locator("h1:visible").inner_text() == "你亲手训练的语言模型"
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.title() == "你亲手训练的语言模型"
    assert page.locator("h1:visible").count() == 1


def test_hovering_a_curve_shows_the_figures_on_disk(opened, tmp_path):
    page = opened(write_report(one_run(tmp_path / "p"))[0])
    plot = page.locator('svg[aria-label="Learning rate"]:visible')
    plot.scroll_into_view_if_needed()
    plot.hover()
    shown = page.locator("#tip").inner_text()
    assert "Learning rate: 0.006" in shown
    assert "tokens: " in shown
    page.mouse.move(2, 2)
    assert page.locator("#tip").is_hidden()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(opened, tmp_path, width):
    for directory in (whole_run(tmp_path), one_run(tmp_path / "alone" / "p")):
        page = opened(write_report(directory)[0], width=width)
        for language in ("en", "zh"):
            page.click(f"button[data-lang={language}]")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
