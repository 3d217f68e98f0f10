"""A composite's caption: the template, each side's tags, the token budget."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lycoris_composite.architectures import SENTENCES, TAGS
from lycoris_composite.composites.captions import (
    Budget,
    PanelCaption,
    Progress,
    caption_parts,
    check_template,
    marker,
    render,
    spans,
    strictest,
)
from lycoris_composite.data.tags import CaptionRules, first_tag, line_tags
from lycoris_composite.errors import UserError
from tests.helpers import fast, thorough

NAME = "rin/uzuki/COMPOSITE"


def panels(left: str, right: str, **rules: Any) -> list[PanelCaption]:
    shared = CaptionRules(**{"keep_tokens": 1, **rules})
    return [PanelCaption(left, "rin", shared), PanelCaption(right, "uzuki", shared)]


def caption(pair: Sequence[PanelCaption], seed: int = 0, epoch: int = 1, **more: Any) -> str:
    parts = caption_parts(TAGS, pair, random.Random(seed), epoch, **more)
    return "" if parts is None else render(TAGS, parts.triggers, parts.tags)


def captions(pair: Sequence[PanelCaption], draws: int = 60) -> set[str]:
    return {caption(pair, seed) for seed in range(draws)}


def test_what_the_budget_had_no_room_for_is_known():
    pair = panels("rin, a, b, c, d", "uzuki, x, y")
    limit = Budget(len(["rin/uzuki/COMPOSITE", "a", "b", "x"]), lambda text: len(text.replace(",", " ").split()))
    parts = caption_parts(TAGS, pair, random.Random(0), 1, budget=limit)
    assert parts.tags == (["a"], ["x"])
    assert parts.cut == (["b", "c", "d"], ["y"])


def test_every_piece_of_a_caption_knows_whose_it_is():
    found = spans("a {right_tags}, {left}/{{x}}, {left_tags}", ("rin", "uzuki"), (["cap", "red"], ["bow"]))
    assert found == [
        ("name", "a "), ("tags1", "bow, "), ("name", "rin"), ("name", "/{"), ("name", "x}, "), ("tags0", "cap, red")
    ]  # fmt: skip


# --- the template ------------------------------------------------------------------------------------------------


def test_the_guides_template():
    sides = ["blue hair", "smile"], ["hat"]
    assert render(TAGS, ["rin", "uzuki"], sides) == "rin/uzuki/COMPOSITE, blue hair, smile, hat"


@pytest.mark.parametrize(
    ("left", "right", "text"),
    [([], ["hat"], f"{NAME}, hat"), (["hat"], [], f"{NAME}, hat"), ([], [], NAME)],
)
def test_a_side_without_tags_leaves_no_stray_comma(left, right, text):
    assert render(TAGS, ["rin", "uzuki"], [left, right]) == text


def test_a_template_may_say_it_in_other_words_and_in_another_order():
    template = "2girls, {right} beside {left}: {right_tags}; {left_tags}"
    assert render(template, ["rin", "uzuki"], [["hat"], ["smile"]]) == "2girls, uzuki beside rin: smile; hat"


def test_braces_of_a_caption_are_no_fields():
    assert caption(panels("rin, {left}", "uzuki, {right_tags}")) == f"{NAME}, {{left}}, {{right_tags}}"


@pytest.mark.parametrize("template", [TAGS, SENTENCES, "{left} and {right}", "no fields", "", "{{left}} {left}"])
def test_good_templates_pass(template):
    check_template(template)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{middle}, {left}", r"unknown field \{middle\}; the fields are \{left\}, \{right\}, \{left_tags\}, \{right_tags\}"),
        ("{}", r"unknown field \{\}"),
        ("{left.__class__}", r"unknown field \{left\.__class__\}"),
        ("{left!r}", r"unknown field \{left"),
        ("{left:>20}", r"unknown field \{left"),
        ("{left, {right}", "unknown field|expected"),
        ("{left", "expected '}'"),
        ("left}", "Single '}'"),
        ("{left_caption}, {right_tags}", "has fields for tags and for whole captions, which say the same twice; keep one kind"),
    ],
)
def test_a_broken_template_is_an_error(template, message):
    with pytest.raises(ValueError, match=message):
        check_template(template)


@pytest.mark.parametrize(
    ("template", "word"),
    [
        (TAGS, "COMPOSITE"),
        (SENTENCES, "COMPOSITE"),
        ("A diptych: {left_caption} {right_caption}", "diptych"),
        ("{left} + {right} duo, {left_tags}", "duo"),
        ("2girls, {left}/{right}/COMPOSITE, {left_tags}", "COMPOSITE"),
        ("{left}/{right}, {left_tags}", None),
    ],
)
def test_the_mark_is_the_fixed_word_of_the_joined_name(template, word):
    assert marker(template) == word


# --- each side's tags --------------------------------------------------------------------------------------------

tag_lists = st.lists(st.text("abc", min_size=1, max_size=3), max_size=8)
rates = st.sampled_from([0.0, 0.3, 1.0])


@thorough
@given(tag_lists, tag_lists, st.booleans(), st.integers(0, 3), rates, st.integers())
def test_tags_never_cross_sides(left, right, shuffle, keep_tokens, rate, seed):
    left, right = [f"left {tag}" for tag in left], [f"right {tag}" for tag in right]
    rules = {"shuffle_caption": shuffle, "keep_tokens": keep_tokens, "caption_tag_dropout_rate": rate}
    name, *tags = caption(panels(", ".join(["rin", *left]), ", ".join(["uzuki", *right]), **rules), seed).split(", ")
    assert name == NAME
    assert [tag.split()[0] for tag in tags] == sorted(tag.split()[0] for tag in tags)  # "left" before "right"
    if not rate:
        assert sorted(tags) == sorted(left + right)
        assert shuffle or tags == left + right


def test_the_trigger_word_stands_in_the_name_alone():
    assert caption(panels("rin, hat", "smile, uzuki")) == f"{NAME}, hat, smile"


def test_shuffling_changes_the_order_and_keeps_the_tags():
    seen = captions(panels("rin, a, b, c", "uzuki, x, y, z", shuffle_caption=True))
    assert len(seen) > 20
    assert all(sorted(text.split(", ")[1:]) == list("abcxyz") for text in seen)


def test_both_sides_are_shuffled_on_their_own():
    seen = captions(panels("rin, a, b", "uzuki, x, y", shuffle_caption=True))
    assert seen == {f"{NAME}, {left}, {right}" for left in ("a, b", "b, a") for right in ("x, y", "y, x")}


def test_keep_tokens_counts_tags_from_the_first():
    seen = captions(panels("rin, kept, a, b", "uzuki, x", shuffle_caption=True, keep_tokens=2))
    assert seen == {f"{NAME}, kept, a, b, x", f"{NAME}, kept, b, a, x"}


def test_keep_tokens_separator_protects_the_ends():
    rules = {"shuffle_caption": True, "keep_tokens": 0, "keep_tokens_separator": "|||"}
    seen = captions(panels("rin, first ||| a, b ||| last", "uzuki ||| x", **rules))
    assert seen == {f"{NAME}, first, a, b, last, x", f"{NAME}, first, b, a, last, x"}


def test_secondary_separator_holds_tags_together():
    seen = captions(panels("rin, red hair;;;red eyes, hat", "uzuki", shuffle_caption=True, secondary_separator=";;;"))
    assert seen == {f"{NAME}, red hair,red eyes, hat", f"{NAME}, hat, red hair,red eyes"}


def test_caption_separator_is_what_tags_are_split_at():
    assert caption(panels("rin. a, b. c", "uzuki. d", caption_separator=".")) == f"{NAME}, a, b, c, d"
    seen = captions(panels("rin. a, b. c", "uzuki. d", caption_separator=".", shuffle_caption=True))
    assert seen == {f"{NAME}, a, b, c, d", f"{NAME}, c, a, b, d"}


def test_wildcards_choose_one_of_each():
    seen = captions(panels("rin, {smile|frown}", "uzuki, {a|b} hat", enable_wildcard=True))
    assert seen == {f"{NAME}, {face}, {letter} hat" for face in ("smile", "frown") for letter in "ab"}


def test_doubled_braces_are_braces_where_wildcards_are_on():
    assert caption(panels("rin, {{a|b}}", "uzuki", enable_wildcard=True)) == f"{NAME}, {{a|b}}"
    assert caption(panels("rin, {a|b}", "uzuki")) == f"{NAME}, {{a|b}}"


def test_lines_are_alternatives_where_wildcards_are_on_else_the_first_counts():
    pair = "rin, day\nrin, night", "uzuki, hat"
    assert captions(panels(*pair, enable_wildcard=True)) == {f"{NAME}, day, hat", f"{NAME}, night, hat"}
    assert captions(panels(*pair)) == {f"{NAME}, day, hat"}


def test_prefix_and_suffix_belong_to_their_side():
    rules = {"caption_prefix": "masterpiece,", "caption_suffix": ", end"}
    assert caption(panels("rin, a", "uzuki, b", **rules)) == f"{NAME}, masterpiece, a, end, masterpiece, b, end"


def test_tag_dropout_spares_protected_tags():
    pair = panels("rin, kept, a, b", "uzuki, also kept, c", keep_tokens=2, caption_tag_dropout_rate=1.0)
    assert caption(pair) == f"{NAME}, kept, also kept"
    some = captions(panels("rin, a, b", "uzuki, c", caption_tag_dropout_rate=0.5))
    assert {f"{NAME}, a, b, c", NAME, f"{NAME}, b"} <= some


@pytest.mark.parametrize(
    ("step", "warmup", "letters"),
    [(0, 10, "a"), (5, 10, "abcde"), (9, 10, "abcdefghi"), (10, 10, "abcdefghij"), (50, 0.5, "abcdefghij"), (25, 0.5, "abcde")],
)
def test_warm_up_lets_tags_in_one_by_one(step, warmup, letters):
    """Ten free tags a side; below 1 the warm-up is a share of 100 steps."""
    pair = panels("rin, a, b, c, d, e, f, g, h, i, j", "uzuki", token_warmup_step=warmup)
    assert caption(pair, progress=Progress(step, 100)) == f"{NAME}, {', '.join(letters)}"


@pytest.mark.parametrize(
    ("text", "rules", "tag"),
    [
        ("rin, smile", CaptionRules(), "rin"),
        ("rin and dog ||| smile", CaptionRules(keep_tokens_separator="|||"), "rin and dog"),
        ("rin. smile, hat", CaptionRules(caption_separator="."), "rin"),
        ("rin, day\nmio, night", CaptionRules(), "rin"),
        ("", CaptionRules(), ""),
        (", smile", CaptionRules(), ""),
    ],
)
def test_first_tag(text, rules, tag):
    assert first_tag(text, rules) == tag


# --- dropping the caption ----------------------------------------------------------------------------------------


def test_caption_dropout_leaves_nothing():
    assert caption(panels("rin, a", "uzuki, b", caption_dropout_rate=1.0)) == ""


def test_caption_dropout_comes_as_often_as_its_rate():
    pair = panels("rin, a", "uzuki, b", caption_dropout_rate=0.25)
    dropped = sum(caption(pair, seed) == "" for seed in range(400))
    assert 70 <= dropped <= 130


def test_a_character_whose_captions_are_never_dropped_keeps_the_composites():
    never = PanelCaption("uzuki, b", "uzuki", CaptionRules(keep_tokens=1))
    for rule in ({"caption_dropout_rate": 1.0}, {"caption_dropout_every_n_epochs": 1}):
        always = PanelCaption("rin, a", "rin", CaptionRules(keep_tokens=1, **rule))
        assert caption([always, never]) == f"{NAME}, a, b"


def test_caption_dropout_every_n_epochs():
    pair = panels("rin, a", "uzuki, b", caption_dropout_every_n_epochs=3)
    assert [epoch for epoch in range(1, 8) if not caption(pair, epoch=epoch)] == [3, 6]


# --- the token budget --------------------------------------------------------------------------------------------


def count(text: str) -> int:
    """Like CLIP's tokenizer in what matters here: words and punctuation marks, and nothing merges across a space."""
    return len(re.findall(r"\w+|[^\w\s]", text))


