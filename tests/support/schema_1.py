"""A namespace of schema 1, recorded as the last commit that wrote it, b08225d, left it on a server, and laid out again.

The recording is ``schema_1.json.xz`` beside this file, for a clone may have no history. It was made by::

    git archive b08225d | tar -x -C OLD
    PYTHONPATH=OLD:tests python -P tests/support/schema_1.py URL

on an empty server. It holds every key, and what b08225d itself says of all events by its own functions.
Its clock stood still but for what is said here, in 2025, so all nodes in it have been silent for long.
"""

from __future__ import annotations

import asyncio
import json
import lzma
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from redis import Redis as Client

RECORDING: Final = Path(__file__).with_suffix(".json.xz")
NAMESPACE: Final = "dt"
BEGAN_US: Final = 1_750_000_000_000_000
HOUR_US: Final = 3_600_000_000
MINUTE_US: Final = 60_000_000
PENDING: Final = 8_000
DELIVERED: Final = 1_000
DEAD: Final = 1_000
BATCH: Final = 500

Shown: TypeAlias = dict[str, Any]
"""An event or a dead letter, as a version of dtimer tells it; times in us."""


def recorded() -> tuple[dict[str, Any], list[Shown], list[Shown]]:
    """The keys, the live events in their order, and the dead letters, oldest first."""
    whole = json.loads(lzma.decompress(RECORDING.read_bytes()))
    return whole["keys"], whole["live"], whole["letters"]


def lay_out(client: Client, prefix: str = f"{{{NAMESPACE}}}:") -> None:
    """Put the recorded keys on a server, with this before their names."""
    keys, _, _ = recorded()
    for name, value in keys.items():
        key = prefix + name.rpartition(":")[2]
        pipeline = client.pipeline(transaction=False)
        for first, second in value["entries"]:
            if value["type"] == "hash":
                pipeline.hset(key, first.encode("latin-1"), second.encode("latin-1"))
            else:
                pipeline.execute_command("ZADD", key, second, first.encode("latin-1"))
        pipeline.execute()


def shown_event(pending: Any) -> Shown:
    """What `peek` and `upcoming` say."""
    event = pending.event
    return {
        "id": event.id,
        "payload": event.payload.decode(),
        "headers": event.headers.decode(),
        "max_retries": event.max_retries,
        "confirm_timeout_us": event.confirm_timeout_us,
        "expires_after_us": event.expires_after_us,
        # These two had other names then.
        "keep": event.keep if hasattr(event, "keep") else event.dead_letter,
        "retry": None if event.retry is None else [event.retry.delay_us, event.retry.factor, event.retry.delay_max_us],
        "state": pending.state.value,
        "next_us": pending.next_us,
        "num_retries": pending.num_retries,
        "number": pending.number if hasattr(pending, "number") else pending.delivery_number,
    }


def shown_letter(letter: Any) -> Shown:
    """What `dead_letters` says."""
    return {
        "id": letter.id,
        "payload": None if letter.event is None else letter.event.payload.decode(),
        "raw": letter.raw.decode("latin-1"),
        "reason": letter.reason.value,
        "detail": letter.detail,
        "num_counted": letter.num_counted,
    }


async def everything(backend: Any) -> tuple[list[Shown], list[Shown]]:
    """All live events and all dead letters."""
    from dtimer.protocol.values import Window

    live: list[Shown] = []
    start: Any = Window()
    while start is not None:
        page = (await backend.upcoming(start, limit=256)).value
        live += map(shown_event, page.items)
        start = page.next
    letters: list[Shown] = []
    cursor = None
    while True:
        found = (await backend.dead_letters(cursor, limit=256)).value
        letters += map(shown_letter, found.items)
        cursor = found.next
        if cursor is None:
            return live, letters


# --- the recording; runs with the old version only ----------------------------------------------------------------


