"""What training will read, checked before it costs anything: every bad file is named at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lycoris_composite.characters import Subset, image_paths, why_unusable
from lycoris_composite.config import Settings, read_toml
from lycoris_composite.journal import digest
from lycoris_composite.plan import Plan
from lycoris_composite.stages import Stage, overridden_datasets, stages_of
from lycoris_composite.subsets import Dataset, check_tables, datasets_of, plan_of

_MOST_SHOWN = 10


def datasets_to_join(settings: Settings) -> list[Dataset]:
    """The datasets as the stage that makes composites will see them: a mistake must not wait until stage 1 is done."""
    [stage] = stages_of(settings, only=2)
    source = stage.settings.get("dataset_config")
    if not source:
        return datasets_of(stage.settings, settings.composite.aspect)
    tables = read_toml(Path(source))
    check_tables(tables, Path(source))
    return datasets_of(stage.settings, settings.composite.aspect, overridden_datasets(tables, settings.stage2))


def bad_files(datasets: Iterable[Dataset], show_progress: bool) -> dict[str, str]:
    """Every image that cannot be used, itself or for its caption, and why. Reads all of them, in parallel."""
    subsets: dict[str, Subset] = {subset.folder: subset for dataset in datasets for subset in dataset.subsets}
    files = [(path, subset) for subset in subsets.values() for path in image_paths(subset)]
    reasons = _in_parallel(lambda file: why_unusable(*file), files, "checking images" if show_progress else None)
    return {os.path.normpath(path): reason for (path, _), reason in zip(files, reasons, strict=True) if reason}


def plans_of(settings: Settings, datasets: Sequence[Dataset], skipped: Iterable[str]) -> list[Plan]:
    """The plans that training will make, without the images to be skipped."""
    [stage] = stages_of(settings, only=2)
    return [plan_of(dataset, settings.composite, stage.settings["seed"], frozenset(skipped)) for dataset in datasets]


def input_digests(stage: Stage, plans: Sequence[Plan], show_progress: bool) -> dict[str, str]:
    """Digests of the files that training reads, by path: images, captions and the base model."""
    characters = [character for plan in plans for character in plan.characters]
    paths = {Path(image.path) for character in characters for image in character.images}
    for character in characters:
        extension = character.subset.caption_extension
        captions = (Path(os.path.splitext(image.path)[0] + extension) for image in character.images)
        paths |= {path for path in captions if path.is_file()}
    for name in filter(None, map(stage.settings.get, ("pretrained_model_name_or_path", "vae"))):
        model = Path(name)
        files = model.rglob("*") if model.is_dir() else [model]
        paths |= {path for path in files if path.is_file()}
    ordered = sorted(paths)
    found = _in_parallel(digest, ordered, "reading inputs" if show_progress else None)
    return dict(zip(map(str, ordered), found, strict=True))


def duplicates(digests: Mapping[str, str], plans: Sequence[Plan]) -> list[str]:
    """A line for each picture that is there more than once: it counts more than others, or shows two characters."""
    paths = sorted({image.path for plan in plans for character in plan.characters for image in character.images})
    same: dict[str, list[str]] = {}
    for path in paths:
        same.setdefault(digests[str(Path(path))], []).append(path)
    groups = [group for group in same.values() if len(group) > 1]
    return _shortened([f"the same picture: {', '.join(_shortened(group))}" for group in groups])


def _shortened(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _MOST_SHOWN else [*lines[:_MOST_SHOWN], f"and {len(lines) - _MOST_SHOWN:,} more"]


def _in_parallel(work: Callable, items: Sequence, description: str | None) -> list:
    """`work` of each item, in order, with a progress bar where there is a description."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    pool = ThreadPoolExecutor()
    try:
        with Progress(*columns, disable=description is None) as progress:
            return list(progress.track(pool.map(work, items), total=len(items), description=description or ""))
    finally:
        pool.shutdown(cancel_futures=True)  # whoever stops the run does not wait for a hundred thousand files
