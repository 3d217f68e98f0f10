"""What the benchmarks share: the import path, the machine in one line, tables, and measuring two things in turn."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def parser(description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_checkout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sd_scripts", metavar="DIR", help="the sd-scripts clone to use (default: $SD_SCRIPTS_DIR, or a usual place)"
    )


def use_project() -> None:
    """Puts the project and its tests' makers on the import path."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def find_checkout(given: str | None, narrow_in: Path | None = None) -> Path:
    """The sd-scripts clone, or the end of the run with a sentence that says where it was looked for. `narrow_in` names a
    folder for a copy that loads the tests' tiny models and no others."""
    from examples.cg3_mini.narrow import narrow_copy
    from lycoris_composite.errors import UserError
    from lycoris_composite.trainers.kohya import checkout

    try:
        found = checkout.find(given)
        return narrow_copy(found, narrow_in / "sd-scripts") if narrow_in else found
    except UserError as error:
        sys.exit(f"error: {error}")


def use_checkout(given: str | None, narrow_in: Path | None = None) -> None:
    """Puts the project and an sd-scripts clone on the import path, and keeps upstream's running commentary quiet."""
    use_project()
    sys.path.insert(0, str(find_checkout(given, narrow_in)))
    logging.disable(logging.WARNING)


@contextmanager
def scratch(given: Path | None) -> Iterator[Path]:
    """A folder for what a benchmark makes: the given one, which stays and has to be empty, or a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        if any(given.iterdir()):
            sys.exit(f"error: --work {given}: not empty; name a new folder.")
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="lycoris-composite-") as folder:
        yield Path(folder)


def machine_line() -> str:
    """CPU model, cores, Python's and torch's version, the threads torch was told to use, and the load meanwhile."""
    parts = [_cpu_model(), f"{os.cpu_count()} cores", f"Python {platform.python_version()}"]
    with suppress(PackageNotFoundError):
        parts.append(f"torch {version('torch')}")
    if os.environ.get("OMP_NUM_THREADS"):
        parts.append(f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}")
    if hasattr(os, "getloadavg"):
        parts.append("load {:.1f}, {:.1f}, {:.1f} (1, 5, 15 min)".format(*os.getloadavg()))
    return ", ".join(parts)


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table that is readable in a terminal and is Markdown: first column left, the others right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    print(f"\n{title}\n")
    for row in (header, rule, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print(f"| {' | '.join(cells)} |")


def in_turn(actions: Mapping[str, Callable[[], object]], rounds: int, block: int) -> dict[str, list[list[float]]]:
    """Seconds of each call, by action and round. Every round calls each action `block` times; the order turns round
    from one round to the next, so that a machine that slows down does so for all."""
    times: dict[str, list[list[float]]] = {name: [] for name in actions}
    for number in range(rounds):
        for name in list(actions)[:: 1 if number % 2 else -1]:
            times[name].append([seconds(actions[name]) for _ in range(block)])
    return times


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def median_of(rounds: Sequence[Sequence[float]]) -> float:
    return statistics.median(value for block in rounds for value in block)


def ratio_quartiles(rounds: Sequence[Sequence[float]], base: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The lower and upper quartile of the rounds' own ratios of medians."""
    ratios = [statistics.median(own) / statistics.median(other) for own, other in zip(rounds, base, strict=True)]
    lower, _, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    return lower, upper
