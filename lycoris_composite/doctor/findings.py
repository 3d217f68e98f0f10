"""What a check has found, as plain data, and how a person reads it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console
from rich.table import Column, Table
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


def show(sections: Sequence[Sequence[Finding]], file: TextIO | None = None) -> int:
    """Prints a table with a line between its sections. Nothing is cut off: long text goes on in the next line. Returns the
    exit code: 0 where all is well, 1 for warnings, 2 for errors."""
    console = Console(file=file or sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    columns = [Column(name, ratio=share, overflow="fold") for name, share in (("What", 2), ("Found", 3), ("Meaning", 5))]
    table = Table(Column(no_wrap=True), *columns, expand=True)
    for section in filter(None, sections):
        for finding in section:
            cells = (Text(printable(text)) for text in (finding.subject, finding.found, finding.meaning))
            table.add_row(Text(finding.level, _STYLES[finding.level]), *cells)
        table.add_section()
    console.print(table)
    levels = [finding.level for section in sections for finding in section]
    counts = [f"{n} {level}{'s' if n > 1 else ''}" for level in (ERROR, WARNING) if (n := levels.count(level))]
    code = max(map(LEVELS.index, levels), default=0)
    console.print(f"{' and '.join(counts) or 'all is well'} (exit code {code})")
    return code
