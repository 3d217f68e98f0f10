"""The chain from (epoch, index) to one composite, and an epoch's batches."""

from __future__ import annotations

import math
import pickle
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lycoris_composite.composites.captions import Budget
from lycoris_composite.composites.plan import Composite, CompositeOptions, Plan
from lycoris_composite.composites.sample_prompts import sample_prompts
from lycoris_composite.data.buckets import Canvas
from lycoris_composite.errors import UserError
from tests.helpers import character, fast, plan

SHAPES = ((640, 640), (480, 800), (800, 480), (300, 1200), (96, 96))
NAMES = ("akari", "beni", "chie", "dia")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Two to four characters with images of several shapes, in batches of one to five."""
    shapes = st.lists(st.sampled_from(SHAPES), min_size=1, max_size=6)
    repeats = st.integers(1, 3)
    cast = [character(name, draw(shapes), repeats=draw(repeats)) for name in NAMES[: draw(st.integers(2, 4))]]
    canvas = Canvas((512, 512), 64, draw(st.sampled_from([None, (256, 1024)])), draw(st.booleans()))
    options = CompositeOptions(composites_per_image=draw(st.sampled_from([0.3, 1.0, 2.5])))
    return plan(cast, canvas=canvas, options=options, batch_size=draw(st.integers(1, 5)), seed=draw(st.integers(0, 2**32 - 1)))


def composites_of(one: Plan, epoch: int) -> list[Composite]:
    return [one.composite(epoch, index) for index in range(one.composites)]


def shown(composite: Composite) -> list[tuple]:
    return [(panel.image.path, panel.size, panel.flipped) for panel in composite.panels]


# --- composites --------------------------------------------------------------------------------------------------


@fast
@given(plans(), st.integers(1, 50))
def test_a_composite_is_whole(one, epoch):
    for composite in composites_of(one, epoch):
        left, right = composite.panels
        assert left.character is not right.character
        assert left.size[1] == right.size[1]
        assert composite.size == (left.size[0] + right.size[0], left.size[1])
        assert composite.size in one.sizes
        for panel in composite.panels:
            number = panel.character.images.index(panel.image)
            assert panel.caption == panel.character.captions[number]


@fast
@given(plans(), st.integers(1, 50), st.randoms())
def test_a_composite_depends_on_nothing_but_its_plan_epoch_and_index(one, epoch, rng):
    first = composites_of(one, epoch)
    again = Plan(one.characters, one.canvas, one.options, one.batch_size, one.seed)
    order = list(range(one.composites))
    rng.shuffle(order)
    for index in order:  # whatever was asked for before
        again.composite(rng.randint(1, 9), index)
        assert again.composite(epoch, index) == first[index]


def test_planning_leaves_the_global_random_states_alone():
    before = random.getstate(), np.random.get_state()[1].tolist()
    one = plan()
    one.caption(one.composite(1, 0), 1)
    one.batch(1, 0)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_the_count_follows_images_and_repeats():
    cast = [character("rin", ((96, 96),) * 4, repeats=10), character("mio", ((96, 96),) * 3, repeats=5)]
    counts = [plan(cast, options=CompositeOptions(composites_per_image=share)).composites for share in (1.0, 0.5, 1e-9)]
    assert counts == [55, 28, 1]


def test_a_character_with_more_repeats_comes_more_often():
    cast = [character("rin", repeats=4), character("mio"), character("uzuki")]
    seen = Counter(panel.character.trigger for composite in composites_of(plan(cast), 1) for panel in composite.panels)
    assert seen["rin"] > seen["mio"] + 3
    assert abs(seen["mio"] - seen["uzuki"]) <= 2


def test_consecutive_epochs_and_seeds_differ():
    runs = [(42, 1), (42, 2), (43, 1)]
    pictures = [tuple(tuple(shown(composite)) for composite in composites_of(plan(seed=seed), epoch)) for seed, epoch in runs]
    assert len(set(pictures)) == 3


def test_too_small_a_canvas_is_an_error():
    with pytest.raises(UserError, match=r"resolution 64x64 is too small for 2 panels .*; raise it in \[composite.stage2\]"):
        plan(canvas=Canvas((64, 64)))


# --- batches -----------------------------------------------------------------------------------------------------


@fast
@given(plans(), st.integers(1, 50))
def test_an_epochs_batches_hold_every_composite_once(one, epoch):
    batches = [one.batch(epoch, number) for number in range(one.batches)]
    assert sorted(index for batch in batches for index in batch) == list(range(one.composites))
    assert all(1 <= len(batch) <= one.batch_size for batch in batches)


@fast
@given(plans(), st.integers(1, 50))
def test_a_batch_has_one_size(one, epoch):
    for number in range(one.batches):
        assert len({one.composite(epoch, index).size for index in one.batch(epoch, number)}) == 1


def test_composites_of_one_size_fill_their_batches():
    cast = [character(name, ((96, 96),) * 10) for name in ("rin", "mio")]
    one = plan(cast, batch_size=4)
    assert [len(one.batch(1, number)) for number in range(one.batches)] == [4] * 5


@fast
@given(plans())
def test_no_more_batches_than_an_epoch_can_need(one):
    """At worst every size leaves one batch that is not full."""
    assert one.batches <= one.composites // one.batch_size + len(one.sizes)


# --- sizes -------------------------------------------------------------------------------------------------------


@fast
@given(plans(), st.integers(1, 50))
def test_every_size_in_use_was_announced(one, epoch):
    """What is encoded before training is looked up in it by (image, size)."""
    for composite in composites_of(one, epoch):
        for panel in composite.panels:
            number = one.characters.index(panel.character)
            sizes = one.panel_sizes(number, panel.character.images.index(panel.image))
            assert panel.size in sizes
            assert sizes == sorted(set(sizes))


def test_images_of_one_shape_have_one_size():
    """The VAE's work follows the images, not the pairs."""
    one = plan()
    assert {tuple(one.panel_sizes(c, i)) for c in range(3) for i in range(3)} == {((320, 320),)}
    assert one.sizes == ((640, 320),)


