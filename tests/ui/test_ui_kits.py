"""A kit is chosen on the page, also one that is put there while the page is open."""

import sys
from pathlib import Path

import pytest
from ui_doubles import ME, WHO, PagesBehind, need

sys.path.append(str(Path(__file__).parents[1] / "serve"))

from test_serve_kits import save_adapter, serving

from minimind.config import KitConfig

SYSTEM = "只说水果。"


@pytest.fixture
def kits(chatty_dir, tmp_path):
    """A server with one kit beside its base, and the folder that it looks into."""
    kit = KitConfig(name="fruit", system=SYSTEM)
    fruit = save_adapter(chatty_dir, tmp_path / "fruit", kit=kit, strength=0.3)
    folder = tmp_path / "adapters"
    folder.mkdir()
    with serving(chatty_dir, [f"fruit={fruit}"], folder=folder) as server:
        yield server, folder, chatty_dir


def choose(page, name):
    page.click("#model input")
    page.locator("[role=option]", has_text=name).click()


def test_a_kit_is_chosen_and_another_appears_while_the_page_is_open(kits, chromium):
    need("gradio", "httpx")
    server, folder, base = kits
    with PagesBehind(server.url, chromium) as pages, pages.open(locale="zh-CN") as shown:
        assert shown.ask(WHO) == ME
        choose(shown.page, "fruit")
        shown.page.click("#clear")
        shown.page.locator("#chat .user-row").first.wait_for(state="detached")
        assert shown.ask(WHO) != ME
        # The page looks at the server's models every five seconds, the server at its folder. A list
        # that is open may be that of before, and a click on an open one closes it: the click is
        # repeated until the new name stands there.
        save_adapter(base, folder / "law", seed=5, strength=0.3)
        options = shown.page.locator("[role=option]")
        for _ in range(150):
            shown.page.click("#model input")
            shown.page.wait_for_timeout(2_000)
            if options.filter(has_text="law").count():
                break
        assert options.count() == 3
        options.filter(has_text="law").click()
        assert shown.ask(WHO)
