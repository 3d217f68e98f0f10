"""What sd-scripts' optimizer and schedule make of a stage's settings, tried on a small network.

Nothing but the optimizer itself knows which arguments it takes, and some say it only at their first step: upstream asks
them after the model is loaded and all latents are encoded.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.stages import Stage
from lycoris_composite.errors import UserError
from lycoris_composite.trainers.machine import has_gpu, kept_quiet
from lycoris_composite.trainers.networks import key_value_errors, made_network, reason

_STEPS = 100  # of a schedule whose length nobody knows yet


def argument_errors(settings: KohyaSettings, where: str) -> Iterator[UserError]:
    """One for each of the optimizer's and the schedule's arguments that is no key=value."""
    for key, arguments in (("optimizer_args", settings.optimizer_args), ("lr_scheduler_args", settings.lr_scheduler_args)):
        if isinstance(arguments, list):
            yield from key_value_errors(arguments, f"{where}, {key}")


def optimizer_errors(args: argparse.Namespace, stage: Stage, where: str) -> Iterator[UserError]:
    """One for what upstream's checks of its arguments, its optimizer or its schedule refuse. `args` are a stage's, as
    upstream parses them; they stay as they are."""
    from library import train_util

    args = copy.deepcopy(args)
    args.max_train_steps = args.max_train_steps if args.max_train_epochs is None else _STEPS
    name = args.optimizer_type or "the optimizer"
    what, advice = "sd-scripts refuses these settings", "correct them"
    try:
        with kept_quiet(), torch.random.fork_rng(devices=[]):
            train_util.verify_training_args(args)
            groups = _groups(args, stage)
            what, advice = f"optimizer_type and optimizer_args: {name} cannot be made", "correct or remove what it names"
            *_, optimizer = train_util.get_optimizer(args, groups)
            what, advice = "lr_scheduler: the schedule cannot be made", "correct it, its arguments or lr_warmup_steps"
            schedule = train_util.get_scheduler_fix(args, optimizer, 1)
            what, advice = f"optimizer_type: {name} stops at its first step", "correct its arguments or the learning rates"
            _step(optimizer, schedule, groups)
    except (MemoryError, torch.OutOfMemoryError):
        return
    except ImportError as error:
        yield UserError(f"{where} {what} ({reason(error)}); install the package that it needs, or choose another.")
    except (Exception, SystemExit) as error:  # packages raise anything
        yield UserError(f"{where} {what} ({reason(error)}); {advice}.")


def _groups(args: argparse.Namespace, stage: Stage) -> list[dict[str, Any]]:
    """The small network's parameters in groups with their rates, as upstream asks the network for them. Those of one
    weight for each part where the network is another model's."""
    rates = args.text_encoder_lr, args.unet_lr, args.learning_rate
    try:
        network = made_network(stage).to(_device())
        several = getattr(network, "prepare_optimizer_params_with_multiple_te_lrs", None)
        prepared = several(*rates) if several else network.prepare_optimizer_params(_first(rates[0]), *rates[1:])
        groups = prepared[0] if isinstance(prepared, tuple) else prepared
    except Exception:  # which is said of the network
        groups = []
    if groups:
        return [{**group, "params": list(group["params"])} for group in groups]
    for_parts = [_first(rate) if rate is not None else args.learning_rate for rate in rates[:2]]
    return [{"params": [torch.nn.Parameter(torch.zeros(4, 4, device=_device()))], "lr": rate} for rate in for_parts if rate]


def _first(rate: float | Sequence[float] | None) -> float | None:
    return (rate[0] if rate else None) if isinstance(rate, (list, tuple)) else rate


def _device() -> str:
    """Where training will be: some optimizers only work on a GPU."""
    return "cuda" if torch.cuda.is_available() and has_gpu() else "cpu"


def _step(optimizer: Any, schedule: Any, groups: Sequence[Mapping[str, Any]]) -> None:
    if hasattr(optimizer, "train"):  # without a schedule it wants to know that training begins
        optimizer.train()
    for group in groups:
        for parameter in group["params"]:
            parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    schedule.step()
