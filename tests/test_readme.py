"""README.md and docs/: what they promise is there, and the config on the page is one that runs."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import toml

from lycoris_composite import cli, launcher
from lycoris_composite.architectures import ARCHITECTURES, BUILTIN
from lycoris_composite.composites.plan import CompositeOptions
from lycoris_composite.config import settings as config
from lycoris_composite.config.stages import stages_of
from tests.helpers import ROOT

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
MOST_LINES = 120
COMPOSITE_KEYS = {*(field.name for field in fields(CompositeOptions)), "trainer", "stage2"}
# What pages name of other programs: kohya's scripts, accelerate, torchrun, ruff.
OTHERS_FLAGS = {
    "--dist",  # pytest-xdist
    *("--config_file", "--dataset_config", "--learning_rate", "--output_dir"),
    *("--num_processes", "--nproc_per_node", "--check", "--index-url", "--help"),
}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_COMMANDS = re.compile(r"`?(?:lycoris-composite|train_composite\.py|lycoris_composite\.train) [^`\n|]*")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return [body for found, body in _FENCE.findall(text_of(page)) if found == language]


def commands_of(page: Path) -> Iterator[list[str]]:
    """The words of every `lycoris-composite` and `train_composite.py` command on a page, comments left out."""
    for found in _COMMANDS.findall(text_of(page)):
        yield shlex.split(found.strip("`").replace("'", ""), comments=True)


def subparsers() -> dict[str, argparse.ArgumentParser]:
    return next(action.choices for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def anchors(page: Path) -> set[str]:
    """The names by which GitHub links to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len(text_of(README).splitlines()) <= MOST_LINES


def test_the_config_on_the_page_is_accepted_and_says_what_the_example_says(tmp_path):
    [block] = blocks(README, "toml")
    page, example = toml.loads(block), config.load_settings(ROOT / "examples/cg3.toml")
    composite = page.pop("composite")
    assert composite.keys() <= COMPOSITE_KEYS
    assert config.flatten(page).items() <= example.kohya.items()
    assert composite["stage2"] == example.stage2
    path = tmp_path / "cg3.toml"
    path.write_text(block, encoding="utf-8")
    first, second = stages_of(config.load_settings(path))
    assert f"stage 1: single images -> {first.output.as_posix()}" in text_of(README)
    assert f"stage 2: composites -> {second.output.as_posix()}" in text_of(README)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_configs_in_docs_name_keys_that_exist(page):
    for block in blocks(page, "toml"):
        assert toml.loads(block)["composite"].keys() <= COMPOSITE_KEYS


def test_the_table_of_keys_has_all_keys_and_their_defaults():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", text_of(ROOT / "docs/composites.md"), re.MULTILINE)
    defaults = {field.name: field.default for field in fields(CompositeOptions)} | {"trainer": config.DEFAULT_TRAINER}
    assert {key for key, _ in rows} == COMPOSITE_KEYS
    assert {key: toml.loads(f"key = {cell.strip('`')}")["key"] for key, cell in rows if key != "stage2"} == defaults


def test_every_model_has_its_row_its_default_caption_and_its_caches_size():
    text = text_of(ROOT / "docs/models.md")
    for trainer, row in ARCHITECTURES.items():
        assert f"`{trainer}`" in text or trainer == BUILTIN
        assert re.search(rf"^\|.*{row.name}.*\| `{re.escape(row.caption)}` \|$", text, re.MULTILINE)
        assert row.caption_bytes is None or f"{row.caption_bytes / 1e6:.1f}" in text
    for option in {encoder.key for row in ARCHITECTURES.values() for encoder in row.encoders} - {""}:
        assert f"`{option}`" in text


@pytest.mark.parametrize("name", ["set-up", "demo", "look"])
def test_ci_finds_its_commands_in_the_readme(name):
    """A marker alone on its line, and an sh block below it: as .ci/run reads them."""
    text = text_of(README)
    assert text.count(f"<!-- ci: {name} -->") == 1
    assert re.search(rf"^<!-- ci: {name} -->\n```sh\n(.+\n)+```$", text, re.MULTILINE)


@pages
def test_every_flag_exists(page):
    known = {*OTHERS_FLAGS, *flags_of(cli.parser()), *flags_of(launcher.parser())}.union(*map(flags_of, subparsers().values()))
    assert set(_FLAG.findall(text_of(page))) <= known


@pages
def test_every_command_exists_and_has_its_flags(page):
    for program, *words in commands_of(page):
        parser = launcher.parser()
        if program == "lycoris-composite":
            assert words[0] in subparsers()
            parser = subparsers()[words[0]]
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert flags <= flags_of(parser) | (OTHERS_FLAGS if words[0] == "run" or parser.prog == "train_composite.py" else set())


@pages
def test_links_and_pictures_point_to_what_is_there(page):
    for target in _LINK.findall(text_of(page)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def test_every_page_of_docs_is_linked_from_the_readme():
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in _LINK.findall(text_of(README))}
    assert {page.resolve() for page in DOCS} <= linked
