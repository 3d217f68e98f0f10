"""Both stages from the command line, on the real trainer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import toml
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lycoris_composite import __version__
from tests.helpers import PHOTOS, ROOT
from tests.world import World

CACHES = {
    "memory": {"cache_latents": True},
    "disk": {"cache_latents": True, "cache_latents_to_disk": True},
    "none": {"cache_latents": False},
}


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with latents joined and cached in memory, for the tests that only read it."""
    folder = tmp_path_factory.mktemp("finished")
    assert world.train(folder, composite={"composites_per_image": 0.5}).code == 0
    return folder


def same_weights(first: Path, second: Path) -> bool:
    ours, theirs = load_file(first), load_file(second)
    return ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)


def test_the_readmes_command_trains_the_same_weights(world: World, tmp_path: Path, finished: Path) -> None:
    """`accelerate launch`, in a process of its own, against a fork."""
    run = world.launch(tmp_path, composite={"composites_per_image": 0.5})

    assert run.code == 0
    for name in ("cg3-stage1", "cg3"):
        assert same_weights(finished / f"out/{name}.safetensors", tmp_path / f"out/{name}.safetensors")
    first, second = load_file(tmp_path / "out/cg3-stage1.safetensors"), load_file(tmp_path / "out/cg3.safetensors")
    assert any(not first[key].equal(second[key]) for key in first), "stage 2 trained nothing"


@pytest.mark.parametrize(
    ("join", "cache"), [(j, c) for j in ("latent", "pixel") for c in CACHES if (j, c) != ("latent", "memory")]
)
def test_both_stages_train_with_either_join_and_any_cache(world: World, tmp_path: Path, join: str, cache: str) -> None:
    data = shutil.copytree(world.folder / "data", tmp_path / "data")

    run = world.train(tmp_path, composite={"join": join}, train_data_dir=str(data), **CACHES[cache])

    assert run.code == 0
    first, second = load_file(tmp_path / "out/cg3-stage1.safetensors"), load_file(tmp_path / "out/cg3.safetensors")
    assert first.keys() == second.keys()
    assert any(not first[key].equal(second[key]) for key in first), "stage 2 trained nothing"
    assert bool(list(data.rglob("*_composite.npz"))) == (cache == "disk")


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_and_workers(world: World, tmp_path: Path, processes: int) -> None:
    run = world.train(tmp_path, processes=processes, max_data_loader_n_workers=2, persistent_data_loader_workers=True)

    assert run.code == 0
    metadata = metadata_of(tmp_path / "out/cg3.safetensors")
    assert metadata["ss_steps"] == "3"
    assert metadata["ss_total_batch_size"] == str(2 * processes)


def test_photos_with_the_guides_optimizer_and_samples(world: World, tmp_path: Path) -> None:
    if not PHOTOS.is_dir():
        pytest.skip(f"no photos in {PHOTOS}")

    run = world.train(
        tmp_path, train_data_dir=str(PHOTOS), optimizer_type="AdamW8bit", sample_every_n_steps=3, save_precision="fp16"
    )

    assert run.code == 0
    samples = sorted(path.name for path in (tmp_path / "out/sample").iterdir())
    assert len([name for name in samples if name.startswith("cg3-stage1_")]) == 1
    assert len([name for name in samples if name.startswith("cg3_")]) == 1
    for name in ("cg3-stage1", "cg3"):
        check = world.command(
            tmp_path,
            str(world.sd_scripts / "networks/check_lora_weights.py"),
            "-s",
            str(tmp_path / f"out/{name}.safetensors"),
            env={"PYTHONPATH": str(world.sd_scripts)},
        )
        assert check.code == 0
        assert "hada_w1_a" in check.output


def test_stage_two_starts_from_exactly_what_stage_one_saved(world: World, tmp_path: Path) -> None:
    """A warm-up's first step has a learning rate of zero, so what stage 2 saves after it is what it started from."""
    still = {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 10, "max_train_steps": 1}

    run = world.train(tmp_path, save_precision="fp16", composite={"stage2": {"resolution": "192,192", **still}})

    assert run.code == 0
    first, second = load_file(tmp_path / "out/cg3-stage1.safetensors"), load_file(tmp_path / "out/cg3.safetensors")
    assert first.keys() == second.keys()
    assert all(first[key].equal(second[key]) for key in first)
    assert any(first[key].abs().sum() > 0 for key in first if key.endswith("hada_w2_a")), "stage 1 trained nothing"


