"""Kohya's settings to datasets with subsets, before upstream is there to ask.

Training reads its data through upstream. This is the same reading in plain values, so that a mistake in the data is
found in a second and not when stage 2 begins. Options fall back as upstream's do: subset, dataset, general, flags.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from lycoris_composite.architectures import architecture_of
from lycoris_composite.composites.captions import holds_captions
from lycoris_composite.composites.plan import CompositeOptions, Plan
from lycoris_composite.config.options import FLAG_NAMES, LONGEST_SIDE, KohyaSettings, check_kind, parse_resolution
from lycoris_composite.config.settings import Settings, read_toml
from lycoris_composite.config.stages import Stage
from lycoris_composite.data.buckets import Canvas
from lycoris_composite.data.characters import ImageFile, Subset, characters_of, read_subset
from lycoris_composite.data.images import is_picture, list_images, pictures_below
from lycoris_composite.data.left_out import some
from lycoris_composite.data.tags import CaptionRules
from lycoris_composite.errors import UserError

SKIP = "skip_image_resolution"  # upstream's since v0.10.2


@dataclass(frozen=True)
class Dataset:
    """One of kohya's datasets: what limits a composite, and the subsets that show characters and that are regularization."""

    canvas: Canvas
    batch_size: int
    subsets: tuple[Subset, ...]
    regularization: tuple[Subset, ...] = ()


def datasets_of(stage: Stage) -> list[Dataset]:
    """The datasets that a stage names, not yet read from disk. Raises UserError naming file and key."""
    settings = stage.settings
    aspect = stage.composite.aspect if stage.composite else "natural"
    if settings.dataset_config:
        path = Path(settings.dataset_config)
        datasets = [_dataset(*tables, aspect) for tables in _tables(source_tables(stage), settings, path)]
    elif settings.in_json:
        raise UserError(f'in_json = "{settings.in_json}": characters need caption files; use train_data_dir instead.')
    elif not settings.train_data_dir:
        raise UserError("train_data_dir: not set; name the folder of <repeats>_<character> folders, or a dataset_config.")
    else:
        subsets = _folders(Path(settings.train_data_dir), "train_data_dir")
        if settings.reg_data_dir:
            subsets += [{**subset, "is_reg": True} for subset in _folders(Path(settings.reg_data_dir), "reg_data_dir")]
        datasets = [_dataset(_flags(settings), subsets, aspect)]
    _check_buckets(datasets, stage.trainer)
    return datasets


def source_tables(stage: Stage) -> dict[str, Any]:
    """The tables of the dataset_config that a stage names. What `[composite.stage2]` sets is taken out of stage 2's at every
    level, because upstream lets each level win over the flags. Raises UserError for tables of another shape."""
    path = Path(stage.settings.dataset_config)
    tables = read_toml(path)
    check_tables(tables, path)
    flags = {name: flag for name, flag in FLAG_NAMES.items() if flag in stage.overrides}
    for table in every_table(tables):
        for name in (*stage.overrides, *flags):
            table.pop(name, None)
    return tables


