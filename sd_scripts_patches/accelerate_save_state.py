"""accelerate's Accelerator.save_state, which writes a state that is complete under its name, or not there.

Why: it writes file by file into the folder that a resume reads, so a kill in between leaves a torn state.
Until: accelerate writes states aside and renames them.
Fits: accelerate 1.6.0. Checked: the method's first parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from sd_scripts_patches.tools import Undo, replace, require, require_parameters


def check() -> None:
    require(Accelerator, "save_state")
    require_parameters(Accelerator.save_state, "output_dir")


def apply(whole: Callable[[str], AbstractContextManager[Path]], finish: Callable[[Path], None]) -> Undo:
    """`whole(folder)` yields the folder to write to; `finish` gets it when accelerate is done with it."""
    original = Accelerator.save_state

    def save_state(self: Any, output_dir: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if output_dir is None:
            return original(self, output_dir, *args, **kwargs)
        with whole(output_dir) as part:
            original(self, str(part), *args, **kwargs)
            finish(part)
        return output_dir

    return replace(Accelerator, "save_state", save_state)
