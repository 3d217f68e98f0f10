"""The doctor's table as a person or a pipe reads it."""

from __future__ import annotations

import io

from lycoris_composite.doctor.findings import ERROR, OK, WARNING, Finding, show


def shown(*findings: Finding) -> str:
    out = io.StringIO()
    show([findings], out)
    return out.getvalue()


def test_the_exit_code_is_the_worst_levels():
    ok, warning, error = (Finding("a", "b", level=level) for level in (OK, WARNING, ERROR))
    assert show([]) == show([[ok], []]) == 0
    assert show([[ok], [warning]]) == 1
    assert show([[error], [warning]]) == 2


def test_in_a_pipe_nothing_is_cut_off_or_coloured():
    path = "/data/" + "x" * 300 + "/end"
    text = shown(Finding("disk", path, "word " * 80 + "last", ERROR))
    assert "\x1b" not in text
    assert 100 <= max(map(len, text.splitlines())) <= 120
    columns = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert "".join(row[2] for row in columns) == path
    assert " ".join(row[3] for row in columns).strip() == "word " * 80 + "last"


def test_other_peoples_text_neither_steers_the_terminal_nor_is_taken_for_markup():
    text = shown(Finding("[red]x[/red]", "a\x1b[31m\n.png", "[/]"))
    assert "[red]x[/red]" in text
    assert "a\\x1b[31m\\n.png" in text
    assert "[/]" in text


def test_the_last_line_counts_what_is_wrong():
    assert shown(Finding("a", "b")).endswith("all is well (exit code 0)\n")
    assert shown(*[Finding("a", "b", level=level) for level in (OK, ERROR, WARNING, WARNING)]).endswith(
        "1 error and 2 warnings (exit code 2)\n"
    )
