"""`lycoris-composite export`: composites as images and caption files, for those who use another trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lycoris_composite import config
from lycoris_composite.composites import composite_picture, read
from lycoris_composite.errors import UserError
from lycoris_composite.overview import Sample
from lycoris_composite.progress import in_parallel
from lycoris_composite.whole import remove_leftovers, whole

_FOLDER = "1_composite"  # kohya's <repeats>_<class tokens>


def export(path: Path, overrides: Sequence[str], epochs: int, folder: Path) -> tuple[Path, int, list[str]]:
    """Writes the composites of so many epochs to `<folder>/1_composite`, each as a PNG with its caption beside it.

    Returns that folder, how many there are, and lines that say what was left out. Raises UserError where the folder is
    there already: another trainer would train on old composites too.
    """
    settings = config.load(path, overrides)
    target = folder / _FOLDER
    if target.exists():
        raise UserError(f"{target}: is there already; remove it, or give another --out.")
    remove_leftovers(folder, _FOLDER)
    found = read(settings)
    several = len(found.plans) > 1
    named = [
        (f"{f'd{number}_' if several else ''}e{epoch:04d}_{sample.composite.index:06d}", sample)
        for number, plan in enumerate(found.plans, 1)
        for epoch in range(1, epochs + 1)
        for sample in found.samples(plan, epoch)
    ]
    with whole(target) as part:
        part.mkdir()
        in_parallel(lambda item: _write(part / item[0], item[1]), named, "writing composites")
    return target, len(named), [*found.notes, *(f"left out: {reason}" for reason in found.bad.values())]


def _write(path: Path, sample: Sample) -> None:
    composite_picture(sample.composite).save(path.with_suffix(".png"))
    path.with_suffix(".txt").write_text(sample.caption + "\n", encoding="utf-8")
