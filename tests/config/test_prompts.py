from __future__ import annotations

import json

import pytest

from lycoris_composite.config.options import KohyaSettings
from lycoris_composite.config.prompts import Prompt, given_prompts, prompt_file_error, prompt_values, read_prompts

LINES = """\
# prompts
rin, smile --n bad, ugly --w 768 --h 512 --d 7 --s 28 --l 7.5

  uzuki/rin/COMPOSITE, a - b --N worst --W 640
#mio
plain\x85line
"""


def test_lines_with_flags_as_upstream_reads_them(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text(LINES, encoding="utf-8")
    assert read_prompts(path) == [
        Prompt("rin, smile", "bad, ugly", (768, 512), 7),
        Prompt("uzuki/rin/COMPOSITE, a - b", "worst", (640, 512)),
        Prompt("plain\x85line"),
    ]


def test_tables_and_lists(tmp_path):
    (tmp_path / "prompts.toml").write_text(
        '[prompt]\nwidth = 768\nheight = 512\nnegative_prompt = "bad"\n[[prompt.subset]]\nprompt = "rin"\n[[prompt.subset]]\nprompt = "mio"\nseed = 3\n'
    )
    assert read_prompts(tmp_path / "prompts.toml") == [Prompt("rin", "bad", (768, 512)), Prompt("mio", "bad", (768, 512), 3)]
    (tmp_path / "prompts.json").write_text(json.dumps(["rin --d 3", {"prompt": "mio", "width": 64, "height": 32, "seed": 1}]))
    assert read_prompts(tmp_path / "prompts.json") == [Prompt("rin", seed=3), Prompt("mio", "", (64, 32), 1)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prompts.json", b'[{"prompt": "ri'),
        ("prompts.json", b'{"prompt": "rin"}'),
        ("prompts.json", b"[1, 2]"),
        ("prompts.toml", b"[prompt"),
        ("prompts.toml", b"[prompt]\nwidth = 1\n"),
        ("prompts.txt", b"\xff\xfe"),
    ],
)
def test_what_cannot_be_read_is_no_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read_prompts(tmp_path / name) is None
    assert read_prompts(tmp_path / "gone.txt") is None


def test_values_of_a_wrong_type_do_not_stop_the_others(tmp_path):
    (tmp_path / "prompts.json").write_text(json.dumps([{"prompt": 5, "width": "wide", "seed": None, "negative_prompt": None}]))
    assert read_prompts(tmp_path / "prompts.json") == [Prompt("5")]


@pytest.mark.parametrize(
    ("value", "prompts"),
    [
        ("corgi, dog, sitting", ["corgi, dog, sitting"]),
        ("uzuki/rin/COMPOSITE", ["uzuki/rin/COMPOSITE"]),
        ("1girl\n\n 1boy --w 64 \n", ["1girl", "1boy --w 64"]),
        (["rin", " mio "], ["rin", "mio"]),
        ("prompts.txt", []),
        ("C:\\prompts of mine.json", []),
        ("prompts.text", []),
        (None, []),
        ("", []),
        ([1], []),
    ],
)
def test_prompts_may_stand_in_the_config_itself(value, prompts):
    assert given_prompts(value) == prompts


def test_an_existing_file_is_a_file_whatever_its_name(tmp_path):
    (tmp_path / "my prompts").write_text("rin")
    assert given_prompts(str(tmp_path / "my prompts")) == []


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gone.txt", None, "gone.txt is not there; correct the path"),
        ("prompts.text", "rin", "prompts.text does not end in .txt, .toml, .json"),
        ("prompts.json", "{", "prompts.json cannot be read as prompts in json"),
        ("prompts.txt", "# rin\n\n", "prompts.txt holds no prompts"),
        ("prompts.txt", "rin", None),
    ],
)
def test_a_file_that_nothing_can_be_sampled_from(tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_text(content)
    settings = {"sample_prompts": str(tmp_path / name)}
    assert prompt_file_error(KohyaSettings(settings), "cg3.toml") is None, "nobody samples"
    error = prompt_file_error(KohyaSettings({**settings, "sample_every_n_epochs": 1}), "cg3.toml")
    assert (error is None) if sentence is None else sentence in str(error)


def test_flags_of_a_line_as_numbers():
    values = prompt_values("rin --s 12 --l 4.5 --d 7")
    assert values == {"prompt": "rin", "sample_steps": 12, "scale": 4.5, "seed": 7}
