"""What a check has found, as plain data, and how a person reads it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lycoris_composite.errors import printable

OK, WARNING, ERROR = "ok", "warning", "error"
LEVELS = (OK, WARNING, ERROR)  # by their exit codes
_STYLES = {OK: "green", WARNING: "yellow", ERROR: "bold red"}
_WIDTH = 110  # columns, where the output is no terminal


@dataclass(frozen=True)
class Finding:
    """What was looked at, what is there, and what that means for a run."""

    subject: str
    found: str
    meaning: str = ""
    level: str = OK


def exit_code(findings: Iterable[Finding]) -> int:
    """0 where all is well, 1 for warnings, 2 for errors."""
    return max((LEVELS.index(finding.level) for finding in findings), default=0)


def show(sections: Sequence[Sequence[Finding]], file: TextIO | None = None) -> None:
    """Prints a table with a line between its sections. Nothing is cut off: long text goes on in the next line."""
    console = Console(file=file or sys.stdout, highlight=False)
    if not console.is_terminal:
        console = Console(file=file or sys.stdout, highlight=False, width=_WIDTH, color_system=None)
    table = Table("", "What", "Found", "Meaning")
    table.columns[0].no_wrap = True
    for column, share in zip(table.columns[1:], (2, 3, 5), strict=True):
        column.ratio, column.overflow = share, "fold"
    for section in filter(None, sections):
        for one in section:
            cells = (Text(printable(text)) for text in (one.subject, one.found, one.meaning))
            table.add_row(Text(one.level, _STYLES[one.level]), *cells)
        table.add_section()
    table.expand = True
    console.print(table)
    console.print(_summary([one for section in sections for one in section]))


def _summary(findings: Sequence[Finding]) -> str:
    counts = [sum(one.level == level for one in findings) for level in (ERROR, WARNING)]
    words = [f"{count} {name}{'s' if count > 1 else ''}" for count, name in zip(counts, (ERROR, WARNING), strict=True) if count]
    return f"{' and '.join(words) or 'all is well'} (exit code {exit_code(findings)})"
