"""The samples of both stages as one page: prompts down, epochs across, the losses above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from tqdm.contrib.concurrent import thread_map

from lycoris_composite.config.prompts import Prompt
from lycoris_composite.data.images import read_image
from lycoris_composite.errors import UserError
from lycoris_composite.look import html, loss_logs
from lycoris_composite.look.loss_logs import Curve, read_curves
from lycoris_composite.look.sample_files import Grid, Picture, read_grid
from lycoris_composite.run.files import write_whole

_TALLEST, _LOWEST = 384, 128  # pixels of a picture in the page
_PAGE_PIXELS = 20_000_000  # of all its pictures: about five megabytes
_CHART_SIZES = {"min-width: 701px": (1200, 280), "max-width: 700px": (420, 280)}  # by the window's width

Place = tuple[int, int]  # (row, column)


@dataclass(frozen=True)
class Cell:
    """A sample as the page shows it: its picture, made smaller, as data URI, and the (width, height) of its file."""

    sample: Picture
    uri: str
    size: tuple[int, int]

    @property
    def file(self) -> str:
        return f"sample/{quote(self.sample.path.name)}"


def write_gallery(output_dir: Path, logs: Path | None = None, name: str | None = None) -> tuple[Path, list[str]]:
    """Writes <output_name>-gallery.html into the folder. Returns its path, and lines that say what was chosen or left out.
    Raises UserError if there are no samples."""
    grid, lines = read_grid(output_dir, name)
    curves, why_no_chart = read_curves(grid, output_dir, logs)
    titled = [(grid.stages[index].title.partition(":")[0], curve) for index, curve in curves.items()]
    cells = _cells(grid)
    if not cells:
        raise UserError(f"{output_dir / 'sample'}: no sample in it can be read; run training's sampling again.")
    if unread := len(grid.cells) - len(cells):
        lines.append(f"{unread} picture(s) cannot be read and are left out; where training is writing them, run this again")
    page = output_dir / f"{grid.output_name}-gallery.html"
    write_whole(page, _page(grid, cells, titled, why_no_chart))
    return page, lines


def _cells(grid: Grid) -> dict[Place, Cell]:
    """Each place's newest picture that can be read."""
    load = partial(_load, most_pixels=_PAGE_PIXELS / len(grid.cells))
    loaded = thread_map(load, grid.cells.values(), desc="drawing samples", disable=None)
    return {place: cell for place, cell in zip(grid.cells, loaded, strict=True) if cell is not None}


def _load(candidates: Sequence[Picture], most_pixels: float) -> Cell | None:
    for sample in candidates:
        try:
            picture = Image.fromarray(read_image(sample.path))
        except UserError:  # training may be writing it at this moment
            continue
        height = int(sqrt(most_pixels * picture.height / picture.width))
        return Cell(sample, html.jpeg_uri(picture, max(_LOWEST, min(_TALLEST, height))), picture.size)
    return None


def _page(grid: Grid, cells: Mapping[Place, Cell], titled: Sequence[tuple[str, Curve]], why_no_chart: str) -> str:
    newest = max(cell.sample.time for cell in cells.values())
    return html.render(
        "gallery.html.j2",
        title=f"{grid.output_name}: samples",
        summary=f"{len(cells):,} pictures, the newest from {_clock(newest)}. Each links to its file.",
        charts=_charts(titled) if titled else [],
        chart_label=f"Loss at each step: {', then '.join(title for title, _ in titled)}",
        why_no_chart=why_no_chart,
        stages=[(stage.title, len(stage.columns)) for stage in grid.stages if stage.columns],
        columns=[
            (stage.title, column[0].label, column is stage.columns[0]) for stage in grid.stages for column in stage.columns
        ],
        rows=[(prompt, _settings(prompt)) for prompt in grid.rows],
        cells=cells,
        earlier=_earlier(cells),
    )


def _earlier(cells: Mapping[Place, Cell]) -> set[Place]:
    """The places of pictures that an earlier run has left: those older than a picture to their left."""
    newest: dict[int, str] = {}  # by row
    earlier = set()
    for row, column in sorted(cells):
        time = cells[row, column].sample.time
        newest[row] = max(newest.get(row, ""), time)
        if time < newest[row]:
            earlier.add((row, column))
    return earlier


def _charts(titled: Sequence[tuple[str, Curve]]) -> list[tuple[str, str]]:
    """A media query and an SVG as data URI, for each window's width and colour scheme; wide and light first."""
    return [
        (
            f"({width}) and (prefers-color-scheme: {scheme})",
            html.data_uri(loss_logs.svg(titled, size, palette), "image/svg+xml"),
        )
        for width, size in _CHART_SIZES.items()
        for scheme, palette in loss_logs.PALETTES.items()
    ]


def _settings(prompt: Prompt) -> str:
    size = f"{prompt.size[0]}×{prompt.size[1]}" if prompt.size else ""
    seed = f"seed {prompt.seed}" if prompt.seed is not None else ""
    return ", ".join(filter(None, (size, seed)))


def _clock(digits: str) -> str:
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]} {digits[8:10]}:{digits[10:12]}"
