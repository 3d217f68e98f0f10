"""Without composites upstream trains what it would train without the plugin; with them one run can mix both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import toml
from safetensors import safe_open
from safetensors.torch import load_file

from tests.world import World


def write_config(world: World, folder: Path, **changes: Any) -> Path:
    path = folder / "plain.toml"
    settings = {**world.config, "network_module": "networks.lora", "network_args": [], "output_dir": str(folder), **changes}
    path.write_text(toml.dumps({"settings": {key: value for key, value in settings.items() if value is not None}}))
    return path


def test_a_run_without_composites_is_bit_equal_to_upstreams_own(world: World, tmp_path: Path) -> None:
    script = str(world.sd_scripts / "train_network.py")
    (tmp_path / "plain").mkdir()
    (tmp_path / "ours").mkdir()

    plain = world.command(tmp_path, script, "--config_file", str(write_config(world, tmp_path / "plain")), is_real=True)
    ours = world.command(
        tmp_path, "-m", "lycoris_composite.cli", "run", "train_network.py", "--sd_scripts", str(world.sd_scripts),
        "--config_file", str(write_config(world, tmp_path / "ours")),
    )  # fmt: skip

    assert (plain.code, ours.code) == (0, 0)
    expected, found = load_file(tmp_path / "plain/cg3.safetensors"), load_file(tmp_path / "ours/cg3.safetensors")
    assert expected.keys() == found.keys()
    assert all(expected[key].equal(found[key]) for key in expected)
    with safe_open(tmp_path / "ours/cg3.safetensors", "pt") as file:
        assert not [key for key in file.metadata() if "composite" in key]


def test_one_run_can_mix_singles_and_composites(world: World, tmp_path: Path) -> None:
    subsets = [{"image_dir": str(folder)} for folder in sorted((world.folder / "data").iterdir())]
    datasets = [
        {"resolution": 128, "batch_size": 2, "subsets": subsets},
        {"resolution": 192, "batch_size": 1, "subsets": subsets, "composite": {"join": "pixel", "aspect": "equal"}},
    ]
    (tmp_path / "data.toml").write_text(toml.dumps({"datasets": datasets}))
    config = write_config(world, tmp_path, train_data_dir=None, dataset_config=str(tmp_path / "data.toml"))

    run = world.command(
        tmp_path, "-m", "lycoris_composite.cli", "run", "train_network.py", "--sd_scripts", str(world.sd_scripts),
        "--config_file", str(config),
    )  # fmt: skip

    assert run.code == 0
    with safe_open(tmp_path / "cg3.safetensors", "pt") as file:
        metadata = file.metadata()
    singles, composites = json.loads(metadata["ss_datasets"])
    assert singles["num_train_images"] == composites["num_train_images"] == 9
    [settings] = json.loads(metadata["ss_composite_settings"])
    assert settings["aspect"] == "equal"