words = st.integers(1, 3).map(lambda number: " ".join(["word"] * number))


@st.composite
def sides(draw: st.DrawFn, name: str) -> tuple[list[str], list[str]]:
    """Protected and free tags, all different, of one to four tokens."""
    kept, free = (draw(st.lists(words, max_size=most)) for most in (3, 8))
    return [f"{name}_kept{n} {tag}" for n, tag in enumerate(kept)], [f"{name}_free{n} {tag}" for n, tag in enumerate(free)]


def budgeted(left, right, limit: int, shuffle: bool = False, seed: int = 0) -> tuple[list[str], list[str]]:
    """The left and right tags of the caption that fits, in its order."""
    pair = [
        PanelCaption(
            ", ".join([trigger, *kept, *free]), trigger, CaptionRules(keep_tokens=1 + len(kept), shuffle_caption=shuffle)
        )
        for trigger, (kept, free) in (("rin", left), ("uzuki", right))
    ]
    text = caption(pair, seed, budget=Budget(limit, count))
    assert count(text) <= limit
    name, *tags = text.split(", ")
    assert name == NAME
    return [tag for tag in tags if tag.startswith("left")], [tag for tag in tags if tag.startswith("right")]


@thorough
@given(sides("left"), sides("right"), st.integers(5, 60), st.booleans(), st.integers())
def test_a_caption_over_the_budget_loses_the_last_tags_of_the_longer_side_then_of_both(left, right, limit, shuffle, seed):
    whole = budgeted(left, right, 10_000, shuffle, seed)
    fitting = budgeted(left, right, limit, shuffle, seed)
    gone = [[tag for tag in before if tag not in after] for before, after in zip(whole, fitting, strict=True)]
    for before, after, lost in zip(whole, fitting, gone, strict=True):
        assert after == [tag for tag in before if tag not in lost]  # the order of the draw
        free, free_lost = ([tag for tag in tags if "free" in tag] for tags in (before, lost))
        assert free_lost == free[len(free) - len(free_lost) :]
    for part in ("free", "kept"):  # whoever has lost some has kept as many as anybody
        left_over, lost = ([[tag for tag in tags if part in tag] for tags in both] for both in (fitting, gone))
        longest = max(map(len, left_over))
        assert all(len(left_over[side]) == longest for side in (0, 1) if lost[side])
    last = "kept" if any("kept" in tag for tags in gone for tag in tags) else "free"
    again = [next((tag for tag in tags if last in tag), None) for tags in gone]
    if any(again):  # and no more than needed: with what was given up last, it would be too long
        assert count(", ".join([NAME, *fitting[0], *fitting[1], *filter(None, again)])) > limit


