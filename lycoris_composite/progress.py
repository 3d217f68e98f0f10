"""Long work with a bar: what, how far, how fast, how much longer. Where output is no terminal it is one line, at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")
Result = TypeVar("Result")
_BAR = 20  # characters: with the longest description, ten thousands of items fit 80 columns


class _Rate(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or (task.completed / task.elapsed if task.elapsed else 0.0)
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item], description: str | None) -> list[Result]:
    """`work` of each item in threads, in order, with a progress bar where there is a description."""
    pool = ThreadPoolExecutor()
    try:
        return list(tracked(pool.map(work, items), len(items), description))
    finally:
        pool.shutdown(cancel_futures=True)  # whoever stops the run does not wait for a hundred thousand files


def tracked(results: Iterable[Result], total: int, description: str | None) -> Iterable[Result]:
    """The results as they come, with a progress bar where there is a description. Shown on the error stream: what a
    command prints stays what it found."""
    if description is None:  # a disabled bar would still print an empty line
        yield from results
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(_BAR),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(results, total=total, description=description)
