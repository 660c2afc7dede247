"""For the terminal."""

from __future__ import annotations

from benchmarks.report.tables import Table, failures, settings, tables
from benchmarks.result import Result


def text(result: Result) -> str:
    parts = [
        f"dtimer {result.version} ({result.commit}), {result.made}, {result.conditions}",
        "\n".join(settings(result)),
        *(_table(table) for table in tables(result)),
    ]
    if lines := failures(result):
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    rows = [list(table.head), *(list(row) for row in table.rows)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(table.head))]
    is_number = [
        all(row[index][:1].isdigit() or not row[index] for row in table.rows) for index in range(len(table.head))
    ]
    lines = [table.title]
    for row in rows:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    if table.note:
        lines.append(f"  {table.note}")
    return "\n".join(lines)
