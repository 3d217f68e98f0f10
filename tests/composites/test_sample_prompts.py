"""The sample prompts that a config without any gets."""

from __future__ import annotations

import pytest

from lycoris_composite.architectures import SENTENCES
from lycoris_composite.composites.plan import CompositeOptions, Plan
from lycoris_composite.composites.sample_prompts import sample_prompts
from tests.helpers import character, plan

SINGLE = (640, 640)


def texts(one: Plan) -> list[str]:
    return [prompt["prompt"] for prompt in sample_prompts(one, SINGLE)]


@pytest.fixture
def pair() -> Plan:
    return plan([character("mio", tags="hat"), character("rin", tags="smile, sky")])


def test_each_alone_then_each_order_then_without_the_mark(pair):
    assert texts(pair) == [
        "mio, hat",
        "rin, sky, smile",
        "mio/rin/COMPOSITE, hat, sky, smile",
        "rin/mio/COMPOSITE, sky, smile, hat",
        "mio, rin, hat, sky, smile",
    ]
    prompts = sample_prompts(pair, SINGLE)
    assert [prompt.get("negative_prompt") for prompt in prompts] == [None] * 4 + ["COMPOSITE"]


def test_singles_and_composites_have_their_training_sizes(pair):
    sizes = [(prompt["width"], prompt["height"]) for prompt in sample_prompts(pair, SINGLE)]
    assert sizes == [SINGLE] * 2 + [pair.composite(1, 0).size] * 3


def test_prompts_follow_the_template(pair):
    one = plan(pair.characters, options=CompositeOptions("{left} beside {right} duo, {left_tags}, {right_tags}"))
    prompts = sample_prompts(one, SINGLE)
    assert prompts[2]["prompt"] == "mio beside rin duo, hat, sky, smile"
    assert prompts[-1]["negative_prompt"] == "duo"


def test_a_template_without_a_mark_has_no_prompts_without_it(pair):
    prompts = sample_prompts(plan(pair.characters, options=CompositeOptions("{left}/{right}, {left_tags}")), SINGLE)
    assert len(prompts) == 4
    assert all("negative_prompt" not in prompt for prompt in prompts)


def test_only_common_tags_and_not_too_many():
    tags = ", ".join(f"tag {number}" for number in range(10))
    mio, rin = texts(plan([character("mio", tags=tags), character("rin")]))[:2]
    assert mio == "mio, tag 0, tag 1, tag 2, tag 3, tag 4, tag 5"
    assert "picture" not in rin  # the tag that each image has for itself


def test_a_large_cast_is_shown_in_part():
    """Four alone, their twelve ordered pairs, six pairs without the mark: pictures cost time at every sampling."""
    assert len(texts(plan([character(f"girl{number}") for number in range(9)]))) == 4 + 12 + 6


def test_prompts_are_the_same_every_time():
    cast = [character("mio", shuffle_caption=True), character("rin", shuffle_caption=True)]
    assert texts(plan(cast, seed=1)) == texts(plan(cast, seed=2))


@pytest.mark.parametrize("rules", [{"caption_tag_dropout_rate": 0.9}, {"token_warmup_step": 100}])
def test_what_training_leaves_out_for_a_while_is_in_the_prompts(rules):
    cast = [character("mio", tags="hat, sky", **rules), character("rin")]
    assert texts(plan(cast))[0] == "mio, hat, sky"


def test_tags_held_together_are_written_as_they_are_trained():
    cast = [character("mio", tags="red hair;;;red eyes", secondary_separator=";;;"), character("rin")]
    one = plan(cast)
    assert "red hair,red eyes" in one.caption(one.composite(1, 0), 1)
    assert texts(one)[0] == "mio, red hair,red eyes"


def test_no_negative_prompt_where_it_changes_no_sample(pair):
    prompts = sample_prompts(pair, SINGLE, is_guided=False)
    assert [prompt["prompt"] for prompt in prompts] == texts(pair)[:4]
    assert all("negative_prompt" not in prompt for prompt in prompts)


def test_whole_captions_are_a_characters_own_first_one():
    mio, rin = character("mio", tags="hat"), character("rin", tags="smile", caption_suffix="outdoors")
    one = plan([mio, rin], options=CompositeOptions(SENTENCES))
    left, right = "mio, hat, mio picture 0", "rin, smile, rin picture 0 outdoors"
    assert texts(one) == [
        left,
        right,
        f"mio/rin/COMPOSITE. Left: {left} Right: {right}",
        f"rin/mio/COMPOSITE. Left: {right} Right: {left}",
        f"mio, rin. {left} {right}",
    ]
    assert sample_prompts(one, SINGLE)[-1]["negative_prompt"] == "COMPOSITE"


def test_a_wildcard_in_a_whole_caption_is_drawn_the_same_every_time():
    cast = [character(name, tags="a {red|green|blue|black} hat", enable_wildcard=True) for name in ("mio", "rin")]
    found = [texts(plan(cast, seed=seed, options=CompositeOptions(SENTENCES))) for seed in (1, 2)]
    assert found[0] == found[1]
    assert "{" not in "".join(found[0])
