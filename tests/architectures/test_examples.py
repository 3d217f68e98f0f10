"""The example configs of other models than SD 1.x: every key is upstream's, and both stages run as they stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lycoris_composite.architectures import architecture_of
from lycoris_composite.composites.captions import holds_captions
from lycoris_composite.config import settings as config
from lycoris_composite.config.options import KEYS, check_kinds
from lycoris_composite.config.prompts import read_prompts
from lycoris_composite.config.stages import stages_of
from lycoris_composite.look.sample_files import read_grid
from lycoris_composite.trainers.kohya.script import Upstream
from tests import tiny
from tests.architectures.conftest import GetWorld
from tests.helpers import ROOT

EXAMPLES = ("sdxl", "anima", "flux")
FILES = ("pretrained_model_name_or_path", "qwen3", "vae", "clip_l", "t5xxl", "ae", "train_data_dir", "output_dir")
# Pictures of 64 and 96 pixels and an epoch of a few steps for large ones and one of hundreds; two loader processes cost seconds.
SMALLER = {
    "resolution": "64,64",
    "min_bucket_reso": 64,
    "composite.stage2.resolution": "96,96",
    "max_train_epochs": 1,
    "max_data_loader_n_workers": 0,
    "persistent_data_loader_workers": "false",
}
SENTENCES = {
    "mio": "mio, a girl in a red dress, stands before a white wall and smiles.",
    "rin": "rin, a girl with blue hair, holds up both arms. The wall behind her is green.",
}

each = pytest.mark.parametrize("example", EXAMPLES)


def path_of(example: str) -> Path:
    return ROOT / f"examples/{example}.toml"


@each
def test_every_key_is_upstreams_and_holds_what_upstream_reads(sd_scripts: Path, example: str, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(sd_scripts))
    settings = config.load_settings(path_of(example))
    upstream = Upstream(sd_scripts, settings.trainer)
    proposed = re.findall(r"^# (\w+) = ", path_of(example).read_text(encoding="utf-8"), re.MULTILINE)

    assert list(upstream.option_errors({**settings.kohya, **settings.stage2, **dict.fromkeys(proposed)}, example)) == []
    for stage in stages_of(settings):
        check_kinds({key: value for key, value in stage.settings.items() if key in KEYS}, example)
        given = {action.dest: action for action in upstream.parser()._actions if action.dest in stage.settings}
        for key, action in given.items():
            value = stage.settings[key]
            assert isinstance(value, bool) == (action.nargs == 0), key
            assert not action.choices or value in action.choices, key


@each
def test_what_a_reader_fills_in_stands_on_top(example: str) -> None:
    settings = config.load_settings(path_of(example))
    lines = path_of(example).read_text(encoding="utf-8").splitlines()
    top = [line.partition(" ")[0] for line in lines[: lines.index("", lines.index("") + 1)] if line[:1] not in ("", "#")]
    assert top == [key for key in settings.kohya if key in FILES]
    assert {*architecture_of(settings.trainer).required, "train_data_dir", "output_dir"} < {*top}


@each
def test_the_example_trains_both_stages_and_can_be_looked_at(world_of: GetWorld, example: str, tmp_path: Path) -> None:
    """Every value is the file's, but for paths and what SMALLER says; `--cpu` takes away what needs a GPU. Two characters
    have five sample prompts where three have twelve."""
    world, settings = world_of(example), config.load_settings(path_of(example))
    has_sentences = holds_captions(settings.composite.caption)
    tiny.draw_characters(tmp_path / "data", images=2, size=[(96, 96), (72, 108)], names=("mio", "rin"))
    for name, text in SENTENCES.items() if has_sentences else ():
        for path in (tmp_path / f"data/1_{name}").glob("*.txt"):
            path.write_text(text)
    files = json.loads((world.folder / "files.json").read_text())
    values = {**files, "train_data_dir": tmp_path / "data", "output_dir": tmp_path / "out", **SMALLER}
    given = [flag for key, value in values.items() for flag in ("--set", f"{key}={value}")]

    run = world.command(
        tmp_path, str(ROOT / "train_composite.py"), "--config", str(path_of(example)), "--cpu",
        "--sd_scripts", str(world.sd_scripts), *given,
    )  # fmt: skip

    assert run.code == 0
    assert "ignored" not in run.output
    prompts = read_prompts(tmp_path / f"out/{settings.output_name}-prompts.json")
    assert [prompt.negative for prompt in prompts] == [""] * 4 + ["COMPOSITE"] * architecture_of(settings.trainer).is_guided
    assert not has_sentences or prompts[2].text == f"mio/rin/COMPOSITE. Left: {SENTENCES['mio']} Right: {SENTENCES['rin']}"
    grid, _ = read_grid(tmp_path / "out")
    assert [len(stage.columns) for stage in grid.stages] == [1, 1]
    assert len(grid.cells) == 2 * len(prompts)

    for command in (["gallery", "out"], ["preview", str(path_of(example)), *given]):
        assert world.command(tmp_path, "-m", "lycoris_composite.cli", *command).code == 0
    page = (tmp_path / f"out/{settings.output_name}-gallery.html").read_text()
    assert page.count("data:image/jpeg") == len(grid.cells)
    assert ("negative: COMPOSITE" in page) == architecture_of(settings.trainer).is_guided
    page = (tmp_path / f"out/{settings.output_name}-preview.html").read_text()
    assert "tokens are not counted" not in page
    assert (f"Right: </span>{SENTENCES['rin']}" in re.sub(r'<span class="tags1">', "", page)) == has_sentences
