"""The real trainer, run from the command line on a tiny model. Skipped with one reason where there is no sd-scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from lycoris_composite import checkout
from lycoris_composite.errors import UserError
from tests.world import World, make_world


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.trainer)


@pytest.fixture(scope="session")
def sd_scripts() -> Path:
    try:
        return checkout.find()
    except UserError as error:
        pytest.skip(f"needs the real trainer: {error}")


@pytest.fixture(scope="session")
def world(sd_scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), sd_scripts)
