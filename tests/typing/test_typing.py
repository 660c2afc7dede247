"""The files beside this one say what type checkers must accept and refuse; mypy is asked whether it does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

mypy = pytest.importorskip("mypy.api")
pytestmark = pytest.mark.once
HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.mark.parametrize("name", ["public_types.py", "backend_types.py", "simulation_types.py"])
def test_types_are_as_promised(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`warn_unused_ignores` is part of strict, so every refusal that is asked for must happen."""
    monkeypatch.chdir(ROOT)

    output, complaints, code = mypy.run(["--strict", "--python-executable", sys.executable, str(HERE / name)])

    assert code == 0, output + complaints
