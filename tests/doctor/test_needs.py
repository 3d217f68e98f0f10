"""The room that stage 2's caches take, against what is counted by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lycoris_composite.composites.plan import CompositeOptions
from lycoris_composite.config.stages import Stage
from lycoris_composite.doctor.findings import OK, WARNING, Finding
from lycoris_composite.doctor.needs import needs
from tests.helpers import character, plan

CAPTIONS = {"cache_text_encoder_outputs": True}


def found(trainer: str, options: CompositeOptions | None = None, **settings: Any) -> list[Finding]:
    """Of two characters with three square pictures each, that make six composites of 640x320."""
    characters = [character("rin"), character("mio", flip_aug=True)]
    return list(needs(Stage(2, trainer, settings), [plan(characters, options=options)]))


def test_nothing_is_cached():
    assert found("flux_train_network") == []


@pytest.mark.parametrize(
    ("trainer", "settings", "bytes_needed"),
    [
        ("train_network", {"cache_latents": True}, 9 * 4 * 4 * 40 * 40),  # one character's mirrored ones too
        ("flux_train_network", {"cache_latents": True}, 9 * 4 * 16 * 40 * 40),
        ("hunyuan_image_train_network", {"cache_latents": True}, 9 * 4 * 64 * 10 * 10),
        ("flux_train_network", CAPTIONS, 6 * 2 * 4 * 512 * 4100),
    ],
)
def test_by_hand(trainer, settings, bytes_needed, monkeypatch):
    monkeypatch.setattr("lycoris_composite.doctor.needs.decimal", str)
    [row] = found(trainer, **settings)
    assert (row.found, row.level) == (f"{bytes_needed} in main memory", OK)


def test_whole_pictures_come_round_again(monkeypatch):
    monkeypatch.setattr("lycoris_composite.doctor.needs.decimal", str)
    [row] = found("train_network", CompositeOptions(join="pixel", cycle_epochs=3), cache_latents=True)
    assert row.found == f"{6 * 3 * 4 * 4 * 40 * 80} in main memory"


def test_a_disk_that_is_too_small(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000_000))
    latents, row = found("flux_train_network", cache_text_encoder_outputs_to_disk=True, cache_latents_to_disk=True)
    assert (latents.found, latents.level) == (f"921.6 kB on the disk of {Path.cwd()}", OK)
    assert (row.subject, row.level) == ("stage 2's captions", WARNING)
    assert row.found == f"100.8 MB on the disk of {Path.cwd()}"
    assert row.meaning == "more than the 78.4 kB that there are for it; lower cycle_epochs, or composites_per_image"