@thorough
@given(sides("left"), sides("right"), st.integers(5, 60))
@example((["left_kept0"], []), ([], ["right_free0", "right_free1"]), 8)
def test_protected_tags_go_after_all_others(left, right, limit):
    fitting = budgeted(left, right, limit)
    lost_kept = len(left[0]) + len(right[0]) - sum("kept" in tag for side in fitting for tag in side)
    still_free = sum("free" in tag for side in fitting for tag in side)
    assert not (lost_kept and still_free)


def test_nothing_is_lost_at_exactly_the_limit():
    left, right = ([], ["left a", "left b"]), ([], ["right c"])
    limit = count(f"{NAME}, left a, left b, right c")
    assert budgeted(left, right, limit) == (["left a", "left b"], ["right c"])
    assert budgeted(left, right, limit - 1) == (["left a"], ["right c"])


def test_the_right_side_is_not_the_one_that_is_cut():
    """What upstream does to a caption that is too long: the right-hand character loses everything."""
    left, right = ([], [f"left {n}" for n in range(30)]), ([], [f"right {n}" for n in range(30)])
    assert [len(side) for side in budgeted(left, right, 75)] == [11, 11]


def test_a_side_with_few_tags_keeps_them_beside_one_with_many():
    left, right = ([], [f"left {n}" for n in range(6)]), ([], [f"right {n}" for n in range(60)])
    assert [len(side) for side in budgeted(left, right, 75)] == [6, 17]


