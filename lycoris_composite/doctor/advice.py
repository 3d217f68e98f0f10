"""Settings that are allowed and known to hurt, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lycoris_composite.architectures import BUILTIN
from lycoris_composite.composites.plan import Plan
from lycoris_composite.config.settings import Settings
from lycoris_composite.config.stages import Stage
from lycoris_composite.doctor.findings import WARNING, Finding
from lycoris_composite.look.statistics import unbalanced, untaught

_SMALL_PICTURE = 256 * 256  # pixels; up to there attention's matrices are smaller than all else
_ATTENTIONS = ("sdpa", "xformers", "mem_eff_attn")

Hint = tuple[str, str, str]  # what it is about, what is there, what that means


def advice(settings: Settings, stages: Sequence[Stage], plans: Sequence[Plan]) -> list[Finding]:
    """What is better set otherwise. `settings` are the config's own, `stages` and `plans` what follows from them."""
    return [Finding(*hint, WARNING) for hint in (*_on_characters(plans), *_on_settings(settings, stages, plans))]


def _on_characters(plans: Sequence[Plan]) -> Iterator[Hint]:
    for character in (character for plan in plans for character in untaught(plan)):
        yield (
            "trigger word",
            f"{character.trigger}, {character.how}",
            f"stage 1 does not teach it, composites alone do; write it into the captions of {character.subset.folder}.",
        )
    for character in (character for plan in plans for character in plan.characters):
        rules = character.subset.rules
        if rules.shuffle_caption and rules.keep_tokens < 1 and not rules.keep_tokens_separator:
            yield (
                "shuffle_caption",
                "true, without keep_tokens",
                f'stage 1 puts the trigger word ("{character.trigger}", …) anywhere among the tags, or shows it not at all '
                "where only the folder's name says it; set keep_tokens = 1.",
            )
            break  # one is enough to say it
    for few, most in (pair for plan in plans for pair in unbalanced(plan)):
        yield (
            "characters",
            f"{few.trigger}: {len(few.images)} images, {most.trigger}: {len(most.images)}",
            f"how often a character comes in composites does not depend on its images, so {few.trigger}'s are seen "
            f"far more often each and learnt by heart; add images, or train with fewer of {most.trigger}'s.",
        )


def _on_settings(settings: Settings, stages: Sequence[Stage], plans: Sequence[Plan]) -> Iterator[Hint]:
    kohya = stages[-1].settings
    if not (kohya.save_state and (kohya.save_every_n_steps or kohya.save_every_n_epochs or kohya.save_n_epoch_ratio)):
        yield (
            "save_state",
            "off" if not kohya.save_state else "at the end alone",
            "a stage that is killed or loses power starts over; set save_state = true with save_every_n_steps "
            "or save_every_n_epochs.",
        )
    if uncached := [str(stage.number) for stage in stages if not stage.caches_latents]:
        yield (
            "cache_latents",
            f"off in stage {' and '.join(uncached)}",
            "the VAE encodes every picture of every batch anew; set cache_latents = true, unless a crop or colour "
            "augmentation needs the pixels.",
        )
    is_whole = stages[-1].architecture.has_unet and settings.trainer != BUILTIN and not any(map(kohya.get, _ATTENTIONS))
    if is_whole and any(math.prod(size) > _SMALL_PICTURE for plan in plans for size in plan.sizes):
        yield (
            "sdpa",
            "off, as xformers and mem_eff_attn",
            "attention is held as a whole matrix, which grows with the square of a picture's area; set sdpa = true.",
        )
    if kohya.validation_split and kohya.validation_seed is None:
        yield (
            "validation_split",
            "without validation_seed",
            "sd-scripts draws what it trains on and what it holds out one after the other, so that they overlap; "
            "set validation_seed.",
        )
    if settings.kohya.seed is None:
        yield (
            "seed",
            "not set",
            "it is made from the settings, so that any change of one draws other composites; set a seed to compare runs.",
        )
