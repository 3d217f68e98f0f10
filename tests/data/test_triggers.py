"""Who a folder shows: its trigger word, found as a person would, or one sentence with the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lycoris_composite.data.characters import Character, Subset, TrainingImage, characters_of
from lycoris_composite.data.tags import CaptionRules
from lycoris_composite.errors import UserError
from tests.helpers import plan


def folder(
    name: str, *captions: str | None, class_tokens: str | None = None, trigger: str | None = None, **rules: Any
) -> Subset:
    """A subset that is on no disk. Its class tokens are its name without repeats, as kohya has it, or none for a name that
    has no repeats."""
    tokens = class_tokens if class_tokens is not None else name.partition("_")[2] or None
    images = tuple(TrainingImage(f"{name}/{n}.png", (96, 96), caption) for n, caption in enumerate(captions))
    return Subset(name, 1, tokens, ".txt", CaptionRules(**{"keep_tokens": 1, **rules}), images, trigger=trigger)


BOB = folder("1_bob", "1boy, tie, bob, hat", "1boy, bob, smile")


def found(own: Subset, *others: Subset) -> Character:
    return next(one for one in characters_of([own, *(others or (BOB,))]) if one.subset is own)


# --- where the word is -------------------------------------------------------------------------------------------


def test_captions_as_a_tagger_writes_them():
    """Case 11: `1girl` was taken for the trigger word."""
    ana = folder("1_ana", "1girl, hat, ana, smile", "1girl, solo, ana", "solo, 1girl, ana")
    names = [(one.trigger, one.how, one.summary) for one in characters_of([ana, BOB])]
    how = "the folder's name, in every caption"
    assert names == [("ana", how, f"ana (3, {how})"), ("bob", how, f"bob (2, {how})")]


def test_two_girls_are_told_apart():
    bea = folder("1_bea", "1girl, bea, tie", "1girl, bea")
    assert found(folder("1_ana", "1girl, hat, ana", "1girl, ana"), bea).trigger == "ana"


def test_the_word_stands_in_the_name_and_not_among_the_tags():
    ana = folder("1_ana", "1girl, hat, ana, smile", "1girl, ana, red hat", shuffle_caption=True)
    both = plan(characters_of([ana, BOB]))
    for index in range(both.composites):
        name, *tags = both.caption(both.composite(1, index), 1).split(", ")
        assert name in ("ana/bob/COMPOSITE", "bob/ana/COMPOSITE")
        assert {"1girl", "1boy"} <= set(tags)
        assert not {"ana", "bob"} & set(tags)


def test_a_folder_that_is_called_by_a_common_tag():
    """Its captions have the name, but not at their beginning: an IndexError until this test."""
    with pytest.raises(UserError, match='begin with "hat", and the folder\'s name, "solo", does not say who it is; name the'):
        found(folder("solo", "hat, solo", class_tokens=""), folder("1_bea", "bea, hat"))


def test_tidy_captions_are_plain():
    rin = found(folder("10_rin", "rin, hat", "rin, smile"), folder("1_mio", "mio, hat"))
    assert (rin.trigger, rin.summary) == ("rin", "rin (2)")
    other = found(folder("10_x", "rin, hat", "rin, smile"), folder("1_mio", "mio, hat"))
    assert (other.trigger, other.summary, other.how) == ("rin", "rin (2)", "first tag of every caption")


@pytest.mark.parametrize(
    ("name", "tag", "trigger"),
    [
        ("1_ana", "Ana", "Ana"),
        ("1_Ana Lee", "ana_lee", "ana_lee"),
        ("1_ana_lee", "ana lee", "ana lee"),
        ("1_ana_(series)", r"ana \(series\)", r"ana \(series\)"),
        ("1_ana (series)", "ana_(series)", "ana_(series)"),
        ("1_ana", r"ana_\(series\)", r"ana_\(series\)"),
        ("1_cafe\u0301", "café", "café"),  # as macOS writes it
        ("ana", "ana", "ana"),  # a dataset_config's folder, without repeats
        ("sets/10_ana", "ana", "ana"),
        ("1_ana girl", "ana", "ana"),  # kohya's "<word> <class>"
    ],
)
def test_names_compare_as_a_person_would(name, tag, trigger):
    own = folder(name, f"1girl, hat, {tag}", f"1girl, {tag}, smile")
    assert found(own).trigger == trigger


def test_each_caption_keeps_its_own_spelling():
    ana = folder("1_ana lee", "1girl, Ana_Lee, hat", "1girl, ana lee, hat")
    both = plan(characters_of([ana, BOB]))
    composites = [both.composite(epoch, index) for epoch in range(1, 9) for index in range(both.composites)]
    names = {both.caption(composite, composite.epoch).split(", ")[0] for composite in composites}
    assert names == {f"{pair}/COMPOSITE" for pair in ("Ana_Lee/bob", "bob/Ana_Lee", "ana lee/bob", "bob/ana lee")}


def test_class_tokens_of_a_dataset_config_come_before_its_folder():
    own = folder("hat", "1girl, hat, ana", "1girl, ana, hat", class_tokens="ana")
    assert found(own).trigger == "ana"


def test_the_folders_name_wins_over_a_first_tag():
    assert found(folder("5_dog", "corgi, dog, grass", "corgi, dog")).trigger == "dog"


def test_folders_of_one_name_have_first_tags():
    rin, mio = folder("1_idol", "rin, idol"), folder("2_idol", "mio, idol")
    assert [one.trigger for one in characters_of([rin, mio])] == ["mio", "rin"]


def test_a_folder_that_is_called_like_a_common_tag_says_nothing():
    assert found(folder("1_solo", "rin, solo", "rin, solo, hat")).trigger == "rin"
    assert found(folder("1_1girl", "1girl, hat", "1girl, tie")).trigger == "1girl"  # but where it stands first too


def test_a_prefix_is_a_part_of_the_caption():
    """Some give the word so, one `caption_prefix` a subset."""
    own = folder("1_x", "1girl, hat", "1girl, smile", caption_prefix="ana, ")
    assert found(own).trigger == "ana"
    assert found(folder("1_ana", "1girl, hat", "1girl, smile", caption_suffix=", ana")).trigger == "ana"
    quality = folder("1_x", "rin, hat", "rin", caption_prefix="masterpiece, best quality,")
    assert found(quality).trigger == "rin"


def test_keep_tokens_separator_and_secondary_separator():
    assert found(folder("1_x", "rin ||| hat", "rin ||| tie", keep_tokens=0, keep_tokens_separator="|||")).trigger == "rin"
    held = folder("1_ana", "1girl;;;ana, hat", "1girl;;;ana, tie", secondary_separator=";;;")
    both = plan(characters_of([held, BOB]))
    captions = [both.caption(both.composite(1, index), 1) for index in range(both.composites)]
    assert all("ana" not in caption.split("COMPOSITE")[1] and "1girl" in caption for caption in captions)


def test_without_captions_it_is_the_class_tokens():
    ana = found(folder("1_ana", None, None))
    assert (ana.trigger, ana.how, ana.summary) == ("ana", "class tokens", "ana (2)")


def test_class_tokens_that_no_caption_has_are_taken_without_keep_tokens_and_said():
    ana = found(folder("1_ana", "1girl, hat", "hat", keep_tokens=0))
    assert (ana.trigger, ana.summary) == ("ana", "ana (2, class tokens, in no caption)")


def test_several_lines_with_wildcards_have_the_name_each():
    lines = folder("1_ana", "1girl, ana, day\n1girl, night, ana", enable_wildcard=True)
    assert found(lines).trigger == "ana"
    with pytest.raises(UserError, match='"ana" is missing in 1 of 2, such as 0.png'):
        found(folder("1_ana", "1girl, ana, day\n1girl, night", "1girl, ana", enable_wildcard=True))


# --- wildcards ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["{ana|anna}, hat", "1girl, {ana|anna}, hat", "hat, {ana, 1girl|anna, 1girl}", "a{n|nn}a, hat"]
)
def test_the_choice_that_was_drawn_stands_in_the_name(text):
    """Case 15: the name was `{ana|anna}/bob/COMPOSITE`."""
    ana = folder("1_ana", text, text, enable_wildcard=True)
    characters = characters_of([ana, BOB])
    assert [one.trigger for one in characters] == ["ana", "bob"]
    both = plan(characters)
    seen = set()
    for epoch in range(1, 9):
        for index in range(both.composites):
            name, *tags = both.caption(both.composite(epoch, index), epoch).split(", ")
            (drawn,) = set(name.removesuffix("/COMPOSITE").split("/")) - {"bob"}
            seen.add(drawn)
            assert not {"ana", "anna"} & set(tags)
            assert "hat" in tags
    assert seen == {"ana", "anna"}


def test_a_wildcard_that_begins_a_caption_of_no_known_name():
    assert found(folder("1_x", "{ana|anna}, hat", "{ana|anna}", enable_wildcard=True)).trigger == "ana"


# --- by hand -----------------------------------------------------------------------------------------------------


def test_a_trigger_settles_it_by_hand():
    own = folder("1_x", "1girl, red_hat, tie", "1girl, tie, red_hat", trigger="red hat")
    assert (found(own).trigger, found(own).summary) == ("red_hat", "red_hat (2, by hand)")
    assert found(folder("1_ana", "1girl, ana, tie", "ana, tie", trigger="tie")).trigger == "tie"
    assert found(folder("1_ana", "1girl, ana", "ana", trigger="")).trigger == "ana"


def test_a_trigger_that_stands_in_few_captions_or_none_is_said():
    assert found(folder("1_x", "1girl, tie", "1girl", trigger="ana")).summary == "ana (2, by hand, in no caption)"
    assert found(folder("1_x", "1girl, ana", "1girl", trigger="ana")).summary == "ana (2, by hand, in 1 of 2 captions)"


def test_a_trigger_of_several_tags():
    with pytest.raises(UserError, match='1_x, trigger: "ana, hat" is several tags; give the one that says who it is'):
        found(folder("1_x", "1girl, tie", trigger="ana, hat"))


# --- one sentence ------------------------------------------------------------------------------------------------


def refused(*subsets: Subset) -> str:
    with pytest.raises(UserError) as error:
        characters_of(subsets)
    return str(error.value)


def test_a_count_tag_is_nobodys_name():
    said = refused(folder("1_x", "1girl, hat, red scarf", "1girl, red scarf"), BOB)
    assert said.startswith('1_x: nothing says which tag is its trigger word: its captions begin with "1girl", and none has')
    assert '(it alone has "red scarf")' in said
    assert 'set trigger = "…" in the subset\'s table of a dataset_config' in said


@pytest.mark.parametrize("tag", ["1girl", "2girls", "1boy", "1other", "6+girls", "solo", "multiple girls", "no humans", "masterpiece",
                                 "best quality", "highres", "absurdres", "score_9", "score_8_up", "rating:safe", "Solo"])  # fmt: skip
def test_common_tags(tag):
    assert "nothing says which tag is its trigger word" in refused(folder("1_x", f"{tag}, hat", f"{tag}, tie"), BOB)


def test_a_first_tag_that_others_have_too():
    others = folder("1_mio", "mio, park, day", "mio, park")
    assert "nothing says which tag" in refused(folder("1_x", "park, night", "park, hat"), others)


def test_a_name_that_few_captions_lack_is_named_with_the_first_of_them():
    said = refused(folder("1_ana", "1girl, ana", "1girl, hat", "1girl, ana", "1girl"), BOB)
    assert 'and "ana" is missing in 2 of 4, such as 1.png;' in said


def test_captions_that_begin_with_different_words_stay_a_mistake():
    said = refused(folder("1_x", "rin, hat", "run, hat"), BOB)
    assert said.startswith('1_x/1.png: its caption begins with "run", that of 1_x/0.png with "rin"; begin all captions')


@pytest.mark.parametrize(
    "subsets",
    [
        (folder("10_rin", "1girl, rin"), folder("5_rin", "1girl, rin", trigger="Rin"), BOB),
        (folder("10_rin", "rin, hat"), folder("5_rin", "rin, tie"), BOB),
        (folder("10_rin", None), folder("5_rin", None), BOB),
        (folder("10_rin", "1girl, rin"), folder("1_mio", "1girl, mio", trigger="rin"), BOB),
        (folder("1_x", "1girl", trigger="rin"), folder("1_y", "1girl", trigger="Rin"), BOB),  # one word to CLIP
    ],
)
def test_one_word_for_two_characters(subsets: Sequence[Subset]):
    said = refused(*subsets)
    assert 'the trigger word "rin" is also that of ' in said.lower()
    assert "put one character's images in one folder, or give each a word of its own" in said


# --- captions that are sentences -----------------------------------------------------------------------------------

MIO = folder("1_mio", "mio stands in a park, smiling.", "A drawing of mio.")


def in_sentences(name: str, *captions: str, **options: Any) -> Character:
    own = folder(name, *captions, keep_tokens=0, **options)
    return next(one for one in characters_of([own, MIO], in_sentences=True) if one.subset is own)


@pytest.mark.parametrize(
    ("captions", "word", "summary"),
    [
        (("rin, a girl with blue hair, smiles.", "rin, in a park."), "rin", "rin (2)"),
        (("rin stands in a park, smiling.", "rin sits on a bench, reading."), "rin", "rin (2)"),
        (("rin is a girl with blue hair, smiling.", "rin is a girl with blue hair, reading."), "rin", "rin (2)"),
        (("Rin's hair is blue.", "A photo of Rin, smiling."), "Rin", "Rin (2, the folder's name, in every caption)"),
        (("1girl, rin, hat", "1girl, rin"), "rin", "rin (2, the folder's name, in every caption)"),
        (("rinが公園にいる。", "笑うrin。"), "rin", "rin (2, the folder's name, in every caption)"),
        (("The ring is hers.", "rin drinks."), "rin", "rin (2, class tokens, in 1 of 2 captions)"),
    ],
)  # fmt: skip
def test_the_folders_name_is_a_word_of_every_sentence(captions, word, summary):
    """The clause before the first comma was taken for it, or nothing was found."""
    character = in_sentences("1_rin", *captions)
    assert (character.trigger, character.summary) == (word, summary)


def test_a_folders_name_of_several_words():
    assert in_sentences("1_hatsune_miku", "A photo of Hatsune Miku.", "hatsune_miku, singing.").trigger == "Hatsune Miku"
    assert in_sentences("1_rin girl", "Here rin sits, a girl.", "rin walks.").trigger == "rin"


def test_a_name_with_an_accent_at_either_case():
    character = in_sentences("1_\u00e9lise", "\u00c9lise smiles.", "A photo of \u00e9lise.")
    assert (character.trigger, character.found.stands_in) == ("\u00c9lise", 2)


def test_a_wildcard_draws_what_stands_around_the_name():
    character = in_sentences("1_rin", "{Here|There} rin sits.\nrin {stands|walks}, smiling.", "rin.", enable_wildcard=True)
    assert (character.trigger, character.found.stands_in) == ("rin", 2)


def test_a_name_that_only_some_sentences_begin_with():
    """A folder's name that says nothing: then what stands before every first comma, if it is short."""
    assert in_sentences("x", "rin, a girl, smiles.", "rin, in a park.").trigger == "rin"
    for captions in (("rin stands in a park, smiling.",), ("rin sits.", "rin walks."), ("mio, a girl.",)):
        message = (
            'x: nothing says which word of its captions is its trigger word, and none has the folder\'s name, "x"; name the'
        )
        with pytest.raises(UserError, match=message):
            in_sentences("x", *captions)
    with pytest.raises(
        UserError, match='and "x" is missing in 1 of 2, such as 1.png; name the folder <repeats>_<word> by a word'
    ):
        in_sentences("x", "x sits.", "rin walks.")


def test_tags_are_still_no_words_of_a_text():
    with pytest.raises(UserError, match="1_maho/0.png|nothing says which tag"):
        found(folder("1_maho", "1girl, nishizumi maho", "1girl, nishizumi maho, hat", class_tokens=""))
