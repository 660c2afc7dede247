"""The process's clocks, frozen at the virtual time by the package freezegun, which is optional."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime

from dtimer.sim.clock import VirtualClock
from dtimer.sim.errors import SimMisuse


@contextmanager
def frozen(clock: VirtualClock, now: Callable[[], datetime]) -> Generator[None]:
    """Until the block ends, `datetime.now()` is what `now` returns; it is moved with the clock."""
    try:
        from freezegun import freeze_time
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError("frozen_time() needs another package: pip install freezegun") from missing

    if clock.on_move is not None:
        raise SimMisuse("frozen_time()", "was called within the block of another one: the time is frozen already")
    # Event loops go on by real time, so that an `asyncio.sleep` or a timeout of the test's own still ends.
    with freeze_time(now(), real_asyncio=True) as wall:
        clock.on_move = lambda: wall.move_to(now())
        try:
            yield
        finally:
            clock.on_move = None
