"""The preview's page on a phone and on a screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from lycoris_composite.look.preview import write_preview
from tests import tiny
from tests.browser.checks import WIDTHS, check_page, open_page
from tests.helpers import kohya_settings

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
LONG = "averylongtagwithoutanyspace" * 12


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six composites of three characters, one with captions that are no good; a broken image; a warning for each."""
    folder = tmp_path_factory.mktemp("preview")
    tiny.draw_characters(folder / "data", images=3, size=[(96, 96), (300, 60)])
    tiny.make_tokenizer_cache(folder / "tokenizer")
    for path in (folder / "data/1_rin").glob("*.txt"):
        path.write_text(f"rin, {HOSTILE}, {LONG}, " + ", ".join(f"tag {number}" for number in range(60)))
    (folder / "data/1_mio/02.png").write_bytes(b"no picture")
    settings = kohya_settings(
        folder, {"aspect": "equal"}, train_data_dir=str(folder / "data"), resolution="128,128", caption_extension=".txt",
        keep_tokens=1, tokenizer_cache_dir=str(folder / "tokenizer"),
    )  # fmt: skip
    (page, _), _ = write_preview(settings.path, [], 1, 6, folder)
    return page


@pytest.mark.parametrize("width", WIDTHS)
def test_it_renders_and_nothing_overflows(browser_page, page_file, width):
    check_page(browser_page, page_file, width)
    shown = browser_page.evaluate(
        "[...document.images].map(image => [image.complete, image.naturalWidth, image.getBoundingClientRect().width])"
    )
    assert len(shown) == 6
    assert all(complete and natural > 0 and 200 < wide <= width for complete, natural, wide in shown)


def test_warnings_stand_above_the_pictures(browser_page, page_file):
    open_page(browser_page, page_file, 1440)
    lines = browser_page.locator(".warnings li").all_inner_texts()
    assert any("02.png: cannot be read" in line for line in lines)
    assert any("over the limit" in line for line in lines)
    assert any("lose a third or more" in line for line in lines)
    last = browser_page.locator(".warnings li").last.bounding_box()
    assert last["y"] + last["height"] < browser_page.locator("figure").first.bounding_box()["y"]


def test_captions_are_text_in_their_sides_colours(browser_page, page_file):
    open_page(browser_page, page_file, 1440)
    assert HOSTILE in browser_page.locator("main").inner_text()
    assert browser_page.evaluate("document.querySelectorAll('main script, img[onerror]').length") == 0
    colours = browser_page.evaluate(
        "['.caption .name', '.caption .tags0', '.caption .tags1'].map(one => getComputedStyle(document.querySelector(one)).color)"
    )
    assert len(set(colours)) == 3
    assert browser_page.problems == []


def test_tables_can_be_scrolled_by_keyboard(browser_page, page_file):
    open_page(browser_page, page_file, 360)
    reached = set()
    for _ in range(8):
        browser_page.keyboard.press("Tab")
        reached.add(browser_page.evaluate("document.activeElement.ariaLabel"))
    assert {"Characters", "Pairs in an epoch", "Cost"} <= reached