def test_a_name_that_is_too_long_alone_is_an_error():
    message = "rin/uzuki: the joined name alone is over 4 tokens; shorten the trigger words or raise max_token_length"
    with pytest.raises(UserError, match=message):
        budgeted(([], ["left"]), ([], ["right"]), 4)
    assert budgeted(([], ["left"]), ([], ["right"]), 5) == ([], [])


@fast
@given(sides("left"), sides("right"), st.integers(5, 60), st.integers())
def test_the_same_draw_gives_the_same_caption(left, right, limit, seed):
    assert budgeted(left, right, limit, True, seed) == budgeted(left, right, limit, True, seed)


# --- the trigger word --------------------------------------------------------------------------------------------


def captioned(text: str, rules: CaptionRules, spellings: tuple[str, ...] = ()) -> str:
    panels = [PanelCaption(text, "ana", rules, spellings), PanelCaption("bob", "bob", CaptionRules())]
    parts = caption_parts(TAGS, panels, random.Random(0), 1)
    return render(TAGS, parts.triggers, parts.tags)


@pytest.mark.parametrize(
    ("text", "rules", "spellings", "caption"),
    [
        ("1girl, ana, hat", {}, (), "ana/bob/COMPOSITE, 1girl, hat"),
        ("1girl, Ana, hat, ana", {}, ("ana", "Ana"), "Ana/bob/COMPOSITE, 1girl, hat"),
        ("1girl, hat", {}, ("ana", "Ana"), "ana/bob/COMPOSITE, 1girl, hat"),
        ("1girl;;;ana;;;hat, tie", {"secondary_separator": ";;;"}, (), "ana/bob/COMPOSITE, 1girl,hat, tie"),
        ("ana ||| hat ||| tie", {"keep_tokens_separator": "|||"}, (), "ana/bob/COMPOSITE, hat, tie"),
        ("hat", {"caption_prefix": "ana,"}, (), "ana/bob/COMPOSITE, hat"),
        ("{ana, 1girl}, hat", {"enable_wildcard": True}, (), "ana/bob/COMPOSITE, 1girl, hat"),
        ("{{ana}}, hat", {"enable_wildcard": True}, ("{ana}",), "{ana}/bob/COMPOSITE, hat"),
    ],
)
def test_the_trigger_word_is_in_the_name_and_no_tag(text, rules, spellings, caption):
    assert captioned(text, CaptionRules(**rules), spellings) == caption


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("ana, hat", [("ana",), ("hat",)]),
        ("{ana|bea}, hat", [("ana", "bea"), ("hat",)]),
        ("{ana, hat|bea, hat}, tie", [("ana", "bea"), ("tie",)]),
        ("a{n|nn}a {x|y}", [("ana x", "ana y", "anna x", "anna y")]),
        ("{{ana}}, hat", [("{ana}",), ("hat",)]),
        ("{|ana}, hat", [("", "ana"), ("hat",)]),
    ],
)
def test_all_that_wildcards_can_make_of_a_tag(text, tags):
    assert list(line_tags(text, CaptionRules(enable_wildcard=True))) == [tags]


