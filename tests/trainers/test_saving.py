"""What a saved LoRA says about its composites."""

from __future__ import annotations

import json

from lycoris_composite import __version__
from lycoris_composite.composites.plan import CompositeOptions
from lycoris_composite.trainers.saving import composite_metadata
from tests.helpers import character, plan


def test_a_file_says_how_its_composites_were_made():
    options = CompositeOptions('{left} "&" {right}', 2.0, "pixel")
    cast = [character("mio", repeats=5), character("りん", ((96, 96),) * 2)]
    metadata = composite_metadata([plan(cast, options=options, seed=7), plan()])
    assert all(isinstance(value, str) for value in metadata.values())  # all that safetensors takes
    assert metadata["ss_composite_version"] == __version__
    settings, default = json.loads(metadata["ss_composite_settings"])
    assert settings == {
        "caption": '{left} "&" {right}',
        "composites_per_image": 2.0,
        "join": "pixel",
        "aspect": "natural",
        "cycle_epochs": 2,
        "seed": 7,
        "resolution": [512, 512],
        "sizes": [[640, 320]],
        "composites_per_epoch": 34,
    }
    assert default["caption"] == CompositeOptions().caption
    characters, _ = json.loads(metadata["ss_composite_characters"])
    assert characters == [
        {"trigger": "mio", "images": 3, "num_repeats": 5},
        {"trigger": "りん", "images": 2, "num_repeats": 1},
    ]
    assert "りん" in metadata["ss_composite_characters"]
