"""Weights and states that are complete under their name, or not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

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
