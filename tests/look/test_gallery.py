"""The page, by what stands in it. tests/browser/test_gallery.py opens the page."""

from __future__ import annotations

import base64
import random
import re
import shutil
import sys
import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from lycoris_composite.errors import UserError
from lycoris_composite.look import gallery, loss_logs
from lycoris_composite.look.html import TEMPLATES
from lycoris_composite.look.loss_logs import Curve
from tests.galleries import BEGIN, clock, colour, write_journal, write_log, write_sample, write_stage

HOSTILE = "</script><img src=x onerror=alert(1)> & \"quotes\" 'single' {{ 7 * 7 }}"


@pytest.fixture
def out(tmp_path):
    """Three epochs of stage 1 and two of stage 2, of two prompts each."""
    for stage, epochs, begin in (("cg3-stage1", 3, BEGIN), ("cg3", 2, BEGIN + 3600)):
        places = [f"e{epoch:06}" for epoch in range(1, epochs + 1)]
        prompts = ["rin, smile", {"prompt": HOSTILE, "negative_prompt": "<b>bad", "width": 768, "height": 512, "seed": 7}]
        write_stage(tmp_path, stage, places, prompts, begin)
    return tmp_path


def written(folder, **options):
    """The page's text."""
    page, _ = gallery.write_gallery(folder, **options)
    return page.read_text(encoding="utf-8")


def pictures(page):
    """By row: the colour in the middle of each cell's picture, None for an empty cell."""
    rows = []
    for row in re.findall(r"<tr>\s*<th class=\"prompt\" scope=\"row\">(.*?)</tr>", page, re.DOTALL):
        cells = re.findall(r"<td.*?</td>", row, re.DOTALL)
        rows.append([middle(cell) for cell in cells])
    return rows


def embedded(text):
    return [Image.open(BytesIO(base64.b64decode(data))) for data in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)]


def sizes(page):
    return {picture.size for picture in embedded(page)}


