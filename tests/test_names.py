"""Identifiers, files and prose use the field's words; names that were retired do not come back."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

import dtimer
import dtimer.protocol
import dtimer_conformance

RETIRED: Final = {
    "asker": "requester",
    "chance": "rng",
    "chore": "background task",
    "court": "runner",
    "disturbance": "health",
    "ear": "subscriber",
    "holding": "in flight",
    "journal": "recorder",
    "judging": "linearize",
    "keeper": "dispatcher",
    "lane": "batcher",
    "listing": "queries",
    "looking": "queries",
    "outbox": "batch queue",
    "planner": "fetch schedule",
    "removal": "purge",
    "seat": "iterator slot",
    "tally": "counters",
    "ticket": "submission",
    "tracked": "requires_confirm",
    "untracked": "requires_confirm",
    "upkeep": "deadline extender",
    "views": "queries",
    "world": "environment",
}
"""Words that no identifier and no file name has, and the field's word for each. Their plurals are retired, too."""
RETIRED_IN_PROSE: Final = RETIRED.keys() - {"chance", "holding", "listing", "looking", "ticket", "views", "world"}
"""Of these, the ones that have no other meaning in a comment or a docstring."""
RETIRED_FILES: Final = {"arguments", "exchange", "letters", "line", "prompt", "repeat", "shapes", "verdicts"}
"""File names besides, whose words are good ones elsewhere."""

RETIRED_API: Final = {
    "Exhausted": "Ended",
    "keep": "dead_letter",
    "NotTracked": "ConfirmNotRequired",
    "SimulationRefused": "SimMisuse",
    "SimulationStuck": "SimStuck",
}
"""Whole identifiers that the public API has given up, and what each is called now; not in the simulator either."""
OTHER_MEANINGS: Final = {
    ("keep", "sim/faulty/simulation.py"): "how many records a trace keeps",
    ("keep", "sim/faulty/trace.py"): "how many records a trace keeps",
    ("keep", "sim/scenario/runner.py"): "how many records a trace keeps",
    ("keep", "sim/loop/schedule.py"): "a predicate",
}
"""Where one of them stands for something else."""

FOLDERS: Final = (Path(dtimer.__file__).parent, Path(dtimer_conformance.__file__).parent)
ALL_FILES: Final = sorted(path for folder in FOLDERS for path in folder.rglob("*.py"))
# The simulator keeps some of them for now.
FILES: Final = [path for path in ALL_FILES if not path.is_relative_to(FOLDERS[0] / "sim")]


def words(name: str) -> Iterator[str]:
    """The words of an identifier or a text, in the singular."""
    for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name):
        yield word.lower()
        yield word.lower().removesuffix("s")


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-2:]))
def test_no_retired_word_comes_back(path: Path) -> None:
    """One thing has one name, and an engineer knows it from elsewhere."""
    found: set[str] = set()
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.NAME:
                found |= {f"{token.string}: say {RETIRED[word]}" for word in words(token.string) if word in RETIRED}
            elif token.type == tokenize.COMMENT or token.string.startswith('"""'):
                found |= {f"{word}: say {RETIRED[word]}" for word in words(token.string) if word in RETIRED_IN_PROSE}

    assert not found
    assert path.stem not in RETIRED_FILES
    assert not RETIRED.keys() & set(words(path.stem))


def test_no_retired_name_of_the_public_api_comes_back() -> None:
    found: set[str] = set()
    for path in ALL_FILES:
        file_name = path.relative_to(next(folder for folder in FOLDERS if path.is_relative_to(folder))).as_posix()
        with tokenize.open(path) as file:
            for token in tokenize.generate_tokens(file.readline):
                name = token.string
                if token.type == tokenize.NAME and name in RETIRED_API and (name, file_name) not in OTHER_MEANINGS:
                    found.add(f"{file_name}: {name}: say {RETIRED_API[name]}")

    assert not found


@pytest.mark.parametrize("module", [dtimer, dtimer.protocol])
def test_which_delivery_it_is_has_one_name(module: ModuleType) -> None:
    """`delivery`, `deliveries` and `number` all were names of `delivery_number` once."""
    found = {
        f"{name}.{member}"
        for name in module.__all__
        for member in ("delivery", "deliveries", "number")
        if isinstance(kind := getattr(module, name), type) and hasattr(kind, member)
    }

    assert found == ({"Claimed.deliveries"} if module is dtimer.protocol else set())
