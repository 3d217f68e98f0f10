"""What training will read, checked before it costs anything: every bad file is named at once."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm.contrib.concurrent import thread_map

from lycoris_composite.composites.plan import Plan
from lycoris_composite.config.datasets import Dataset, datasets_of, ignored_folders, plan_of
from lycoris_composite.config.stages import Stage
from lycoris_composite.data.buckets import Canvas, has_no_bucket
from lycoris_composite.data.characters import (
    ImageFile,
    Subset,
    caption_file,
    image_paths,
    is_too_small,
    read_image_file,
    read_subset,
    unread_captions,
)
from lycoris_composite.data.images import is_picture
from lycoris_composite.data.left_out import left_out, replaced
from lycoris_composite.errors import UserError
from lycoris_composite.preflight.refusals import Refusals
from lycoris_composite.preflight.weights import files_of
from lycoris_composite.run.journal import digest

_MOST_SHOWN = 10


@dataclass
class Data:
    """What a run reads. `singles` are stage 1's datasets with their images. `files` are all image files, by normal path.
    `ignored` says what lies there and is not read."""

    singles: list[Dataset] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    files: Mapping[str, ImageFile] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    @property
    def bad(self) -> dict[str, str]:
        """Why an image cannot be used, by its path."""
        return {path: file.why_not for path, file in self.files.items() if file.why_not}

    @property
    def subsets(self) -> list[Subset]:
        """All that the stages read."""
        single = [subset for dataset in self.singles for subset in dataset.subsets]
        return [*single, *(character.subset for plan in self.plans for character in plan.characters)]


def read_data(
    stages: Sequence[Stage],
    joined: Stage,
    refusals: Refusals,
    on_bad: Callable[[Mapping[str, str]], None],
    show_progress: bool = True,
    by_separator: bool = False,
) -> Data:
    """Reads the data of the stages that run and of `joined`, the stage that makes composites: a mistake must not wait until
    stage 1 is done. `on_bad` takes the images that cannot be used; what it lets pass is left out."""
    data = Data()
    with refusals.collecting():
        data.singles = [dataset for stage in stages if stage.composite is None for dataset in datasets_of(stage)]
    with refusals.collecting(is_long=True):
        datasets = datasets_of(joined)
        data.files = image_files([*data.singles, *datasets], show_progress)
        with refusals.collecting():
            on_bad(data.bad)
        with refusals.collecting():
            data.plans = plans_of(joined, datasets, data, by_separator)
        with refusals.collecting():
            data.singles = with_images(data.singles, data)
            data.ignored = passed_over(stages, data.singles, data.plans)
    return data


def image_files(datasets: Iterable[Dataset], show_progress: bool) -> dict[str, ImageFile]:
    """Every image file, by normal path, read once and in parallel. Raises UserError for regularization without images, which
    upstream would leave out."""
    datasets = list(datasets)
    every = [subset for dataset in datasets for subset in (*dataset.subsets, *dataset.regularization)]
    every.sort(key=lambda subset: -math.prod(subset.largest_skipped or (0, 0)))  # the one that reads most wins
    subsets: dict[str, Subset] = {subset.folder: subset for subset in every}
    for subset in (subset for dataset in datasets for subset in dataset.regularization):
        if not image_paths(subset):
            raise UserError(f"{subset.folder}: no regularization images in it; add some, or take it out of the config.")
    canvases = {dataset.canvas for dataset in datasets if dataset.canvas.no_upscale}
    files = [(path, subset, canvases) for subset in subsets.values() for path in image_paths(subset)]
    found = thread_map(lambda file: _image_file(*file), files, desc="checking images", disable=None if show_progress else True)
    return {os.path.normpath(path): file for (path, *_), file in zip(files, found, strict=True)}


def _image_file(path: Path, subset: Subset, canvases: Collection[Canvas]) -> ImageFile:
    file = read_image_file(path, subset)
    if file.why_not or is_too_small(file.size, subset):
        return file
    for canvas in canvases:
        if has_no_bucket(file.size, canvas):
            reason = (
                f"{path}: its {file.size[0]}x{file.size[1]} pixels make less than a bucket step, {canvas.multiple}, and "
                "bucket_no_upscale leaves them so; enlarge it, lower bucket_reso_steps, or set bucket_no_upscale = false."
            )
            return replace(file, why_not=reason)
    return file


def plans_of(stage: Stage, datasets: Sequence[Dataset], data: Data, by_separator: bool = False) -> list[Plan]:
    """The plans that a stage of composites will make, without the data's bad images."""
    options, seed = stage.composite, stage.settings.seed
    return [plan_of(dataset, options, seed, data.bad, by_separator, data.files) for dataset in datasets]


