"""Settings to the two stages: what each overrides, what it writes, and which weights it starts from."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lycoris_composite.architectures import Architecture, architecture_of
from lycoris_composite.composites.plan import CompositeOptions, Plan
from lycoris_composite.config.options import (
    PATHS,
    RESUME,
    SECRETS,
    WEIGHTS,
    KohyaSettings,
    check_counts,
    check_value,
    shapes_weights,
)
from lycoris_composite.config.prompts import given_prompts
from lycoris_composite.config.settings import DEFAULT_NAME, Settings, without_empty
from lycoris_composite.errors import UserError

STAGE_1 = "-stage1"  # ends the name of what stage 1 saves
_CARDS_OWN = (
    *("full_fp16", "full_bf16", "fp8_base", "fp8_base_unet", "fp8_scaled", "fp8_vl", "use_flash_attn", "use_sage_attn"),
    *("cpu_offload_checkpointing", "unsloth_offload_checkpointing", "blocks_to_swap", "split_mode"),
)
_ONLY_CUDA = {
    "xformers": "sdpa attention instead of xformers",
    "mem_eff_attn": "sdpa attention instead of mem_eff_attn",
    "lowram": "the weights in main memory instead of lowram",
    **{key: f"no {key}" for key in _CARDS_OWN},
}


@dataclass(frozen=True)
class Stage:
    """One run of the upstream trainer. `composite` is None for single images. The stage goes on with the network that the
    stage before it saves in `weights_from`, which has to exist by then. `prompts` are those that the config gives in place of
    a file. `overrides` is the table `[composite.stage2]`, which wins over a dataset_config too."""

    number: int
    trainer: str
    settings: KohyaSettings
    composite: CompositeOptions | None = None
    weights_from: Path | None = None
    prompts: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", KohyaSettings(self.settings))

    @property
    def name(self) -> str:
        return self.settings["output_name"]

    @property
    def output_dir(self) -> Path:
        return Path(self.settings["output_dir"])

    @property
    def output(self) -> Path:
        """The file that upstream saves at the end."""
        return self.output_dir / f"{self.name}.{self.settings.get('save_model_as') or 'safetensors'}"

    @property
    def caches_latents(self) -> bool:
        return _caches_latents(self.settings)

    @property
    def caches_captions(self) -> bool:
        """Whether text encoders' outputs are encoded ahead. Upstream takes one key for the other; SD has neither."""
        is_wanted = self.settings.cache_text_encoder_outputs or self.settings.cache_text_encoder_outputs_to_disk
        return bool(is_wanted) and self.architecture.caption_bytes is not None

    @property
    def architecture(self) -> Architecture:
        return architecture_of(self.trainer)

    def trained(self, plan: Plan) -> Plan:
        """The plan as the stage trains it: what is encoded ahead comes round again."""
        if self.caches_captions:
            return plan.cycling(with_captions=True)
        return plan.cycling() if plan.options.join == "pixel" and self.caches_latents else plan

    @property
    def config_file(self) -> Path:
        return self.output_dir / f"{self.name}.toml"

    @property
    def dataset_config_file(self) -> Path:
        return self.output_dir / f"{self.name}-dataset.toml"

    @property
    def shaping(self) -> dict[str, str]:
        """The settings that shape the weights, as text; paths are absolute, so that no other spelling is a change."""
        paths = {key: os.path.abspath(self.settings[key]) for key in PATHS if os.path.exists(self.settings.get(key) or "")}
        kept = {**self.settings, **paths, "composite": asdict(self.composite) if self.composite else None}
        kept = {key: value for key, value in sorted(kept.items()) if value is not None and shapes_weights(key)}
        return {key: json.dumps(value, ensure_ascii=False) for key, value in kept.items()}

    @property
    def weight_files(self) -> list[tuple[str, str]]:
        """Each option's name with a file or folder of weights that the stage reads, but for what the stage before it makes."""
        keys = dict.fromkeys((*WEIGHTS, *self.architecture.required, *self.architecture.optional))
        if self.weights_from is not None:
            del keys["network_weights"]
        values = [(key, self.settings.get(key) or []) for key in keys]
        return [(key, str(name)) for key, value in values for name in (value if isinstance(value, list) else [value])]

    @property
    def secrets(self) -> dict[str, Any]:
        """What has to reach upstream but must not be written anywhere."""
        return {key: self.settings[key] for key in SECRETS if self.settings.get(key)}