def middle(cell):
    return next((picture.getpixel((picture.width // 2, picture.height // 2)) for picture in embedded(cell)), None)


def near(one, other):
    return one is not None and max(abs(a - b) for a, b in zip(one, other, strict=True)) < 8


def test_every_picture_stands_in_its_place(out):
    page = written(out)
    columns = [("cg3-stage1", epoch) for epoch in (1, 2, 3)] + [("cg3", epoch) for epoch in (1, 2)]
    for row, cells in enumerate(pictures(page)):
        for (stage, epoch), found in zip(columns, cells, strict=True):
            assert near(found, colour(stage, f"e{epoch:06}", row)), (row, stage, epoch)
    heads = re.findall(r'<th (?:class="stage begins" colspan="(\d)"|scope="col").*?>(?:<span>)?([^<]+)', page)
    assert heads == [("3", "Stage 1: single characters"), ("2", "Stage 2: composites")] + [
        ("", f"epoch {epoch}") for epoch in (1, 2, 3, 1, 2)
    ]


def test_what_is_in_a_prompt_is_text(out):
    page = written(out)
    assert "<img src=x" not in page
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt; &amp; &#34;quotes&#34; &#39;single&#39; {{ 7 * 7 }}" in page
    assert "negative: &lt;b&gt;bad" in page
    assert "768×512, seed 7" in page
    assert not re.search(r"(?:src|href)=\"(?!data:|sample/)", page), "it needs nothing from elsewhere"


def test_it_updates_when_it_is_run_again(out):
    before = pictures(written(out))
    write_sample(out, "cg3", "e000003", 1, BEGIN + 9000)
    after = written(out)
    assert [row[:5] for row in pictures(after)] == before
    assert pictures(after)[0][5:] == [None]
    assert near(pictures(after)[1][5], colour("cg3", "e000003", 1))
    assert "the newest from 2026-03-01 14:30" in after
    assert written(out) == after, "nothing new, nothing changed"


def test_a_torn_picture_gives_way_to_an_older_one_or_an_empty_cell(out):
    write_sample(out, "cg3", "e000001", 0, BEGIN + 9000).write_bytes(b"\x89PNG\r\n\x1a\n torn")
    alone = out / "sample" / f"cg3_e000002_00_{clock(BEGIN + 3600 + 120)}_1.png"
    alone.write_bytes(alone.read_bytes()[:60])
    row = pictures(written(out))[0]
    assert near(row[3], colour("cg3", "e000001", 0))
    assert row[4] is None
    _, said = gallery.write_gallery(out)
    assert said == ["1 picture(s) cannot be read and are left out; where training is writing them, run this again"]


def test_only_torn_pictures_are_one_sentence(tmp_path):
    write_sample(tmp_path, "cg3", "e000001", 0, BEGIN).write_bytes(b"")
    with pytest.raises(UserError, match="no sample in it can be read"):
        written(tmp_path)


def test_what_an_earlier_run_left_is_marked(out):
    """Stage 1 was begun again and has drawn its first epoch: all that comes after is the old run's."""
    assert "earlier run" not in written(out)
    for number in (0, 1):
        write_sample(out, "cg3-stage1", "e000001", number, BEGIN + 9000)
    page = written(out)
    marked = re.findall(r'class="earlier".*?alt="(.*?), of an earlier run: ', page)
    assert marked == 2 * [f"Stage {s}, epoch {e}" for s, e in (("1: single characters", 2), ("1: single characters", 3), ("2: composites", 1), ("2: composites", 2))]  # fmt: skip
    assert "Pale pictures are left from an earlier run" in page


def test_the_page_says_why_there_is_no_curve_and_shows_one_where_there_are_logs(out):
    pytest.importorskip("tensorboard")
    assert "<picture" not in written(out)
    assert "No loss curve: " in written(out)
    write_journal(out, [30])
    write_log(out / "logs", {step: 0.1 for step in range(1, 31)})
    page = written(out, logs=out / "logs")
    assert page.count("data:image/svg+xml") == 4, "wide and narrow, light and dark"
    assert 'alt="Loss at each step: Stage 1"' in page
    assert "No loss curve" not in page


def test_a_terminal_sees_how_far_it_is(out, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    written(out)
    assert re.search(r"drawing samples: 100%.* 10/10 \[00:0\d<00:00, .*it/s\]", capsys.readouterr().err)


def test_large_samples_make_no_large_page(tmp_path):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).resize((512, 512))
    first = write_sample(tmp_path, "cg3-stage1", "e000001", 0, BEGIN, noise)
    for epoch in range(1, 21):
        for number in range(12):
            shutil.copy(first, first.with_name(f"cg3-stage1_e{epoch:06}_{number:02}_{clock(BEGIN + 60 * epoch)}.png"))
    start = time.monotonic()
    page = written(tmp_path)
    assert time.monotonic() - start < 60
    assert len(page) < 12_000_000
    assert sizes(page) == {(288, 288)}


def test_a_small_sample_stays_as_it_is(out):
    assert sizes(written(out)) == {(64, 64)}


# --- the curve ---------------------------------------------------------------------------------------------------


def curve(count, level=0.1):
    rng = random.Random(1)
    raw = np.array([level * rng.uniform(0.5, 2) for _ in range(count)])
    return Curve(np.arange(1, count + 1), raw, np.full(count, level))


def drawn(*curves, size=(1200, 280), scheme="light"):
    named = [(f"Stage {number}", curve) for number, curve in enumerate(curves, 1)]
    return loss_logs.svg(named, size, loss_logs.PALETTES[scheme]).decode()


def test_stage_2_follows_stage_1_on_one_axis():
    text = drawn(curve(1000), curve(500))
    assert "<!-- 1,400 -->" in text, "steps are counted on"
    assert re.findall(r"<!-- (Stage \d) -->", text) == ["Stage 1", "Stage 2"]
    assert text == drawn(curve(1000), curve(500))


def test_it_is_drawn_in_the_pages_colours():
    page = (TEMPLATES / "page.html.j2").read_text()
    for scheme, colours in zip(("light", "dark"), page.split("@media (prefers-color-scheme: dark)"), strict=True):
        text = drawn(curve(9), curve(9), scheme=scheme)
        for name in ("ink", "line", "left", "right"):
            assert re.search(rf"--{name}: (#\w+)", colours)[1] in text


def test_long_runs_are_thinned_and_losses_that_are_no_numbers_drawn_around():
    assert len(drawn(curve(200_000))) < 150_000
    assert drawn(Curve(np.array([1, 2, 3]), np.array([np.nan, np.inf, 0.1]), np.array([np.nan] * 3)))
    assert drawn(curve(1))


def test_drawing_leaves_matplotlibs_settings_as_they_were():
    import matplotlib

    before = dict(matplotlib.rcParams)
    drawn(curve(9))
    assert dict(matplotlib.rcParams) == before
