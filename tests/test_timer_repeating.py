"""For how long a call is repeated inside is its caller's to say, or its backend's (rule F1)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from dtimer import (
    BackendError,
    ConfirmOutcome,
    DTimer,
    Event,
    InvalidArgument,
    OutcomeUnknown,
    Post,
    RedisBackend,
    SimBackend,
    StoreBusy,
    StoreUnreachable,
)
from dtimer.limits import REPEAT_WITHIN_US, SECOND_US
from node.watched import Watched
from support.waiting import TIMEOUT_S

FOR_EVER: Final = 10_000
"""So often a call fails."""


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


@pytest.fixture
def watched(sim: SimBackend) -> Watched:
    return Watched(sim)


@pytest.fixture
def timer(watched: Watched) -> DTimer:
    return DTimer(watched, node_id="n")


async def in_time(sim: SimBackend, *calls: Awaitable[Any], ms: int = 20_000) -> list[Any]:
    """What calls come to that are made in one turn of the loop and wait for virtual time."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await sim.advance(ms)
    return await asyncio.gather(*tasks, return_exceptions=True)


CALLS: Final[dict[str, tuple[str, Callable[..., Awaitable[Any]]]]] = {
    "post": ("post", lambda timer, **more: timer.post(1, 1, **more)),
    "post_many": ("post", lambda timer, **more: timer.post_many([Post(payload=1, delay=1)], **more)),
    "cancel": ("cancel", lambda timer, **more: timer.cancel("e", **more)),
    "cancel_many": ("cancel", lambda timer, **more: timer.cancel_many(["e", "f"], **more)),
    "change_delay": ("change_delay", lambda timer, **more: timer.change_delay("e", 1, **more)),
    "confirm": ("confirm_newest", lambda timer, **more: timer.confirm("e", **more)),
    "peek": ("peek", lambda timer, **more: timer.peek("e", **more)),
    "upcoming": ("upcoming", lambda timer, **more: timer.upcoming(**more)),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_is_repeated_for_as_long_as_it_says(
    sim: SimBackend, watched: Watched, timer: DTimer, name: str
) -> None:
    """0 is one try; more is more tries, up to then."""
    method, call = CALLS[name]
    watched.fail(method, StoreUnreachable, times=FOR_EVER)

    (at_once,) = await in_time(sim, call(timer, repeat_within=0), ms=0)
    assert isinstance(at_once, StoreUnreachable)
    assert len(watched.count(method)) == 1

    since_us = sim.runtime.now_us()
    task = asyncio.ensure_future(call(timer, repeat_within=timedelta(seconds=20)))
    await sim.advance(15_000)
    assert not task.done()
    await sim.advance(5_000)
    assert isinstance(task.exception(), StoreUnreachable)
    assert sim.runtime.now_us() - since_us == 20 * SECOND_US
    assert len(watched.count(method)) > 10


@pytest.mark.parametrize("name", [*CALLS, "dead_letters", "resend", "discard"])
@pytest.mark.parametrize("value", [-1, float("nan"), True, "1", timedelta(days=40_000)])
async def test_what_is_no_time_is_refused_before_any_io(
    watched: Watched, timer: DTimer, name: str, value: object
) -> None:
    calls = CALLS | {
        "dead_letters": ("", lambda timer, **more: timer.dead_letters(**more)),
        "resend": ("", lambda timer, **more: timer.resend("e", **more)),
        "discard": ("", lambda timer, **more: timer.discard("e", **more)),
    }
    with pytest.raises(InvalidArgument, match="repeat_within"):
        await calls[name][1](timer, repeat_within=value)
    assert not watched.calls


async def test_callers_of_one_turn_give_up_one_by_one(sim: SimBackend, watched: Watched, timer: DTimer) -> None:
    """They travel together, and who has less time does not cost the others theirs."""
    watched.fail("post", StoreUnreachable, times=5)

    hasty, patient, usual = await in_time(
        sim,
        timer.post("p", 60_000, id="hasty", repeat_within=0),
        timer.post("p", 60_000, id="patient", repeat_within=60),
        timer.post("p", 60_000, id="usual"),
    )

    assert isinstance(hasty, StoreUnreachable)
    assert [patient, usual] == ["patient", "usual"]
    assert watched.count("post") == [3, *[2] * 5]
    assert {event.id for event in await timer.upcoming()} == {"patient", "usual"}


async def test_what_is_handed_in_later_does_not_overtake(sim: SimBackend, watched: Watched, timer: DTimer) -> None:
    """P3, P5: the last of two posts under one id stands, also if the first has to be tried again."""
    watched.fail("post", StoreBusy, times=6)
    first = asyncio.ensure_future(timer.post("v1", 60_000, id="e"))
    await sim.advance(300)

    await in_time(sim, timer.post("v2", 60_000, id="e"))

    assert await first == "e"
    seen = await timer.peek("e")
    assert seen is not None
    assert seen.payload == "v2"


async def test_who_has_less_time_ends_the_others_pause(sim: SimBackend, watched: Watched, timer: DTimer) -> None:
    """A web request does not wait for two seconds because another caller has been failing for long."""
    watched.fail("cancel", StoreUnreachable, times=FOR_EVER)
    patient = asyncio.ensure_future(timer.cancel("e", repeat_within=3_600))
    await sim.advance(60_000)
    before = len(watched.count("cancel"))

    (hasty,) = await in_time(sim, timer.cancel("f", repeat_within=0), ms=0)

    assert isinstance(hasty, StoreUnreachable)
    assert watched.count("cancel")[before:] == [2]
    patient.cancel()
    await asyncio.wait([patient])


async def test_a_caller_that_is_cancelled_while_it_is_tried_again_takes_it_back(
    sim: SimBackend, watched: Watched, timer: DTimer
) -> None:
    """P5: nothing has been applied of it."""
    watched.fail("post", StoreUnreachable)
    given_up = asyncio.ensure_future(timer.post("p", 60_000, id="given up"))
    await sim.advance(0)
    given_up.cancel()

    await in_time(sim, timer.post("p", 60_000, id="other"))

    assert [event.id for event in await timer.upcoming()] == ["other"]


@pytest.mark.parametrize("joined", [True, False])
async def test_a_confirm_is_repeated_for_as_long_as_it_says(
    sim: SimBackend, watched: Watched, timer: DTimer, joined: bool
) -> None:
    """Wherever it rides."""
    events: list[Event] = []
    timer.on("event", events.append)
    for _ in range(2):
        await timer.post("p", 0, max_retries=1, confirm_timeout=3_600)
    await timer.join()
    await sim.advance(10)
    if not joined:
        await timer.leave()
    for method in ("confirm", "claim"):
        watched.fail(method, OutcomeUnknown, times=3)

    hasty, patient = await in_time(
        sim, timer.confirm(events[0], repeat_within=0), timer.confirm(events[1].id, repeat_within=60)
    )

    assert isinstance(hasty, OutcomeUnknown)
    assert patient is ConfirmOutcome.CONFIRMED
    await timer.leave()


class _Hasty(Watched):
    """A backend whose calls are tried once."""

    repeat_within_us = 0


async def test_what_a_backend_says_is_what_its_calls_do(sim: SimBackend) -> None:
    hasty = _Hasty(sim)
    hasty.fail("post", StoreUnreachable, times=FOR_EVER)
    hasty.fail("peek", StoreUnreachable, times=FOR_EVER)
    timer: DTimer = DTimer(hasty)

    failures = await in_time(sim, timer.post(1, 1), timer.peek("e"))

    assert [type(failure) for failure in failures] == [StoreUnreachable] * 2
    assert (hasty.count("post"), len(hasty.count("peek"))) == ([1], 1)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_backend_says_for_how_long(partitions: int, unused_tcp_port: int) -> None:
    """Of a store that nobody reaches: one try, and no waiting."""
    client = Redis(port=unused_tcp_port)
    backend = RedisBackend(client, partitions=partitions, repeat_within=0)
    assert {part.repeat_within_us for part in backend.partitions} == {0}
    async with asyncio.timeout(TIMEOUT_S):
        with pytest.raises(BackendError):
            await DTimer(backend).post(1, 1)
    await backend.close()

    assert RedisBackend(client).repeat_within_us == REPEAT_WITHIN_US
    assert RedisBackend.from_url("redis://localhost", repeat_within=1.5).repeat_within_us == 1_500_000
    assert RedisBackend.embedded(repeat_within=timedelta(minutes=1)).repeat_within_us == 60 * SECOND_US
    with pytest.raises(InvalidArgument, match="repeat_within"):
        RedisBackend(client, repeat_within=-1)
