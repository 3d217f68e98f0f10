"""The samples of both stages as one page and one sheet: prompts down, epochs across, the losses above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from urllib.parse import quote

from PIL import Image, ImageDraw

from lycoris_composite import charts, pages, sheets
from lycoris_composite.errors import UserError
from lycoris_composite.images import image_size, read_image
from lycoris_composite.losses import Curve, read_curves
from lycoris_composite.progress import in_parallel
from lycoris_composite.prompts import Prompt
from lycoris_composite.samples import Grid, Sample, read_grid
from lycoris_composite.whole import whole, write_whole

_TALLEST, _LOWEST = 384, 128  # pixels of a picture in the page
_PAGE_PIXELS = 20_000_000  # of all its pictures: about five megabytes
_CHARTS = {"wide": (1200, 280), "narrow": (420, 280)}
_SHEET_COLUMNS, _SHEET_ROWS = 12, 40
_CELL, _PROMPT, _GAP, _MARGIN = 160, 340, 8, 24  # pixels of the sheet: a picture's height, the prompts' width
_TEXT, _HEAD = 17, 58

Place = tuple[int, int]  # (row, column)


@dataclass(frozen=True)
class Shown:
    """A picture in its place, of `size` (width, height). `uri` holds it for the page, where it `is_reduced` if that saves
    much; `small` for the sheet. One that is older than a picture before it in training `is_earlier`: it is left from a
    run that was begun again."""

    sample: Sample
    uri: str
    size: tuple[int, int]
    small: Image.Image
    is_reduced: bool = False
    is_earlier: bool = False


def write_gallery(
    output_dir: Path, logs: Path | None = None, name: str | None = None, show_progress: bool = True
) -> tuple[list[Path], list[str]]:
    """Writes <output_name>-gallery.html and .png into the folder. Returns their paths, and sentences about what was
    chosen or left out. Raises UserError where there are no samples."""
    grid, said = read_grid(output_dir, name)
    curves, why_not = read_curves(grid, output_dir, logs)
    named = [(grid.stages[index].title.partition(":")[0], curve) for index, curve in curves.items()]
    shown = _pictures(grid, show_progress)
    page, sheet = (output_dir / f"{grid.name}-gallery.{suffix}" for suffix in ("html", "png"))
    write_whole(page, _page(grid, shown, named, why_not))
    with whole(sheet) as part:
        _sheet(grid, shown, named).save(part)
    return [page, sheet], [*said, *_unread(grid, shown)]


# --- pictures ----------------------------------------------------------------------------------------------------


def _pictures(grid: Grid, show_progress: bool) -> dict[Place, Shown]:
    """The newest picture of each cell that can be read. Raises UserError where none can."""
    places = [(row, column) for row, cells in enumerate(grid.cells) for column, cell in enumerate(cells) if cell]
    height = _height([grid.cells[row][column][0].path for row, column in places])

    def load(place: Place) -> Shown | None:
        return _load(grid.cells[place[0]][place[1]], height)

    loaded = in_parallel(load, places, "drawing samples" if show_progress else None)
    shown = {place: picture for place, picture in zip(places, loaded, strict=True) if picture is not None}
    if not shown:
        folder = grid.cells[places[0][0]][places[0][1]][0].path.parent
        raise UserError(f"{folder}: no sample in it can be read; run training's sampling again.")
    return {place: _dated(place, shown) for place in shown}


def _unread(grid: Grid, shown: Mapping[Place, Shown]) -> list[str]:
    count = sum(1 for cells in grid.cells for cell in cells if cell) - len(shown)
    return (
        [f"{count} picture(s) cannot be read and are left out; where training is writing them, run this again"] if count else []
    )


def _height(paths: Sequence[Path]) -> int:
    """At most how high the page's pictures may be, so that it stays a few megabytes."""
    pixels = 0.0
    for path in paths:
        try:
            width, height = image_size(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # torn; it will be passed over when it is read, too
        pixels += width * height * min(1.0, _TALLEST / height) ** 2
    return max(_LOWEST, min(_TALLEST, int(_TALLEST * sqrt(_PAGE_PIXELS / max(pixels, 1)))))


def _load(candidates: Sequence[Sample], height: int) -> Shown | None:
    for sample in candidates:
        try:
            picture = Image.fromarray(read_image(sample.path))
        except UserError:  # training may be writing it at this moment
            continue
        is_reduced = picture.height > height
        thumb = sheets.scaled(picture, height) if is_reduced else picture
        return Shown(sample, pages.data_uri(thumb), picture.size, sheets.scaled(thumb, _CELL), is_reduced)
    return None


def _dated(place: Place, shown: Mapping[Place, Shown]) -> Shown:
    """The picture at a place, marked if one before it in its row is newer."""
    picture, (row, column) = shown[place], place
    before = (shown[row, one].sample.time for one in range(column) if (row, one) in shown)
    is_earlier = any(time > picture.sample.time for time in before)
    return replace(picture, is_earlier=is_earlier)


# --- the page ----------------------------------------------------------------------------------------------------


def _page(grid: Grid, shown: Mapping[Place, Shown], named: Sequence[tuple[str, Curve]], why_not: str) -> str:
    columns = _columns(grid)
    rows = [
        {
            "prompt": prompt.text,
            "negative": prompt.negative,
            "settings": _settings(prompt),
            "cells": [_cell(shown.get((row, column))) for column in range(len(columns))],
        }
        for row, prompt in enumerate(grid.rows)
    ]
    newest = max(picture.sample.time for picture in shown.values())
    return pages.render(
        "gallery.html.j2",
        title=f"{grid.name}: samples",
        summary=f"{len(shown):,} pictures, the newest from {_clock(newest)}.",
        has_earlier=any(picture.is_earlier for picture in shown.values()),
        charts={kind: charts.svg(named, size) for kind, size in _CHARTS.items()} if named else {},
        chart_label=f"Loss at each step: {', then '.join(title for title, _ in named)}",
        why_no_chart=why_not,
        stages=[(stage.title, len(stage.columns)) for stage in grid.stages if stage.columns],
        columns=columns,
        rows=rows,
    )


def _cell(picture: Shown | None) -> dict | None:
    if picture is None:
        return None
    return {
        "uri": picture.uri,
        "width": picture.size[0],
        "height": picture.size[1],
        "file": f"sample/{quote(picture.sample.path.name)}",
        "is_reduced": picture.is_reduced,
        "is_earlier": picture.is_earlier,
    }


def _columns(grid: Grid) -> list[dict]:
    """What stands above each column; the first of a stage is marked."""
    return [
        {"label": next(iter(column.values()))[0].label, "stage": stage.title, "is_first": place == 0}
        for stage in grid.stages
        for place, column in enumerate(stage.columns)
    ]


def _settings(prompt: Prompt) -> str:
    size = f"{prompt.size[0]}×{prompt.size[1]}" if prompt.size else ""
    seed = f"seed {prompt.seed}" if prompt.seed is not None else ""
    return ", ".join(filter(None, (size, seed)))


def _clock(digits: str) -> str:
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]} {digits[8:10]}:{digits[10:12]}"


