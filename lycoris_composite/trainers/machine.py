"""What this machine's torch and its companions can do. Asked of the packages themselves, imported only here and only
when asked: any of them may be missing, broken, or talkative."""

from __future__ import annotations

import importlib
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from lycoris_composite.architectures import ARCHITECTURES
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.errors import UserError, nearest, one_line

# Upstream's `get_optimizer`: those that it knows itself, in any spelling of capitals. Others it takes from torch.optim,
# or by a name with dots from any package.
_OPTIMIZERS = (
    *("AdamW", "AdamW8bit", "PagedAdamW", "PagedAdamW8bit", "PagedAdamW32bit", "Lion", "Lion8bit", "PagedLion8bit"),
    *("SGDNesterov", "SGDNesterov8bit", "AdEMAMix8bit", "PagedAdEMAMix8bit", "Adafactor", "Prodigy", "DAdaptation"),
    *("DAdaptAdamPreprint", "DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptAdanIP", "DAdaptLion", "DAdaptSGD"),
    *("RAdamScheduleFree", "AdamWScheduleFree", "SGDScheduleFree"),
)

_ATTENTIONS = {"xformers": "xformers.ops", "flash": "flash_attn"}  # kohya's name of a kernel -> the module it needs


@dataclass(frozen=True)
class Gpu:
    """A GPU, its free and whole memory in bytes."""

    name: str
    free: int
    total: int


@contextmanager
def kept_quiet() -> Iterator[None]:
    """What is printed, logged or warned meanwhile is lost."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def installed(package: str) -> str | None:
    """A package's version, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def why_not_importable(module: str) -> str | None:
    """Imports a module; the reason where that fails, in one line."""
    try:
        with kept_quiet():
            importlib.import_module(module)
    except (Exception, SystemExit) as error:  # libraries that are missing for a package raise anything
        return one_line(error)
    return None


def has_gpu() -> bool:
    """Whether training will find a GPU, as accelerate decides it. Other chips than CUDA's are left to accelerate."""
    import torch

    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return False
    others = getattr(torch, "accelerator", None)  # since torch 2.6
    return torch.cuda.is_available() or (others is not None and others.is_available())


def cuda_build() -> str:
    """What torch was built for."""
    import torch

    if torch.version.cuda:
        return f"built for CUDA {torch.version.cuda}"
    return f"built for ROCm {torch.version.hip}" if torch.version.hip else "built for the CPU"


def gpus() -> list[Gpu]:
    """The GPUs of CUDA (or ROCm)."""
    import torch

    numbers = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return [Gpu(torch.cuda.get_device_name(number), *torch.cuda.mem_get_info(number)) for number in numbers]


def machine_errors(settings: KohyaSettings, where: str) -> Iterator[UserError]:
    """One for each setting that this machine cannot train with. Upstream stops at these too, some minutes later."""
    yield from _network_errors(settings.network_module, where)
    yield from _log_errors(settings, where)
    yield from _schedule_errors(settings, where)
    yield from _attention_errors(settings, where)
    if settings.cpu_offload_checkpointing and settings.gradient_checkpointing and not has_gpu():
        yield UserError(
            f"{where} cpu_offload_checkpointing: needs CUDA, and torch finds none here; give --cpu, or take it out."
        )
    if settings.mixed_precision == "fp16" and not has_gpu():
        yield UserError(f'{where} mixed_precision: "fp16" needs a GPU, and torch finds none here; give --cpu, or set "no".')
    optimizer = str(settings.optimizer_type or "")
    needs_bitsandbytes = settings.use_8bit_adam or re.search("^paged|8bit$", optimizer, re.IGNORECASE)
    if needs_bitsandbytes and (reason := why_not_importable("bitsandbytes")):
        yield UserError(
            f"{where} optimizer_type: {optimizer or 'use_8bit_adam'} needs bitsandbytes, which cannot be imported "
            f"({reason}); install it, or choose AdamW."
        )


def _attention_errors(settings: KohyaSettings, where: str) -> Iterator[UserError]:
    """Of attention by another package than torch."""
    wanted = {
        "xformers": (settings.xformers and not settings.attn_mode and "xformers", "sdpa = true"),
        "attn_mode": (settings.attn_mode, 'attn_mode = "torch"'),
        "use_flash_attn": (settings.use_flash_attn and "flash", "use_flash_attn = false"),
    }
    for key, (name, instead) in wanted.items():
        if name not in _ATTENTIONS:
            continue
        if reason := why_not_importable(_ATTENTIONS[name]):
            yield UserError(f"{where} {key}: cannot be imported ({reason}); install it, or set {instead} in its place.")
        elif not has_gpu():
            yield UserError(f"{where} {key}: needs CUDA, and torch finds none here; give --cpu, or set {instead} instead.")


def check_clip() -> None:
    """Raises UserError for a transformers whose CLIP gives its layers other names than LoRA files do. Training would work,
    but no program would find the text encoder's part in the saved file. Upstream only stops where clip_skip is set."""
    import torch
    import transformers

    sizes = dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), 1)
    with torch.device("meta"):
        model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**sizes))
    if not hasattr(model, "text_model"):
        raise UserError(
            f"transformers {transformers.__version__}: its CLIP has no text_model, which is in the name of each of a LoRA's "
            'weights for the text encoder, so nobody would find them; run `pip install "transformers<5.6"`.'
        )


def _network_errors(module: str | None, where: str) -> Iterator[UserError]:
    reason = why_not_importable(str(module)) if module else "not set"
    if not reason:
        return
    known = {name for row in ARCHITECTURES.values() for name in row.networks}
    hint = "; update sd-scripts, or set lycoris.kohya." if module in known else nearest(str(module), known)
    yield UserError(
        f"{where} network_module: {module or 'none'} cannot be used ({reason}){hint or '; for LyCORIS set lycoris.kohya.'}"
    )


def _log_errors(settings: KohyaSettings, where: str) -> Iterator[UserError]:
    wanted = settings.log_with
    if wanted in ("tensorboard", "all") and not settings.logging_dir:
        yield UserError(f'{where} log_with: "{wanted}" needs a folder; set logging_dir, or leave log_with out.')
    if wanted in ("wandb", "all") and (reason := why_not_importable("wandb")):
        yield UserError(f'{where} log_with: "{wanted}" needs wandb, which cannot be imported ({reason}); install it.')


def _schedule_errors(settings: KohyaSettings, where: str) -> Iterator[UserError]:
    """Of names that torch and diffusers look up, and upstream only after all latents are encoded."""
    import torch
    from transformers import SchedulerType

    optimizer = str(settings.optimizer_type or "AdamW")
    known = (*_OPTIMIZERS, *(name for name, value in vars(torch.optim).items() if isinstance(value, type)))
    if "." not in optimizer and optimizer not in known and optimizer.lower() not in map(str.lower, _OPTIMIZERS):
        yield UserError(
            f"{where} optimizer_type: unknown optimizer {optimizer}{nearest(optimizer, known) or '; choose another.'}"
        )
    schedule = str(settings.lr_scheduler or "constant")
    names = (*(kind.value for kind in SchedulerType), "piecewise_constant", "adafactor")
    if not settings.lr_scheduler_type and schedule.partition(":")[0] not in names:
        yield UserError(f"{where} lr_scheduler: unknown schedule {schedule}{nearest(schedule, names) or '; choose another.'}")
