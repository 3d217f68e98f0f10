"""What a saved LoRA's metadata says about the composites it was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lycoris_composite import __version__
from lycoris_composite.composites.plan import Plan


def composite_metadata(plans: Sequence[Plan]) -> dict[str, str]:
    """`ss_composite_*` entries: the plugin's version, and for each dataset its settings and characters as JSON."""
    return {
        "ss_composite_version": __version__,
        "ss_composite_settings": json.dumps([_settings(plan) for plan in plans], ensure_ascii=False),
        "ss_composite_characters": json.dumps([_characters(plan) for plan in plans], ensure_ascii=False),
    }


def _settings(plan: Plan) -> dict:
    return {
        **plan.options.__dict__,
        "seed": plan.seed,
        "resolution": plan.canvas.size,
        "sizes": plan.sizes,
        "composites_per_epoch": plan.composites,
    }


def _characters(plan: Plan) -> list[dict]:
    return [{"trigger": c.trigger, "images": len(c.images), "num_repeats": c.subset.repeats} for c in plan.characters]
