"""What all patches share: replacing an attribute so that it can be taken back, and saying why one does not fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

Undo = Callable[[], None]
_MARK = "_lycoris_composite_patched"


class Misfit(Exception):
    """Upstream is not what a patch relies on. The text names the symbol and what is different."""


def require(owner: Any, *names: str) -> None:
    """Raises Misfit unless the module or class has all these attributes."""
    for name in names:
        if not hasattr(owner, name):
            raise Misfit(f"{_name(owner)} has no {name}")


def require_parameters(function: Callable, *names: str) -> None:
    """Raises Misfit unless the function takes parameters of these names, in whatever order."""
    known = inspect.signature(function).parameters
    for name in names:
        if name not in known:
            raise Misfit(f"{function.__module__}.{function.__qualname__} no longer takes {name}")


def replace(owner: Any, name: str, new: Any) -> Undo:
    """Sets `owner.name` and returns what sets it back. A second replacement before the undo is an error."""
    marks: set[str] = owner.__dict__.get(_MARK, set())
    if name in marks:
        raise RuntimeError(f"{_name(owner)}.{name} is patched already")
    inherited = name not in owner.__dict__
    old = getattr(owner, name) if inherited else owner.__dict__[name]
    setattr(owner, _MARK, marks | {name})
    setattr(owner, name, new)

    def undo() -> None:
        delattr(owner, name) if inherited else setattr(owner, name, old)
        setattr(owner, _MARK, owner.__dict__[_MARK] - {name})

    return undo


def all_of(undos: Iterable[Undo]) -> Undo:
    """One undo for several, last one first."""
    undos = list(undos)

    def undo() -> None:
        for one in reversed(undos):
            one()

    return undo


def _name(owner: Any) -> str:
    return getattr(owner, "__qualname__", None) or owner.__name__
