"""Weights and states that are complete under their name, or not there; and what a LoRA's metadata says of its composites."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lycoris_composite import __version__
from lycoris_composite.composites.plan import Plan
from lycoris_composite.run.files import whole


@contextmanager
def whole_weights(path: str | os.PathLike) -> Iterator[Path]:
    """`whole` for what torch and safetensors write: they have errors of their own for a full disk."""
    with whole(path) as part:
        try:
            yield part
        except (RuntimeError, SafetensorError) as error:
            raise OSError(str(error)) from error


def save_whole(save: Callable[..., None]) -> Callable[..., None]:
    """`save(path, ...)` made to write whole."""

    @wraps(save)
    def saving(path: str | os.PathLike, *args: Any, **named: Any) -> None:
        with whole_weights(path) as part:
            save(str(part), *args, **named)

    return saving


def composite_metadata(plans: Sequence[Plan]) -> dict[str, str]:
    """`ss_composite_*` entries: the plugin's version, and for each dataset its settings and characters as JSON."""
    return {
        "ss_composite_version": __version__,
        "ss_composite_settings": json.dumps([_settings(plan) for plan in plans], ensure_ascii=False),
        "ss_composite_characters": json.dumps([_characters(plan) for plan in plans], ensure_ascii=False),
    }


def _settings(plan: Plan) -> dict:
    of_plan = {"seed": plan.seed, "resolution": plan.canvas.size, "sizes": plan.sizes, "composites_per_epoch": plan.composites}
    return {**plan.options.__dict__, **of_plan}


def _characters(plan: Plan) -> list[dict]:
    return [{"trigger": c.trigger, "images": len(c.images), "num_repeats": c.subset.repeats} for c in plan.characters]
