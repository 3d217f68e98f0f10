"""Long work with a bar: how much is done, how fast, and how long it will take. One line where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s")


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item], description: str | None) -> list[Result]:
    """`work` of each item by threads, the results in order; with a bar where there is a description."""
    pool = ThreadPoolExecutor()
    try:
        return list(_tracked(pool.map(work, items), len(items), description))
    finally:
        pool.shutdown(cancel_futures=True)  # whoever stops the run does not wait for a hundred thousand files


def _tracked(results: Iterable[Result], total: int, description: str | None) -> Iterable[Result]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=description is None) as progress:
        yield from progress.track(results, total=total, description=description or "")
