"""How many modules a payload goes through, from its post to the confirm of its delivery."""

from __future__ import annotations

from dtimer import DTimer
from dtimer.backends.redis import RedisBackend
from support.round_trip import round_trip
from support.servers import Server

FILES_MAX = 16


async def test_a_payload_crosses_few_modules(server: Server) -> None:
    """Each is one more to read when an event is followed. That of a class counts when a value of it is made."""
    async with RedisBackend.from_url(server.url) as backend:
        trip = await round_trip(DTimer(backend))

    assert {"timer.py", "backends/redis/connection.py", "node/consumers.py"} <= trip.carrying.keys() <= trip.all
    assert len(trip.carrying) <= FILES_MAX, trip.carrying
