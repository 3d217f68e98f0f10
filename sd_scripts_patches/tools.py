"""What all patches share: finding what upstream's code will look up, replacing it there so that it can be taken back, and
saying why a patch does not fit."""

from __future__ import annotations

import dis
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import CodeType, ModuleType
from typing import Any

Undo = Callable[[], None]
_MARK = "_lycoris_composite_patched"


class Misfit(Exception):
    """Upstream is not what a patch relies on. The text names the symbol and what is different."""


def why_misfit(patch: str) -> str | None:
    """Why the patch of this name does not fit what is installed; None where it fits. Changes nothing."""
    try:
        importlib.import_module(f"sd_scripts_patches.{patch}").check()
    except (ImportError, Misfit) as error:
        return str(error)
    return None


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


def require_call(function: Callable, method: str) -> None:
    """Raises Misfit unless the function's code names the method."""
    if not any(method in code.co_names for code in _with_nested(inspect.unwrap(function).__code__)):
        raise Misfit(f"{function.__module__}.{function.__qualname__} no longer calls {method}")


def looked_up(caller: Callable, name: str) -> Any:
    """What `caller` finds under a name when it runs: as a global of its own module, or as an attribute of a module that is
    one (`dataset_util.collator_class`). Raises Misfit where it looks no such name up, or finds different things."""
    things = list(_lookups(inspect.unwrap(caller), name))
    if not things or any(thing is not things[0] for thing in things):
        how = "no longer looks up" if not things else "finds different things under"
        raise Misfit(f"{caller.__module__}.{caller.__qualname__} {how} {name}")
    return things[0]


def require_lookup(caller: Callable, name: str, thing: Any) -> None:
    """Raises Misfit unless `caller` finds this very thing under the name."""
    if looked_up(caller, name) is not thing:
        raise Misfit(f"{caller.__module__}.{caller.__qualname__} looks up another {name}")


def _lookups(function: Any, name: str) -> Iterator[Any]:
    for code in _with_nested(function.__code__):
        imported: dict[str, Any] = {}  # by the function itself, under local names
        module = thing = None  # the module imported from, and what the instruction before has put there
        for instruction in dis.get_instructions(code):
            kind, value = instruction.opname, instruction.argval
            if kind == "IMPORT_NAME":
                module = thing = sys.modules.get(value)
            elif kind == "IMPORT_FROM":
                thing = getattr(module, value, None)
            elif kind.startswith("STORE_FAST") and thing is not None:  # from Python 3.13 on it may load in the same breath
                imported[value[0] if isinstance(value, tuple) else value], thing = thing, None
            elif kind.startswith(("LOAD_GLOBAL", "LOAD_FAST")):
                value = value[-1] if isinstance(value, tuple) else value
                thing = (function.__globals__ if kind.startswith("LOAD_GLOBAL") else imported).get(value)
                if value == name and thing is not None:
                    yield thing
            elif kind in ("LOAD_ATTR", "LOAD_METHOD") and value == name and hasattr(thing, name):
                yield getattr(thing, name)
            elif kind not in ("PRECALL", "PUSH_NULL", "EXTENDED_ARG", "CACHE"):
                thing = None


def _with_nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_nested(constant)


def replace_everywhere(name: str, old: Any, new: Any) -> Undo:
    """Sets `new` wherever a loaded module has `old` under this name: where it is defined, and where `from … import` has
    copied it. The undo also reaches what was imported meanwhile, and so copied `new`."""
    undo = all_of(replace(module, name, new) for module in _holders(name, old))

    def undo_everywhere() -> None:
        undo()
        for module in _holders(name, new):
            setattr(module, name, old)

    return undo_everywhere


def _holders(name: str, thing: Any) -> list[ModuleType]:
    return [
        module for module in list(sys.modules.values()) if isinstance(module, ModuleType) and vars(module).get(name) is thing
    ]


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
    """A single undo for several. The last replacement is undone first."""
    stack = ExitStack()
    for undo in undos:
        stack.callback(undo)
    return stack.close


def _name(owner: Any) -> str:
    return getattr(owner, "__qualname__", None) or owner.__name__