def passed_over(stages: Sequence[Stage], singles: Iterable[Dataset], plans: Sequence[Plan]) -> list[str]:
    """A line for each kind of file and each folder that is not read, or not read as it looks. `singles`: see `Data`."""
    lines = [line for stage in stages for line in ignored_folders(stage.settings)]
    joined = [character.subset for plan in plans for character in plan.characters]
    lines += filter(None, map(unread_captions, joined))
    latents = next((_cached_latents(stage) for stage in stages if stage.composite is None), None)
    seen: dict[str, tuple[Subset, str | None]] = {subset.folder: (subset, None) for subset in joined}
    for dataset in singles:
        seen |= {subset.folder: (subset, latents) for subset in (*dataset.subsets, *dataset.regularization)}
    for _, (subset, suffix) in sorted(seen.items()):
        lines += left_out(subset, suffix)
    return list(dict.fromkeys(lines))


def _cached_latents(stage: Stage) -> str | None:
    """How the names of the latents end that upstream keeps beside a stage's images; None where it keeps none."""
    is_upstreams = stage.composite is None and stage.settings.cache_latents_to_disk
    return stage.architecture.latents if is_upstreams else None


def replaced_pictures(stage: Stage, before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A line for each folder with pictures that changed since an earlier run and may have upstream's old latents beside
    them. `before` and `now` are digests by path."""
    latents = _cached_latents(stage)
    changed = [path for path, content in now.items() if before.get(path, content) != content and is_picture(path)]
    return list(replaced(changed, latents)) if latents else []


def with_images(datasets: Iterable[Dataset], data: Data) -> list[Dataset]:
    """The datasets, their subsets read without the data's bad images."""
    bad = data.bad
    return [
        replace(dataset, subsets=tuple(read_subset(subset, bad, data.files) for subset in dataset.subsets))
        for dataset in datasets
    ]


def input_digests(stages: Sequence[Stage], subsets: Iterable[Subset], show_progress: bool) -> dict[int, dict[str, str]]:
    """For each stage, by its number: digests of its images, captions, weights and dataset_config, by absolute path."""
    data: set[Path] = set()
    known: dict[Path, str | None] = {}
    for subset in subsets:
        data |= {Path(path) for image in subset.images if (path := caption_file(image.path, subset))}
        known |= {Path(image.path): image.digest for image in subset.images}
    data |= known.keys()
    data |= {Path(stage.settings.dataset_config) for stage in stages if stage.settings.dataset_config}
    inputs = {stage.number: data.union(*(files_of(Path(name)) for _, name in stage.weight_files)) for stage in stages}
    ordered = sorted(set().union(*inputs.values()))
    bars = {"desc": "reading inputs", "disable": None if show_progress else True}
    digests = thread_map(lambda path: known.get(path) or digest(path), ordered, **bars)
    digest_of = dict(zip(ordered, digests, strict=True))
    return {number: {os.path.abspath(path): digest_of[path] for path in sorted(paths)} for number, paths in inputs.items()}


def duplicates(digests: Mapping[str, str], plans: Sequence[Plan]) -> list[str]:
    """A line for each picture that is there more than once: it counts more than others, or shows two characters."""
    paths = sorted({image.path for plan in plans for character in plan.characters for image in character.images})
    same: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        same[digests[os.path.abspath(path)]].append(path)
    return shortened([f"the same picture: {', '.join(shortened(group))}" for group in same.values() if len(group) > 1])


def shortened(lines: list[str], most: int = _MOST_SHOWN) -> list[str]:
    """The first lines, and a last one that counts the others."""
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most:,} more"]
