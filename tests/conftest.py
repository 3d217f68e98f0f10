"""What tests in several folders share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from examples.cg3_mini.narrow import narrow, narrow_copy
from lycoris_composite.errors import UserError
from lycoris_composite.trainers.kohya import checkout
from tests import tiny
from tests.world import World, forking_world


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world of the embedded trainer."""
    with forking_world(tmp_path_factory.mktemp("embedded")) as world:
        yield world


@pytest.fixture(scope="session")
def clip_tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP's tokenizers, as --tokenizer_cache_dir takes them: two seconds of work."""
    return tiny.make_tokenizer_cache(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(scope="session")
def sd_scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow copy of the checkout at hand; skips with one reason where there is none."""
    try:
        return narrow_copy(checkout.find(), tmp_path_factory.mktemp("narrow") / "sd-scripts")
    except UserError as error:
        pytest.skip(f"needs the real trainer: {error}")


@pytest.fixture(scope="session")
def world(sd_scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with forking_world(tmp_path_factory.mktemp("world"), sd_scripts) as world:
        yield world


@pytest.fixture(scope="session")
def version_of(sd_scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A checkout of another version, cloned once from the one at hand."""

    @cache
    def get(ref: str) -> Path:
        folder = tmp_path_factory.mktemp("versions") / "sd-scripts"
        try:
            checkout._clone(str(sd_scripts), ref, folder)
        except UserError as error:
            pytest.skip(f"this clone has no {ref}: {error}")
        narrow(folder)
        return folder

    return get
