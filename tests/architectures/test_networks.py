"""Every network that upstream and LyCORIS have, on every architecture: what its row names trains and is loaded whole, and
what is made for another model is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lycoris_composite.architectures import ARCHITECTURES, architecture_of
from lycoris_composite.config.stages import Stage
from lycoris_composite.trainers.networks import LYCORIS
from tests.architectures import configs
from tests.architectures.conftest import GetWorld

UPSTREAMS = sorted({module for row in ARCHITECTURES.values() for module in row.networks})
# Arguments with which a network holds other tensors than without.
ARGUMENTS = {
    "networks.lora": ["conv_dim=4"],
    "networks.loha": ["conv_dim=4", "use_tucker=True"],
    "networks.lokr": ["conv_dim=4", "use_tucker=True"],
    "networks.oft": ["enable_all_linear=True"],
    "networks.oft_flux": ["enable_all_linear=True"],
    "networks.lora_flux": ["train_blocks=single"],
    "networks.lora_sd3": ["split_qkv=True"],
    "networks.lora_hunyuan_image": ["split_qkv=True"],
    "networks.lora_anima": ["train_llm_adapter=True"],
}
LYCORIS_ARGUMENTS = [
    *(["algo=locon", "dora_wd=True", "train_norm=True"], ["algo=loha"], ["algo=loha", "dora_wd=True"]),
    *(["algo=lokr", "full_matrix=True"], ["algo=lokr", "dora_wd=True"], ["algo=full"]),
]


@pytest.fixture
def tried(world_of: GetWorld, name: str, tmp_path: Path) -> dict[tuple[str, ...], list[int] | str]:
    """What came of each network on an architecture's real model, by its module and its arguments."""
    world = world_of(name)
    there = [module for module in UPSTREAMS if (world.sd_scripts / f"{module.replace('.', '/')}.py").is_file()]
    trials = [(module, []) for module in there]
    trials += [(module, ARGUMENTS[module]) for module in there if module in ARGUMENTS]
    trials += [(LYCORIS, arguments) for arguments in LYCORIS_ARGUMENTS]
    (tmp_path / "trials.json").write_text(json.dumps(trials))
    changes = {"network_module": "tests.architectures.trying", "network_args": [f"trials={tmp_path / 'trials.json'}"]}
    trainer = configs.ARCHITECTURES[name].trainer
    config = world.write_config(tmp_path, **changes)
    assert world.command(tmp_path, str(world.sd_scripts / f"{trainer}.py"), "--config_file", str(config)).code == 0
    results = json.loads((tmp_path / "trials.json").read_text())
    return {(module, *arguments): result for (module, arguments), result in zip(trials, results, strict=True)}


def test_a_row_names_those_that_train_and_are_loaded_whole(name: str, tried) -> None:
    stage = Stage(1, configs.ARCHITECTURES[name].trainer, {"output_name": "cg3"})
    own = stage.architecture.networks
    [least] = tried[own[:1]][1:2]
    for (module, *arguments), result in tried.items():
        print(module, arguments, result)
        if module in (*own, LYCORIS):
            saved, trained, lost = result
            assert saved >= trained > 0
            assert not lost
        elif not arguments:  # it fails, or finds hardly any layer
            assert isinstance(result, str) or result[1] < least / 2


def test_both_stages_train_upstreams_own(world_of: GetWorld, name: str, tmp_path: Path) -> None:
    module = architecture_of(configs.ARCHITECTURES[name].trainer).networks[0]
    changes = {"network_module": module, "network_args": None, "max_train_steps": 1, "sample_prompts": None}

    run = world_of(name).train(tmp_path, **changes)

    assert run.code == 0
    first, second = (load_file(tmp_path / f"out/{file}.safetensors") for file in ("cg3-stage1", "cg3"))
    assert first.keys() == second.keys()
    assert not all(first[key].equal(second[key]) for key in first), "stage 2 trained nothing"


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("flux", {"network_module": "networks.lora"}, "networks.lora is made for SD and SDXL; for Flux set networks.lora_flux"),
        ("flux", {"network_module": "networks.lora_flux", "network_args": ["split_qkv=True"]},
         "network_args: networks.lora_flux cannot make a network of these settings (too many values to unpack (expected 1))"),
    ],
)  # fmt: skip
def test_what_cannot_train_is_refused_before_a_model_is_loaded(
    world_of: GetWorld, tmp_path: Path, name: str, changes: dict, sentence: str
) -> None:
    run = world_of(name).train(tmp_path, **{"network_args": None, **changes})

    assert run.code == 2
    assert sentence in run.output
    assert "stage 1: " not in run.output
