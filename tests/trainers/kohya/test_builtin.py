"""The embedded trainer beside sd-scripts: one config, one seed, the same data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import toml
import torch

from tests.world import World


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"clip_skip": 2, "min_snr_gamma": 5, "v_pred_like_loss": 1.0}, id="clip skip, 225 tokens, loss weights"),
        pytest.param({"max_token_length": None, "lr_scheduler": "cosine", "lr_warmup_steps": 2, "enable_bucket": None}, id="75 tokens, warm-up"),
    ],
)  # fmt: skip
def test_it_agrees_with_sd_scripts(world: World, tmp_path: Path, changes: dict) -> None:
    """The same captions, token ids and latents in both stages, and the same losses while the network learns."""
    agree(recorded(world, tmp_path, max_train_steps=4, **changes), steps=8)


def recorded(world: World, tmp_path: Path, **changes: Any) -> dict[str, list[dict]]:
    """What each trainer trained on."""
    # Shuffling and flips of single images come from Python's global generator upstream; those of composites from the plan.
    second = {"flip_aug": True, "shuffle_caption": True, "resolution": "192,192", "train_batch_size": 2}
    changes = {"shuffle_caption": None, "sample_prompts": None, "network_args": ["algo=loha"], **changes}
    records = {}
    for trainer in ("train_network", "builtin"):
        folder = tmp_path / trainer
        folder.mkdir()
        config = world.write_config(folder, composite={"trainer": trainer, "stage2": second}, **changes)
        script = str(Path(__file__).with_name("recording.py"))
        flags = ["--config", str(config), "--sd_scripts", str(world.sd_scripts), "--cpu"]
        run = world.command(folder, script, str(folder / "record.pt"), str(world.sd_scripts), *flags)
        assert run.code == 0
        records[trainer] = torch.load(folder / "record.pt", weights_only=True)
    return records


def agree(records: dict[str, list[dict]], steps: int) -> None:
    assert len(records["builtin"]) == len(records["train_network"]) == steps
    for own, upstream in zip(records["builtin"], records["train_network"], strict=True):
        assert own["captions"] == upstream["captions"]
        assert torch.equal(own["ids"], upstream["ids"].view_as(own["ids"]))
        assert torch.allclose(own["latents"], upstream["latents"], atol=1e-5)
        assert own["loss"] == pytest.approx(upstream["loss"], rel=1e-4)
    learned = [record["loss"] for record in records["builtin"]]
    assert len(set(learned)) == len(learned)


def test_it_agrees_on_a_dataset_config(world: World, tmp_path: Path) -> None:
    """Two datasets, so that of three characters only two pairs meet."""
    names = [path.name for path in sorted((world.folder / "data").iterdir())]
    subsets = [[{"image_dir": str(world.folder / "data" / name)} for name in pair] for pair in (names[:2], names[1:])]
    source = {
        "general": {"caption_extension": ".txt", "keep_tokens": 1},
        "datasets": [{"batch_size": 2, "subsets": own} for own in subsets],
    }
    path = tmp_path / "datasets.toml"
    path.write_text(toml.dumps(source))
    records = recorded(world, tmp_path, dataset_config=str(path), train_data_dir=None, max_train_steps=6)
    agree(records, steps=12)
    together = {caption.split("/COMPOSITE")[0] for record in records["builtin"][6:] for caption in record["captions"]}
    assert len(together) > 2
    assert not {"mio/uzuki", "uzuki/mio"} & together


def test_a_single_file_holds_the_same_model(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written by sd-scripts as it writes SD 1.x, but narrow: a real one has two gigabytes."""
    monkeypatch.syspath_prepend(str(world.sd_scripts))
    from diffusers import StableDiffusionPipeline
    from library import model_util

    from lycoris_composite.trainers.builtin import model as builtin_model

    parts = StableDiffusionPipeline.from_pretrained(world.folder / "model", tokenizer=None)
    file = tmp_path / "model.safetensors"
    model_util.save_stable_diffusion_checkpoint(
        False, str(file), parts.text_encoder, parts.unet, None, 0, 0, None, torch.float32, parts.vae
    )
    wide = builtin_model._write_sd15_config

    def narrow(folder: Path) -> None:
        wide(folder)
        for part in (parts.unet, parts.vae):
            part.save_config(folder / ("unet" if part is parts.unet else "vae"))
        parts.text_encoder.config.save_pretrained(folder / "text_encoder")

    monkeypatch.setattr(builtin_model, "_write_sd15_config", narrow)
    loaded = builtin_model.load_model(file, str(world.folder / "tokenizer"))
    for name in ("unet", "vae", "text_encoder"):
        before, after = getattr(parts, name).state_dict(), getattr(loaded, name).state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(value, after[key]) for key, value in before.items())
