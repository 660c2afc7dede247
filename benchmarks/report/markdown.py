"""For the documentation: the tables between two marks of a page."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.report.tables import Table, failures, settings, tables
from benchmarks.result import Result

BEGIN: Final = "<!-- figures: written by `make bench`, not by hand -->"
END: Final = "<!-- end of figures -->"


def markdown(result: Result) -> str:
    lines = [
        f"Measured {result.made} with dtimer {result.version}: {result.conditions}.",
        "",
        f"`{result.command}`",
        "",
        *(f"- {line}" for line in settings(result)),
    ]
    for table in tables(result):
        lines += ["", f"### {table.title}", "", *_table(table)]
        if table.note:
            lines += ["", table.note]
        if table.command:
            lines += ["", f"`{table.command}`"]
    if why := failures(result):
        lines += ["", "### Without a figure", "", *(f"- {line}" for line in why)]
    return "\n".join(lines) + "\n"


def _table(table: Table) -> list[str]:
    rows = [table.head, ["---"] * len(table.head), *table.rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def write_into(page: Path, result: Result) -> None:
    """Put the tables in place of those that the page has.

    Raises:
        ValueError: it has no marks for them.
    """
    written = page.read_text()
    before, begin, rest = written.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{begin}\n\n{markdown(result)}\n{end}{after}")
