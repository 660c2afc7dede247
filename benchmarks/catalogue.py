"""Who is measured, and with which settings; each is the peer's best that its documentation names."""

from __future__ import annotations

from typing import Final, Literal

from attrs import evolve, field, frozen

OURS: Final = "dtimer"
ORIGINAL: Final = "dtimer-node"


@frozen
class Peer:
    """One library.

    Attributes:
        key: its name on the command line, and that of its environment.
        settings: what its module is given.
        slots: the setting that says how many timers a worker has in hand at once.
        said: the settings in words, for the table.
        batches: one call posts many.
        note: what a reader of the figures should know.
        ours: it is this library, as the working tree has it or at a commit that it is compared with.
    """

    key: str
    title: str
    runtime: Literal["python", "node"]
    settings: dict[str, float]
    slots: str
    said: str
    folder: str = ""
    batches: bool = False
    note: str = ""
    ours: bool = False
    versions: dict[str, str] = field(factory=dict)

    def with_slots(self, num: int) -> Peer:
        return self.told(**{self.slots: num})

    def told(self, **settings: float) -> Peer:
        """The same with these settings too."""
        return evolve(self, settings={**self.settings, **settings})


PEERS: Final = (
    Peer(
        OURS,
        "dtimer (this)",
        "python",
        {"max_events": 100},
        "max_events",
        "max_retries 3, OrjsonCodec if there is orjson, handlers are coroutines that call `event.confirm()`"
        " and do not wait for it, or, where said so, that use `async with event`, which waits",
        batches=True,
        ours=True,
    ),
    Peer(
        "bullmq",
        "BullMQ",
        "node",
        {"concurrency": 100},
        "concurrency",
        "concurrency 100, removeOnComplete, attempts 4, ioredis",
        folder="bullmq",
        batches=True,
    ),
    Peer(
        ORIGINAL,
        "dtimer 0.3.3 (Node)",
        "node",
        {"maxEvents": 100},
        "maxEvents",
        "maxRetries 3, confirm() after each event, redis 0.12.1",
        folder="dtimer",
        note="maxEvents bounds what one claim takes, not how many handlers run",
    ),
    Peer(
        "saq",
        "saq",
        "python",
        {"concurrency": 100, "max_concurrent_ops": 64, "ttl_s": -1},
        "concurrency",
        "concurrency 100, max_concurrent_ops 64, dump and load by orjson if there is, no results kept, retries 4",
        note="looks for due jobs once a second, its least",
    ),
    Peer(
        "faststream-redis-timers",
        "faststream-redis-timers",
        "python",
        {"max_concurrent": 100, "max_polling_interval_s": 0.05, "max_connections": 1000},
        "max_concurrent",
        "max_concurrent 100, max_polling_interval 50 ms (default 5 s), logger off, 1,000 connections allowed",
        note="takes orjson by itself if there is",
    ),
    Peer(
        "arq",
        "arq",
        "python",
        {"max_jobs": 100, "poll_delay_s": 0.05},
        "max_jobs",
        "max_jobs 100, poll_delay 50 ms (default 500), serializer orjson if there is (default pickle), no results kept",
        note="reads at most 5 x max_jobs in a poll",
    ),
    Peer(
        "pydocket",
        "pydocket",
        "python",
        {"concurrency": 64, "interval_s": 0.02, "max_connections": 1000},
        "concurrency",
        "concurrency 64, minimum_check_interval and scheduling_resolution 20 ms (default 250), execution_ttl 0",
        batches=True,
    ),
)
