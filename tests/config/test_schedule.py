"""What a stage costs, against the plan and against counting by hand. tests/trainers/kohya/test_preview.py asks upstream."""

from __future__ import annotations

from pathlib import Path

import pytest

from lycoris_composite.config import settings as config
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.schedule import composite_cost, schedule_of, single_cost
from lycoris_composite.config.stages import stages_of
from lycoris_composite.preflight.inputs import read_data
from lycoris_composite.preflight.refusals import Refusals
from tests.helpers import kohya_settings, write_subset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """rin: three wide images, repeated twice; mio: one wide and one tall."""
    write_subset(tmp_path / "data/2_rin", {f"{n}": f"rin, {n}" for n in range(3)}, size=(96, 64))
    write_subset(tmp_path / "data/1_mio", {"0": "mio, a"}, size=(96, 64))
    write_subset(tmp_path / "more", {"1": "mio, b"}, size=(64, 96))
    for suffix in (".png", ".txt"):
        (tmp_path / "more" / f"1{suffix}").rename(tmp_path / "data/1_mio" / f"1{suffix}")
    return tmp_path / "data"


def settings_for(data: Path, composite: dict | None = None, **kohya: object) -> config.Settings:
    shared = {"train_data_dir": str(data), "resolution": "128,128", "enable_bucket": True, "min_bucket_reso": 64}
    shared |= {"caption_extension": ".txt", "keep_tokens": 1, "train_batch_size": 4, "cache_latents": True}
    return kohya_settings(data.parent, composite, **{**shared, **kohya})


def costs(settings: config.Settings) -> tuple:
    first, second = stages_of(settings)
    data = read_data((first, second), second, Refusals(), lambda bad: None, show_progress=False)
    plans, singles = data.plans, data.singles
    return single_cost(first, singles), composite_cost(second, plans), plans


def test_single_images_are_counted_bucket_by_bucket(data):
    first, _, _ = costs(settings_for(data, max_train_epochs=3))
    assert (first.samples, first.encoded) == (8, 5)
    assert first.schedule.batches == 3  # seven wide in two batches of four, one tall
    assert first.schedule.steps == 9


def test_composites_are_the_plans_and_each_image_is_encoded_once_per_size(data):
    _, second, [plan] = costs(settings_for(data))
    assert (second.samples, second.schedule.batches) == (plan.composites, plan.batches)
    assert second.encoded == sum(len(plan.panel_sizes(c, i)) for c in (0, 1) for i in range(len(plan.characters[c].images)))


def test_mirrored_images_are_encoded_too(data):
    plain, mirrored = costs(settings_for(data)), costs(settings_for(data, flip_aug=True))
    assert [cost.encoded for cost in mirrored[:2]] == [2 * cost.encoded for cost in plain[:2]]


def test_a_cache_of_pictures_holds_two_epochs(data):
    _, second, [plan] = costs(settings_for(data, {"join": "pixel"}))
    assert second.encoded == 2 * plan.composites


def test_without_a_cache_the_vae_works_in_every_step(data):
    first, second, _ = costs(settings_for(data, cache_latents=False))
    assert (first.encoded, second.encoded) == (0, 0)
    assert first.encoded_a_step == pytest.approx(8 / 3)
    assert second.encoded_a_step == pytest.approx(2 * second.samples / second.schedule.batches)


@pytest.mark.parametrize(
    ("settings", "batches", "expected"),
    [
        ({"max_train_epochs": 3}, 7, (7, 3, 21)),
        ({"max_train_epochs": 3, "max_train_steps": 5}, 7, (7, 3, 21)),
        ({"max_train_steps": 15}, 7, (7, 3, 15)),
        ({}, 100, (100, 16, 1600)),
        ({"max_train_epochs": 2, "gradient_accumulation_steps": 4}, 7, (2, 2, 4)),
    ],
)
def test_steps_as_upstream_counts_them(settings, batches, expected):
    schedule = schedule_of(KohyaSettings(settings), batches)
    assert (schedule.steps_an_epoch, schedule.epochs, schedule.steps) == expected
