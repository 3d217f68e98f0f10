"""Every architecture that kohya trains, from the command line through both stages, on a tiny random model."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from lycoris_composite import __version__
from tests import tiny
from tests.architectures.configs import ARCHITECTURES, EVERY, STEPS
from tests.architectures.conftest import GetWorld, make_worlds
from tests.helpers import ROOT
from tests.trainers.kohya.conftest import VERSIONS
from tests.world import COMPOSITE, Run, World

# A state after every step. A warm-up's first step has a learning rate of zero: after it stage 2 saves what it began with.
STAGE2 = {**COMPOSITE["stage2"], "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 10}
SETTINGS = {"save_every_n_steps": 1, "save_state": True, "composite": {"stage2": STAGE2}}
TRAIN = str(ROOT / "train_composite.py")
RECORDING = str(ROOT / "tests/architectures/recording.py")


def train(world: World, folder: Path, *flags: str, **changes: Any) -> list[str]:
    """The command of both stages, its config written."""
    config = world.write_config(folder, **changes)
    return [TRAIN, "--config", str(config), "--sd_scripts", str(world.sd_scripts), *flags]


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
        run, batches = record(world, folder, *train(world, folder, **SETTINGS))
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
    assert samples == (["cg3", "cg3-stage1"] if EVERY[name].samples else [])


def test_accelerate_launch_trains_both_stages(world_of: GetWorld, name: str, tmp_path: Path, undisturbed) -> None:
    """The README's command, in a process of its own; and its weights are those of a fork."""
    run = world_of(name).launch(tmp_path, **SETTINGS)

    assert run.code == 0
    check_outputs(tmp_path / "out", name)
    for file in ("cg3-stage1.safetensors", "cg3.safetensors"):
        assert same_weights(undisturbed(name)[0] / file, tmp_path / "out" / file)


