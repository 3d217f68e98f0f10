"""gpu.py's rows as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bench

NAMES = {"plain": "plain upstream", "stage1": "stage 1", "stage2": "stage 2", "stage2-area1": "stage 2, stage 1's area"}
_HEADER = (
    *("", "run", "batch", "pictures", "a step", "images a second", "of plain", "to prepare"),
    *("memory, preparing", "memory, training"),
)


def print_tables(rows: Sequence[dict]) -> None:
    """The runs by machine, then what the doctor said beside what happened, then the kill."""
    trained = [row for row in rows if row["part"] in NAMES]
    for machine in dict.fromkeys(row["machine"] for row in trained if not row["failed"]):
        cells = [_run_cells(row, trained) for row in trained if row.get("machine") == machine]
        bench.print_table(machine, _HEADER, cells)
    if not rows:
        print("nothing is measured yet")
    for setup in dict.fromkeys(row["setup"] for row in rows):  # too long for a table's cells
        print(f"\n{setup}\n- the doctor: {_doctors(setup, rows)}\n- what happened: {_outcome(setup, trained)}")
        for row in (row for row in rows if row["part"] == "kill" and row["setup"] == setup):
            print(f"- a kill: {what_happened(row)}")


def what_happened(result: dict[str, Any]) -> str:
    """A result in a few words."""
    if result["failed"]:
        return f"failed: {result['failed']}"
    if "findings" in result:
        return doctors_words(result["findings"])
    if "tensors" in result:
        return _kill_words(result)
    return f"{_seconds(result['step_seconds'])} a step"


def doctors_words(findings: Sequence[dict[str, str]]) -> str:
    """Its errors and warnings, each error with what it means."""
    said = [finding for finding in findings if finding["level"] != "ok"]
    words = [
        f"{finding['level']}: {finding['subject']}{', ' if finding['found'] else ''}{finding['found']}"
        + (f" ({finding['meaning']})" if finding["level"] == "error" or not finding["found"] else "")
        for finding in said
    ]
    return "; ".join(dict.fromkeys(words)) or "all is well"


def _run_cells(row: dict, others: Sequence[dict]) -> list[str]:
    plain = next((r for r in others if r["part"] == "plain" and r["setup"] == row["setup"] and not r["failed"]), None)
    is_comparable = plain is not None and plain["machine"] == row["machine"] and row is not plain
    return [
        row["setup"],
        NAMES[row["part"]],
        str(row["batch"]),
        _size(row),
        _seconds(row["step_seconds"]),
        f"{row['images_a_second']:.2f}",
        f"{row['images_a_second'] / plain['images_a_second']:.2f}" if is_comparable else "",
        f"{row['prepare_seconds']:.1f} s",
        _memory(row["memory"]["preparing"]),
        _memory(row["memory"]["training"]),
    ]


def _size(row: dict) -> str:
    """Of the first batch's pictures, in the VAE's cells of 8 pixels; the config's where no one saw the batch."""
    if row["size"] is None:
        return f"{row['resolution']} square"
    _, width, height = row["size"]
    return f"{width * 8}x{height * 8}"


def _seconds(value: float) -> str:
    return f"{value:.3f} s"


def _memory(peaks: Sequence[int] | None) -> str:
    return "-" if peaks is None else " / ".join(f"{peak / 2**30:.2f}" for peak in peaks) + " GiB"


def _doctors(setup: str, rows: Sequence[dict]) -> str:
    said = [row for row in rows if row["part"] == "doctor" and row["setup"] == setup]
    return what_happened(said[-1]) if said else "not asked"


def _outcome(setup: str, trained: Sequence[dict]) -> str:
    """The runs that trained, then each that failed with its reason."""
    runs = [row for row in trained if row["setup"] == setup]
    well = [NAMES[row["part"]] for row in runs if not row["failed"]]
    failures = [f"{NAMES[row['part']]} {what_happened(row)}" for row in runs if row["failed"]]
    return "; ".join([*([f"trained: {', '.join(well)}"] if well else []), *failures]) or "not run"


def _kill_words(result: dict[str, Any]) -> str:
    after, steps = result["went_on_after"], result["steps"]
    how = f"went on after step {after} of {steps}" if after else f"started over ({steps} steps)"
    words = f"{how}; {_difference_words(result)}"
    if "again" in result:
        words += f" (two undisturbed runs: {_difference_words(result['again'])})"
    return words


def _difference_words(counted: dict[str, Any]) -> str:
    if not counted["different"]:
        return f"all {counted['tensors']} tensors bit for bit as undisturbed"
    largest = "" if counted["largest"] is None else f", by up to {counted['largest']:.1e}"
    return f"{counted['different']} of {counted['tensors']} tensors differ{largest}"
