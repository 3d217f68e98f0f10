"""What a preview says of a plan, on data that has what it warns of."""

from __future__ import annotations

import pytest

from lycoris_composite.architectures import SENTENCES
from lycoris_composite.composites.captions import Budget
from lycoris_composite.composites.plan import CompositeOptions
from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.schedule import schedule_of
from lycoris_composite.data.buckets import Canvas
from lycoris_composite.look.statistics import kept_share, samples, warnings
from tests.helpers import character
from tests.helpers import plan as plan_of

WIDE = ((96, 64),)


def seen(plan, epochs=4, budget=None):
    schedule = schedule_of(KohyaSettings({"max_train_epochs": epochs}), plan.batches)
    return [sample for epoch in range(1, epochs + 1) for sample in samples(plan, epoch, schedule, budget)]


def test_samples_are_the_plans_own_captions_batch_by_batch():
    plan = plan_of()
    found = seen(plan, epochs=2)
    assert [sample.composite for sample in found[: plan.composites]] == [
        plan.composite(1, index) for batch in range(plan.batches) for index in plan.batch(1, batch)
    ]
    assert all(sample.caption == plan.caption(sample.composite, sample.epoch) for sample in found)


def test_nothing_is_said_where_all_is_well():
    assert warnings(plan_of(), seen(plan_of(), 12), True, None) == []


def test_a_character_with_few_images_is_named():
    plan = plan_of([character("rin", WIDE * 10), character("uzuki", WIDE * 3), character("mio", WIDE * 4)])
    [line] = warnings(plan, [], True, None)
    assert line.startswith("uzuki has 3 image(s), rin 10: ")


def test_an_image_that_loses_a_third_is_named():
    characters = [character("rin", ((1600, 400),) * 3), *(character(name, ((48, 96),) * 3) for name in ("uzuki", "mio"))]
    canvas = Canvas((512, 512), aspect="equal")
    [line] = warnings(plan_of(characters, canvas=canvas, options=CompositeOptions(aspect="equal")), [], True, None)
    assert line.startswith("3 image(s) lose a third or more to a crop: ")
    assert "rin" in line
    assert "(88%)" in line  # 1600x400 in 256x512: an eighth is left


@pytest.mark.parametrize(("size", "panel", "share"), [((400, 400), (200, 200), 1), ((800, 400), (100, 100), 0.5), ((10, 40), (20, 40), 0.5)])  # fmt: skip
def test_how_much_of_an_image_is_left(size, panel, share):
    assert kept_share(size, panel) == pytest.approx(share)


def test_captions_over_the_limit_are_counted():
    plan = plan_of()
    budget = Budget(4, lambda text: len(text.split()))
    found = seen(plan, 1, budget)
    assert all(sample.tokens <= 4 for sample in found)
    [line] = [line for line in warnings(plan, found, True, budget) if "over the limit" in line]
    cut = sum(len(plan.caption(s.composite, s.epoch).split()) > 4 for s in found)
    assert line.startswith(f"{cut} of {len(found)} captions are over the limit of 4 tokens")


def test_a_tag_that_only_ever_stands_on_one_side_is_named():
    plan = plan_of()
    left_only = [sample for sample in seen(plan, 8) if sample.composite.panels[0].character.trigger == "rin"]
    lines = warnings(plan, left_only, True, None)
    left = next(line for line in lines if line.startswith("tags that only ever stand on the left"))
    assert "rin picture 0, rin picture 1, rin picture 2;" in left
    assert "smile" not in left  # which others have on the right


def test_in_a_part_of_training_chance_is_no_warning():
    """Hundreds of tags of one image each: some stand four times on the left alone before they come on the right."""
    plan = plan_of([character(name, WIDE * 100) for name in ("rin", "uzuki", "mio")])
    found = seen(plan, 2)
    assert any("picture" in line for line in warnings(plan, found, True, None))
    assert warnings(plan, found, False, None) == []
    left_only = [sample for sample in seen(plan, 60) if sample.composite.panels[0].character.trigger == "rin"]
    assert any("only ever stand on the left: rin picture" in line for line in warnings(plan, left_only, False, None))


def test_a_dropped_caption_is_none():
    plan = plan_of([character(name, caption_dropout_rate=1.0) for name in ("rin", "uzuki")])
    assert {sample.caption for sample in seen(plan, 1)} == {""}
    assert warnings(plan, seen(plan, 1), True, Budget(75, len)) == []


@pytest.mark.parametrize(
    ("key", "advice"), [("t5xxl_max_token_length", "raise t5xxl_max_token_length, or write"), ("", "write")]
)
def test_whole_captions_lose_words_and_their_words_are_no_tags(key, advice):
    plan = plan_of(options=CompositeOptions(SENTENCES))
    budget = Budget(14, lambda text: len(text.split()), key)
    found = seen(plan, 8, budget)
    assert warnings(plan, found, True, budget) == [
        f"{len(found)} of {len(found)} captions are over the limit of 14 tokens and lose words on both sides; {advice} fewer words."
    ]
    assert all(13 <= sample.tokens <= 14 for sample in found)
