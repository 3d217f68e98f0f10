"""The miniature's world, its cut of CLIP's vocabulary, its data and what its scorer concludes."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lycoris_composite.config import settings as config
from lycoris_composite.config.datasets import datasets_of, plan_of
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.stages import stages_of
from tests.helpers import ROOT

FOLDER = ROOT / "examples" / "cg3_mini"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in {path.stem for path in FOLDER.glob("*.py")}:
        sys.modules.pop(name, None)


def test_a_seed_draws_one_picture():
    import world

    def drawn(seed: int) -> np.ndarray:
        rng = random.Random(seed)
        return np.asarray(world.draw([world.random_figure(rng) for _ in range(2)], "beach", rng))

    assert drawn(1).shape == (64, 128, 3)
    assert (drawn(1) == drawn(1)).all()
    assert (drawn(1) != drawn(2)).any()


def test_the_base_models_people_are_none_of_the_named():
    import world

    rng = random.Random(0)
    strangers = {world.random_figure(rng).identity[:4] for _ in range(20_000)}
    assert len(strangers) > 400
    assert not strangers & {identity[:4] for identity in world.CHARACTERS.values()}


def test_every_tag_changes_the_picture():
    """One field at a time, all else and the draw of the rest the same."""
    from dataclasses import replace

    import world

    figure = world.Figure("red", "long hair", "blue", "dress", "", "smile", "arms down")
    plain = np.asarray(world.draw([figure], "white background", random.Random(1)), int)
    for name, values in world.CHOICES.items():
        for value in set(values) - {getattr(figure, name)}:
            other = np.asarray(world.draw([replace(figure, **{name: value})], "white background", random.Random(1)), int)
            assert np.abs(other - plain).max() > 40, (name, value)


def test_an_empty_slot_shows_the_background_alone():
    import world

    rng = random.Random(0)
    picture = np.asarray(world.draw([None, world.character("rin", rng)], "white background", rng))
    assert len(np.unique(picture[:, :64].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(picture[:, 64:].reshape(-1, 3), axis=0)) > 100


def test_the_cut_vocabulary_spells_as_clips_does(tmp_path: Path):
    pytest.importorskip("transformers", reason='needs `pip install ".[builtin]"`')
    import base
    import world
    from transformers import CLIPTokenizer

    from tests import tiny

    base.write_tokenizer(tmp_path / "cut")
    cut = base.load_tokenizer(tmp_path / "cut")
    whole = CLIPTokenizer.from_pretrained(tiny.make_tokenizer_cache(tmp_path / "whole") / base.TOKENIZER)
    rng = random.Random(0)
    for _ in range(100):
        scene = [world.random_figure(rng) for _ in range(rng.randint(1, 3))], rng.choice(world.BACKGROUNDS)
        text = f"uzuki/rin/COMPOSITE, {world.caption(*scene)}, mio"
        assert cut.tokenize(text) == whole.tokenize(text)
        assert len(cut.tokenize(text)) <= 75
    assert len(cut) < 1000
    assert cut.decode(cut("zebra!").input_ids, skip_special_tokens=True).replace(" ", "") == "zebra!"


def test_the_weights_are_those_that_were_measured():
    """Read without torch: who has no trainer yet can check what they cloned."""
    sums = dict(reversed(line.split("  ")) for line in (FOLDER / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    weights = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in FOLDER.glob("**/*.safetensors")}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in weights.items()} == sums
    assert sum(map(len, weights.values())) <= 25_000_000


def test_the_base_does_not_say_where_it_was_made():
    configs = [path.read_text(encoding="utf-8") for path in FOLDER.glob("base/**/*.json")]
    assert configs
    assert not [text for text in configs if "_name_or_path" in text]


def test_the_config_finds_the_drawn_characters(tmp_path: Path):
    import draw_data

    settings = config.load_settings(FOLDER / "cg3_mini.toml")
    folder = draw_data.draw_data(tmp_path / "data")
    settings = replace(settings, kohya=KohyaSettings({**settings.kohya, "train_data_dir": str(folder)}))
    [dataset] = datasets_of(stages_of(settings)[1])
    plan = plan_of(dataset, settings.composite, 42)
    assert [(c.trigger, len(c.images)) for c in plan.characters] == [("mio", 12), ("rin", 12), ("uzuki", 12)]
    assert plan.sizes == ((128, 64),)
    caption = plan.caption(plan.composite(1, 0), 1)
    assert "/COMPOSITE, " in caption
    assert "hair" not in caption  # who it is, is the trigger word's to say


@pytest.mark.parametrize(
    ("left", "right", "kind"),
    [
        ("rin", "uzuki", "both"),
        ("uzuki", "rin", "both"),
        ("rin", "rin", "clone"),
        ("rin", ("black", "twintails", "yellow", "dress", "ribbon"), "blend"),
        ("rin", None, "missing"),
        ("rin", ("red", "short hair", "white", "shirt", ""), "missing"),
        ("rin", "mio", "missing"),
        ("mio", ("pink", "long hair", "green", "dress", "ribbon"), "missing"),
    ],
)
def test_the_scorers_verdicts(left, right, kind):
    pytest.importorskip("torch", reason='needs `pip install ".[builtin]"`')
    import scorer
    import world

    slots = tuple(scorer.Slot(world.CHARACTERS.get(one, one) if isinstance(one, str) else one) for one in (left, right))
    assert scorer.Judgement(slots, (False,)).kind(("uzuki", "rin")) == kind


def test_what_is_asked_for():
    pytest.importorskip("torch", reason='needs `pip install ".[builtin]"`')
    import experiment

    marked, plain = (experiment.requests(12, 5, marked) for marked in (True, False))
    asked = [request.asked for request in marked]
    assert sorted(asked) == sorted([*experiment.PAIRS, *experiment.PAIRS])
    assert len({request.prompt for request in marked}) == 12
    for request, unmarked in zip(marked, plain, strict=True):
        left, right = request.asked
        assert request.prompt.startswith(f"{left}/{right}/COMPOSITE, 2girls, ")
        assert unmarked.prompt == request.prompt.replace(f"{left}/{right}/COMPOSITE", f"{left}, {right}")
        assert (request.negative, unmarked.negative) == ("", "COMPOSITE")


def test_drawn_characters_are_counted_as_who_they_are():
    """Real drawings through the real scorer: the table of what was drawn is known."""
    pytest.importorskip("torch", reason='needs `pip install ".[builtin]"`')
    import experiment
    import torch
    import world

    rng = random.Random(4)

    def drawn(left: str, right: str) -> torch.Tensor:
        figures = [world.character(name, rng) for name in (left, right)]
        picture = np.array(world.draw(figures, "aqua background", rng))
        return torch.from_numpy(picture).permute(2, 0, 1) / 127.5 - 1

    asked = [("rin", "mio"), ("mio", "rin"), ("uzuki", "mio"), ("uzuki", "rin")]
    there = [("rin", "mio"), ("rin", "mio"), ("mio", "mio"), ("uzuki", "mio")]
    wanted = [experiment.Request(pair, "") for pair in asked]
    counts = experiment.tally(torch.stack([drawn(*pair) for pair in there]), wanted)
    assert dict(counts) == {"all": 4, "both": 2, "in order": 1, "clone": 1, "missing": 1, "seam": 0}
    pairs = experiment.by_pair(torch.stack([drawn(*pair) for pair in there]), wanted)
    assert {pair: count["both"] for pair, count in pairs.items()} == {
        "rin/mio": 1,
        "mio/rin": 1,
        "uzuki/mio": 0,
        "uzuki/rin": 0,
    }
    assert all(count["all"] == 1 for count in pairs.values())
    rows = experiment.table({"drawn": counts}).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (rows[0], rows[2])]
    assert dict(zip(*cells, strict=True)) == {
        "": "drawn",
        "pictures": "4",
        "both": "50% (15% to 85%)",
        "clone": "25% (5% to 70%)",
        "blend": "0% (0% to 49%)",
        "missing": "25% (5% to 70%)",
        "seam": "0% (0% to 49%)",
    }