# --- the sheet ---------------------------------------------------------------------------------------------------


def _sheet(grid: Grid, shown: Mapping[Place, Shown], named: Sequence[tuple[str, Curve]]) -> Image.Image:
    kept = _kept_columns([len(stage.columns) for stage in grid.stages])
    rows = range(min(len(grid.rows), _SHEET_ROWS))
    widths = _widths(grid, shown, kept, rows)
    lefts = [_MARGIN + _PROMPT + _GAP + sum(widths[:place]) + place * _GAP for place in range(len(kept))]
    width = max(lefts[-1] + widths[-1] + _MARGIN, 900)
    prompts = [_prompt_lines(grid.rows[row]) for row in rows]
    own = sheets.font(_TEXT)
    heights = [max(_CELL, len(lines) * sheets.line_height(own)) + _GAP for lines in prompts]
    chart = charts.picture(named, (width - 2 * _MARGIN, 300)) if named else None
    top = _MARGIN + 76 + (chart.height + _GAP if chart else 0)
    sheet = Image.new("RGB", (width, top + _HEAD + sum(heights) + _MARGIN), sheets.PAPER)
    pen = ImageDraw.Draw(sheet)
    sheets.write_lines(pen, (_MARGIN, _MARGIN), [[("name", f"{grid.name}: samples")]], sheets.font(28, bold=True))
    sheets.write_lines(pen, (_MARGIN, _MARGIN + 42), [[("muted", _left_out(grid, len(kept), shown))]], own)
    if chart:
        sheet.paste(chart, (_MARGIN, _MARGIN + 76))
    _write_heads(pen, [_columns(grid)[column] for column in kept], lefts, top)
    top += _HEAD
    for row, lines, height in zip(rows, prompts, heights, strict=True):
        sheets.write_lines(pen, (_MARGIN, top), lines, own)
        for column, left in zip(kept, lefts, strict=True):
            if (row, column) in shown:
                sheet.paste(_paled(shown[row, column]), (left, top))
        top += height
    return sheet


