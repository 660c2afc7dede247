"""Waiting for something to become true, with an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

TIMEOUT_S: Final = 30.0
"""Of what takes a second or two on a quiet machine."""
POLL_S: Final = 0.002


async def until(condition: Callable[[], object], *, timeout_s: float = TIMEOUT_S) -> None:
    """Return as soon as `condition` holds; ``TimeoutError`` if it never does."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another process, mostly
            await asyncio.sleep(POLL_S)