# --- flips and captions ------------------------------------------------------------------------------------------


def test_only_subsets_with_flip_aug_are_flipped_and_half_of_the_time():
    one = plan([character("rin", ((96, 96),) * 100, flip_aug=True), character("mio", ((96, 96),) * 100)])
    flipped = {"rin": 0, "mio": 0}
    for composite in composites_of(one, 1):
        for panel in composite.panels:
            flipped[panel.character.trigger] += panel.flipped
    assert flipped["mio"] == 0
    assert 70 <= flipped["rin"] <= 130


def test_flipping_moves_nothing_else():
    plain = plan([character("rin"), character("mio")])
    flipping = plan([character("rin", flip_aug=True), character("mio", flip_aug=True)])
    for one, other in zip(composites_of(plain, 1), composites_of(flipping, 1), strict=True):
        assert [panel.image for panel in one.panels] == [panel.image for panel in other.panels]
        assert plain.caption(one, 1) == flipping.caption(other, 1)


def test_a_composite_has_the_caption_of_its_panels():
    one = plan([character("rin", tags="smile"), character("mio", tags="hat")])
    composite = one.composite(1, 0)
    (left, a), (right, b) = [(p.character.trigger, p.caption.split(", ")[1:]) for p in composite.panels]
    assert one.caption(composite, 1) == ", ".join([f"{left}/{right}/COMPOSITE", *a, *b])


def test_a_caption_is_drawn_anew_in_every_epoch_and_for_every_composite():
    one = plan([character("rin", tags="a, b, c, d, e, f, g", shuffle_caption=True), character("mio", tags="x")])
    composite = one.composite(1, 0)
    assert len({one.caption(composite, epoch) for epoch in range(1, 11)}) >= 9
    assert one.caption(composite, 3) == one.caption(composite, 3)
    moved = replace(composite, index=1)
    assert one.caption(moved, 1) != one.caption(composite, 1)


def test_a_caption_keeps_its_budget():
    one = plan()

    def words(text: str) -> int:
        return len(text.replace(",", " ,").split())

    text = one.caption(one.composite(1, 0), 1, budget=Budget(6, words))
    assert len(text.replace(",", " ,").split()) <= 6


