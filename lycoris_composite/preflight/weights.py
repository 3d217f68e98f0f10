"""The files of weights that stages load: whether they are there, and whole as far as that costs nothing."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lycoris_composite.architectures import ARCHITECTURES, CHROMA, CHROMA_MARK, PARTS
from lycoris_composite.config.options import WEIGHTS
from lycoris_composite.config.stages import Stage
from lycoris_composite.errors import UserError


def weight_errors(stages: Sequence[Stage]) -> Iterator[UserError]:
    """One for each of the weights that is not there or not whole, before anything large is loaded."""
    start = stages[0].weights_from
    if start is not None and not start.is_file():
        yield UserError(
            f"{start}: not there, but stage 2 starts from it; run stage 1 first, or set network_weights to a LoRA of yours."
        )
    for stage in stages:
        yield from _unset(stage)
    for key, name in dict.fromkeys(chain.from_iterable(stage.weight_files for stage in stages)):
        if not Path(name).exists() and key not in WEIGHTS:
            yield UserError(f"{key} {name}: no such file or folder; correct the path.")
        elif not Path(name).exists() and not _is_in_hub_cache(name):
            yield UserError(
                f"{key} {name}: no such file or folder, and no model of that name in the hub's cache; "
                "correct the path, or download the model first: training fetches nothing."
            )
        for path in files_of(Path(name)):
            broken = _why_broken(path)
            if broken:
                yield UserError(f"{key} {path}: {broken}; download or save it again.")
    yield from filter(None, map(_other_model, stages))


def _unset(stage: Stage) -> Iterator[UserError]:
    """One for each file that the stage's model needs, and that neither is named nor stands in its checkpoint."""
    settings, row = stage.settings, stage.architecture
    model = settings.pretrained_model_name_or_path
    if not model:
        if row.encoders:  # somebody's own script may need none
            yield UserError("pretrained_model_name_or_path: not set; name the base model's file or folder.")
        return
    is_chroma = settings.model_type == CHROMA or _is_chroma(names_of(Path(model)) or ())
    for key in row.required:
        start = row.inside.get(key)
        names = names_of(Path(model)) if start else ()
        is_unneeded = key == "clip_l" and is_chroma
        if settings.get(key) or is_unneeded or names is None or any(name.startswith(start) for name in names):
            continue
        why = f"and {model} holds none" if start else f"and {stage.trainer} needs it"
        yield UserError(f"{key}: not set, {why}; name the file with {row.name}'s {PARTS[key]}.")


def _other_model(stage: Stage) -> UserError | None:
    """Why the base model is none that the stage's trainer trains. Only what is known to be another's is refused."""
    settings, row = stage.settings, stage.architecture
    if not row.marks or not settings.pretrained_model_name_or_path:
        return None
    model = Path(settings.pretrained_model_name_or_path)
    where = f"pretrained_model_name_or_path {model}"
    if model.is_dir() and (settings.model_type == CHROMA or not row.pipeline):
        whose = "Chroma" if settings.model_type == CHROMA else row.name
        return UserError(f"{where}: is a folder, but {stage.trainer} reads a single file; name the one with {whose}'s weights.")
    names = names_of(model) or ()
    found = rows_with(names)
    is_chroma = _is_chroma(names)
    if row.name in found and is_chroma and settings.model_type != CHROMA:
        return UserError(f'{where}: is Chroma; set model_type = "{CHROMA}".')
    if row.name in found and not is_chroma and settings.model_type == CHROMA:
        return UserError(f'{where}: is {row.name}, and not Chroma; remove model_type = "{CHROMA}".')
    if not found or row.name in found:
        return None
    name, trainer = found.popitem()
    return UserError(
        f'{where}: is {name}, but {stage.trainer} trains {row.name}; name another file, or set trainer = "{trainer}" in '
        "[composite]."
    )


def _is_chroma(names: Collection[str]) -> bool:
    return any(CHROMA_MARK in name for name in names)


def rows_with(names: Collection[str]) -> dict[str, str]:
    """The models whose checkpoints have such names, each with kohya's trainer."""
    return {
        row.name: trainer
        for trainer, row in ARCHITECTURES.items()
        if row.pipeline in names or any(mark in name for mark in row.marks for name in names)
    }


def names_of(model: Path) -> Collection[str] | None:
    """The names of a checkpoint's tensors, or that of a folder's class in diffusers; None where nothing can be read."""
    try:
        if model.is_dir():
            return [str(json.loads((model / "model_index.json").read_text(encoding="utf-8"))["_class_name"])]
        with safe_open(model, "numpy") as file:
            return list(file.keys())
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def _why_broken(path: Path) -> str | None:
    """What is wrong with a file of weights, as far as its frame shows it: an interrupted download is the usual cause."""
    if path.suffix in (".safetensors", ".sft"):
        try:
            with safe_open(path, "numpy"):
                return None
        except (SafetensorError, OSError) as error:
            return f"is no whole {path.suffix} file ({str(error).splitlines()[0]})"
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        with open(path, "rb") as file:
            start = file.read(2)
        if not start or (start == b"PK" and not zipfile.is_zipfile(path)):
            return "is no whole checkpoint"
    return None


def files_of(model: Path) -> list[Path]:
    """The file itself, or every file of a model's folder."""
    return [path for path in (model.rglob("*") if model.is_dir() else [model]) if path.is_file()]


def _is_in_hub_cache(name: str) -> bool:
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and (cache / f"models--{name.replace('/', '--')}").is_dir()
