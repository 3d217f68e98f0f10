"""accelerate's Accelerator.prepare_model, which leaves a model without trainable parameters unwrapped on several CPUs.

Why: upstream prepares the frozen U-Net and text encoder. On several GPUs accelerate skips them, on several CPU
processes it wraps them, which DistributedDataParallel refuses.
Until: accelerate asks the same question on CPUs.
Fits: accelerate 1.6.0. Checked: the method's parameters; that `prepare` comes to it.
"""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator, DistributedType

from sd_scripts_patches.tools import Undo, replace, require, require_call, require_parameters


def check() -> None:
    require(DistributedType, "MULTI_CPU")
    require(Accelerator, "prepare_model")
    require_call(Accelerator._prepare_one, "prepare_model")
    require_parameters(Accelerator.prepare_model, "model", "device_placement", "evaluation_mode")


def apply() -> Undo:
    original = Accelerator.prepare_model

    def prepare_model(self: Any, model: Any, device_placement: Any = None, evaluation_mode: bool = False) -> Any:
        frozen = not any(parameter.requires_grad for parameter in model.parameters())
        if frozen and self.distributed_type == DistributedType.MULTI_CPU:
            evaluation_mode = True
        return original(self, model, device_placement, evaluation_mode)

    return replace(Accelerator, "prepare_model", prepare_model)