def _paled(picture: Shown) -> Image.Image:
    small = picture.small
    return Image.blend(small, Image.new("RGB", small.size, sheets.PAPER), 0.45) if picture.is_earlier else small


def _widths(grid: Grid, shown: Mapping[Place, Shown], kept: Sequence[int], rows: Sequence[int]) -> list[int]:
    """The columns' widths: of their widest picture, and the last of a stage gives its title room."""
    columns = _columns(grid)
    widths: list[int] = []
    begun = 0
    for place, column in enumerate(kept):
        if columns[column]["is_first"]:
            begun = place
        width = max((shown[row, column].small.width for row in rows if (row, column) in shown), default=_CELL)
        title = round(sheets.font(20, bold=True).getlength(columns[column]["stage"])) + 2 * _GAP
        is_last = place + 1 == len(kept) or columns[kept[place + 1]]["is_first"]
        widths.append(max(width, title - sum(widths[begun:]) - (place - begun) * _GAP if is_last else 0))
    return widths


def _kept_columns(counts: Sequence[int]) -> list[int]:
    """At most _SHEET_COLUMNS of the stages' columns: of each its first, its last and evenly spaced ones between."""
    share = _SHEET_COLUMNS // max(1, sum(map(bool, counts)))
    kept: list[int] = []
    begun = 0
    for count in counts:
        others = sum(min(other, share) for other in counts) - min(count, share)
        most = min(count, max(share, _SHEET_COLUMNS - others))
        kept += sorted({begun + round(place * (count - 1) / max(1, most - 1)) for place in range(most)})
        begun += count
    return kept


def _prompt_lines(prompt: Prompt) -> list[list[tuple[str, str]]]:
    negative = f"negative: {prompt.negative}" if prompt.negative else ""
    parts = (("name", prompt.text), ("muted", negative), ("muted", _settings(prompt)))
    return [line for part in parts if part[1] for line in sheets.wrapped([part], _PROMPT - _GAP, sheets.font(_TEXT))]


def _left_out(grid: Grid, columns: int, shown: Mapping[Place, Shown]) -> str:
    whole_count = sum(len(stage.columns) for stage in grid.stages)
    said = [f"newest picture from {_clock(max(picture.sample.time for picture in shown.values()))}"]
    if columns < whole_count:
        said.append(f"{columns} of {whole_count} columns: first, last and evenly spaced ones of each stage")
    if len(grid.rows) > _SHEET_ROWS:
        said.append(f"the first {_SHEET_ROWS} of {len(grid.rows)} prompts")
    if any(picture.is_earlier for picture in shown.values()):
        said.append("pale pictures are left from an earlier run of this name")
    return "; ".join(said)


def _write_heads(pen: ImageDraw.ImageDraw, columns: Sequence[dict], lefts: Sequence[int], top: int) -> None:
    stage = None
    for column, left in zip(columns, lefts, strict=True):
        if column["stage"] != stage:
            stage = column["stage"]
            pen.text((left, top), stage, sheets.INK, sheets.font(20, bold=True))
        pen.text((left, top + 28), column["label"], sheets.MUTED, sheets.font(_TEXT))
