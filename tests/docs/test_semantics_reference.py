"""The reference of the rules, the code and the tests speak of the same rules and of files that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "dtimer"
LUA: Final = PACKAGE / "backends" / "redis" / "lua"
REFERENCE: Final = (ROOT / "docs" / "reference" / "semantics.md").read_text(encoding="utf-8")

GROUPS: Final = "TOPDERNWF"
_CITATION: Final = re.compile(rf"\b([{GROUPS}])([0-9]{{1,2}})\b(?: to \1([0-9]{{1,2}})\b)?")
"""One rule, or a range of them: ``W2 to W5``."""


def cited(text: str) -> Iterator[str]:
    """The rules that a text cites, each as often as it does."""
    for group, first, last in _CITATION.findall(text):
        for number in range(int(first), int(last or first) + 1):
            yield f"{group}{number}"


def headings() -> list[str]:
    return re.findall(r"^### ([A-Z][0-9]+)\. ", REFERENCE, re.MULTILINE)


def sources() -> list[Path]:
    return sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.lua")])


def table() -> dict[str, list[list[str]]]:
    """The reference's last table: for each rule the files in its columns, Python, Lua and tests."""
    rows = re.findall(r"^\| \[([A-Z][0-9]+)\]\(#[a-z0-9]+\) \| (.*) \| (.*) \| (.*) \|$", REFERENCE, re.MULTILINE)
    return {rule: [re.findall(r"`([^`]+)`", cell) for cell in cells] for rule, *cells in rows}


def test_a_range_cites_all_of_its_rules() -> None:
    """The check would otherwise miss most of what a docstring such as that of `claim` cites."""
    assert list(cited("P7, N1 to N3 and UTF-8")) == ["P7", "N1", "N2", "N3"]


def test_each_rule_stands_once_under_an_anchor_of_its_own() -> None:
    """Links to a rule must go on working when its title changes."""
    anchors = re.findall(r'^<a id="([a-z][0-9]+)"></a>$', REFERENCE, re.MULTILINE)

    assert [rule.lower() for rule in headings()] == anchors
    assert len(set(anchors)) == len(anchors)


def test_rules_are_numbered_without_gaps() -> None:
    by_group: dict[str, list[int]] = {}
    for rule in headings():
        by_group.setdefault(rule[0], []).append(int(rule[1:]))

    assert list(by_group) == list(GROUPS)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in by_group.values())


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_code_cites_only_rules_that_exist(path: Path) -> None:
    """A number that leads nowhere is worse than none."""
    unknown = set(cited(path.read_text(encoding="utf-8"))) - set(headings())

    assert not unknown


def test_every_rule_is_cited_in_the_code() -> None:
    """A rule that no code knows of is a wish."""
    in_code = {rule for path in sources() for rule in cited(path.read_text(encoding="utf-8"))}

    assert set(headings()) <= in_code


def test_other_pages_cite_only_rules_that_exist() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md"]

    unknown = {rule for page in pages for rule in cited(page.read_text(encoding="utf-8"))} - set(headings())

    assert not unknown


def test_the_table_has_a_row_for_every_rule() -> None:
    assert list(table()) == headings()


@pytest.mark.parametrize(("rule", "columns"), table().items(), ids=list(table()))
def test_the_files_in_the_table_exist_and_cite_their_rule(rule: str, columns: list[list[str]]) -> None:
    """Whoever follows the table to a file must find the rule there."""
    for folder, names in zip((PACKAGE, LUA, ROOT / "tests"), columns, strict=True):
        for name in names:
            assert rule in cited((folder / name).read_text(encoding="utf-8")), f"{name} does not cite {rule}"


def test_limits_are_called_by_names_that_exist() -> None:
    """The reference names a constant for each number, so that the number can be looked up."""
    from dtimer import limits

    named = set(re.findall(r"`([A-Z]+_[A-Z_]*[A-Z])`", REFERENCE)) - {"NOT_FOUND"}

    assert named
    assert {name for name in named if not hasattr(limits, name)} <= {"NOT_JOINED"}
