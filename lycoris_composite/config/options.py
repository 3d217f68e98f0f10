"""kohya's keys: the one table of those that the plugin reads. sd-scripts has more, and knows them itself.

The options of `[composite]` are CompositeOptions (composites/plan.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lycoris_composite.architectures import PARTS
from lycoris_composite.data.tags import CaptionRules
from lycoris_composite.errors import UserError

_YES, _OFF = "yes", "off"
LONGEST_SIDE = 65_536  # pixels; no picture is larger, and lists of buckets grow with it


@dataclass(frozen=True)
class Key:
    """What a key holds: values of `kind`, or also a list of them where it `is_list`, with upstream's `default`. The embedded
    trainer has it (`yes`), has it only switched off (`off`), or does not have it ("")."""

    kind: type
    default: Any = None
    embedded: str = ""
    is_list: bool = False


KEYS: dict[str, Key] = {
    # data
    **{
        rule.name: Key(str if rule.default is None else type(rule.default), rule.default, _YES) for rule in fields(CaptionRules)
    },
    "token_warmup_min": Key(int, 1, _YES),
    "token_warmup_step": Key(float, 0, _YES),
    **dict.fromkeys(("train_data_dir", "dataset_config"), Key(str, embedded=_YES)),
    **dict.fromkeys(("reg_data_dir", "in_json", "class_tokens", "trigger"), Key(str)),
    "caption_extension": Key(str, ".caption", _YES),
    **dict.fromkeys(("resolution", "skip_image_resolution"), Key(object, embedded=_YES)),  # text, a number, or a list of two
    "train_batch_size": Key(int, 1, _YES),
    "dataset_repeats": Key(int, 1, _YES),
    "batch_size": Key(int, 1),
    "num_repeats": Key(int, 1),
    "enable_bucket": Key(bool, False, _YES),
    "bucket_reso_steps": Key(int, 64, _YES),
    "min_bucket_reso": Key(int, 256, _YES),
    "max_bucket_reso": Key(int, 1024, _YES),
    "bucket_no_upscale": Key(bool, False, _YES),
    "flip_aug": Key(bool, False, _YES),
    "is_reg": Key(bool, False),
    **dict.fromkeys(("color_aug", "random_crop"), Key(bool, False, _OFF)),
    "validation_split": Key(float, 0.0),
    "validation_seed": Key(int),
    # the model, and what is encoded ahead
    **dict.fromkeys(("pretrained_model_name_or_path", "tokenizer_cache_dir"), Key(str, embedded=_YES)),
    "vae": Key(str),
    "base_weights": Key(str, is_list=True),
    **dict.fromkeys(("v2", "v_parameterization", "lowram"), Key(bool, False, _OFF)),
    "clip_skip": Key(int, embedded=_YES),
    "max_token_length": Key(int, embedded=_YES),
    "cache_latents": Key(bool, False, _YES),
    "cache_latents_to_disk": Key(bool, False, _OFF),
    **dict.fromkeys(("cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk"), Key(bool, False)),
    # other models than SD 1.x: their files, what their text encoders read, how they fit a card
    **dict.fromkeys(("ae", "clip_l", "clip_g", "t5xxl", "qwen3", "llm_adapter_path", "gemma2"), Key(str)),
    **dict.fromkeys(("text_encoder", "byt5", "t5_tokenizer_path", "system_prompt", "attn_mode"), Key(str)),
    "model_type": Key(str, "flux"),
    **dict.fromkeys(("t5xxl_max_token_length", "gemma2_max_token_length"), Key(int)),
    **dict.fromkeys(("qwen3_max_token_length", "t5_max_token_length"), Key(int, 512)),
    "apply_t5_attn_mask": Key(bool, False),
    "blocks_to_swap": Key(int),
    **dict.fromkeys(("fp8_scaled", "fp8_vl", "use_flash_attn", "use_sage_attn"), Key(bool, False)),
    **dict.fromkeys(("cpu_offload_checkpointing", "unsloth_offload_checkpointing"), Key(bool, False)),
    # the network
    **dict.fromkeys(("network_module", "network_weights"), Key(str, embedded=_YES)),
    "network_dim": Key(int, embedded=_YES),
    "network_alpha": Key(float, 1, _YES),
    "network_args": Key(str, (), _YES, is_list=True),
    "network_dropout": Key(float, embedded=_OFF),
    "dim_from_weights": Key(bool, False),
    **dict.fromkeys(("network_train_unet_only", "network_train_text_encoder_only"), Key(bool, False, _YES)),
    # training
    "learning_rate": Key(float, 2e-6, _YES),
    "unet_lr": Key(float, embedded=_YES),
    "text_encoder_lr": Key(float, embedded=_YES, is_list=True),
    "optimizer_type": Key(str, "", _YES),
    "use_8bit_adam": Key(bool, False),
    **dict.fromkeys(("optimizer_args", "lr_scheduler_args"), Key(str, (), is_list=True)),
    "lr_scheduler": Key(str, "constant", _YES),
    "lr_scheduler_type": Key(str, ""),
    "lr_warmup_steps": Key(float, 0, _YES),
    "max_grad_norm": Key(float, 1.0, _YES),
    **dict.fromkeys(("min_snr_gamma", "v_pred_like_loss"), Key(float, embedded=_YES)),
    "loss_type": Key(str, "l2"),
    "max_train_epochs": Key(int, embedded=_YES),
    "max_train_steps": Key(int, 1600, _YES),
    "gradient_accumulation_steps": Key(int, 1, _YES),
    "gradient_checkpointing": Key(bool, False, _OFF),
    "train_inpainting": Key(bool, False),
    "seed": Key(int, embedded=_YES),
    # the machine
    "max_data_loader_n_workers": Key(int, 8, _YES),
    "persistent_data_loader_workers": Key(bool, False, _YES),
    "mixed_precision": Key(str, "no", _YES),
    **dict.fromkeys(("full_fp16", "full_bf16"), Key(bool, False, _OFF)),
    **dict.fromkeys(("fp8_base", "fp8_base_unet", "deepspeed", "torch_compile"), Key(bool, False)),
    "sdpa": Key(bool, False, _YES),
    **dict.fromkeys(("xformers", "mem_eff_attn"), Key(bool, False, _OFF)),
    # what it saves, samples and logs
    **dict.fromkeys(("output_dir", "output_name"), Key(str, embedded=_YES)),
    "save_model_as": Key(str, "safetensors", _YES),
    "save_precision": Key(str, embedded=_YES),
    **dict.fromkeys(("save_every_n_epochs", "save_every_n_steps"), Key(int, embedded=_YES)),
    "save_n_epoch_ratio": Key(int),
    **dict.fromkeys(("save_state", "save_state_on_train_end"), Key(bool, False, _YES)),
    "resume": Key(str),
    "resume_from_huggingface": Key(bool, False),
    **dict.fromkeys(("initial_epoch", "initial_step"), Key(int)),
    "skip_until_initial_step": Key(bool, False),
    "sample_prompts": Key(object, embedded=_YES),  # a file, or prompts themselves
    "sample_sampler": Key(str, "ddim", _YES),
    **dict.fromkeys(("sample_every_n_epochs", "sample_every_n_steps"), Key(int, embedded=_YES)),
    "sample_at_first": Key(bool, False, _YES),
    **dict.fromkeys(("log_with", "logging_dir", "log_prefix"), Key(str)),
    **dict.fromkeys(("wandb_api_key", "huggingface_token"), Key(str)),
    **dict.fromkeys(("debug_dataset", "no_metadata"), Key(bool, False, _OFF)),
    "show_timesteps": Key(str),
    "config_file": Key(str),
}
SECRETS = ("wandb_api_key", "huggingface_token")  # shown and written nowhere
# Resume options. They belong to the first stage that runs.
RESUME = ("resume", "resume_from_huggingface", "initial_epoch", "initial_step", "skip_until_initial_step")
LENGTH = ("max_train_epochs", "max_train_steps")  # of a stage's training; the first one wins
WEIGHTS = ("pretrained_model_name_or_path", "vae", "base_weights", "network_weights")  # files that every trainer loads
PATHS = (
    *("pretrained_model_name_or_path", *PARTS, "llm_adapter_path", "t5_tokenizer_path"),
    *("train_data_dir", "reg_data_dir", "dataset_config"),
)
FLAG_NAMES = {"batch_size": "train_batch_size", "num_repeats": "dataset_repeats"}  # a dataset_config's name: the flag's
_COUNTS = (
    *("max_train_epochs", "max_train_steps", "gradient_accumulation_steps", "network_dim"),
    *("save_every_n_epochs", "save_every_n_steps"),
)
# Families of keys, because upstream adds to them.
_WITHOUT_EFFECT = re.compile(
    "(sample|log|logging|wandb|console_log|huggingface|metadata|save_every|save_last|save_n_epoch|save_state)_.*"
    "|save_state|logging_dir|async_upload|training_comment|max_data_loader_n_workers|persistent_data_loader_workers"
    "|output_dir|output_name|network_weights|tokenizer_cache_dir"
)
_KIND_NAMES = {str: "text", float: "number", int: "whole number", bool: "true or false"}


class KohyaSettings(dict[str, Any]):
    """kohya's settings by key, and by attribute with upstream's default: the way to read one outside this folder.

    >>> KohyaSettings(seed=42).seed, KohyaSettings().max_train_steps
    (42, 1600)
    """

    def __getattr__(self, name: str) -> Any:
        if name not in KEYS:
            raise AttributeError(f"{name}: not in the table of kohya's keys")
        value = self.get(name)
        return KEYS[name].default if value is None else value


def shapes_weights(key: str) -> bool:
    """Whether another value makes other weights, so that an interrupted run cannot go on with it."""
    return key not in (*SECRETS, *RESUME) and not _WITHOUT_EFFECT.fullmatch(key)


def check_kind(key: str, value: Any, where: str) -> None:
    """Raises UserError where a key's value is of another kind than the table says; a key that it lacks holds anything."""
    if key in KEYS and KEYS[key].kind is not object:
        check_value(value, KEYS[key].kind, f"{where} {key}", KEYS[key].is_list)