def test_a_config_as_guis_export_it(world: World, tmp_path: Path) -> None:
    """With a byte order mark, empty fields, values that the parser's choices lack and the prompt in place of its file; and
    with a second stage that keeps the text encoder as it is."""
    config = world.write_config(
        tmp_path, vae="", logging_dir="", wandb_run_name="", max_token_length=75, dynamo_backend="no", sample_every_n_steps=3,
        sample_prompts="rin, smile --w 64 --h 64 --s 2 --d 1", composite={"stage2": {"resolution": "192,192", "text_encoder_lr": 0.0}},
    )  # fmt: skip
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())

    run = world.command(
        tmp_path, str(ROOT / "train_composite.py"), "--config", str(config), "--sd_scripts", str(world.sd_scripts)
    )

    assert run.code == 0
    assert "ERROR" not in run.output
    assert len(list((tmp_path / "out/sample").glob("cg3-stage1_*.png"))) == 1
    assert len(list((tmp_path / "out/sample").glob("cg3_*.png"))) == 1
    first, second = load_file(tmp_path / "out/cg3-stage1.safetensors"), load_file(tmp_path / "out/cg3.safetensors")
    assert first.keys() == second.keys()
    changed = {key for key in first if not first[key].equal(second[key])}
    assert changed
    assert all(key.startswith("lora_unet") for key in changed)
    assert any(key.startswith("lora_te") for key in first)


def test_inpainting_trains_where_nothing_is_cached(world: World, tmp_path: Path) -> None:
    run = world.train(tmp_path, "--train_inpainting", cache_latents=False)
    assert run.code == 0
    assert run.output.count("expanding UNet conv_in from 4 to 9 channels") == 2
    first, second = load_file(tmp_path / "out/cg3-stage1.safetensors"), load_file(tmp_path / "out/cg3.safetensors")
    assert first.keys() == second.keys()
    assert any(not first[key].equal(second[key]) for key in first)


