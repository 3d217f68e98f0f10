"""Each model's checkpoint is known by its tensors, as upstream's own classes name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lycoris_composite.architectures import ARCHITECTURES
from lycoris_composite.preflight.weights import names_of, rows_with
from tests.architectures import configs
from tests.world import World


def test_a_checkpoint_is_known(world_of: Callable[[str], World], name: str) -> None:
    names = names_of(Path(world_of(name).config["pretrained_model_name_or_path"]))
    assert list(rows_with(names)) == [ARCHITECTURES[configs.ARCHITECTURES[name].trainer].name]
