"""Every architecture that kohya trains, from the command line through both stages, on a tiny random model."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lycoris_composite import __version__
from tests.architectures.configs import ARCHITECTURES, STEPS
from tests.architectures.conftest import GetWorld
from tests.helpers import ROOT
from tests.world import COMPOSITE, Run, World

# A state after every step. A warm-up's first step has a learning rate of zero: after it stage 2 saves what it began with.
STAGE2 = {**COMPOSITE["stage2"], "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 10}
SETTINGS = {"save_every_n_steps": 1, "save_state": True, "composite": {"stage2": STAGE2}}
TRAIN = str(ROOT / "train_composite.py")
RECORDING = str(ROOT / "tests/architectures/recording.py")


def record(world: World, folder: Path, *command: str) -> tuple[Run, list[dict[str, Any]]]:
    """Runs a script; the batches that upstream trained on."""
    result = folder / "batches.pt"
    run = world.command(folder, RECORDING, str(result), str(world.sd_scripts), *command)
    return run, torch.load(result, weights_only=False)


@pytest.fixture(scope="session")
def undisturbed(world_of: GetWorld, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, list[dict]]]:
    """The outputs and the batches of a run that nothing disturbed, for the tests that only read them."""

    @cache
    def get(name: str) -> tuple[Path, list[dict]]:
        world, folder = world_of(name), tmp_path_factory.mktemp(name)
        config = world.write_config(folder, **SETTINGS)
        run, batches = record(world, folder, TRAIN, "--config", str(config), "--sd_scripts", str(world.sd_scripts))
        assert run.code == 0
        return folder / "out", batches

    return get


def same_weights(first: Path, second: Path) -> bool:
    ours, theirs = load_file(first), load_file(second)
    return ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)


def check_outputs(out: Path, name: str) -> None:
    """Both files are there and stage 2's says that it holds composites; it went on from stage 1's weights."""
    first, second = load_file(out / "cg3-stage1.safetensors"), load_file(out / "cg3.safetensors")
    assert first.keys() == second.keys()
    assert all(tensor.isfinite().all() for tensor in second.values())
    assert not same_weights(out / "cg3-stage1-step00000001.safetensors", out / "cg3-stage1.safetensors"), "stage 1 stood still"
    assert same_weights(out / "cg3-stage1.safetensors", out / "cg3-step00000001.safetensors"), "stage 2 began elsewhere"
    assert not same_weights(out / "cg3-stage1.safetensors", out / "cg3.safetensors"), "stage 2 trained nothing"
    with safe_open(out / "cg3.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_composite_version"] == __version__
    assert {key for key in metadata if key.startswith("ss_composite_")} >= {"ss_composite_settings", "ss_composite_characters"}
    assert metadata["ss_steps"] == str(STEPS)
    samples = sorted(path.name.split("_")[0] for path in out.glob("sample/*.png"))
    assert samples == (["cg3", "cg3-stage1"] if ARCHITECTURES[name].samples else [])


def test_accelerate_launch_trains_both_stages(world_of: GetWorld, name: str, tmp_path: Path, undisturbed) -> None:
    """The README's command, in a process of its own; and its weights are those of a fork."""
    run = world_of(name).launch(tmp_path, **SETTINGS)

    assert run.code == 0
    check_outputs(tmp_path / "out", name)
    for file in ("cg3-stage1.safetensors", "cg3.safetensors"):
        assert same_weights(undisturbed(name)[0] / file, tmp_path / "out" / file)


def test_a_killed_second_stage_goes_on_bit_for_bit(world_of: GetWorld, name: str, tmp_path: Path, undisturbed) -> None:
    world, (out, _) = world_of(name), undisturbed(name)
    last = STEPS + 1 + STEPS  # of the moments to strike at: one before each step, and one between the stages
    assert world.strike(tmp_path, "step", last, "9", **SETTINGS).code == -signal.SIGKILL

    again = world.train(tmp_path, **SETTINGS)

    assert again.code == 0
    assert f"stage 2: was interrupted; it goes on after step {STEPS - 1} of {STEPS}" in again.output
    assert same_weights(out / "cg3.safetensors", tmp_path / "out/cg3.safetensors")


def test_batches_hold_the_composites_captions_and_upstreams_tokens_of_them(name: str, undisturbed) -> None:
    _, batches = undisturbed(name)

    assert len(batches) == 2 * STEPS
    for number, batch in enumerate(batches):
        assert all(("COMPOSITE" in caption) == (number >= STEPS) for caption in batch["captions"])
        for place, tokens in enumerate(batch["tokenized"]):
            for found, expected in zip(batch["input_ids_list"], tokens, strict=True):
                padding = found.shape[-1] - expected.shape[-1]  # upstream's, to the batch's longest caption
                assert found[place].equal(torch.nn.functional.pad(expected[0], (0, padding)))
