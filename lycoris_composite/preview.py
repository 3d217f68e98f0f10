"""`lycoris-composite preview`: what training will see of a config, as a page and a contact sheet. Loads no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from lycoris_composite import config, pages, sheets
from lycoris_composite.captions import Budget
from lycoris_composite.compose import join_panels
from lycoris_composite.costs import Cost, composite_cost, schedule_of, single_cost
from lycoris_composite.errors import UserError
from lycoris_composite.images import panel_picture
from lycoris_composite.inputs import bad_files, datasets_to_join, plans_of, single_datasets
from lycoris_composite.overview import Cast, Sample, cast, kept_share, samples, warnings
from lycoris_composite.pairing import epoch_order
from lycoris_composite.plan import CACHED_PIXEL_EPOCHS, Composite, Panel, Plan
from lycoris_composite.stages import DEFAULT_NAME, stages_of
from lycoris_composite.whole import whole, write_whole

_MOST_READ = 4000  # samples that the warnings look at, of as many epochs as that is
_MOST_BAD = 20
_PAGE_HEIGHT = 360  # of a picture on the page, in pixels
_CLIP_TRAINERS = ("train_network", "sdxl_train_network", "builtin")
# What draws anew each time, and is left out of these pictures.
_NOT_SHOWN = ("random_crop", "color_aug")


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


def preview(path: Path, overrides: Sequence[str], epoch: int, count: int, folder: Path | None) -> list[Path]:
    """Writes `<output_name>-preview.html` and `.png` to the folder, else to output_dir, and returns their paths.
    Raises UserError for a config that cannot be trained."""
    settings = config.load(path, overrides)
    shown = look_at(settings, epoch, count)
    name = settings.kohya.get("output_name") or DEFAULT_NAME
    folder = folder or Path(settings.kohya["output_dir"])
    page, sheet = folder / f"{name}-preview.html", folder / f"{name}-preview.png"
    write_whole(page, page_of(shown))
    with whole(sheet) as part:
        sheet_of(shown).save(part)
    return [page, sheet]


def look_at(settings: config.Settings, epoch: int, count: int) -> Preview:
    """Reads the data as training will. What cannot be used is left out, with a warning for each."""
    first, second = stages_of(settings)
    datasets = datasets_to_join(settings)
    bad = bad_files(datasets, show_progress=True)
    plans = plans_of(settings, datasets, bad)
    for plan in plans:
        if plan.options.join == "pixel" and second.settings.get("cache_latents"):
            plan.cycle_epochs = CACHED_PIXEL_EPOCHS
    budget, found = _budget(settings.trainer, second.settings)
    found += [f"cannot be used: {reason}" for reason in _shortened(list(bad.values()))]
    for key in filter(second.settings.get, _NOT_SHOWN):
        found.append(f"{key}: left out of these pictures, as it draws anew each time.")
    schedule = schedule_of(second.settings, sum(plan.batches for plan in plans))
    limit = None if budget is None else budget.limit
    ways = partial(samples, schedule=schedule, budget=budget, is_warmed_up=settings.trainer == "builtin")
    looks = []
    for plan, own in zip(plans, _orders(plans, epoch), strict=True):
        read = chain.from_iterable(ways(plan, number) for number in range(1, schedule.epochs + 1))
        found += warnings(plan, islice(read, _MOST_READ), limit)
        shown = chosen(sorted(ways(plan, epoch), key=lambda sample, own=own: own[sample.batch]), count)
        shown = [(sample, composite_picture(sample.composite)) for sample in shown]
        looks.append(Look(plan, shown, cast(plan, epoch), plan.pair_counts(epoch)))
    costs = single_cost(first, single_datasets(settings, plans)), composite_cost(second, plans)
    return Preview(second.name, epoch, found, looks, costs, limit)


def _budget(trainer: str, settings: Mapping[str, Any]) -> tuple[Budget | None, list[str]]:
    """What counts captions' tokens; else None and a line that says why."""
    if trainer not in _CLIP_TRAINERS or settings.get("v2"):
        return None, []
    try:
        from lycoris_composite.trainers.tokenizers import caption_budget

        return caption_budget(settings), []
    except (UserError, ImportError) as error:
        return None, [f"tokens are not counted, and captions shown uncut: {error}"]