@pytest.fixture(scope="session")
def without_text_encoders(world_of: GetWorld, undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The outputs of a run that trains no text encoder and caches none of their outputs."""

    @cache
    def get(name: str) -> Path:
        if ARCHITECTURES[name].caches_text:
            return undisturbed(name)[0]
        folder = tmp_path_factory.mktemp(name)
        assert world_of(name).train(folder, network_train_unet_only=True, **SETTINGS).code == 0
        return folder / "out"

    return get


def caching(to_disk: bool) -> dict[str, Any]:
    """The settings with captions that are encoded ahead, in stage 2 alone: upstream shuffles none that are."""
    key = "cache_text_encoder_outputs_to_disk" if to_disk else "cache_text_encoder_outputs"
    return {**SETTINGS, "network_train_unet_only": True, "composite": {"stage2": {**STAGE2, key: True}}}


def test_a_killed_second_stage_goes_on_bit_for_bit(
    world_of: GetWorld, name: str, tmp_path: Path, without_text_encoders
) -> None:
    """With captions encoded ahead to disk, against a run that encodes each batch's and is not killed. What is on disk is not
    encoded again."""
    world, out = world_of(name), without_text_encoders(name)
    data = shutil.copytree(world.folder / "data", tmp_path / "data")
    settings = {**caching(to_disk=True), "train_data_dir": str(data)}
    last = STEPS + 1 + STEPS  # of the moments to strike at: one before each step, and one between the stages
    assert world.strike(tmp_path, "step", last, "9", **settings).code == -signal.SIGKILL
    files = times_of(data)
    assert files

    again = world.train(tmp_path, **settings)

    assert again.code == 0
    assert f"stage 2: was interrupted; it goes on after step {STEPS - 1} of {STEPS}" in again.output
    assert same_weights(out / "cg3.safetensors", tmp_path / "out/cg3.safetensors")
    assert times_of(data) == files


def times_of(data: Path) -> dict[Path, int]:
    """When each file of captions' outputs was written."""
    return {path: path.stat().st_mtime_ns for path in data.rglob("*_te_*_composite.npz")}


def test_captions_encoded_ahead_in_memory_train_the_same_weights(
    world_of: GetWorld, name: str, tmp_path: Path, without_text_encoders
) -> None:
    out = without_text_encoders(name)
    shutil.copytree(out, tmp_path / "out", ignore=lambda _, names: [own for own in names if "-stage1.safetensors" not in own])

    world = world_of(name)
    run, batches = record(world, tmp_path, *train(world, tmp_path, "--stage", "2", **caching(to_disk=False)))

    assert run.code == 0
    assert all(batch["text_encoder_outputs_list"] is not None for batch in batches)
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


def test_captions_may_be_encoded_ahead_in_both_stages(world_of: GetWorld, name: str, tmp_path: Path) -> None:
    """As upstream wants it of stage 1: nothing in its captions changes from epoch to epoch."""
    world = world_of(name)
    caches = {"cache_text_encoder_outputs": True, "shuffle_caption": False, "network_train_unet_only": True}

    run, batches = record(world, tmp_path, *train(world, tmp_path, **SETTINGS, **caches))

    assert run.code == 0
    assert all(batch["text_encoder_outputs_list"] is not None for batch in batches)
    check_outputs(tmp_path / "out", name)


def test_chroma_trains_without_clip(world_of: GetWorld, tmp_path: Path) -> None:
    """Flux's trainer on its second model, which attends to as many of T5's tokens as a caption has."""
    world = world_of("chroma")
    assert "clip_l" not in world.config
    assert world.train(tmp_path, **caching(to_disk=False)).code == 0
    check_outputs(tmp_path / "out", "chroma")


@pytest.mark.parametrize(("sizes", "side"), [(((96, 96), (96, 96)), 192), (((256, 256), (64, 128)), 160)])
def test_sdxl_learns_the_sizes_of_a_file_that_was_joined_by_hand(
    world_of: GetWorld, tmp_path: Path, sizes: tuple[tiny.Size, tiny.Size], side: int
) -> None:
    """The guide's way: both pictures at the smaller one's height, side by side in one file, which upstream trains on. At
    these sides both fill the same bucket without a cut."""
    world = world_of("sdxl")
    settings = {"resolution": f"{side},{side}", "max_train_steps": 1, "sample_prompts": None, "sample_every_n_steps": None}
    for trigger, size in zip(("mio", "rin"), sizes, strict=True):
        tiny.draw_characters(tmp_path / "data", images=1, size=size, names=(trigger,))
    composite = {"composites_per_image": 0.5, "stage2": {}}
    command = train(world, tmp_path, train_data_dir=str(tmp_path / "data"), composite=composite, **settings)
    run, [_, ours] = record(world, tmp_path, *command)
    assert run.code == 0

    join_by_hand(sorted((tmp_path / "data").rglob("*.png")), tmp_path / "joined/1_pair")
    config = world.write_config(tmp_path, train_data_dir=str(tmp_path / "joined"), composite={"stage2": {}}, **settings)
    script = str(world.sd_scripts / "sdxl_train_network.py")
    run, [upstreams] = record(world, tmp_path, script, "--config_file", str(config))
    assert run.code == 0

    assert ours.keys() == upstreams.keys()
    for key, value in upstreams.items():
        assert getattr(ours[key], "shape", None) == getattr(value, "shape", None), key
    for key in ("original_sizes_hw", "crop_top_lefts", "target_sizes_hw"):
        assert ours[key].tolist() == upstreams[key].tolist(), key


def join_by_hand(pictures: Sequence[Path], folder: Path) -> None:
    """Pictures at the smallest one's height, side by side in one file with a caption. It all becomes kohya's folder."""
    opened = [Image.open(path) for path in pictures]
    height = min(picture.height for picture in opened)
    panels = [picture.resize((round(picture.width * height / picture.height), height)) for picture in opened]
    joined = Image.new("RGB", (sum(panel.width for panel in panels), height))
    left = 0
    for panel in panels:
        joined.paste(panel, (left, 0))
        left += panel.width
    folder.mkdir(parents=True)
    joined.save(folder / "01.png")
    (folder / "01.txt").write_text("mio and rin")


@pytest.fixture(scope="session")
def oldest_world_of(version_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GetWorld]:
    yield from make_worlds(version_of(VERSIONS[0]), tmp_path_factory.mktemp("oldest"))


@pytest.mark.versions
def test_the_oldest_version_trains_both_stages(oldest_world_of: GetWorld, name: str, tmp_path: Path) -> None:
    assert oldest_world_of(name).train(tmp_path, **caching(to_disk=False)).code == 0
    check_outputs(tmp_path / "out", name)
