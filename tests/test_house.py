"""The order of the folders (design.md, "The house"), read from the imports without running any."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from lycoris_composite.config.options import KEYS
from tests.helpers import ROOT

PACKAGE = "lycoris_composite"
PATCHES = "sd_scripts_patches"
# From the roof to the cellar: a folder calls those of later lines and itself. "" holds the files that stand beside them.
FOLDERS = (
    "command line",
    "doctor",
    "look",
    "preflight",
    *("trainers.kohya", "trainers.builtin"),
    "trainers",
    "run",
    "config",
    "composites",
    "data",
    "ground",
)
BESIDE = {
    "cli": "command line",
    "train": "command line",
    "launcher": "command line",
    "architectures": "ground",
    "errors": "ground",
    "randomness": "ground",
}
UPSTREAM = {
    *("torch", "torchvision", "library", "networks", "lycoris", "train_network", "accelerate", "diffusers", "transformers"),
    PATCHES,
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)


FILES = {name_of(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py")) if path.name != "__init__.py"}
PATCH_FILES = sorted((ROOT / PATCHES).glob("*.py"))


def folder_of(name: str) -> str:
    return BESIDE.get(name) or name.rpartition(".")[0]


def imports_of(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, anywhere in it; `from a import b` is `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_imported(path: Path) -> set[str]:
    """Our files among a file's imports."""
    names = [name.removeprefix(f"{PACKAGE}.") for name in imports_of(path) if name.startswith(f"{PACKAGE}.")]
    return {file for file in FILES for name in names if f"{name}.".startswith(f"{file}.")}


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(path)}


def test_every_file_is_in_a_folder_of_the_house():
    assert {folder_of(name) for name in FILES} == set(FOLDERS)


def test_imports_go_downwards():
    floors = {folder: floor for floor, folder in enumerate(FOLDERS)}
    upwards = {
        f"{name} -> {other}"
        for name, path in FILES.items()
        for other in files_imported(path)
        if floors[folder_of(other)] < floors[folder_of(name)] or {folder_of(name), folder_of(other)} in SIDE_BY_SIDE
    }
    assert not upwards


SIDE_BY_SIDE = ({"trainers.kohya", "trainers.builtin"},)  # they do not call each other


def test_no_imports_go_round():
    try:
        TopologicalSorter({name: files_imported(path) for name, path in FILES.items()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_trainers_import_torch_and_upstream():
    plain = {name: path for name, path in FILES.items() if not name.startswith("trainers.")}
    assert not {name: found for name, path in plain.items() if (found := tops(path) & UPSTREAM)}


def test_a_patch_imports_upstream_only():
    assert not [path for path in PATCH_FILES if PACKAGE in tops(path)]


def test_importing_a_file_does_nothing():
    """At a file's top level stand imports, definitions and constants, no calls for their effect."""
    files = [*FILES.values(), *PATCH_FILES]
    called = [(path, node.lineno) for path in files for node in ast.parse(path.read_text(encoding="utf-8")).body if does(node)]
    assert not called


def does(node: ast.stmt) -> bool:
    return isinstance(node, (ast.For, ast.While, ast.With)) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))


def test_a_folders_own_file_says_what_may_live_there_and_imports_nothing():
    for path in [*(ROOT / PACKAGE).rglob("*/__init__.py"), ROOT / PATCHES / "__init__.py"]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        assert not list(imports_of(path)), path


def test_only_config_reads_kohyas_keys_by_their_text():
    """Elsewhere they are attributes of KohyaSettings. A batch and a sample prompt have keys of the same names."""
    read = [
        f"{name}: {ast.unparse(node)}"
        for name, path in FILES.items()
        if not name.startswith("config.")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if key_read(node) in KEYS and not ast.unparse(node).startswith(("given[", "prompt.get("))
    ]
    assert not read


def key_read(node: ast.AST) -> str | None:
    """The text in `holder["text"]` or `holder.get("text")`."""
    if isinstance(node, ast.Subscript):
        key = node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
        key = node.args[0]
    else:
        return None
    return key.value if isinstance(key, ast.Constant) else None
