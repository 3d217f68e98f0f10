"""The gallery's page as somebody uses it: on a screen and a phone, by keyboard and by touch."""

from __future__ import annotations

import pytest
from PIL import Image

from lycoris_composite import gallery
from tests.browser.checks import WIDTHS, check_page, open_page, swipe
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
    [page, _], _ = gallery.write_gallery(folder, folder / "logs", show_progress=False)
    return page


@pytest.fixture
def page(browser_page, page_file):
    """The gallery on a screen."""
    open_page(browser_page, page_file, 1440, 900)
    yield browser_page
    assert browser_page.problems == []


def focused(page):
    """Where the focused picture belongs."""
    return page.evaluate("document.activeElement.dataset.where?.replace(/: .*,/, ',')")


def enlarged(page):
    """What the dialog shows, None while it is closed."""
    return page.evaluate("document.querySelector('dialog').open ? document.querySelector('#where').textContent.replace(/: .*,/, ',') : null")  # fmt: skip


def press(page, *keys):
    """Each key when the page has drawn what the one before has done: on a busy machine focus arrives a frame later."""
    for key in keys:
        page.keyboard.press(key)
        page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def to_first_picture(page):
    """By Tab alone, from the top of the page."""
    for _ in range(6):
        press(page, "Tab")
        if focused(page):
            return
    raise AssertionError("Tab does not reach a picture")


@pytest.mark.parametrize("width", WIDTHS)
def test_it_renders_and_nothing_overflows(browser_page, page_file, width):
    check_page(browser_page, page_file, width)
    shown = browser_page.evaluate("[...document.querySelectorAll('.shots img')].map(image => [image.complete, image.naturalWidth, image.getBoundingClientRect().height])")  # fmt: skip
    assert len(shown) == 47
    assert all(complete and natural > 0 and height > 60 for complete, natural, height in shown)
    chart = browser_page.locator(".chart svg:visible")
    assert chart.count() == 1
    box = chart.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert box["height"] > 150


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
    page.locator(".shots tbody tr").nth(1).locator("a").first.click()
    assert HOSTILE in page.locator("dialog .text").inner_text()
    assert page.evaluate("document.querySelectorAll('img[onerror], b, .shots script').length") == 0


def test_one_tab_reaches_the_pictures_and_the_next_leaves_them(page):
    to_first_picture(page)
    assert focused(page) == "Stage 1, epoch 1"
    press(page, "Tab")
    assert focused(page) is None


def test_arrow_keys_walk_the_table(page):
    to_first_picture(page)
    press(page, "ArrowRight", "ArrowRight")
    assert focused(page) == "Stage 1, epoch 3"
    press(page, "ArrowDown", "ArrowLeft")
    assert focused(page) == "Stage 1, epoch 1", "the empty cell is passed over"
    press(page, "ArrowUp", "ArrowUp", "ArrowLeft")
    assert focused(page) == "Stage 1, epoch 1", "it stops at the edges"
    press(page, *["ArrowRight"] * 8)
    assert focused(page) == "Stage 2, epoch 1"
    for key in ["ArrowRight"] * 6 + ["ArrowLeft"] * 14:
        is_in_sight(page)
        press(page, key)
    assert focused(page) == "Stage 1, epoch 1"


def is_in_sight(page):
    picture, prompts, table = (
        page.locator(one).bounding_box() for one in (":focus", ".shots tbody tr:first-child th", ".shots")
    )
    assert picture["x"] >= prompts["x"] + prompts["width"], "not under the prompts"
    assert picture["x"] + picture["width"] <= table["x"] + table["width"], "scrolled into sight"


def test_enter_enlarges_and_escape_returns_to_the_picture_last_seen(page):
    to_first_picture(page)
    press(page, "ArrowRight", "Enter")
    assert enlarged(page) == "Stage 1, epoch 2"
    assert "rin, smile" in page.locator("dialog .text").inner_text()
    press(page, "ArrowRight", "ArrowDown")
    assert enlarged(page) == "Stage 1, epoch 3"
    assert HOSTILE in page.locator("dialog .text").inner_text()
    press(page, "Escape")
    assert enlarged(page) is None
    assert focused(page) == "Stage 1, epoch 3"


def test_tab_stays_in_the_dialog_and_its_buttons_work(page):
    to_first_picture(page)
    press(page, "Enter")
    assert page.evaluate("document.activeElement.ariaLabel") == "Close"
    labels = []
    for _ in range(12):
        press(page, "Tab")
        labels.append(page.evaluate("document.activeElement.closest('.shots')"))
    assert not any(labels), "the page behind is out of reach"
    assert page.get_by_role("button", name="Earlier").is_disabled()
    page.get_by_role("button", name="Later").click()
    page.get_by_role("button", name="Prompt below").click()
    assert enlarged(page) == "Stage 1, epoch 2"
    assert LONG in page.locator("dialog .text").inner_text(), "of the prompt between, this epoch is missing"
    page.get_by_role("button", name="Close").click()
    assert enlarged(page) is None


def test_the_sample_itself_is_shown_where_it_lies_beside_the_page(page):
    page.locator(".shots a[data-reduced]").click()
    page.wait_for_function("document.querySelector('dialog img').naturalWidth === 1536")
    box = page.locator("dialog img").bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 900
    press(page, "ArrowRight")
    page.wait_for_function("document.querySelector('dialog img').naturalWidth === 64")


def test_a_click_beside_the_dialog_closes_it(page):
    page.locator(".shots a").first.click()
    assert enlarged(page)
    page.mouse.click(5, 450)
    assert enlarged(page) is None


def test_swipes_move_between_epochs_and_prompts(browser_page, page_file):
    open_page(browser_page, page_file, 360, 740)
    browser_page.locator(".shots a").first.tap()
    assert enlarged(browser_page) == "Stage 1, epoch 1"
    for by, where, prompt in (
        ((-120, 10), "Stage 1, epoch 2", "rin, smile"),
        ((-120, 0), "Stage 1, epoch 3", "rin, smile"),
        ((5, 5), "Stage 1, epoch 3", "rin, smile"),
        ((10, -120), "Stage 1, epoch 3", HOSTILE),
        ((0, 120), "Stage 1, epoch 3", "rin, smile"),
        ((130, 0), "Stage 1, epoch 2", "rin, smile"),
    ):
        swipe(browser_page, (180, 340), by)
        assert enlarged(browser_page) == where, by
        assert prompt in browser_page.locator("dialog .text").inner_text(), by
    box = browser_page.locator("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    assert browser_page.problems == []


def test_it_can_be_looked_at_without_scripts(browser, page_file):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator(".shots img").count() == 47
    assert not page.locator("#keys").is_visible()
    assert not page.locator("dialog").is_visible()
    page.locator(".shots a").first.click()
    page.wait_for_url("**/sample/cg3-stage1_e000001_00_*.png")
    context.close()


def test_a_page_that_was_taken_elsewhere_still_shows_its_pictures(browser_page, page_file, tmp_path):
    alone = tmp_path / "alone.html"
    alone.write_bytes(page_file.read_bytes())
    check_page(browser_page, alone, 360)
    browser_page.locator(".shots a[data-reduced]").first.evaluate("link => link.click()")
    browser_page.wait_for_timeout(200)
    assert browser_page.evaluate("document.querySelector('dialog img').naturalWidth") == 576
