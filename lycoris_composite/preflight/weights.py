"""The files of weights that stages load: whether they are there, and whole as far as that costs nothing."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lycoris_composite.config.stages import Stage
from lycoris_composite.errors import UserError


def weight_errors(stages: Sequence[Stage]) -> Iterator[UserError]:
    """One for each of the weights that is not there or not whole, before anything large is loaded."""
    start = stages[0].weights_from
    if start is not None and not start.is_file():
        yield UserError(
            f"{start}: not there, but stage 2 starts from it; run stage 1 first, or set network_weights to a LoRA of yours."
        )
    if not stages[0].settings.pretrained_model_name_or_path:
        yield UserError("pretrained_model_name_or_path: not set; name the base model's file or folder.")
    for key, name in dict.fromkeys(chain.from_iterable(stage.weight_files for stage in stages)):
        if not Path(name).exists() and not _is_in_hub_cache(name):
            yield UserError(
                f"{key} {name}: no such file or folder, and no model of that name in the hub's cache; "
                "correct the path, or download the model first: training fetches nothing."
            )
        for path in files_of(Path(name)):
            broken = _why_broken(path)
            if broken:
                yield UserError(f"{key} {path}: {broken}; download or save it again.")


def _why_broken(path: Path) -> str | None:
    """What is wrong with a file of weights, as far as its frame shows it: an interrupted download is the usual cause."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "numpy"):
                return None
        except (SafetensorError, OSError) as error:
            return f"is no whole .safetensors file ({str(error).splitlines()[0]})"
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
