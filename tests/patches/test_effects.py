"""Every patch has its effect on every version that the product says it fits, and without the patch there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lycoris_composite.trainers.kohya import checkout
from lycoris_composite.trainers.kohya.script import _patch_names
from tests.helpers import ROOT
from tests.trainers.kohya.conftest import VERSIONS
from tests.world import World

pytestmark = pytest.mark.trainer

# What a probe (effects.py) sees without its patch: nothing of the effect, or upstream's own error.
WITHOUT = {
    "strategies": "RuntimeError: Internal error. TextEncodingStrategy strategy is already set",
    "dreambooth_dataset": "MultipleInvalid: extra keys not allowed @ data['datasets'][0]['composite']",
    "dreambooth_subset": "MultipleInvalid: extra keys not allowed @ data['datasets'][0]['subsets'][0]['trigger']",
    "accelerate_frozen_model": "RuntimeError: DistributedDataParallel is not needed when a module doesn't have any parameter",
    "lycoris_timestep_embedding": "AssertionError: duplicated lora name: lora_unet_time_embedding_linear_1",
}


@pytest.fixture(scope="module")
def effects(world: World, version_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """What was seen of each patch on a version, with it and without it."""

    @cache
    def seen(ref: str) -> dict[str, tuple[Any, Any]]:
        script, folder = str(ROOT / "tests/patches/effects.py"), tmp_path_factory.mktemp("effects")
        run = world.command(folder, script, str(version_of(ref)), str(world.folder), is_real=True)
        assert run.code == 0
        lines = [json.loads(line.removeprefix("effect: ")) for line in run.output.splitlines() if line.startswith("effect: ")]
        return {name: (patched, plain) for name, patched, plain in lines}

    return seen


@pytest.mark.parametrize(
    "ref", [pytest.param(ref, marks=() if ref == checkout.DEFAULT_REF else pytest.mark.versions) for ref in VERSIONS]
)
@pytest.mark.parametrize("patch", _patch_names("lycoris.kohya"))
def test_a_patch_has_its_effect_and_its_absence_none(effects: Callable, patch: str, ref: str) -> None:
    patched, plain = effects(ref)[patch]
    assert patched is True
    if patch in WITHOUT:
        assert str(plain).startswith(WITHOUT[patch])
    else:
        assert plain is False
