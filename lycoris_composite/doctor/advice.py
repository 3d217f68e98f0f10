"""Settings that are allowed and known to hurt, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lycoris_composite.composites.plan import Plan
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.settings import Settings
from lycoris_composite.config.stages import Stage
from lycoris_composite.doctor.findings import WARNING, Finding
from lycoris_composite.look.statistics import unbalanced, untaught

_SMALL_PICTURE = 256 * 256  # pixels; up to there attention's matrices are smaller than all else
_ATTENTIONS = ("sdpa", "xformers", "mem_eff_attn")


def advice(settings: Settings, stages: Sequence[Stage], plans: Sequence[Plan]) -> list[Finding]:
    """What is better set otherwise. `settings` are the config's own, `stages` and `plans` what follows from them."""
    kohya = stages[-1].settings
    return [
        *_about_trigger_words(plans),
        *_about_states(kohya),
        *_about_latents(stages),
        *_about_attention(settings.trainer, kohya, plans),
        *_about_validation(kohya),
        *_about_balance(plans),
        *_about_seed(settings),
    ]


def _hint(subject: str, found: str, meaning: str) -> Finding:
    return Finding(subject, found, meaning, WARNING)


def _about_trigger_words(plans: Sequence[Plan]) -> Iterator[Finding]:
    for character in (character for plan in plans for character in untaught(plan)):
        yield _hint(
            "trigger word",
            f"{character.trigger}, {character.how}",
            f"stage 1 does not teach it, composites alone do; write it into the captions of {character.subset.folder}.",
        )
    wandering = [
        character
        for plan in plans
        for character in plan.characters
        for rules in [character.subset.rules]
        if rules.shuffle_caption and rules.keep_tokens < 1 and not rules.keep_tokens_separator
    ]
    if wandering:
        yield _hint(
            "shuffle_caption",
            "true, without keep_tokens",
            f'stage 1 puts the trigger word ("{wandering[0].trigger}", …) anywhere among the tags, or shows it not at all '
            "where only the folder's name says it; set keep_tokens = 1.",
        )


def _about_states(kohya: KohyaSettings) -> Iterator[Finding]:
    is_saved = kohya.save_every_n_steps or kohya.save_every_n_epochs or kohya.save_n_epoch_ratio
    if not (kohya.save_state and is_saved):
        yield _hint(
            "save_state",
            "off" if not kohya.save_state else "at the end alone",
            "a stage that is killed or loses power starts over; set save_state = true with save_every_n_steps "
            "or save_every_n_epochs.",
        )


def _about_latents(stages: Sequence[Stage]) -> Iterator[Finding]:
    uncached = [str(stage.number) for stage in stages if not stage.caches_latents]
    if uncached:
        yield _hint(
            "cache_latents",
            f"off in stage {' and '.join(uncached)}",
            "the VAE encodes every picture of every batch anew; set cache_latents = true, unless a crop or colour "
            "augmentation needs the pixels.",
        )


def _about_attention(trainer: str, kohya: KohyaSettings, plans: Sequence[Plan]) -> Iterator[Finding]:
    is_whole = trainer in ("train_network", "sdxl_train_network") and not any(kohya.get(name) for name in _ATTENTIONS)
    if is_whole and max((math.prod(size) for plan in plans for size in plan.sizes), default=0) > _SMALL_PICTURE:
        yield _hint(
            "sdpa",
            "off, as xformers and mem_eff_attn",
            "attention is held as a whole matrix, which grows with the square of a picture's area; set sdpa = true.",
        )


def _about_validation(kohya: KohyaSettings) -> Iterator[Finding]:
    if kohya.validation_split and kohya.validation_seed is None:
        yield _hint(
            "validation_split",
            "without validation_seed",
            "sd-scripts draws what it trains on and what it holds out one after the other, so that they overlap; "
            "set validation_seed.",
        )


def _about_balance(plans: Sequence[Plan]) -> Iterator[Finding]:
    for few, most in (pair for plan in plans for pair in unbalanced(plan)):
        yield _hint(
            "characters",
            f"{few.trigger}: {len(few.images)} images, {most.trigger}: {len(most.images)}",
            f"how often a character comes in composites does not depend on its images, so {few.trigger}'s are seen "
            f"far more often each and learnt by heart; add images, or train with fewer of {most.trigger}'s.",
        )


def _about_seed(settings: Settings) -> Iterator[Finding]:
    if settings.kohya.seed is None:
        yield _hint(
            "seed",
            "not set",
            "it is made from the settings, so that any change of one draws other composites; set a seed to compare runs.",
        )