def test_each_side_is_joined_by_its_own_separator_where_upstream_does_so():
    pair = [
        PanelCaption("rin; hat; bow", "rin", CaptionRules(caption_separator=";")),
        PanelCaption("uzuki, smile, dress", "uzuki", CaptionRules()),
    ]
    texts = []
    for by_separator in (False, True):
        parts = caption_parts(TAGS, pair, random.Random(0), 1, by_separator=by_separator)
        texts.append(parts.text(TAGS))
        assert "".join(text for _, text in parts.spans(TAGS)) == texts[-1]
    assert texts == ["rin/uzuki/COMPOSITE, hat, bow, smile, dress", "rin/uzuki/COMPOSITE, hat; bow, smile, dress"]


# --- captions as whole texts -------------------------------------------------------------------------------------

sentence = st.lists(st.text("ab,.{}", min_size=1, max_size=4), min_size=1, max_size=14).map(" ".join)
for_tags = st.fixed_dictionaries({
    "shuffle_caption": st.booleans(),
    "keep_tokens": st.integers(0, 3),
    "caption_tag_dropout_rate": rates,
    "token_warmup_step": st.sampled_from([0, 10]),
    "caption_separator": st.sampled_from([",", "."]),
})  # fmt: skip


def whole(left: str, right: str, seed: int = 0, template: str = SENTENCES, budget: Budget | None = None, **rules: Any):
    pair = [PanelCaption(left, "rin", CaptionRules(**rules)), PanelCaption(right, "uzuki", CaptionRules(**rules))]
    return caption_parts(template, pair, random.Random(seed), 1, Progress(3, 100), budget)


@thorough
@given(sentence, sentence, for_tags, st.integers())
@example("rin, smiling, sits.", "uzuki stands, waving.", {"shuffle_caption": True, "caption_tag_dropout_rate": 1.0}, 0)
def test_a_whole_caption_stays_as_it_is_whatever_is_set_for_tags(left, right, rules, seed):
    parts = whole(left, right, seed, **rules)
    assert parts.text(SENTENCES) == f"rin/uzuki/COMPOSITE. Left: {left} Right: {right}"
    assert parts.cut == ([], [])


@fast
@given(sentence, sentence, st.sampled_from([SENTENCES, "{right_caption}, {left}", "Both: {left_caption}, {right_caption}."]))
def test_the_pieces_of_a_whole_caption_make_it_up(left, right, template):
    parts = whole(left, right, template=template)
    pieces = parts.spans(template)
    assert "".join(text for _, text in pieces) == parts.text(template)
    assert {role: text.rstrip(", ") for role, text in pieces if role != "name"}.items() <= {
        "tags0": left.rstrip(", "),
        "tags1": right.rstrip(", "),
    }.items()


