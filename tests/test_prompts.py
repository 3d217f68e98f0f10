from __future__ import annotations

import json

import pytest

from lycoris_composite.prompts import Prompt, read_prompts

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
