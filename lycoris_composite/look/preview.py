"""`lycoris-composite preview`: what training will see of a config, as a page and a contact sheet. Loads no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

from PIL import Image, ImageOps
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from lycoris_composite.composites.captions import holds_captions
from lycoris_composite.composites.pictures import composite_picture
from lycoris_composite.composites.plan import Panel, Plan
from lycoris_composite.config.schedule import Cost
from lycoris_composite.config.settings import Settings, load_settings
from lycoris_composite.data.characters import Character
from lycoris_composite.look import contact_sheet, html
from lycoris_composite.look.reading import Reading, read
from lycoris_composite.look.statistics import Sample, kept_share, warnings
from lycoris_composite.preflight.inputs import shortened
from lycoris_composite.run.files import whole, write_whole

_MOST_READ = 4000  # samples, from which those shown are chosen, and in which the warnings look
_MOST_BAD = 20  # files that are named
_PAGE_HEIGHT = 360  # of a picture on the page, in pixels


@dataclass(frozen=True)
class DatasetPreview:
    """What page and sheet show of one dataset: samples of an epoch in the order of training with their pictures."""

    plan: Plan
    samples: Sequence[tuple[Sample, Image.Image]]


@dataclass(frozen=True)
class Preview:
    """All that page and sheet show. `costs` are of stage 1 and 2. `limit` is a caption's, in tokens, if they are counted."""

    name: str
    epoch: int
    warnings: Sequence[str]
    datasets: Sequence[DatasetPreview]
    costs: tuple[Cost, Cost]
    limit: int | None

    @property
    def title(self) -> str:
        return f"{self.name}: preview"

    @property
    def holds_captions(self) -> bool:
        """Whether composites' captions hold the panels' captions whole, and words are cut instead of tags."""
        return holds_captions(self.datasets[0].plan.options.caption)

    @property
    def characters(self) -> list[Character]:
        return list(dict.fromkeys(character for dataset in self.datasets for character in dataset.plan.characters))

    @property
    def samples(self) -> list[tuple[Sample, Image.Image]]:
        return [sample for dataset in self.datasets for sample in dataset.samples]

    @property
    def totals(self) -> str:
        """How much there is, in one line."""
        characters = self.characters
        images = {image.path for character in characters for image in character.images}
        return (
            f"{len({character.trigger for character in characters})} characters, {len(images):,} images; "
            f"{self.costs[1].samples:,} composites an epoch, here {len(self.samples)} of epoch {self.epoch}, "
            "in the order of training."
        )


def write_preview(
    path: Path, overrides: Sequence[str], epoch: int, count: int, folder: Path | None
) -> tuple[list[Path], Sequence[str]]:
    """Writes `<output_name>-preview.html` and `.png` to the folder, else to output_dir. Returns their paths and the
    warnings. Raises UserError for data that cannot be trained on."""
    settings = load_settings(path, overrides)
    preview = make_preview(settings, epoch, count)
    folder = folder or Path(settings.kohya.output_dir)
    page, sheet = folder / f"{preview.name}-preview.html", folder / f"{preview.name}-preview.png"
    write_whole(page, page_of(preview))
    with whole(sheet) as part:
        sheet_of(preview).save(part)
    return [page, sheet], preview.warnings


def make_preview(settings: Settings, epoch: int, count: int) -> Preview:
    """Reads the data as training will. What cannot be used is left out, with a warning for each."""
    reading = read(settings)
    limit = reading.budget.limit if reading.budget else None
    lines = [*reading.notes, *(f"cannot be used: {reason}" for reason in shortened(list(reading.bad.values()), _MOST_BAD))]
    datasets = []
    for plan in reading.plans:
        lines += _warnings(reading, plan)
        samples = chosen(list(islice(reading.in_order(plan, epoch), _MOST_READ)), count)
        composites = [sample.composite for sample in samples]
        pictures = thread_map(composite_picture, composites, desc="drawing composites", disable=None)
        datasets.append(DatasetPreview(plan, list(zip(samples, pictures, strict=True))))
    return Preview(reading.stages[1].name, epoch, lines, datasets, reading.costs, limit)


def _warnings(reading: Reading, plan: Plan) -> list[str]:
    """Those of a plan. They look at the first _MOST_READ samples of training."""
    epochs = range(1, reading.schedule.epochs + 1)
    total = plan.composites * len(epochs)
    samples = chain.from_iterable(reading.in_order(plan, epoch) for epoch in epochs)
    seen = list(tqdm(islice(samples, _MOST_READ), "reading captions", min(total, _MOST_READ), disable=None))
    return warnings(plan, seen, total <= _MOST_READ, reading.budget)


