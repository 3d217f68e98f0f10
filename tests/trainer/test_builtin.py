"""The embedded trainer beside sd-scripts: one config, one seed, the same data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.world import World


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"clip_skip": 2}, id="clip skip, 225 tokens"),
        pytest.param({"max_token_length": None, "lr_scheduler": "cosine", "lr_warmup_steps": 2, "enable_bucket": None}, id="75 tokens, warm-up"),
    ],
)  # fmt: skip
def test_it_agrees_with_sd_scripts(world: World, tmp_path: Path, changes: dict) -> None:
    """The same captions, token ids and latents in both stages, and the same losses while the network learns."""
    changes = {"max_train_steps": 4, "shuffle_caption": None, "sample_prompts": None, "network_args": ["algo=loha"], **changes}
    records = {}
    for trainer in ("train_network", "builtin"):
        folder = tmp_path / trainer
        folder.mkdir()
        config = world.write_config(folder, composite={"trainer": trainer}, **changes)
        script = str(Path(__file__).with_name("recording.py"))
        run = world.command(folder, script, str(folder / "record.pt"), str(world.sd_scripts), "--config", str(config), "--cpu")
        assert run.code == 0
        records[trainer] = torch.load(folder / "record.pt", weights_only=True)
    assert len(records["builtin"]) == len(records["train_network"]) == 8
    for own, upstream in zip(records["builtin"], records["train_network"], strict=True):
        assert own["captions"] == upstream["captions"]
        assert torch.equal(own["ids"], upstream["ids"].view_as(own["ids"]))
        assert torch.allclose(own["latents"], upstream["latents"], atol=1e-5)
        assert own["loss"] == pytest.approx(upstream["loss"], rel=1e-4)
    learned = [record["loss"] for record in records["builtin"]]
    assert len(set(learned)) == len(learned)
