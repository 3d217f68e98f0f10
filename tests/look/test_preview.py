"""What `lycoris-composite preview` writes. That it agrees with training is tests/trainers/kohya/test_dataset.py."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lycoris_composite import cli
from lycoris_composite.architectures import SENTENCES
from lycoris_composite.composites.plan import CompositeOptions
from lycoris_composite.config.settings import Settings
from lycoris_composite.errors import UserError
from lycoris_composite.look.preview import _who_is_who, chosen, make_preview, page_of, sheet_of
from tests import tiny
from tests.architectures import vocabularies
from tests.helpers import kohya_settings, python


@pytest.fixture
def settings(tmp_path: Path, clip_tokenizers: Path) -> Settings:
    tiny.draw_characters(tmp_path / "data", images=3)
    return kohya_settings(
        tmp_path, train_data_dir=str(tmp_path / "data"), resolution="128,128", caption_extension=".txt", keep_tokens=1,
        tokenizer_cache_dir=str(clip_tokenizers), train_batch_size=2, cache_latents=True, max_train_epochs=4,
    )  # fmt: skip


def test_every_ordered_pair_is_shown_before_any_comes_twice(settings):
    [dataset] = make_preview(settings, 1, 6).datasets
    pairs = Counter(tuple(panel.character.trigger for panel in sample.composite.panels) for sample, _ in dataset.samples)
    assert len(pairs) == 6
    everything = [sample for sample, _ in make_preview(settings, 1, 100).datasets[0].samples]
    assert len(everything) == dataset.plan.composites
    assert [sample.composite.index for sample in chosen(everything, 6)] == [s.composite.index for s, _ in dataset.samples]


def test_page_and_sheet_show_what_a_user_looks_for(settings):
    shown = make_preview(settings, 1, 6)
    page = page_of(shown)
    for sample, _ in shown.datasets[0].samples:
        text = re.sub(r"<[^>]+>", "", page)
        assert sample.caption in text
        assert f"{sample.tokens} of 75 tokens" in text
    for word in ("Characters in an epoch", "Pairs in an epoch", "Cost", "images to encode"):
        assert word in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page), "a page that needs a network or another file"
    sheet = sheet_of(shown)
    assert sheet.width == 1600
    assert len(sheet.resize((40, 40)).getcolors(1600)) > 20


def test_the_page_counts_who_stands_where(settings, tmp_path):
    (tmp_path / "data/1_rin").rename(tmp_path / "data/3_rin")
    preview = make_preview(settings, 1, 100)
    [dataset] = preview.datasets
    pairs = Counter(tuple(panel.character.trigger for panel in sample.composite.panels) for sample, _ in dataset.samples)
    text = re.sub(r"<[^>]+>|\s+", " ", page_of(preview))
    for name, repeats in (("mio", 1), ("rin", 3), ("uzuki", 1)):
        left, right = (sum(count for pair, count in pairs.items() if pair[side] == name) for side in (0, 1))
        counts = " +".join(map(str, (3, repeats, left, right, left + right)))
        assert re.search(rf" {name} +{repeats}_{name} .*?, in every caption +{counts} ", text)
        row = [pairs[name, other] if other != name else "–" for other in ("mio", "rin", "uzuki")]
        assert re.search(rf" {name} +{' +'.join(map(str, row))} ", text)


def test_who_was_taken_for_whom_is_shown(settings, tmp_path, monkeypatch):
    for path in (tmp_path / "data").rglob("*.txt"):
        name, *tags = path.read_text().split(", ")
        path.write_text(", ".join([*tags, name]))
    shown = make_preview(settings, 1, 3)
    text = re.sub(r"<[^>]+>|\s+", " ", page_of(shown))
    for name in ("mio", "rin", "uzuki"):
        assert re.search(rf"{name} +1_{name} +the folder&#39;s name, in every caption +3 ", text)
    lines = ["".join(text for _, text in line) for line in _who_is_who(shown)]
    assert lines == [f"{name} 1_{name}: the folder's name, in every caption" for name in ("mio", "rin", "uzuki")]
    height = sheet_of(shown).height
    monkeypatch.setattr("lycoris_composite.look.preview._who_is_who", lambda *_: [])
    assert sheet_of(shown).height == height - 3 * round(14 * 1.4)


def test_a_word_that_stage_1_never_shows_is_a_warning(settings, tmp_path):
    for path in (tmp_path / "data/1_rin").glob("*.txt"):
        path.write_text("1girl, hat")
    untidy = replace(settings, kohya={**settings.kohya, "keep_tokens": 0})
    assert make_preview(untidy, 1, 3).warnings == [
        f'"rin" stands in no caption of {tmp_path}/data/1_rin: stage 1 does not teach it, composites alone do; write it into the captions.'
    ]


def test_what_is_wrong_stands_on_top(settings, tmp_path):
    (tmp_path / "data/1_rin/02.png").write_bytes(b"no picture")
    for path in (tmp_path / "data/1_mio").glob("03.*"):
        path.unlink()
    caption = tmp_path / "data/1_uzuki/01.txt"
    caption.write_text(f"{caption.read_text()}, " + ", ".join(f"tag number {n}" for n in range(60)))
    lines = make_preview(settings, 1, 3).warnings
    assert "02.png: cannot be read as an image" in lines[0]
    assert any("captions are over the limit of 75 tokens and lose tags" in line for line in lines)
    page = page_of(make_preview(settings, 1, 3))
    assert page.index("cannot be read") < page.index("<figure>")


def test_tags_over_the_limit_are_struck_out(settings, tmp_path):
    for path in (tmp_path / "data/1_uzuki").glob("*.txt"):
        path.write_text("uzuki, " + ", ".join(f"tag number {n}" for n in range(60)))
    shown = make_preview(settings, 1, 6)
    page = page_of(shown)
    for sample, _ in shown.datasets[0].samples:
        for side, tags in zip(("tags0", "tags1"), sample.parts.cut, strict=True):
            assert f'<s class="{side}">{", ".join(tags)}</s>' in page or not any(sample.parts.cut)
    assert any(sample.parts.cut[0] for sample, _ in shown.datasets[0].samples)


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ("4", ("train_batch_size", "max_train_epochs", "max_train_steps", "max_token_length", "gradient_accumulation_steps")),
        ("4", ("seed", "keep_tokens", "validation_split", "token_warmup_step", "dataset_repeats", "min_bucket_reso")),
        ("no", ("shuffle_caption", "enable_bucket", "flip_aug")),
        (4, ("caption_extension", "train_data_dir", "caption_separator", "pretrained_model_name_or_path")),
        ([4], ("max_train_epochs", "train_data_dir", "shuffle_caption")),
    ],
)
def test_a_value_of_a_wrong_type_is_one_sentence(settings, value, keys):
    """A preview has no trainer that would check them."""
    for key in keys:
        for own in (replace(settings, kohya={**settings.kohya, key: value}), replace(settings, stage2={key: value})):
            with pytest.raises(UserError, match=rf"cg3.toml {key}: .* is no"):
                make_preview(own, 1, 1)


def test_stage_2_may_have_data_of_its_own(settings, tmp_path):
    tiny.draw_characters(tmp_path / "chosen", images=2)
    own = replace(settings, stage2={"train_data_dir": str(tmp_path / "chosen")})
    first, second = make_preview(own, 1, 3).costs
    assert (first.samples, first.encoded) == (9, 9)
    assert second.samples == 6


def test_without_a_tokenizer_it_says_that_nothing_is_counted(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    kohya = {key: value for key, value in settings.kohya.items() if key != "tokenizer_cache_dir"}
    shown = make_preview(Settings(settings.path, kohya, settings.composite), 1, 3)
    assert shown.limit is None
    assert shown.warnings[0].startswith("tokens are not counted, and captions not cut: the tokenizer openai/clip-vit")
    assert "of None tokens" not in page_of(shown)


def test_text_from_captions_is_no_markup(settings, tmp_path):
    for path in (tmp_path / "data/1_rin").glob("*.txt"):
        path.write_text("rin, <img src=x onerror=alert(1)>, \"quoted\" & 'so'")
    page = page_of(make_preview(settings, 1, 6))
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    sheet_of(make_preview(settings, 1, 6))


def test_names_in_any_script_are_drawn(settings, tmp_path):
    for path in (tmp_path / "data/1_rin").glob("*.txt"):
        path.write_text("凛, " + "まるで長い一つの単語" * 20)
    shown = make_preview(settings, 1, 3)
    assert re.search("凛/|/凛", re.sub(r"<[^>]+>", "", page_of(shown)))
    assert sheet_of(shown).height < 3000


def test_the_command_writes_both_and_trains_nothing(settings, tmp_path, capsys):
    assert cli.main(["preview", str(settings.path), "--count", "4"]) == 0
    page, sheet = map(Path, capsys.readouterr().out.splitlines()[-2:])
    assert (page.name, sheet.name) == ("cg3-preview.html", "cg3-preview.png")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [page.name, sheet.name]
    assert Image.open(sheet).width == 1600
    assert cli.main(["preview", str(settings.path), "--out", str(tmp_path / "else"), "--epoch", "3"]) == 0
    assert "epoch 3" in (tmp_path / "else/cg3-preview.html").read_text()


def test_a_mistake_is_one_sentence(tmp_path, capsys):
    assert cli.main(["preview", str(tmp_path / "no.toml")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_help_fits_a_screen_and_imports_nothing_large():
    shown = python("-X", "importtime", "-m", "lycoris_composite.cli", "preview", "--help")
    assert shown.returncode == 0
    assert len(shown.stdout.splitlines()) <= 24
    assert "example: lycoris-composite preview" in shown.stdout
    assert not re.search(r"\b(torch|transformers|matplotlib|jinja2)\b", shown.stderr)


def test_whole_captions_have_words_and_are_counted_by_the_models_own_encoder(settings, tmp_path):
    vocabularies.write_t5(tmp_path / "tokenizers/google_t5-v1_1-xxl")
    for name in ("mio", "rin", "uzuki"):
        for path in (tmp_path / f"data/1_{name}").glob("*.txt"):
            path.write_text(f"{name} stands in a park, smiling, and behind her there is a dog with a hat.")
    kohya = {
        **settings.kohya,
        "tokenizer_cache_dir": str(tmp_path / "tokenizers"),
        "t5xxl_max_token_length": 60,
        "keep_tokens": 0,
    }
    sentences = replace(settings, trainer="flux_train_network", composite=CompositeOptions(SENTENCES), kohya=kohya)
    shown = make_preview(sentences, 1, 6)
    page = re.sub(r"<[^>]+>", "", page_of(shown))
    assert [line for line in shown.warnings if "tags" in line] == []
    assert "lose words on both sides; raise t5xxl_max_token_length" in "".join(shown.warnings)
    for text in ("caption on the left, caption on the right, words beyond 59 tokens.", "the first caption"):
        assert text in page
    for sample, _ in shown.samples:
        left, right = sample.parts.cut
        assert len(left) == len(right) > 0
        assert f"cut: {' '.join(left)} {' '.join(right)}" in page
        assert sample.caption in page
        assert f"{sample.tokens} of 59 tokens" in page
    assert "word(s) cut" in cell_text(shown)
    assert [character.trigger for character in shown.characters] == ["mio", "rin", "uzuki"]


def cell_text(shown) -> str:
    """What stands on the sheet below its first composite."""
    texts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "lycoris_composite.look.contact_sheet.captioned", lambda picture, lines, *_: texts.append(lines) or picture
        )
        sheet_of(shown)
    return "".join(text for line in texts[0] for _, text in line)
