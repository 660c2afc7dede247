"""Checked by mypy and pyright, never run: what the public names are to a type checker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import assert_type

from attrs import frozen

from dtimer import (
    CancelOutcome,
    Confirming,
    ConfirmOutcome,
    Counters,
    DeadEvent,
    DTimer,
    DTimerError,
    Ended,
    Event,
    EventExists,
    Events,
    JsonValue,
    Post,
    PostedId,
    PostOutcome,
    RedisBackend,
    Retry,
    SimBackend,
    TimerBackend,
    Upcoming,
)


@frozen
class Mail:
    to: str


class MailCodec:
    def encode(self, payload: Mail) -> bytes:
        return payload.to.encode()

    def decode(self, data: bytes) -> Mail:
        return Mail(data.decode())


def makes(backend: TimerBackend) -> None:
    assert_type(DTimer(backend=backend), DTimer[JsonValue])
    assert_type(DTimer(backend), DTimer)
    assert_type(DTimer(backend, codec=None), DTimer[JsonValue])
    assert_type(DTimer(backend, codec=MailCodec(), max_events=3), DTimer[Mail])
    DTimer(SimBackend(), node_id="a", confirm_timeout=timedelta(seconds=5))


def lazily() -> type[RedisBackend]:
    return RedisBackend


async def posts(timer: DTimer, mails: DTimer[Mail]) -> None:
    numbers = {"a": 1}
    posted = await timer.post(numbers, 5, max_retries=1, max_run=timedelta(hours=2), retry=Retry(100))
    assert_type(posted, PostedId)
    assert_type(posted.outcome, PostOutcome)
    await timer.post([1, "a", None, {"b": [2.5, True]}], timedelta(days=1), if_exists="keep")
    await timer.post(object(), 5)  # type: ignore[arg-type]  # JSON cannot hold it
    await timer.post(1, 5, if_exists="never")  # type: ignore[arg-type]  # no such choice
    await timer.post(1, "5")  # type: ignore[arg-type]  # not a delay
    await mails.post(Mail("Ann"), 5)
    await mails.post({"to": "Ann"}, 5)  # type: ignore[arg-type]  # not a Mail
    assert_type(await mails.post_many([Post(payload=Mail("Ann"), delay=5)]), list[PostedId | EventExists])
    await mails.post_many([Post(payload=5, delay=5)])  # type: ignore[arg-type]  # not a Mail


async def asks(mails: DTimer[Mail]) -> None:
    peeked = await mails.peek("x")
    assert_type(peeked, Upcoming[Mail] | None)
    if peeked is not None:
        assert_type(peeked.payload, Mail)
        assert_type(peeked.time_left, timedelta)
    assert_type(await mails.cancel("x"), CancelOutcome)
    assert_type(await mails.upcoming(offset=5, limit=1), list[Upcoming[Mail]])
    assert_type(mails.iter_upcoming(), AsyncIterator[Upcoming[Mail]])
    assert_type(await mails.dead_letters(), list[DeadEvent[Mail]])
    assert_type(mails.counters, Counters)
    async with mails as joined:
        assert_type(joined, DTimer[Mail])


async def takes(mails: DTimer[Mail]) -> None:
    assert_type(mails.events(), Events[Mail])
    async for event in mails.events():
        assert_type(event, Event[Mail])
        assert_type(event.payload, Mail)
        assert_type(event.confirm(), Confirming)
        assert_type(await event.confirm(), ConfirmOutcome)
        assert_type(await mails.confirm(event), ConfirmOutcome)
        async with event as same:
            assert_type(same, Event[Mail])


def handles(mails: DTimer[Mail]) -> None:
    @mails.on("event")
    async def handle(event: Event[Mail]) -> None:
        assert_type(event.payload.to, str)

    @mails.on("event")
    def plain(event: Event[Mail]) -> int:
        return 5

    def call(event: Event[Mail]) -> None:
        assert_type(plain(event), int)

    @mails.on("ended")
    async def ended(event: Ended[Mail]) -> None:
        assert_type(event.payload, Mail | None)

    @mails.on("error")
    def error(error: DTimerError) -> None:
        pass

    @mails.on("ready")
    async def ready() -> None:
        pass

    mails.on("event", lambda event: print(event.payload.to))
    mails.on("ready", lambda: print("ready"))
    mails.on("error", lambda error: print(error.args))
    mails.off("event", handle)

    def number(event: Event[int]) -> None: ...

    mails.on("event", number)  # type: ignore[call-overload]  # of another timer
    mails.on("ready", number)  # type: ignore[call-overload]  # takes an argument


def posts_are_frozen(post: Post[Mail]) -> None:
    post.delay = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def options_are_checked(mails: DTimer[Mail], mail: Mail) -> None:
    await mails.post(mail, 5, max_retries=3, retry=Retry(5))
    Post(mail, 5, max_retries=3)
    await mails.post(mail, 5, max_retires=3)  # type: ignore[call-arg]
    await mails.post(mail, 5, max_retries="3")  # type: ignore[arg-type]
    Post(mail, 5, max_retires=3)  # type: ignore[call-arg]
    Post(mail, 5, retry=3)  # type: ignore[arg-type]