def _orders(plans: Sequence[Plan], epoch: int) -> list[dict[int, int]]:
    """By plan: each batch's place in the epoch, in which the batches of all datasets are mixed."""
    counts = [plan.batches for plan in plans]
    starts = accumulate(counts, initial=0)
    places = {batch: place for place, batch in enumerate(epoch_order(sum(counts), plans[0].seed, epoch))}
    return [{batch: places[start + batch] for batch in range(count)} for start, count in zip(starts, counts, strict=False)]


def chosen(found: Sequence[Sample], count: int) -> list[Sample]:
    """So many of the samples, in their order: the first of every ordered pair of characters, then the second, …"""
    times: Counter[tuple[str, ...]] = Counter()
    ranks = []
    for place, sample in enumerate(found):
        pair = tuple(panel.character.trigger for panel in sample.composite.panels)
        times[pair] += 1
        ranks.append((times[pair], place))
    return [found[place] for _, place in sorted(sorted(ranks)[:count], key=lambda rank: rank[1])]


def composite_picture(composite: Composite) -> Image.Image:
    """The composite as training crops it."""
    panels = [panel_picture(panel.image.path, panel.size, panel.flipped) for panel in composite.panels]
    return Image.fromarray(join_panels(panels, axis=-2))


def _shortened(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _MOST_BAD else [*lines[:_MOST_BAD], f"and {len(lines) - _MOST_BAD:,} more"]


# --- the page --------------------------------------------------------------------------------------------------------


def page_of(shown: Preview) -> str:
    """The page's HTML."""

    def uri(picture: Image.Image) -> str:
        return pages.data_uri(sheets.scaled(picture, _PAGE_HEIGHT) if picture.height > _PAGE_HEIGHT else picture)

    title, totals = f"{shown.title}: preview", _totals(shown)
    return pages.render("preview.html.j2", title=title, totals=totals, shown=shown, uri=uri, about=_about)


def _about(panel: Panel) -> str:
    """Where a panel is from, and what was done to it."""
    cut = round(100 * (1 - kept_share(panel.image.size, panel.size)))
    done = f"{f', {cut} % cut off' if cut else ''}{', mirrored' if panel.flipped else ''}"
    return f"{'/'.join(Path(panel.image.path).parts[-2:])}, {panel.size[0]}×{panel.size[1]}{done}"


def _totals(shown: Preview) -> str:
    """One line for the top."""
    images = sum(len(one.character.images) for look in shown.looks for one in look.cast)
    characters = sum(len(look.cast) for look in shown.looks)
    second = shown.costs[1]
    return (
        f"{characters} characters, {images:,} images; {second.samples:,} composites an epoch, here {_count_shown(shown)} of "
        f"epoch {shown.epoch}, in the order of training."
    )


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
    width = max(picture.width, 280)
    lines = sheets.wrapped(sample.spans or [("muted", "no caption in this epoch")], width, font)
    lines += sheets.wrapped([("muted", _facts(sample, limit))], width, font)
    cell = Image.new("RGB", (width, picture.height + 6 + len(lines) * sheets.line_height(font)), sheets.PAPER)
    cell.paste(picture, (0, 0))
    sheets.write_lines(ImageDraw.Draw(cell), (0, picture.height + 6), lines, font)
    return cell


def _facts(sample: Sample, limit: int | None) -> str:
    width, height = sample.composite.size
    tokens = "" if sample.tokens is None else f", {sample.tokens} of {limit} tokens"
    cut = sum(map(len, sample.parts.cut)) if sample.parts else 0
    return f"{width}x{height}{tokens}{f', {cut} tag(s) cut' if cut else ''}"
