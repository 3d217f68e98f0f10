"""`lycoris-composite preview`: what training will see of a config, as a page and a contact sheet. Loads no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from lycoris_composite import config, pages, sheets
from lycoris_composite.characters import Character
from lycoris_composite.composites import Reading, composite_picture, read
from lycoris_composite.costs import Cost
from lycoris_composite.inputs import shortened
from lycoris_composite.overview import Cast, Sample, cast, kept_share, warnings
from lycoris_composite.plan import Panel, Plan
from lycoris_composite.progress import in_parallel, tracked
from lycoris_composite.stages import DEFAULT_NAME
from lycoris_composite.whole import whole, write_whole

_MOST_READ = 4000  # samples that the warnings look at, of as many epochs as that is, and that those shown are chosen from
_MOST_BAD = 20
_MOST_NAMED = 12  # characters on the sheet
_PAGE_HEIGHT = 360  # of a picture on the page, in pixels


@dataclass(frozen=True)
class Look:
    """What page and sheet show of one dataset: samples of an epoch in the order of training with their pictures, the
    cast, and how often each character stands left (row) of each."""

    plan: Plan
    shown: Sequence[tuple[Sample, Image.Image]]
    cast: Sequence[Cast]
    pairs: np.ndarray


@dataclass(frozen=True)
class Preview:
    """All that page and sheet show. `costs` are those of stage 1 and 2; `limit` counts a caption's tokens, where there
    is one."""

    title: str
    epoch: int
    warnings: Sequence[str]
    looks: Sequence[Look]
    costs: tuple[Cost, Cost]
    limit: int | None


def preview(
    path: Path, overrides: Sequence[str], epoch: int, count: int, folder: Path | None
) -> tuple[list[Path], Sequence[str]]:
    """Writes `<output_name>-preview.html` and `.png` to the folder, else to output_dir. Returns their paths, and what is
    worth a look. Raises UserError for data that cannot be trained on."""
    settings = config.load(path, overrides)
    shown = look_at(settings, epoch, count)
    name = settings.kohya.get("output_name") or DEFAULT_NAME
    folder = folder or Path(settings.kohya["output_dir"])
    page, sheet = folder / f"{name}-preview.html", folder / f"{name}-preview.png"
    write_whole(page, page_of(shown))
    with whole(sheet) as part:
        sheet_of(shown).save(part)
    return [page, sheet], shown.warnings


def look_at(settings: config.Settings, epoch: int, count: int) -> Preview:
    """Reads the data as training will. What cannot be used is left out, with a warning for each."""
    found = read(settings)
    limit = found.budget.limit if found.budget else None
    lines = [*found.notes, *(f"cannot be used: {reason}" for reason in shortened(list(found.bad.values()), _MOST_BAD))]
    looks = []
    for plan in found.plans:
        lines += _warnings(found, plan)
        own = chosen(list(islice(found.in_order(plan, epoch), _MOST_READ)), count)
        pictures = in_parallel(lambda sample: composite_picture(sample.composite), own, "drawing composites")
        looks.append(Look(plan, list(zip(own, pictures, strict=True)), cast(plan, epoch), plan.pair_counts(epoch)))
    return Preview(found.stages[1].name, epoch, lines, looks, found.costs, limit)


def _warnings(found: Reading, plan: Plan) -> list[str]:
    """Those of a plan, from the beginning of training as far as there is time to read it."""
    epochs = range(1, found.schedule.epochs + 1)
    total = plan.composites * len(epochs)
    seen = islice(chain.from_iterable(found.in_order(plan, number) for number in epochs), _MOST_READ)
    read = list(tracked(seen, min(total, _MOST_READ), "reading captions"))
    return warnings(plan, read, total <= _MOST_READ, found.budget.limit if found.budget else None)


def chosen(found: Sequence[Sample], count: int) -> list[Sample]:
    """So many of the samples, in their order: the first of every ordered pair of characters, then the second, …"""
    times: Counter[tuple[str, ...]] = Counter()
    ranks = []
    for place, sample in enumerate(found):
        pair = tuple(panel.character.trigger for panel in sample.composite.panels)
        times[pair] += 1
        ranks.append((times[pair], place))
    return [found[place] for _, place in sorted(sorted(ranks)[:count], key=lambda rank: rank[1])]


# --- the page --------------------------------------------------------------------------------------------------------


def page_of(shown: Preview) -> str:
    """The page's HTML."""

    def uri(picture: Image.Image) -> str:
        return pages.data_uri(sheets.scaled(picture, _PAGE_HEIGHT) if picture.height > _PAGE_HEIGHT else picture)

    title, totals = f"{shown.title}: preview", _totals(shown)
    return pages.render("preview.html.j2", title=title, totals=totals, shown=shown, uri=uri, about=_about, folder=_folder)


