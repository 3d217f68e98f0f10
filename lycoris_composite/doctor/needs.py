"""What stage 2 encodes ahead, and the room that it takes on the disk or in main memory."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.filesize import decimal

from lycoris_composite.composites.plan import Plan
from lycoris_composite.config.stages import Stage
from lycoris_composite.data.buckets import Size
from lycoris_composite.doctor.findings import OK, WARNING, Finding
from lycoris_composite.run.files import existing_folder

_SAMPLED = 200  # composites, whose mean size is taken for that of all


def needs(stage: Stage, plans: Sequence[Plan]) -> Iterator[Finding]:
    """A row for latents and one for captions. Files of an earlier run may be there already."""
    settings, row = stage.settings, stage.architecture
    folder = existing_folder(Path(plans[0].characters[0].images[0].path))  # cache files stand beside the pictures
    places = {True: f"on the disk of {folder}", False: "in main memory"}
    room = {True: shutil.disk_usage(folder).free, False: _memory()}
    advice = {"latents": "cache none, or use fewer images", "captions": "lower cycle_epochs, or composites_per_image"}
    sizes = []
    if stage.caches_latents:
        sizes.append(("latents", sum(_latents(stage, plan) for plan in plans), settings.cache_latents_to_disk))
    if stage.caches_captions and row.caption_bytes:
        captions = sum(plan.composites * plan.options.cycle_epochs for plan in plans)
        sizes.append(("captions", captions * row.caption_bytes, settings.cache_text_encoder_outputs_to_disk))
    for what, size, is_on_disk in sizes:
        left = room[is_on_disk]
        room[is_on_disk] = max(0, left - size)
        meaning = f"more than the {decimal(left)} that there are for it; {advice[what]}" if size > left else ""
        yield Finding(f"stage 2's {what}", f"{decimal(size)} {places[is_on_disk]}", meaning, WARNING if meaning else OK)


def _latents(stage: Stage, plan: Plan) -> int:
    row = stage.architecture

    def bytes_of(size: Size) -> int:
        return 4 * row.latent_channels * math.prod(side // row.vae_factor for side in size)

    if plan.options.join == "latent":
        return sum(bytes_of(panel.size) * (1 + panel.character.subset.flip_aug) for panel in plan.panels_apart())
    sizes = [plan.composite(1, index).size for index in range(min(plan.composites, _SAMPLED))]
    return round(sum(map(bytes_of, sizes)) / len(sizes) * plan.composites * plan.options.cycle_epochs)


def _memory() -> float:
    """Bytes of this machine's main memory, without end where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        return math.inf