def _pending(number: int) -> dict[str, Any]:
    """The arguments of a post."""
    import datetime

    from dtimer import Retry

    kinds: list[dict[str, Any]] = [
        {},
        {"max_retries": 3},
        {"max_retries": 2, "keep": True, "headers": {"number": str(number)}},
        {"expires_after": 600_000 if number % 16 < 8 else 1_000, "keep": number % 3 == 0},
        {"max_retries": 5, "retry": Retry(1_000, factor=2.5, max_delay=60_000)},
        {"max_retries": 1, "confirm_timeout": 30.0},
        {"at": datetime.datetime.fromtimestamp(BEGAN_US // 1_000_000 + 25 * 3_600 + number, datetime.UTC)},
        {"keep": True, "expires_after": 600_000},
    ]
    given = {"delay": 3_600_000 + number, **kinds[number % len(kinds)]}
    if "at" in given:
        del given["delay"]
    return given


async def _record(url: str) -> None:
    from redis.asyncio import Redis

    from dtimer import DTimer, Post
    from dtimer.backends.redis import RedisBackend
    from dtimer.protocol.values import Member, Release

    now_us = BEGAN_US
    backend: Any = RedisBackend(Redis.from_url(url), NAMESPACE, clock_for_tests=lambda: now_us)
    counted = iter(range(10**9))
    # Random ones would not be compressed.
    backend.runtime.__class__.token = lambda _, num_bytes: "".join(
        f"{next(counted):016x}" for _ in range(max(num_bytes // 8, 1))
    )
    timer: DTimer[Any] = DTimer(backend)
    member = Member("clerk", "1-1")
    nonces = iter(range(10**9))

    async def post(posts: Sequence[Any]) -> None:
        for first in range(0, len(posts), BATCH):
            await timer.post_many(posts[first : first + BATCH])

    async def claim_all() -> list[Any]:
        taken: list[Any] = []
        while True:
            nonce = f"nonce{next(nonces)}"
            claimed = (await backend.claim(member, room=BATCH, confirm_timeout_us=HOUR_US, nonce=nonce)).value
            taken += claimed.deliveries
            if not (claimed.deliveries or claimed.ended or claimed.unreadable or claimed.more):
                return taken

    await backend.join(member)

    # The dead: buried, exhausted, expired, refused and unreadable ones, most of them many at one time.
    await post(
        [
            Post(
                payload={"dead": number},
                delay=0,
                id=f"dead-{number}",
                max_retries=number % 2,
                keep=True,  # type: ignore[call-arg]  # its name then
                expires_after=1_000 if number % 5 == 0 else None,
                headers={"h": "x"} if number % 7 == 0 else None,
            )
            for number in range(DEAD - 10)
        ]
    )
    now_us += 2_000_000
    taken = await claim_all()
    by_id = {each.event.id: each.receipt for each in taken}
    for number in range(DEAD - 10):
        receipt = by_id.get(f"dead-{number}")
        if receipt is not None and number % 5 == 1:
            await backend.bury(receipt, detail=f"reason {number}")
        elif receipt is not None and number % 5 == 2:
            await backend.release(receipt, how=Release.REFUSED, delay_us=0, detail="no such type")
    for _ in range(2):
        now_us += 1_000
        for each in await claim_all():
            await backend.release(each.receipt, how=Release.REFUSED, delay_us=0, detail="no such type")
    for _ in range(3):
        now_us += 2 * HOUR_US
        await claim_all()
    stranger: Any = Client.from_url(url)
    for number in range(10):
        stranger.hset("{dt}:records", f"strange-{number}", b"garbage\xff")
        stranger.zadd("{dt}:queue", {f"strange-{number}": BEGAN_US})
    await claim_all()

    # The delivered: with a delivery out, first or second; given back, counted, not counted or refused.
    now_us = BEGAN_US + 24 * HOUR_US
    await post(
        [
            Post(
                payload={"delivered": number},
                delay=0,
                id=f"delivered-{number}",
                max_retries=3,
                keep=number % 2 == 0,  # type: ignore[call-arg]  # its name then
                expires_after=[None, 63 * 60_000, 120 * 60_000][number % 3],
                headers={"h": str(number)} if number % 4 else None,
            )
            for number in range(DELIVERED)
        ]
    )
    hows = [None, Release.COUNTED, Release.UNCOUNTED, Release.REFUSED, None]
    for round in range(2):
        now_us += MINUTE_US
        for each in await claim_all():
            number = int(each.event.id.rpartition("-")[2])
            how = hows[number % 5]
            if how is not None and (round == 0 or number % 2):
                await backend.release(each.receipt, how=how, delay_us=0 if round == 0 else HOUR_US, detail="not yet")

    # The pending.
    for first in range(0, PENDING, BATCH):
        await timer.post_many(
            Post(payload={"pending": number}, id=f"pending-{number}", **_pending(number))
            for number in range(first, first + BATCH)
        )
    # A node that died, and so is there still.
    await backend.join(Member("silent", "2-2"))

    live, letters = await everything(backend)
    keys: dict[str, Any] = {}
    for name in sorted(stranger.scan_iter()):
        kind = stranger.type(name).decode()
        if kind == "hash":
            pairs = sorted(stranger.hgetall(name).items())
            entries = [[field.decode("latin-1"), value.decode("latin-1")] for field, value in pairs]
        else:
            entries = [
                [member.decode("latin-1"), repr(int(score))]
                for member, score in stranger.zrange(name, 0, -1, withscores=True)
            ]
        keys[name.decode()] = {"type": kind, "entries": entries}
    text = json.dumps({"keys": keys, "live": live, "letters": letters}, indent=0, sort_keys=True)
    RECORDING.write_bytes(lzma.compress(text.encode(), preset=9))
    await backend.close()


if __name__ == "__main__":
    asyncio.run(_record(sys.argv[1]))
