"""Errors are raised as the reference says, and name what the caller gave."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import dtimer
from dtimer import errors

FOLDER: Final = Path(dtimer.__file__).parent
REPORTS: Final = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.Report)
}


def raised_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The last part of each name that is raised, or called to make what is raised, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(raised, ast.Name):
                yield raised.id, node.lineno
            elif isinstance(raised, ast.Attribute):
                yield raised.attr, node.lineno


def test_reports_are_never_raised_at_a_caller() -> None:
    assert "PayloadRefused" in REPORTS

    found = [
        f"{path.relative_to(FOLDER)}:{line}: {name}"
        for path in sorted(FOLDER.rglob("*.py"))
        for name, line in raised_names(ast.parse(path.read_text(encoding="utf-8")))
        if name in REPORTS
    ]

    assert found == []
