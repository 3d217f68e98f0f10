"""The samples of both stages as one page: prompts down, epochs across, the losses above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from tqdm.contrib.concurrent import thread_map

from lycoris_composite import losses, pages, sheets
from lycoris_composite.errors import UserError
from lycoris_composite.images import image_size, read_image
from lycoris_composite.losses import Curve, read_curves
from lycoris_composite.prompts import Prompt
from lycoris_composite.samples import Grid, Sample, read_grid
from lycoris_composite.whole import remove_leftovers, write_whole

_TALLEST, _LOWEST = 384, 128  # pixels of a picture in the page
_PAGE_PIXELS = 20_000_000  # of all its pictures: about five megabytes
_CHART_SIZES = {"min-width: 701px": (1200, 280), "max-width: 700px": (420, 280)}  # by the window's width

Place = tuple[int, int]  # (row, column)


@dataclass(frozen=True)
class Shown:
    """A picture in its place, of `size` (width, height). `uri` holds it for the page. `is_earlier`: left from an earlier
    run (older than a picture to its left)."""

    sample: Sample
    uri: str
    size: tuple[int, int]
    is_earlier: bool = False


def write_gallery(output_dir: Path, logs: Path | None = None, name: str | None = None) -> tuple[Path, list[str]]:
    """Writes <output_name>-gallery.html into the folder. Returns its path, and sentences about what was chosen or left
    out. Raises UserError where there are no samples."""
    grid, said = read_grid(output_dir, name)
    curves, why_not = read_curves(grid, output_dir, logs)
    named = [(grid.stages[index].title.partition(":")[0], curve) for index, curve in curves.items()]
    shown = _pictures(grid)
    page = output_dir / f"{grid.name}-gallery.html"
    remove_leftovers(output_dir)
    write_whole(page, _page(grid, shown, named, why_not))
    return page, [*said, *_unread(grid, shown)]


# --- pictures ----------------------------------------------------------------------------------------------------


def _pictures(grid: Grid) -> dict[Place, Shown]:
    """The newest picture of each cell that can be read. Raises UserError where none can."""
    places = [(row, column) for row, cells in enumerate(grid.cells) for column, cell in enumerate(cells) if cell]
    height = _height([grid.cells[row][column][0].path for row, column in places])

    def load(place: Place) -> Shown | None:
        return _load(grid.cells[place[0]][place[1]], height)

    loaded = thread_map(load, places, desc="drawing samples", disable=None)
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
        thumb = sheets.scaled(picture, height) if picture.height > height else picture
        return Shown(sample, pages.jpeg_uri(thumb), picture.size)
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
        summary=f"{len(shown):,} pictures, the newest from {_clock(newest)}. Each links to its file.",
        has_earlier=any(picture.is_earlier for picture in shown.values()),
        charts=_charts(named) if named else [],
        chart_label=f"Loss at each step: {', then '.join(title for title, _ in named)}",
        why_no_chart=why_not,
        stages=[(stage.title, len(stage.columns)) for stage in grid.stages if stage.columns],
        columns=columns,
        rows=rows,
    )


def _charts(named: Sequence[tuple[str, Curve]]) -> list[tuple[str, str]]:
    """A media query and an SVG as data URI, for each window's width and colour scheme; wide and light first."""
    return [
        (
            f"({width}) and (prefers-color-scheme: {scheme})",
            pages.data_uri(losses.svg(named, size, palette), "image/svg+xml"),
        )
        for width, size in _CHART_SIZES.items()
        for scheme, palette in losses.PALETTES.items()
    ]


def _cell(picture: Shown | None) -> dict | None:
    if picture is None:
        return None
    return {
        "uri": picture.uri,
        "width": picture.size[0],
        "height": picture.size[1],
        "file": f"sample/{quote(picture.sample.path.name)}",
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