# --- pictures that come round again ------------------------------------------------------------------------------


def test_pictures_come_round_and_captions_do_not():
    one = plan([character("rin", tags="a, b, c, d, e, f", shuffle_caption=True), character("mio")])
    free = [shown(one.composite(epoch, 0)) for epoch in (1, 2)]
    one = one.cycling()
    composites = [one.composite(epoch, 0) for epoch in range(1, 6)]
    assert composites[0] == composites[2] == composites[4]
    assert composites[1] == composites[3]
    assert [shown(composite) for composite in composites[:2]] == free
    assert [one.batch(epoch, 0) for epoch in (1, 2)] == [one.batch(epoch, 0) for epoch in (3, 4)]
    assert one.caption(composites[0], 1) != one.caption(composites[2], 3)


# --- workers and size --------------------------------------------------------------------------------------------


@fast
@given(plans(), st.integers(1, 50))
def test_a_worker_gets_the_same_plan(one, epoch):
    other = pickle.loads(pickle.dumps(one))
    assert (other.batches, other.composites, other.sizes) == (one.batches, one.composites, one.sizes)
    assert composites_of(other, epoch) == composites_of(one, epoch)
    assert [other.batch(epoch, number) for number in range(other.batches)] == [
        one.batch(epoch, number) for number in range(one.batches)
    ]


def test_a_pickled_plan_carries_no_epochs():
    """What goes to each worker; an epoch is made where it is needed."""
    one = plan([character(name, ((96, 96),) * 500) for name in NAMES])
    before = len(pickle.dumps(one))
    composites_of(one, 1)
    assert len(pickle.dumps(one)) == before


def arrays_within(thing: object) -> list[np.ndarray]:
    if isinstance(thing, np.ndarray):
        return [thing]
    inside = thing.values() if isinstance(thing, dict) else getattr(thing, "__dict__", {}).values()
    return [array for value in inside for array in arrays_within(value)]


def test_a_hundred_thousand_images_cost_bytes_per_image():
    """Nothing may follow the pairs of images, of which there are five billion here, or be kept per epoch for ever."""
    images = 100_000
    cast = [character(f"{name}{number}", SHAPES[:4] * (images // 80)) for name in "abcd" for number in range(5)]
    one = plan(cast, batch_size=8)
    assert one.composites == images
    for epoch in range(1, 4):
        one.composite(epoch, images - 1)
        one.batch(epoch, one.batches - 1)
    assert sum(array.nbytes for array in arrays_within(one)) < 8 * images
    assert sum(array.nbytes for array in arrays_within(one._epoch(3))) < 40 * images
    assert one._epoch.cache_info().currsize <= 2
    assert len(one._layouts) <= len(one.sizes) ** 2 <= 16**2


# --- more panels than two ------------------------------------------------------------------------------------------


def test_a_plan_of_three_panels():
    """No option asks for it yet; a layout, a caption, statistics and sample prompts count panels already."""
    cast = [character(name, [(96, 96), (64, 128)]) for name in ("rin", "uzuki", "mio", "ayame")]
    canvas = Canvas((768, 512), 64, (256, 1024))
    options = CompositeOptions("{1}/{2}/{3}/COMPOSITE, {1_tags}, {2_tags}, {3_tags}")
    three = Plan(cast, canvas, options, 2, 42, panels=3)
    for index in range(three.composites):
        composite = three.composite(1, index)
        assert len({panel.character.trigger for panel in composite.panels}) == 3
        assert composite.size in three.sizes
        assert [box.left for box in composite.boxes] == [
            0,
            composite.boxes[0].width,
            composite.size[0] - composite.boxes[2].width,
        ]
        names = "/".join(panel.character.trigger for panel in composite.panels)
        assert three.caption(composite, 1).startswith(f"{names}/COMPOSITE, ")
    assert sorted(index for batch in range(three.batches) for index in three.batch(1, batch)) == list(range(three.composites))
    assert three.place_counts(1).sum(axis=0).tolist() == [three.composites] * 3
    prompts = [prompt["prompt"] for prompt in sample_prompts(three, (512, 512))]
    assert sum("COMPOSITE" in prompt for prompt in prompts) == math.perm(4, 3)
