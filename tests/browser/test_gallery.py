"""The gallery's page as somebody uses it, on a screen and a phone."""

from __future__ import annotations

import pytest
from PIL import Image

from lycoris_composite.look import gallery
from tests.browser.checks import WIDTHS, check_page, open_page
from tests.galleries import BEGIN, write_journal, write_log, write_stage

HOSTILE = "</script><img src=x onerror=alert(1)> <script>alert(2)</script> ふたり"
LONG = "uzuki/rin/COMPOSITE, " + "averylongtagwithoutanyspace" * 12


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """Eight epochs of two stages, three prompts, a loss curve; one cell of the middle row is empty."""
    folder = tmp_path_factory.mktemp("out")
    prompts = ["rin, smile", {"prompt": HOSTILE, "negative_prompt": "<b onclick=alert(3)>"}, LONG]
    for stage, begin in (("cg3-stage1", BEGIN), ("cg3", BEGIN + 3600)):
        write_stage(folder, stage, [f"e{epoch:06}" for epoch in range(1, 9)], prompts, begin)
    write_journal(folder, [80, 80])
    write_log(folder / "logs", {step: 0.1 + 0.05 / step for step in range(1, 161)})
    for path in (folder / "sample").glob("cg3-stage1_e000002_01_*"):
        path.unlink()
    for path in (folder / "sample").glob("cg3-stage1_e000001_02_*"):
        Image.new("RGB", (1536, 1024), (255, 0, 0)).save(path)
    page, _ = gallery.write_gallery(folder, folder / "logs")
    return page


@pytest.fixture
def page(browser_page, page_file):
    """The gallery on a screen."""
    open_page(browser_page, page_file, 1440, 900)
    yield browser_page
    assert browser_page.problems == []


@pytest.mark.parametrize("width", WIDTHS)
def test_it_renders_and_nothing_overflows(browser_page, page_file, width):
    check_page(browser_page, page_file, width)
    shown = browser_page.evaluate("[...document.querySelectorAll('.shots img')].map(image => [image.complete, image.naturalWidth, image.getBoundingClientRect().height])")  # fmt: skip
    assert len(shown) == 47
    assert all(complete and natural > 0 and height > 60 for complete, natural, height in shown)
    box = browser_page.locator(".chart").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert box["height"] > 150


def test_the_chart_fits_the_window_and_its_colours(browser_page, page_file):
    seen = {}
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            open_page(browser_page, page_file, width, scheme=scheme)
            size = browser_page.evaluate("[document.querySelector('.chart').naturalWidth, document.querySelector('.chart').naturalHeight]")  # fmt: skip
            seen[browser_page.evaluate("document.querySelector('.chart').currentSrc")] = size[0] / size[1]
    assert list(seen.values()) == pytest.approx([1.5, 1.5, 1200 / 280, 1200 / 280], rel=0.01)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_prompts_stay_in_sight_when_the_pictures_are_scrolled(browser_page, page_file, width):
    open_page(browser_page, page_file, width)
    before, after = (
        browser_page.evaluate(
            "([far]) => { document.querySelector('.shots').scrollLeft = far;"
            "return ['tbody th', 'tbody td'].map(one => document.querySelector('.shots ' + one).getBoundingClientRect().x) }",
            [far],
        )
        for far in (0, 250)
    )
    assert after[0] == before[0]
    assert after[1] == before[1] - 250


def test_hostile_text_is_shown_and_runs_nothing(page):
    text = page.locator(".shots tbody th").nth(1).inner_text()
    assert HOSTILE in text
    assert "negative: <b onclick=alert(3)>" in text
    assert page.evaluate("document.querySelectorAll('img[onerror], b, .shots script').length") == 0


def test_a_picture_leads_to_its_file(page):
    """Which the page itself holds smaller."""
    link = page.get_by_role("link", name="Stage 1: single characters, epoch 1: uzuki/rin")
    assert link.locator("img").evaluate("image => image.naturalWidth") == 576
    link.click()
    page.wait_for_url("**/sample/cg3-stage1_e000001_02_*.png")
    assert page.evaluate("[document.images[0].naturalWidth, document.images[0].naturalHeight]") == [1536, 1024]


def test_a_page_that_was_taken_elsewhere_still_shows_its_pictures(browser_page, page_file, tmp_path):
    alone = tmp_path / "alone.html"
    alone.write_bytes(page_file.read_bytes())
    check_page(browser_page, alone, 360)
    assert browser_page.evaluate("[...document.querySelectorAll('.shots img')].every(image => image.naturalWidth > 0)")