def check_kinds(settings: Mapping[str, Any], where: str) -> None:
    """Raises UserError for the first value of another kind. A trainer checks all of its keys; a preview has none."""
    for key, value in settings.items():
        if value is not None:
            check_kind(key, value, where)


def check_counts(settings: Mapping[str, Any], where: str) -> None:
    """Raises UserError for a number below 1 that upstream divides by."""
    for key in _COUNTS:
        value = settings.get(key)
        if isinstance(value, int) and value < 1:
            raise UserError(f"{where}, {key}: {value} is out of range; give 1 or more, or leave it out.")


def check_value(value: Any, wanted: type, where: str, is_list: bool = False) -> None:
    """Raises UserError for a value of another type: TOML lets anybody write a number in quotes, and upstream stops at
    that only when it computes with it. A whole number is a number too; a list of numbers may be one number."""
    if is_list and isinstance(value, list):
        for element in value:
            check_value(element, wanted, where)
        return
    allowed = (int, float) if wanted is float else wanted
    is_right = isinstance(value, allowed) and (wanted is bool or not isinstance(value, bool))
    if not is_right or (is_list and wanted is str):
        kind = f"list of {_KIND_NAMES[wanted]}s" if is_list else _KIND_NAMES[wanted]
        shown = "its value" if where.endswith(SECRETS) else repr(value)
        raise UserError(f"{where}: {shown} is {'not' if wanted is bool else 'no'} {kind}; write one.")


def parse_resolution(value: Any, key: str = "resolution") -> tuple[int, int]:
    """Kohya's `resolution`: "768,512", "768", 768 or [768, 512] -> (width, height)."""
    if value is None:
        raise UserError('resolution: not set; give the training size, e.g. resolution = "640,640".')
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    try:
        sizes = [int(part) for part in parts]
    except (TypeError, ValueError, OverflowError):
        sizes = []
    if len(sizes) not in (1, 2) or not 1 <= min(sizes) <= max(sizes) <= LONGEST_SIDE:
        raise UserError(f'{key}: {value!r} is no size; write "width,height" in pixels.')
    return sizes[0], sizes[-1]
