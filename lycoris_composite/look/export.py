"""`lycoris-composite export`: composites as images and caption files, for those who use another trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm.contrib.concurrent import thread_map

from lycoris_composite.composites.pictures import composite_picture
from lycoris_composite.config.settings import load_settings
from lycoris_composite.errors import UserError
from lycoris_composite.look.reading import read
from lycoris_composite.look.statistics import Sample
from lycoris_composite.run.files import remove_leftovers, whole

_FOLDER = "1_composite"  # kohya's <repeats>_<class tokens>


def export(path: Path, overrides: Sequence[str], epochs: int, folder: Path) -> tuple[Path, int, list[str]]:
    """Writes the composites of the first `epochs` epochs to `<folder>/1_composite`, each as a PNG and a caption file.
    Returns that folder, the number of composites, and lines that say what was left out. Raises UserError if the folder
    exists: another trainer would train on its old composites too."""
    settings = load_settings(path, overrides)
    target = folder / _FOLDER
    if target.exists():
        raise UserError(f"{target}: is there already; remove it, or give another --out.")
    remove_leftovers(folder, _FOLDER)
    reading = read(settings, is_cycling=False)  # what this trainer encodes ahead is nothing to another
    samples: dict[str, Sample] = {}  # by the name of its files
    for number, plan in enumerate(reading.plans, 1):
        dataset = f"d{number}_" if len(reading.plans) > 1 else ""
        for epoch in range(1, epochs + 1):
            for sample in reading.samples(plan, epoch):
                samples[f"{dataset}e{epoch:04d}_{sample.composite.index:06d}"] = sample
    with whole(target) as part:
        part.mkdir()
        paths = [part / name for name in samples]
        thread_map(_write, paths, samples.values(), desc="writing composites", disable=None)
    return target, len(samples), [*reading.notes, *(f"left out: {reason}" for reason in reading.bad.values())]


def _write(path: Path, sample: Sample) -> None:
    composite_picture(sample.composite).save(path.with_suffix(".png"))
    path.with_suffix(".txt").write_text(sample.caption + "\n", encoding="utf-8")