def _about(panel: Panel) -> str:
    """Where a panel is from, and what was done to it."""
    cut = round(100 * (1 - kept_share(panel.image.size, panel.size)))
    done = f"{f', {cut} % cut off' if cut else ''}{', mirrored' if panel.flipped else ''}"
    return f"{'/'.join(Path(panel.image.path).parts[-2:])}, {panel.size[0]}×{panel.size[1]}{done}"


def _folder(character: Character) -> str:
    return Path(character.subset.folder).name


def _totals(shown: Preview) -> str:
    """One line for the top."""
    characters = [one.character for look in shown.looks for one in look.cast]
    images = {image.path for character in characters for image in character.images}
    known = f"{len({one.trigger for one in characters})} characters, {len(images):,} images"
    drawn = f"{shown.costs[1].samples:,} composites an epoch, here {_count_shown(shown)} of epoch {shown.epoch}"
    return f"{known}; {drawn}, in the order of training."


def _count_shown(shown: Preview) -> int:
    return sum(len(look.shown) for look in shown.looks)


# --- the sheet -------------------------------------------------------------------------------------------------------

_WIDTH, _MARGIN, _GAP = 1600, 32, 24
_SHEET_HEIGHT = 240  # of a picture


def sheet_of(shown: Preview) -> Image.Image:
    """The contact sheet: a title, warnings, and rows of composites with their captions."""
    title, text, small = sheets.font(28, bold=True), sheets.font(17), sheets.font(14)
    head = [([[("name", f"{shown.title}: preview")]], title), ([[("muted", _totals(shown))]], text)]
    legend = [("name", "name "), ("left", "tags on the left "), ("right", "tags on the right")]
    head += [(sheets.wrapped([("warning", line)], _WIDTH - 2 * _MARGIN, text), text) for line in shown.warnings]
    head.append(([legend], text))
    head.append((_who_is_who(shown, small), small))
    rows = _rows([_cell(sample, picture, shown.limit, small) for look in shown.looks for sample, picture in look.shown])
    heights = [max(cell.height for cell in row) for row in rows]
    top = _MARGIN + sum(len(lines) * sheets.line_height(own) for lines, own in head) + _GAP
    sheet = Image.new("RGB", (_WIDTH, top + sum(height + _GAP for height in heights) + _MARGIN - _GAP), sheets.PAPER)
    pen, place = ImageDraw.Draw(sheet), _MARGIN
    for lines, own in head:
        sheets.write_lines(pen, (_MARGIN, place), lines, own)
        place += len(lines) * sheets.line_height(own)
    for row, height in zip(rows, heights, strict=True):
        left = _MARGIN
        for cell in row:
            sheet.paste(cell, (left, top))
            left += cell.width + _GAP
        top += height + _GAP
    return sheet


def _who_is_who(shown: Preview, font: Any) -> list[Any]:
    """A line for each character: its trigger word, its folder, and how the one was found for the other."""
    characters = list(dict.fromkeys(one.character for look in shown.looks for one in look.cast))
    lines = [
        sheets.wrapped([("name", f"{one.trigger} "), ("muted", f"{_folder(one)}: {one.how}")], _WIDTH - 2 * _MARGIN, font)
        for one in characters[:_MOST_NAMED]
    ]
    if len(characters) > _MOST_NAMED:
        lines.append([[("muted", f"and {len(characters) - _MOST_NAMED} more, which the page has")]])
    return list(chain.from_iterable(lines))


def _rows(cells: Sequence[Image.Image]) -> list[list[Image.Image]]:
    """As many beside one another as fit."""
    rows: list[list[Image.Image]] = []
    room = 0
    for cell in cells:
        if cell.width > room:
            rows.append([])
            room = _WIDTH - 2 * _MARGIN
        rows[-1].append(cell)
        room -= cell.width + _GAP
    return rows


def _cell(sample: Sample, picture: Image.Image, limit: int | None, font: Any) -> Image.Image:
    """A composite above its caption and size."""
    picture = sheets.scaled(picture, _SHEET_HEIGHT)
    if picture.width > _WIDTH - 2 * _MARGIN:
        picture = picture.resize((_WIDTH - 2 * _MARGIN, round(picture.height * (_WIDTH - 2 * _MARGIN) / picture.width)))
    caption = sample.spans or [("muted", "no caption in this epoch")]
    return sheets.captioned(picture, [caption, [("muted", _facts(sample, limit))]], font, least_width=280)


def _facts(sample: Sample, limit: int | None) -> str:
    width, height = sample.composite.size
    tokens = "" if sample.tokens is None else f", {sample.tokens} of {limit} tokens"
    cut = sum(map(len, sample.parts.cut)) if sample.parts else 0
    return f"{width}x{height}{tokens}{f', {cut} tag(s) cut' if cut else ''}"
