"""What tests in several folders share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
