"""The real trainer, run from the command line on a tiny model. Skipped with one reason where there is no sd-scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from examples.cg3_mini.narrow import narrow, narrow_copy
from lycoris_composite.errors import UserError
from lycoris_composite.trainers.kohya import checkout
from tests.world import World, forking_world

# What the product says it fits. The checkout at hand is one of them, as a rule the newest tag.
VERSIONS = ("v0.10.1", "v0.10.6", "v0.11.1", "c162e90")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.trainer)


@pytest.fixture(scope="session")
def sd_scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
