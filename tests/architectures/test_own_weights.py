"""Stage 2 from a LoRA that upstream alone has trained: on SD 1.x, and on a model with two text encoders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import toml
from safetensors.torch import load_file

from lycoris_composite.run.journal import digest
from tests.world import COMPOSITE, World

# In the first step of its warm-up stage 2 learns nothing, and saves what it began with.
STAGE2 = {**COMPOSITE["stage2"], "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 10, "save_every_n_steps": 1}
SETTINGS: dict[str, Any] = {
    "network_module": "networks.lora",
    "network_args": None,
    "max_train_steps": 2,
    "sample_prompts": None,
}


@pytest.fixture(params=["train_network", "sdxl_train_network"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[World, Path]:
    """A world, and a LoRA that its trainer has made without the plugin."""
    is_sd = request.param == "train_network"
    world = request.getfixturevalue("world") if is_sd else request.getfixturevalue("world_of")("sdxl")
    settings = {**world.config, **SETTINGS, "output_dir": str(tmp_path), "output_name": "mine", "max_train_steps": 1}
    config = tmp_path / "plain.toml"
    config.write_text(toml.dumps({"settings": {key: value for key, value in settings.items() if value is not None}}))
    assert world.command(tmp_path, str(world.sd_scripts / f"{request.param}.py"), "--config_file", str(config)).code == 0
    return world, tmp_path / "mine.safetensors"


def test_stage_2_starts_from_it_and_the_journal_knows_it(own: tuple[World, Path], tmp_path: Path) -> None:
    world, weights = own
    changes = {**SETTINGS, "network_weights": str(weights), "composite": {"stage2": STAGE2}}

    run = world.train(tmp_path, "--stage", "2", **changes)

    assert run.code == 0
    assert f"stage 2: starts from {weights}" in run.output
    assert not (tmp_path / "out/cg3-stage1.safetensors").exists()
    start = load_file(weights)
    first, last = load_file(tmp_path / "out/cg3-step00000001.safetensors"), load_file(tmp_path / "out/cg3.safetensors")
    assert start.keys() == first.keys()
    assert all(start[key].equal(first[key]) for key in start), "stage 2 began elsewhere"
    assert not all(start[key].equal(last[key]) for key in start), "stage 2 trained nothing"
    record = json.loads((tmp_path / "out/cg3.run.json").read_text())["stages"]["2"]
    assert record["inputs"][str(weights)] == digest(weights)

    shutil.copy(tmp_path / "out/cg3.safetensors", weights)
    changed = world.train(tmp_path, "--stage", "2", **changes)
    assert changed.code == 2
    assert f"{weights}: changed" in changed.output
