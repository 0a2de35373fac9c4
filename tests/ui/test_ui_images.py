"""A picture goes with a message, in a real headless Chromium in front of a model that sees."""

import os
import sys
from pathlib import Path

import pytest
from ui_doubles import PagesBehind, serving

pytest.importorskip("PIL", reason="pillow is not installed: pip install 'minimind[vision]'")
sys.path.append(str(Path(__file__).parents[1] / "vision"))

from vision_doubles import QUESTION, train_to_see

from minimind.serve.loading import Loader, LoadSettings


@pytest.fixture(scope="module")
def sight(tmp_path_factory):
    before = os.environ.get("MINIMIND_CACHE")
    where = tmp_path_factory.mktemp("sight")
    os.environ["MINIMIND_CACHE"] = str(where / "cache")
    try:
        run = train_to_see(where)
        with serving(Loader(LoadSettings(slots=2)).load([f"eyes={run}"], [])) as server:
            yield server, where / "pictures"
    finally:
        os.environ.pop("MINIMIND_CACHE")
        if before is not None:
            os.environ["MINIMIND_CACHE"] = before


def test_a_picture_is_sent_shown_and_answered(sight, chromium, tmp_path):
    server, pictures = sight
    with PagesBehind(server.url, chromium) as pages, pages.open(locale="zh-CN") as shown:
        shown.page.wait_for_selector("#image", state="visible")
        (tmp_path / "no.png").write_text("no image")
        chooser = "input[type=file]"
        shown.page.set_input_files(chooser, str(tmp_path / "no.png"))
        shown.page.wait_for_function(
            "document.querySelector('#figures').innerText.includes('这张图片不能用')"
        )
        for name in ("蓝", "红"):
            shown.page.set_input_files(chooser, str(pictures / f"{name}0.png"))
            shown.page.wait_for_function(
                f"document.querySelector('#figures').innerText.includes('{name}0.png')"
            )
            assert shown.ask(QUESTION).strip() == name
        shown.page.screenshot(path=str(tmp_path / "page.png"))
        labels = shown.page.evaluate(
            "[...document.querySelectorAll('#chat button')].filter(b => b.offsetParent)"
            ".map(b => b.getAttribute('aria-label'))"
        )
        assert "分享" not in labels  # it would upload the picture to a public place
        images = shown.page.locator("#chat img")
        assert images.count() >= 2
        assert shown.page.evaluate(
            "[...document.querySelectorAll('#chat img')].every(i => i.complete && i.naturalWidth)"
        )