@thorough
@given(sentence, sentence, st.integers(5, 45))
def test_over_the_budget_both_captions_lose_words_from_their_ends(left, right, limit):
    """As with tags: the longer one until both have as many, then each in turn, and no more than needed."""
    budget = Budget(limit, lambda text: len(text.split(" ")))
    parts = whole(left, right, budget=budget)
    assert budget.count(parts.text(SENTENCES)) <= limit
    for before, kept, cut in zip((left, right), parts.tags, parts.cut, strict=True):
        assert " ".join([*kept, *cut]) == before
    lengths, lost = [len(kept) for kept in parts.tags], [bool(cut) for cut in parts.cut]
    assert all(length == max(lengths) for length, has_lost in zip(lengths, lost, strict=True) if has_lost)
    if any(lost):
        again = [[*kept, *cut[:1]] for kept, cut in zip(parts.tags, parts.cut, strict=True)]
        assert budget.count(render(SENTENCES, parts.triggers, again, parts.joints)) > limit


def test_the_right_caption_is_not_the_one_that_is_cut():
    left, right = (" ".join(f"{side}{number}" for number in range(30)) for side in "lr")
    parts = whole(left, right, budget=Budget(40, lambda text: len(text.split())))
    assert (
        parts.text(SENTENCES)
        == f"rin/uzuki/COMPOSITE. Left: {left[: left.index(' l18')]} Right: {right[: right.index(' r18')]}"
    )


def test_prefix_suffix_and_wildcards_belong_to_their_caption():
    parts = whole("rin sits.", "uzuki stands.", caption_prefix="Photo:", caption_suffix="(c)")
    assert parts.text(SENTENCES) == "rin/uzuki/COMPOSITE. Left: Photo: rin sits. (c) Right: Photo: uzuki stands. (c)"
    drawn = {
        whole("rin {sits|stands}.\nrin, {{alone}}.", "uzuki.", seed, enable_wildcard=True).text(
            "{left_caption}|{right_caption}"
        )
        for seed in range(60)
    }
    assert drawn == {"rin sits.|uzuki.", "rin stands.|uzuki.", "rin, {alone}.|uzuki."}
    assert whole("rin sits.\nrin.", "uzuki.").text("{left_caption}") == "rin sits."  # without wildcards the first line


def test_separators_that_only_part_tags_are_read_as_commas():
    parts = whole("rin ||| a hat;;;a bow", "uzuki.", keep_tokens_separator="|||", secondary_separator=";;;")
    assert parts.text("{left_caption}") == "rin , a hat,a bow"


def test_a_dropped_whole_caption_is_none():
    assert whole("rin.", "uzuki.", caption_dropout_rate=1.0) is None


@pytest.mark.parametrize(
    ("key", "advice"), [("t5xxl_max_token_length", "trigger words or raise t5xxl_max_token_length."), ("", "trigger words.")]
)
def test_a_name_that_is_too_long_beside_whole_captions(key, advice):
    with pytest.raises(UserError) as raised:
        whole("rin.", "uzuki.", budget=Budget(2, lambda text: len(text.split()), key))
    assert str(raised.value) == f"rin/uzuki: the joined name alone is over 2 tokens; shorten the {advice}"


# --- the budget of several encoders ------------------------------------------------------------------------------


@thorough
@given(
    st.lists(st.tuples(st.integers(5, 60), st.integers(1, 3), st.integers(0, 4)), min_size=1, max_size=4), st.integers(0, 60)
)
def test_a_caption_fits_the_strictest_budget_where_it_fits_each(encoders, words):
    """An encoder makes so many tokens of a word, and some more of a text."""
    budgets = [
        Budget(limit, lambda text, each=each, more=more: each * len(text.split()) + more, f"key {number}")
        for number, (limit, each, more) in enumerate(encoders)
    ]
    one, text = strictest(budgets), " ".join(["word"] * words)
    assert (one.count(text) <= one.limit) == all(budget.count(text) <= budget.limit for budget in budgets)
    assert one.limit == min(limit for limit, *_ in encoders)
    assert one.key == next(budget.key for budget in budgets if budget.limit == one.limit)


def test_one_budget_is_itself():
    budget = Budget(75, len)
    assert strictest([budget]) is budget