def every_table(tables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A dataset_config's [general], its datasets, and their subsets."""
    datasets = tables.get("datasets", [])
    return [tables.get("general", {}), *datasets, *chain.from_iterable(dataset.get("subsets", []) for dataset in datasets)]


def without_skip(settings: Settings) -> Settings:
    """The settings as an upstream reads them that leaves out no small pictures."""
    return replace(settings, kohya={key: value for key, value in settings.kohya.items() if key != SKIP})


def plan_of(
    dataset: Dataset,
    options: CompositeOptions,
    seed: int,
    skipped: Collection[str] = (),
    by_separator: bool = False,
    known: Mapping[str, ImageFile] | None = None,
) -> Plan:
    """The plan of a dataset's composites, read from disk as `read_subset` reads."""
    subsets = [read_subset(subset, skipped, known) for subset in dataset.subsets]
    for subset in subsets:
        if subset.small and not subset.images:  # upstream would train without it
            width, height = subset.largest_skipped or (0, 0)
            raise UserError(
                f"{subset.folder}: none of its {len(subset.small):,} picture(s) has more than {width}x{height} pixels, and "
                "skip_image_resolution leaves out the others; lower it, or take this folder out."
            )
    characters = characters_of(subsets, holds_captions(options.caption))
    return Plan(characters, dataset.canvas, options, dataset.batch_size, seed, by_separator)


def _check_buckets(datasets: Sequence[Dataset], trainer: str) -> None:
    """Raises UserError for bucket_reso_steps that upstream's script asserts against once it has started."""
    steps = architecture_of(trainer).bucket_steps
    for dataset in datasets:
        if dataset.canvas.bucket_range is not None and dataset.canvas.multiple % steps:
            raise UserError(
                f"bucket_reso_steps: {dataset.canvas.multiple} is no multiple of {steps}, which {trainer} needs; "
                f"give {steps}, or leave it out."
            )


def _folders(folder: Path, key: str) -> list[dict[str, Any]]:
    """Upstream's `generate_dreambooth_subsets_config_by_subdirs`, but sorted."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; correct {key}.")
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir())
    repeats = {path: _repeats(path) for path in subfolders}
    subsets = [
        {"image_dir": str(path), "num_repeats": count, "class_tokens": path.name.partition("_")[2]}
        for path, count in repeats.items()
        if count
    ]
    if not subsets:
        raise UserError(
            f"{folder}: no <repeats>_<character> folders in it, such as 10_rin; {_how_to_have_some(folder, subfolders, key)}."
        )
    return subsets


def _how_to_have_some(folder: Path, subfolders: Sequence[Path], key: str) -> str:
    """What to do about a folder that is one level too high or too low, or whose folders have other names."""
    for path in subfolders:
        if any(below.is_dir() and _repeats(below) for below in path.iterdir()):
            return f"{path} has some, so set {key} to that"
    if _repeats(folder) and list_images(folder):
        return f"it holds pictures itself, so set {key} to the folder above it, {folder.parent}"
    return "rename the characters' folders"


def ignored_folders(settings: KohyaSettings) -> list[str]:
    """A line for each folder of images that upstream passes over for its name, and for images that lie in none."""
    keys = () if settings.dataset_config else ("train_data_dir", "reg_data_dir")
    folders = [Path(settings[key]) for key in keys if settings.get(key)]
    lines = []
    for folder in filter(Path.is_dir, folders):
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        direct = [path.name for path in inside if is_picture(path.name) and path.is_file()]
        if direct:
            lines.append(
                f"{folder}: {len(direct):,} picture(s) in it are not trained on: {some(direct)}; "
                "put them into <repeats>_<character> folders."
            )
        for path in inside:
            pictures = pictures_below(path) if path.is_dir() and not _repeats(path) else []
            if pictures:
                # without what was meant for repeats: `0_ana`, `1.5_ana`, `10-ana`
                name = re.sub(r"^[-+\d.,x]*[ _-]+", "", path.name) or "name"
                lines.append(
                    f"{path}: its {len(pictures):,} picture(s) are not trained on; name it <repeats>_<character>, such as "
                    f"10_{name}."
                )
    return lines


def _repeats(folder: Path) -> int:
    """What a folder's name says; 0 where upstream passes it over."""
    try:
        return max(0, int(folder.name.split("_")[0]))
    except ValueError:
        return 0


def _tables(config: Mapping[str, Any], settings: KohyaSettings, path: Path) -> list[tuple[KohyaSettings, list]]:
    general = config.get("general", {})
    datasets = []
    for dataset in config.get("datasets", []):
        if "composite" in dataset or "composite" in general:
            raise UserError(
                f"{path}: has a composite table of its own; run it with `lycoris-composite run`, "
                "or remove the table and let [composite] make stage 2."
            )
        subsets = dataset.get("subsets", [])
        for subset in subsets:
            if not isinstance(subset.get("image_dir"), str):
                raise UserError(f"{path}: a [[datasets.subsets]] without image_dir; name its folder.")
        datasets.append((_merged(_flags(settings), general, dataset), subsets))
    if not datasets:
        raise UserError(f"{path}: no [[datasets]] in it; add one with its [[datasets.subsets]].")
    return datasets


def check_tables(config: Mapping[str, Any], path: Path) -> None:
    """Raises UserError where a table is something else, or a value of a table is of another type than the code below
    computes with. Upstream checks the rest."""

    def is_list(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(table, dict) for table in value)

    datasets = config.get("datasets", [])
    are_lists = is_list(datasets) and all(is_list(dataset.get("subsets", [])) for dataset in datasets)
    if not are_lists or not isinstance(config.get("general", {}), dict):
        raise UserError(f"{path}: [general] must be a table, [[datasets]] and [[datasets.subsets]] lists of tables; mend them.")
    for table in every_table(config):
        for key, value in table.items():
            check_kind(key, value, f"{path},")


def _dataset(dataset: KohyaSettings, subsets: Sequence[Mapping[str, Any]], aspect: str) -> Dataset:
    for key in ("bucket_reso_steps", "min_bucket_reso", "max_bucket_reso", "batch_size"):
        value = getattr(dataset, key)
        if (dataset.enable_bucket or key != "bucket_reso_steps") and not 1 <= value <= LONGEST_SIDE:
            raise UserError(f"{key}: {value} is out of range; give 1 to {LONGEST_SIDE}.")
    bucketed = bool(dataset.enable_bucket)
    multiple = dataset.bucket_reso_steps if bucketed else 64
    smallest, largest = dataset.min_bucket_reso, dataset.max_bucket_reso
    # rounded to the multiple as upstream's adjust_min_max_bucket_reso_by_steps does
    bounds = (smallest - smallest % multiple, -(-largest // multiple) * multiple) if bucketed else None
    no_upscale = bucketed and bool(dataset.bucket_no_upscale)
    width, height = size = parse_resolution(dataset.resolution)
    if math.isqrt(width * height) < multiple:  # upstream asserts that a bucket can have the size
        raise UserError(
            f"resolution: {width}x{height} is smaller than {multiple}x{multiple}, one bucket step; give a larger one."
        )
    if bounds is not None and not bounds[0] <= min(size) <= max(size) <= bounds[1]:
        raise UserError(
            f"resolution: {width}x{height} is beyond min_bucket_reso and max_bucket_reso, {bounds[0]} to {bounds[1]}; "
            "change one of them."
        )
    if bucketed and smallest < multiple and not no_upscale:  # upstream would begin its list of buckets at 0
        raise UserError(f"min_bucket_reso: {smallest} is below bucket_reso_steps, {multiple}; give {multiple} or more.")
    read = [(_subset(subset, dataset), bool(subset.get("is_reg"))) for subset in subsets]
    # upstream ignores a subset with fewer repeats than one
    characters = tuple(subset for subset, is_reg in read if subset.repeats > 0 and not is_reg)
    regularization = tuple(subset for subset, is_reg in read if subset.repeats > 0 and is_reg)
    return Dataset(Canvas(size, multiple, bounds, no_upscale, aspect), dataset.batch_size, characters, regularization)


def _subset(table: Mapping[str, Any], dataset: KohyaSettings) -> Subset:
    values = _merged(dataset, table)
    extension = values.caption_extension
    rules = CaptionRules(**{rule.name: getattr(values, rule.name) for rule in fields(CaptionRules)})
    if not rules.caption_separator:
        raise UserError('caption_separator: empty text separates nothing; write what stands between tags, e.g. ",".')
    return Subset(
        folder=table["image_dir"],
        repeats=values.num_repeats,
        class_tokens=values.class_tokens,
        caption_extension=extension if extension.startswith(".") else f".{extension}",
        rules=rules,
        flip_aug=bool(values.flip_aug),
        trigger=table.get("trigger"),
        held_out=dataset.validation_split,
        held_out_seed=dataset.validation_seed or 0,
        largest_skipped=parse_resolution(dataset[SKIP], SKIP) if SKIP in dataset else None,
    )


def _merged(*levels: Mapping[str, Any]) -> KohyaSettings:
    """One level from several. A later one wins; None is an unset key."""
    return KohyaSettings({key: value for level in levels for key, value in level.items() if value is not None})


def _flags(settings: KohyaSettings) -> KohyaSettings:
    """The flags as a level, under a dataset_config's names too."""
    return _merged({name: getattr(settings, flag) for name, flag in FLAG_NAMES.items()}, settings)