def chosen(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` of the samples, in their order: the first of every ordered pair of characters, then the second …"""
    times: Counter[tuple[str, ...]] = Counter()
    turns = []  # for each sample, how often its pair has come, and its index
    for index, sample in enumerate(samples):
        pair = tuple(panel.character.trigger for panel in sample.composite.panels)
        times[pair] += 1
        turns.append((times[pair], index))
    return [samples[index] for index in sorted(index for _, index in sorted(turns)[:count])]


# --- the page --------------------------------------------------------------------------------------------------------


def page_of(preview: Preview) -> str:
    """The page's HTML."""
    uri = partial(html.jpeg_uri, most_height=_PAGE_HEIGHT)
    return html.render("preview.html.j2", title=preview.title, preview=preview, uri=uri, about=_about, folder=_folder)


def _about(panel: Panel) -> str:
    """Where a panel is from, and what was done to it."""
    cut = round(100 * (1 - kept_share(panel.image.size, panel.size)))
    done = f"{f', {cut} % cut off' if cut else ''}{', mirrored' if panel.flipped else ''}"
    return f"{'/'.join(Path(panel.image.path).parts[-2:])}, {panel.size[0]}×{panel.size[1]}{done}"


def _folder(character: Character) -> str:
    return Path(character.subset.folder).name


# --- the sheet -------------------------------------------------------------------------------------------------------

_WIDTH, _MARGIN, _GAP = 1536, 32, 24  # pixels: between the margins, at the edges, between pictures
_PICTURE_HEIGHT, _LEAST_WIDTH = 240, 280  # of a composite; of its caption
_MOST_NAMED = 12  # characters


def sheet_of(preview: Preview) -> Image.Image:
    """The contact sheet: a title, warnings, and rows of composites with their captions."""
    text, small = contact_sheet.dejavu(17), contact_sheet.dejavu(14)
    sides = enumerate(preview.datasets[0].plan.sides)
    what = "caption" if preview.holds_captions else "tags"
    legend = [("name", "name "), *((f"tags{number}", f"{what} on the {side} ") for number, side in sides)]
    warnings = [[("warning", line)] for line in preview.warnings]
    head = [
        contact_sheet.text_block([[("name", preview.title)]], contact_sheet.dejavu(28, bold=True), _WIDTH),
        contact_sheet.text_block([[("muted", preview.totals)], *warnings, legend], text, _WIDTH),
        contact_sheet.text_block(_who_is_who(preview), small, _WIDTH),
    ]
    rows: list[list[Image.Image]] = []
    room = 0
    for sample, picture in preview.samples:
        cell = _cell(sample, picture, preview, small)
        if cell.width > room:
            rows.append([])
            room = _WIDTH
        rows[-1].append(cell)
        room -= cell.width + _GAP
    sheet = contact_sheet.in_rows([[contact_sheet.in_rows([[block] for block in head], 0)], *rows], _GAP)
    return ImageOps.expand(sheet, _MARGIN, contact_sheet.PAPER)


def _who_is_who(preview: Preview) -> list[list[contact_sheet.Span]]:
    """A line for each character: its trigger word, its folder, and where the trigger word is from."""
    characters = preview.characters
    lines = [
        [("name", f"{character.trigger} "), ("muted", f"{_folder(character)}: {character.how}")]
        for character in characters[:_MOST_NAMED]
    ]
    if len(characters) > _MOST_NAMED:
        lines.append([("muted", f"and {len(characters) - _MOST_NAMED} more, which the page has")])
    return lines


def _cell(sample: Sample, picture: Image.Image, preview: Preview, font: contact_sheet.Font) -> Image.Image:
    """A composite above its caption, size and number of tokens."""
    picture = ImageOps.contain(picture, (_WIDTH, _PICTURE_HEIGHT), Image.Resampling.LANCZOS)
    width, height = sample.composite.size
    tokens = "" if sample.tokens is None else f", {sample.tokens} of {preview.limit} tokens"
    cut = sum(map(len, sample.parts.cut)) if sample.parts else 0
    unit = "word(s)" if preview.holds_captions else "tag(s)"
    facts = f"{width}x{height}{tokens}{f', {cut} {unit} cut' if cut else ''}"
    caption = sample.spans or [("muted", "no caption in this epoch")]
    return contact_sheet.captioned(picture, [caption, [("muted", facts)]], font, _LEAST_WIDTH)
