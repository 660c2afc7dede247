"""Each row of the table of faults names a test, and each test of a fault is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "explanation" / "delivery-guarantees.md").read_text(encoding="utf-8")
_TEST: Final = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


def named_in(folder: Path) -> set[str]:
    return {name for file in folder.rglob("test_*.py") for name in _TEST.findall(file.read_text(encoding="utf-8"))}


def test_every_test_that_is_named_exists() -> None:
    """Whoever doubts a promise must find what shows it."""
    assert set(re.findall(r"`(test_\w+)`", PAGE)) <= named_in(ROOT / "tests")


def test_no_test_of_a_fault_is_missing() -> None:
    """What is shown shall be said, too."""
    of_the_tools = {"test_the_servers_clock_can_be_set", "test_no_counter_is_missing"}

    assert named_in(ROOT / "tests" / "faults") - of_the_tools <= set(re.findall(r"`(test_\w+)`", PAGE))


def test_every_row_about_a_fault_names_its_test() -> None:
    """Or says that it is the same as the one above."""
    # One table is about all faults at once: its figures are those of a run.
    page = re.sub(r"^## All of it together$.*?(?=^## )", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (?!fault|call|nodes|---|\d)(.*) \|$", page, re.MULTILINE)

    assert len(rows) > 40
    assert not [row for row in rows if "`test_" not in row and not row.endswith("the same")]
