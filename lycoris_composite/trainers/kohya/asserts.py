"""Asks upstream's own script, before anything is read, what it would refuse once its data or its model is loaded."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace

from lycoris_composite.config.datasets import datasets_of
from lycoris_composite.config.prompts import SAMPLING
from lycoris_composite.config.stages import Stage
from lycoris_composite.errors import UserError
from lycoris_composite.trainers.machine import kept_quiet
from lycoris_composite.trainers.networks import network_args, reason

# Caption options that draw anew each time, by upstream's `is_text_encoder_output_cacheable`. One trainer can drop whole
# captions all the same.
_DRAWN = ("shuffle_caption", "token_warmup_step", "caption_tag_dropout_rate", "caption_dropout_rate")


def assert_errors(
    script: type, args: argparse.Namespace, switches: Sequence[str], stage: Stage, where: str
) -> Iterator[UserError]:
    """One for what the script's trainer class refuses of a stage's settings, and for what would stop it later. `args` are
    the stage's, as upstream has them, and `switches` those that can be turned on or off."""
    yield from _sampling_errors(stage, where)
    error = _refusal(script, args, stage, where)
    if error is None or isinstance(error, UserError):
        yield from filter(None, [error])
        return
    switched = {key: argparse.Namespace(**{**vars(args), key: not getattr(args, key)}) for key in switches}
    mending = [key for key, others in switched.items() if _refusal(script, others, stage, where) is None]
    advice = " or ".join(f"{key} = {json.dumps(not getattr(args, key))}" for key in mending)
    yield UserError(
        f"{where}: sd-scripts refuses these settings ({reason(error)}); {f'set {advice}' if advice else 'correct them'}."
    )


def _refusal(script: type, args: argparse.Namespace, stage: Stage, where: str) -> Exception | None:
    """What upstream raises for these arguments, or a UserError for its data; None where it takes them."""
    args = copy.copy(args)
    data = SimpleNamespace(
        verify_bucket_reso_steps=lambda steps: None,  # which is said of each dataset
        is_text_encoder_output_cacheable=partial(_check_captions, stage, where),
        get_resolutions=list,
    )
    trains_t5 = str(network_args(stage.settings).get("train_t5xxl")).lower() == "true"
    trainer = script()
    try:
        with kept_quiet():
            trainer.assert_extra_args(args, data, None)
            trainer.post_process_network(args, None, SimpleNamespace(train_t5xxl=trains_t5), None, None)
        _check_others(args)
    except (AssertionError, ValueError, UserError) as error:
        return error
    except Exception:  # of a script that asks its data for something else
        return None
    return None


def _check_captions(stage: Stage, where: str, cache_supports_dropout: bool = False) -> bool:
    """Raises UserError for captions that stage 1 draws anew each time, and cannot encode ahead. Stage 2 encodes the draws."""
    drawn = _DRAWN[: -1 if cache_supports_dropout else None]
    for dataset in datasets_of(stage) if stage.composite is None else ():
        for subset in (*dataset.subsets, *dataset.regularization):
            for key in (key for key in drawn if getattr(subset.rules, key)):
                raise UserError(
                    f"{where} {key}: stage 1 encodes each caption of {subset.folder} once, as cache_text_encoder_outputs is "
                    f"set; take {key} out of stage 1, or set cache_text_encoder_outputs in [composite.stage2] alone."
                )
    return True


def _check_others(args: argparse.Namespace) -> None:
    """Raises ValueError for what `NetworkTrainer.train` itself asserts, and for attention that upstream's help forbids.
    The arguments are as `assert_extra_args` has left them."""
    precision = args.mixed_precision or "no"
    for key, needed in (("full_fp16", "fp16"), ("full_bf16", "bf16")):
        if getattr(args, key) and precision != needed:
            raise ValueError(f'{key} needs mixed_precision = "{needed}", and it is "{precision}"')
    if (args.fp8_base or args.fp8_base_unet) and precision == "no":
        raise ValueError('fp8_base needs mixed_precision = "fp16" or "bf16", and it is "no"')
    attention = getattr(args, "attn_mode", None)
    if attention == "sageattn" or getattr(args, "use_sage_attn", False):
        raise ValueError("SageAttention passes no gradients back, so the layers before it would learn nothing")
    if attention == "xformers" and not args.split_attn:
        raise ValueError('attn_mode = "xformers" needs split_attn')


def _sampling_errors(stage: Stage, where: str) -> Iterator[UserError]:
    settings = stage.settings
    wanted = [key for key in SAMPLING if settings.get(key)]
    is_encoding = not settings.network_train_unet_only and not stage.caches_captions
    if wanted and is_encoding and not stage.architecture.samples_in_training:
        yield UserError(
            f"{where} {wanted[0]}: sd-scripts cannot sample while the text encoder of {stage.architecture.name} is trained (it "
            f"stops at the first sample); set network_train_unet_only = true, or take {' and '.join(wanted)} out."
        )
