"""Which of the tests collected are run: all of them, or those that `make test` needs (the marks are in pyproject.toml).

``DTIMER_TEST_SERVERS`` says which:

- ``all``, the default: every test, on every server found. This is what `make test-all` runs, on each Python.
- ``shared``: what is marked ``any_server`` on one of the servers for each test, all else on every server; nothing that
  is marked ``campaign``. This is what `make test` runs on the oldest Python.
- ``first``: on the first of the servers found, and nothing that is marked ``once`` or ``campaign``. This is what
  `make test` runs on the other Pythons.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Final
from zlib import crc32

import pytest

from support.servers import Binary

LEFT_OUT: Final = {"all": (), "shared": ("campaign",), "first": ("campaign", "once")}
"""The marks of the tests that are not run."""


@pytest.hookimpl(trylast=True)  # after `-k`, so that each test which that leaves is run
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = os.environ.get("DTIMER_TEST_SERVERS", "all")
    if chosen not in LEFT_OUT:
        raise pytest.UsageError(f"DTIMER_TEST_SERVERS is {chosen!r}, which is none of {', '.join(LEFT_OUT)}")
    kept = [item for item in items if not any(item.get_closest_marker(mark) for mark in LEFT_OUT[chosen])]
    if chosen == "shared":
        others = _on_other_servers(kept)
        kept = [item for item in kept if item not in others]
    if len(kept) < len(items):
        ran = set(kept)
        config.hook.pytest_deselected(items=[item for item in items if item not in ran])
        items[:] = kept


def _on_other_servers(items: Sequence[pytest.Item]) -> set[pytest.Item]:
    """Of what is marked `any_server`, all but one for each test: its name says which, so it is always the same one.

    The servers share these tests out among them, so each kind of server still meets a part of each file.
    """
    on_each: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        binary = _binary(item)
        if binary is not None and item.get_closest_marker("any_server"):
            on_each[item.nodeid.replace(binary.name, "")].append(item)
    return {
        item
        for name, alike in on_each.items()
        for number, item in enumerate(alike)
        if number != crc32(name.encode()) % len(alike)
    }


def _binary(item: pytest.Item) -> Binary | None:
    """The server that it is run on, if it is run on several."""
    callspec: object = getattr(item, "callspec", None)
    parameters: dict[str, object] = getattr(callspec, "params", {})
    return next((value for value in parameters.values() if isinstance(value, Binary)), None)