def stages_of(settings: Settings, first_to_run: int = 1) -> tuple[Stage, Stage]:
    """Both stages. Stage 2 repeats stage 1 but for `[composite.stage2]`, its weights and its output, and resume options,
    which belong to the stage that runs first. Where that is stage 2, and stage 1 has saved nothing, it is stage 2 that starts
    from the user's `network_weights`."""
    kohya = _checked(settings.kohya, settings.path)
    if kohya.get("seed") is None:
        # Upstream would draw one in every process, and composites have to agree between them and after a resume.
        lasting = sorted((item for item in kohya.items() if item[0] not in (*RESUME, *SECRETS)), key=str)
        kohya["seed"] = zlib.crc32(repr(lasting).encode())
    if settings.stage2.get("network_weights"):
        raise UserError(
            f"{settings.path}, [composite.stage2] network_weights: stage 2 starts from what stage 1 has saved; leave it out "
            "there, or set it for both: stage 1 starts from it, or stage 2 where --stage 2 runs it alone."
        )
    needed = {key: kohya[key] for key in ("output_dir", "output_name", "seed")}
    # An empty text takes a key away from stage 2.
    second = _checked({**needed, **without_empty({**kohya, **settings.stage2})}, settings.path)
    first = _stage(1, settings.trainer, {**kohya, "output_name": f"{kohya['output_name']}{STAGE_1}"})
    if first_to_run == 1:
        second = {key: value for key, value in second.items() if key not in RESUME}
    more = {"composite": settings.composite, "overrides": settings.stage2}
    if first_to_run == 1 or not kohya.get("network_weights") or first.output.is_file():
        second["network_weights"] = str(first.output)
        more["weights_from"] = first.output
    last = _stage(2, settings.trainer, second, **more)
    if last.output == first.output:
        raise UserError(f"{settings.path}, [composite.stage2] output_name: is that of stage 1's file; choose another.")
    return first, last


def _checked(settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The settings with an output name as text. Raises UserError where no file can have it, where there is no folder, and
    for what upstream asserts or divides by only later."""
    if not settings.get("output_dir"):
        raise UserError(f"{path}, output_dir: not set; name the folder for the trained files.")
    check_value(settings["output_dir"], str, f"{path}, output_dir")
    name = str(settings.get("output_name") or DEFAULT_NAME)
    if Path(name).name != name or not name.isprintable():
        raise UserError(f"{path}, output_name: {name!r} is no file name; put folders in output_dir.")
    check_counts(settings, str(path))
    for key in ("color_aug", "random_crop"):
        if settings.get(key) and _caches_latents(settings):
            raise UserError(f"{path}, {key}: draws anew each time, so no latents can be cached; turn it or cache_latents off.")
    return {**settings, "output_name": name}


def _stage(number: int, trainer: str, settings: dict[str, Any], **more: Any) -> Stage:
    """A stage whose `sample_prompts` is left out where it holds prompts and not a file's name."""
    prompts = tuple(given_prompts(settings.get("sample_prompts")))
    if prompts:
        settings = {key: value for key, value in settings.items() if key != "sample_prompts"}
    return Stage(number, trainer, settings, prompts=prompts, **more)


def _caches_latents(settings: Mapping[str, Any]) -> bool:
    """Upstream takes the one key for the other."""
    return bool(settings.get("cache_latents") or settings.get("cache_latents_to_disk"))


def without_cuda(settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Settings that run on a CPU, and a line for each that had to change."""
    changed, lines = dict(settings), []
    for key, line in _ONLY_CUDA.items():
        if changed.get(key):
            changed[key] = type(changed[key])()  # false, or no blocks
            if line.startswith("sdpa"):
                changed["sdpa"] = True
            lines.append(line)
    if (attention := changed.get("attn_mode") or "torch") not in ("torch", "sdpa"):
        lines.append(f"attn_mode torch instead of {attention}")
        changed["attn_mode"] = "torch"
    if changed.get("mixed_precision", "no") != "no":
        lines.append(f"float32 instead of mixed_precision {changed['mixed_precision']}")
        changed["mixed_precision"] = "no"
    optimizer = str(changed.get("optimizer_type") or "")
    if changed.get("use_8bit_adam") or optimizer.lower().endswith("8bit"):
        plain = re.sub("^paged|8bit$", "", optimizer, flags=re.IGNORECASE) or "AdamW"
        lines.append(f"optimizer {plain} instead of {optimizer or 'use_8bit_adam'}")
        changed.update({"optimizer_type": plain, "use_8bit_adam": False})
    return changed, lines
