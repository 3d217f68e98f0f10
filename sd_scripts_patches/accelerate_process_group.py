"""accelerate's PartialState.destroy_process_group, which does nothing between the stages of one run.

Why: upstream calls Accelerator.end_training, which destroys the process group, before its main process has saved. The
next stage then needs a new group, and one on the same launcher's store does not come up reliably; and no process can
wait any more for the file that the main process is writing.
Until: accelerate can make a second group, or upstream saves before it ends the training.
Fits: accelerate 1.6.0. Checked: the method; that the training's end comes to it.
"""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from sd_scripts_patches.tools import Undo, replace, require, require_call, require_parameters


def check() -> None:
    require(PartialState, "destroy_process_group")
    require(AcceleratorState, "destroy_process_group")
    require_call(Accelerator.end_training, "destroy_process_group")
    require_call(AcceleratorState.destroy_process_group, "destroy_process_group")
    require_parameters(PartialState.destroy_process_group, "self", "group")


def apply() -> Undo:
    def destroy_process_group(self: Any, group: Any = None) -> None:
        """The run's own end destroys it."""

    return replace(PartialState, "destroy_process_group", destroy_process_group)
