"""The rules cannot wait, read a clock, roll dice or reach anything."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dtimer.semantics

PACKAGE = Path(dtimer.semantics.__file__).parent
ALLOWED = {
    "__future__",
    "abc",
    "attrs",
    "bisect",
    "collections.abc",
    "itertools",
    "typing",
    "typing_extensions",
    "dtimer.frozen",
    "dtimer.limits",
    "dtimer.protocol",  # its operations
    "dtimer.protocol.operations",
    "dtimer.protocol.outcomes",
    "dtimer.protocol.values",
}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_the_semantics_import_nothing_that_could_act(path: Path) -> None:
    """A rule that could read a clock would soon do so, and no history could be replayed any more."""
    tree = ast.parse(path.read_text())
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    foreign = {name for name in imported if name not in ALLOWED and not name.startswith("dtimer.semantics")}

    assert not foreign


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_the_semantics_do_not_wait(path: Path) -> None:
    """What waits can be interrupted; a transition cannot."""
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)

    assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, waiting)]