def test_network_weights_of_another_algorithm_are_no_start(world: World, tmp_path: Path) -> None:
    weights = tmp_path / "other.safetensors"
    save_file({"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.zeros(4, 4)}, weights)

    run = world.train(tmp_path, network_weights=str(weights))

    assert run.code == 2
    [sentence] = [line for line in run.output.splitlines() if line.startswith("error: ")]
    assert "other.safetensors: none of its 1 tensors fits the network" in sentence
    assert "Traceback" not in run.output
    assert not (tmp_path / "out/cg3-stage1.safetensors").exists()


def test_saved_file_is_a_kohya_loha_and_says_how_it_was_made(finished: Path) -> None:
    keys = load_file(finished / "out/cg3.safetensors").keys()
    assert {key.rpartition(".")[2] for key in keys} == {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"}
    assert {key.split("_")[1] for key in keys} == {"unet", "te"}
    metadata = metadata_of(finished / "out/cg3.safetensors")
    assert metadata["ss_network_module"] == "lycoris.kohya"
    assert json.loads(metadata["ss_network_args"])["algo"] == "loha"
    assert metadata["ss_composite_version"] == __version__
    [settings] = json.loads(metadata["ss_composite_settings"])
    assert settings["join"] == "latent"
    assert settings["composites_per_epoch"] == round(9 * 0.5)
    [characters] = json.loads(metadata["ss_composite_characters"])
    assert [character["trigger"] for character in characters] == ["mio", "rin", "uzuki"]
    assert "ss_composite_version" not in metadata_of(finished / "out/cg3-stage1.safetensors")


def test_effective_configs_lie_beside_the_outputs_and_rerun_the_stage(world: World, tmp_path: Path, finished: Path) -> None:
    """What a stage wrote beside its output is a config that `lycoris-composite run` trains the same weights from."""
    second = toml.loads((finished / "out/cg3.toml").read_text())
    assert second["resolution"] == "192,192"
    assert second["network_weights"] == str(finished / "out/cg3-stage1.safetensors")

    again = world.command(
        tmp_path,
        "-m",
        "lycoris_composite.cli",
        "run",
        "train_network.py",
        "--sd_scripts",
        str(world.sd_scripts),
        "--config_file",
        str(finished / "out/cg3.toml"),
        "--output_dir",
        str(tmp_path),
    )

    assert again.code == 0
    assert same_weights(finished / "out/cg3.safetensors", tmp_path / "cg3.safetensors")


def test_single_stages_and_sample_prompts_from_the_characters(world: World, tmp_path: Path) -> None:
    changes = {"sample_prompts": None, "max_train_steps": 1}
    refused = world.train(tmp_path, "--stage", "2")
    assert refused.code == 2
    assert "cg3-stage1.safetensors: not there" in refused.output

    assert world.train(tmp_path, "--stage", "1", **changes).code == 0
    assert not (tmp_path / "out/cg3.safetensors").exists()
    prompts = json.loads((tmp_path / "out/cg3-prompts.json").read_text())
    assert [prompt["prompt"].split(",")[0] for prompt in prompts[:4]] == ["mio", "rin", "uzuki", "mio/rin/COMPOSITE"]
    assert prompts[-1]["negative_prompt"] == "COMPOSITE"
    assert prompts[-1]["width"] > prompts[-1]["height"]

    assert world.train(tmp_path, "--stage", "2", **changes).code == 0
    assert (tmp_path / "out/cg3.safetensors").exists()


def test_flags_and_set_win_over_the_file(world: World, tmp_path: Path) -> None:
    run = world.train(
        tmp_path, "--output_name", "other", "--max_train_steps", "2", "--cpu",
        "--set", "composite.stage2.resolution=256,128", "--set", "seed=7",
        xformers=True, sdpa=False, mixed_precision="fp16", optimizer_type="AdamW8bit",
    )  # fmt: skip

    assert run.code == 0
    for line in ("sdpa attention instead of xformers", "float32 instead of mixed_precision fp16", "AdamW instead of AdamW8bit"):
        assert f"--cpu: {line}" in run.output or f"--cpu: optimizer {line}" in run.output
    metadata = metadata_of(tmp_path / "out/other.safetensors")
    assert (metadata["ss_steps"], metadata["ss_seed"], metadata["ss_resolution"]) == ("2", "7", "(256, 128)")


def test_dataset_config_and_alpha_masks(world: World, tmp_path: Path) -> None:
    """With captions as a tagger writes them, and a trigger word by hand: plain upstream would refuse that."""
    data = shutil.copytree(world.folder / "data", tmp_path / "data")
    for caption in data.rglob("*.txt"):
        name, *tags = caption.read_text().split(", ")
        caption.write_text(", ".join([*tags, name]))
    subsets = [
        {"image_dir": str(folder), "num_repeats": 1, "alpha_mask": folder.name.endswith("rin")}
        | ({"trigger": "uz"} if folder.name.endswith("uzuki") else {})
        for folder in sorted(data.iterdir())
    ]
    dataset_config = tmp_path / "data.toml"
    dataset_config.write_text(toml.dumps({"datasets": [{"resolution": 128, "batch_size": 1, "subsets": subsets}]}))

    run = world.train(
        tmp_path,
        train_data_dir=None,
        dataset_config=str(dataset_config),
        masked_loss=True,
        sample_prompts=None,
        max_train_steps=1,
    )

    assert run.code == 0
    written = toml.loads((tmp_path / "out/cg3-dataset.toml").read_text())
    assert written["datasets"][0]["composite"]["join"] == "latent"
    assert [subset.get("trigger") for subset in written["datasets"][0]["subsets"]] == [None, None, "uz"]
    assert "trigger" not in (tmp_path / "out/cg3-stage1-dataset.toml").read_text()
    how = "the folder's name, in every caption"
    assert f"characters: mio (3, {how}), rin (3, {how}), uz (3, by hand, in no caption); " in run.output
    [characters] = json.loads(metadata_of(tmp_path / "out/cg3.safetensors")["ss_composite_characters"])
    assert [one["trigger"] for one in characters] == ["mio", "rin", "uz"]
    prompts = [prompt["prompt"] for prompt in json.loads((tmp_path / "out/cg3-prompts.json").read_text())]
    assert prompts[0].startswith("mio, 1girl")
    assert "uz/mio/COMPOSITE, " in "".join(prompts)
    [dataset] = json.loads(metadata_of(tmp_path / "out/cg3.safetensors")["ss_datasets"])
    assert dataset["resolution"] == [192, 192]
    assert dataset["batch_size_per_device"] == 2
