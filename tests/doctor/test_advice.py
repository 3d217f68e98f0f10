"""Each piece of advice is given where it helps, and not where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lycoris_composite.config.stages import stages_of
from lycoris_composite.data.triggers import Trigger
from lycoris_composite.doctor.advice import advice
from lycoris_composite.doctor.findings import Finding
from tests.helpers import character, kohya_settings, plan

GOOD = {"cache_latents": True, "save_state": True, "save_every_n_epochs": 1, "sdpa": True, "seed": 1}


def given(tmp_path: Path, *characters, **kohya) -> dict[str, Finding]:
    settings = kohya_settings(tmp_path, **{**GOOD, **kohya})
    return {one.subject: one for one in advice(settings, stages_of(settings), [plan(characters)])}


def test_a_good_config_is_left_alone(tmp_path):
    assert given(tmp_path, character("rin", shuffle_caption=True), character("mio")) == {}


@pytest.mark.parametrize(
    ("kohya", "subject", "words"),
    [
        ({"save_state": None}, "save_state", "starts over"),
        ({"save_every_n_epochs": None}, "save_state", "starts over"),
        ({"cache_latents": False}, "cache_latents", "every picture of every batch"),
        ({"sdpa": None}, "sdpa", "square of a picture's area"),
        ({"seed": None}, "seed", "any change of one draws other composites"),
    ],
)
def test_settings_that_hurt(tmp_path, kohya, subject, words):
    found = given(tmp_path, character("rin"), character("mio"), **kohya)
    assert list(found) == [subject]
    assert words in found[subject].meaning


def test_a_trigger_word_that_wanders(tmp_path):
    from dataclasses import replace

    one = character("rin", shuffle_caption=True)
    loose = replace(one, subset=replace(one.subset, rules=replace(one.subset.rules, keep_tokens=0)))
    found = given(tmp_path, loose, character("mio"))
    assert list(found) == ["shuffle_caption"]
    assert '"rin"' in found["shuffle_caption"].meaning


def test_a_character_with_far_fewer_images(tmp_path):
    many = [(96, 96)] * 10
    assert given(tmp_path, character("rin", many), character("mio", many[:4])) == {}
    found = given(tmp_path, character("rin", many), character("mio", many[:3]))
    assert found["characters"].found == "mio: 3 images, rin: 10"


def test_a_trigger_word_that_no_caption_has(tmp_path):
    from dataclasses import replace

    rin = replace(character("rin"), found=Trigger("rin", ("rin",), "by hand", 0, False))
    found = given(tmp_path, rin, character("mio"))
    assert found["trigger word"].found == "rin, by hand, in no caption"
    assert "stage 1 does not teach it" in found["trigger word"].meaning
