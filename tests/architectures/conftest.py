"""The architectures' worlds: one checkout, one server of forks and one folder of models for all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.architectures import configs, models
from tests.architectures.narrow import narrow_everything
from tests.forks import ForkServer
from tests.world import World, environment_of_commands

GetWorld = Callable[[str], World]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.trainer)


@pytest.fixture(scope="session")
def world_of(sd_scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GetWorld]:
    """Makes an architecture's world when a test first asks for it."""
    yield from make_worlds(sd_scripts, tmp_path_factory.mktemp("architectures"))


@pytest.fixture(params=configs.ARCHITECTURES)
def name(request: pytest.FixtureRequest) -> str:
    """Each architecture's."""
    return request.param


def make_worlds(sd_scripts: Path, folder: Path) -> Iterator[GetWorld]:
    narrow = narrow_everything(sd_scripts, folder / "sd-scripts")
    environment = {"HF_HOME": str(models.hf_home(folder))}
    trainers = [architecture.trainer for architecture in configs.EVERY.values()]
    can_fork = hasattr(os, "fork")
    forks = ForkServer(narrow, environment_of_commands() | environment, trainers) if can_fork else None
    makers = World(folder, narrow, environment=environment, forks=forks)

    @cache
    def get(name: str) -> World:
        assert makers.command(folder, "-m", models.__name__, str(narrow), str(folder), name).code == 0
        world = configs.make_world(folder, name, narrow)
        world.forks = forks
        return world

    yield get
    if forks is not None:
        forks.close()
