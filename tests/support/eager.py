"""Runs the tests of a module that imports the fixture twice: with asyncio's usual tasks, and with eager ones."""

from __future__ import annotations

import asyncio
import sys

import pytest

EAGER = pytest.param(
    "eager tasks", marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 has them first")
)


@pytest.fixture(autouse=True, params=["usual tasks", EAGER])
async def task_factory(request: pytest.FixtureRequest) -> None:
    """An eager task begins within `create_task`, before its caller goes on."""
    if request.param == "eager tasks" and sys.version_info >= (3, 12):
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
