"""`lycoris-composite run` with a table [datasets.composite]: one run of upstream's own script mixes singles and composites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toml
import torch
from safetensors import safe_open

from tests.architectures.configs import ARCHITECTURES
from tests.architectures.conftest import GetWorld
from tests.helpers import ROOT
from tests.world import World

RECORDING = str(ROOT / "tests/architectures/recording.py")
RUN = [str(ROOT / "lycoris_composite/cli.py"), "run"]
# One epoch is every batch of both kinds.
SETTINGS = {"max_train_steps": None, "max_train_epochs": 1, "train_data_dir": None, "sample_every_n_steps": None}


def captions_of_a_run(world: World, folder: Path, trainer: str, **changes: object) -> list[str]:
    """What a run has trained on, singles and composites."""
    subsets = [{"image_dir": str(path)} for path in sorted((world.folder / "data").iterdir())]
    datasets = [{"resolution": 128, "batch_size": 4, "subsets": subsets},
                {"resolution": 192, "batch_size": 4, "subsets": subsets, "composite": {"join": "latent"}}]  # fmt: skip
    (folder / "data.toml").write_text(toml.dumps({"datasets": datasets}))
    config = world.write_config(folder, dataset_config=str(folder / "data.toml"), **SETTINGS, **changes)
    result, sd_scripts = str(folder / "batches.pt"), str(world.sd_scripts)
    flags = [f"{trainer}.py", "--sd_scripts", sd_scripts, "--config_file", str(config)]
    assert world.command(folder, RECORDING, result, sd_scripts, *RUN, *flags).code == 0
    return [caption for batch in torch.load(result, weights_only=False) for caption in batch["captions"]]


# Of those that can, an encoder whose tokens are attended to by a mask, and one whose are not.
@pytest.mark.parametrize(("name", "caches_text"), [*((name, False) for name in ARCHITECTURES), ("anima", True), ("flux", True)])
def test_one_run_mixes_singles_and_composites(world_of: GetWorld, name: str, tmp_path: Path, caches_text: bool) -> None:
    changes = {"cache_text_encoder_outputs": True, "shuffle_caption": False} if caches_text else {}
    captions = captions_of_a_run(world_of(name), tmp_path, ARCHITECTURES[name].trainer, **changes)

    composites = [caption for caption in captions if "COMPOSITE" in caption]
    assert 0 < len(composites) < len(captions)
    with safe_open(tmp_path / "out/cg3.safetensors", "pt") as file:
        metadata = file.metadata()
    assert len(json.loads(metadata["ss_composite_settings"])) == 1
    assert [dataset["num_train_images"] for dataset in json.loads(metadata["ss_datasets"])] == [6, 6]
