"""The order of the rooms (design.md, "The house"), read from the imports without running any."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

PACKAGE = "lycoris_composite"
PATCHES = "sd_scripts_patches"
# From the roof to the cellar: an import goes to a later line. Rooms on one line do not import each other.
HOUSE = (
    ("cli", "train"),
    ("launcher", "preview", "gallery", "export", "doctor"),
    ("checks", "advice", "surroundings"),
    ("losses",),
    ("samples",),
    ("trainers.kohya", "trainers.builtin"),
    ("trainers.kohya_trainer",),
    ("dataset", "trainers.builtin_data", "trainers.builtin_model"),
    ("trainers.logs",),
    ("composites",),
    ("trainers.kernels", "trainers.optimizers"),
    ("trainers.networks",),
    ("trainers.ranks", "trainers.saving", "trainers.machine", "trainers.tokenizers"),
    ("agenda",),
    ("inputs", "overview"),
    ("costs",),
    ("stages", "sampling", "metadata", "states"),
    ("journal",),
    ("subsets",),
    ("leftout",),
    ("config",),
    ("plan",),
    ("characters",),
    ("triggers",),
    ("compose",),
    ("pairing", "layout", "captions", "tokens", "checkout"),
    ("images", "whole", "stopping", "findings", "pages", "sheets", "prompts", "environment"),
    ("errors",),
)
FLOORS = {room: floor for floor, rooms in enumerate(HOUSE) for room in rooms}
UPSTREAM_ROOMS = (
    "dataset",
    *(f"trainers.{name}" for name in ("kohya", "kohya_trainer", "builtin", "builtin_data", "builtin_model")),
    *(f"trainers.{name}" for name in ("networks", "optimizers", "ranks", "saving", "tokenizers", "logs", "machine", "kernels")),
)
UPSTREAM = {
    "torch",
    "torchvision",
    "library",
    "networks",
    "lycoris",
    "train_network",
    "accelerate",
    "diffusers",
    "transformers",
}


def room_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)


ROOMS = {room_of(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py")) if path.name != "__init__.py"}
PATCH_FILES = sorted((ROOT / PATCHES).glob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, anywhere in it; `from a import b` is `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    """Our rooms among a file's imports."""
    names = (name.removeprefix(f"{PACKAGE}.") for name in imports_of(path) if name.startswith(f"{PACKAGE}."))
    rooms = (next((room for room in ROOMS if f"{name}.".startswith(f"{room}.")), name) for name in names)
    return {room for room in rooms if room != "__version__"}


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(path)}


def test_every_room_has_its_floor():
    assert set(ROOMS) == set(FLOORS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_downwards(room):
    upwards = {other for other in rooms_imported(ROOMS[room]) if FLOORS[other] <= FLOORS[room]}
    assert not upwards


@pytest.mark.parametrize("room", sorted(set(ROOMS) - set(UPSTREAM_ROOMS)))
def test_a_plain_room_imports_neither_torch_nor_upstream(room):
    assert not tops(ROOMS[room]) & (UPSTREAM | {PATCHES})


def test_only_the_trainer_imports_the_dataset():
    assert [room for room in ROOMS if "dataset" in rooms_imported(ROOMS[room])] == ["trainers.kohya", "trainers.kohya_trainer"]


@pytest.mark.parametrize("path", PATCH_FILES, ids=lambda path: path.stem)
def test_a_patch_imports_upstream_only(path):
    assert PACKAGE not in tops(path)


@pytest.mark.parametrize("path", [*ROOMS.values(), *PATCH_FILES], ids=lambda path: path.stem)
def test_importing_a_file_does_nothing(path):
    """At a file's top level stand imports, definitions and constants, no calls for their effect."""
    calls = [node.lineno for node in ast.parse(path.read_text(encoding="utf-8")).body if called(node)]
    assert not calls


def called(node: ast.stmt) -> bool:
    return isinstance(node, (ast.For, ast.While, ast.With)) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))


def test_the_packages_own_files_import_nothing():
    for path in [*(ROOT / PACKAGE).rglob("__init__.py"), ROOT / PATCHES / "__init__.py"]:
        assert not list(imports_of(path))
