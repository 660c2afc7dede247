"""A store that fails: what is repeated, what is told, and that a node always comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import evolve

from dtimer import (
    ConfirmOutcome,
    DTimer,
    DTimerError,
    Event,
    MalformedWakeup,
    NodeDisturbed,
    OutcomeUnknown,
    Post,
    PostOutcome,
    SimBackend,
    StoreBusy,
    StoreDenied,
    StoreFull,
    StoreLostWrites,
    StoreNotWritable,
    StoreReadOnly,
    StoreUnreachable,
)
from dtimer.limits import SECOND_US
from dtimer.node.retry import retrying
from dtimer.protocol.outcomes import ClaimStatus
from dtimer.protocol.values import Applied, Claimed, Malformed, Member
from node.watched import Watched


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


@pytest.fixture
def watched(sim: SimBackend) -> Watched:
    return Watched(sim)


@pytest.fixture
def timer(watched: Watched) -> DTimer:
    return DTimer(watched, node_id="n")


@pytest.fixture
def errors(timer: DTimer) -> list[DTimerError]:
    heard: list[DTimerError] = []
    timer.on("error", heard.append)
    return heard


def confirm(event: Event) -> None:
    """Without waiting for the outcome."""
    event.confirm()


async def in_time(sim: SimBackend, call: Any) -> Any:
    """The result of a call that waits for virtual time."""
    task = asyncio.ensure_future(call)
    await sim.advance(20_000)
    return await task


# --- calls (rule F1) ----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StoreUnreachable, StoreBusy, StoreReadOnly, StoreNotWritable, OutcomeUnknown])
async def test_a_read_is_repeated(sim: SimBackend, watched: Watched, timer: DTimer, error: Any) -> None:
    watched.fail("peek", error, times=3)

    assert await in_time(sim, timer.peek("x")) is None
    assert len(watched.count("peek")) == 4


async def test_repeating_has_an_end(sim: SimBackend, watched: Watched, timer: DTimer) -> None:
    watched.fail("peek", StoreUnreachable, times=1000)

    with pytest.raises(StoreUnreachable):
        await in_time(sim, timer.peek("x"))
    assert 5 < len(watched.count("peek")) < 20


async def test_a_refusal_is_raised_at_once(watched: Watched, timer: DTimer) -> None:
    watched.fail("post", StoreFull)
    watched.fail("peek", StoreDenied)

    with pytest.raises(StoreFull):
        await timer.post(1, 1)
    with pytest.raises(StoreDenied):
        await timer.peek("x")


@pytest.mark.parametrize("applied", [False, True])
async def test_a_post_whose_reply_was_lost_is_not_repeated(watched: Watched, timer: DTimer, applied: bool) -> None:
    """However far it is off: others may have cancelled or replaced it since."""
    watched.fail("post", OutcomeUnknown, applied=applied)

    with pytest.raises(OutcomeUnknown, match=r"may have been applied; not safe to repeat: .* peek at the id first"):
        await timer.post("p", 60_000, id="x")
    assert watched.count("post") == [1]
    assert (await timer.peek("x") is not None) == applied


async def test_a_post_that_was_not_sent_is_repeated(sim: SimBackend, watched: Watched, timer: DTimer) -> None:
    watched.fail("post", StoreUnreachable)

    assert (await in_time(sim, timer.post("p", 0))).outcome is PostOutcome.CREATED


async def test_that_nothing_was_sent_last_says_nothing_about_the_try_before(
    sim: SimBackend, watched: Watched, timer: DTimer
) -> None:
    watched.fail("leave", OutcomeUnknown)
    watched.fail("leave", StoreUnreachable, times=1000)

    with pytest.raises(OutcomeUnknown, match="an earlier try's reply was lost"):
        await in_time(sim, retrying(sim.runtime, lambda: watched.leave(Member("n", "1")), SECOND_US))


async def test_change_delay_is_not_repeated(watched: Watched, timer: DTimer) -> None:
    watched.fail("change_delay", OutcomeUnknown)

    with pytest.raises(OutcomeUnknown):
        await timer.change_delay("x", 5)
    assert watched.count("change_delay") == [1]


@pytest.mark.parametrize("applied", [False, True])
async def test_a_cancel_whose_reply_was_lost_is_not_repeated(watched: Watched, timer: DTimer, applied: bool) -> None:
    """Another event may have been posted under the id since."""
    await timer.post("p", 60_000, id="x")
    watched.fail("cancel", OutcomeUnknown, applied=applied)

    with pytest.raises(OutcomeUnknown, match="not safe to repeat"):
        await timer.cancel("x")
    assert watched.count("cancel") == [1]
    assert (await timer.peek("x") is None) == applied


@pytest.mark.parametrize("joined", [True, False])
async def test_a_confirm_after_a_lost_reply_says_gone(
    sim: SimBackend, watched: Watched, timer: DTimer, errors: list[DTimerError], joined: bool
) -> None:
    events: list[Event] = []
    timer.on("event", events.append)
    await timer.post("p", 0, max_retries=1)
    await timer.join()
    await sim.advance(10)
    if not joined:
        await timer.leave()
    watched.fail("confirm", OutcomeUnknown, applied=True)

    assert await in_time(sim, events[0].confirm()) is ConfirmOutcome.GONE
    await timer.leave()


async def test_a_confirm_that_rides_on_a_failed_claim_goes_with_the_next(
    sim: SimBackend, watched: Watched, timer: DTimer, errors: list[DTimerError]
) -> None:
    timer.max_events = 1

    @timer.on("event")
    def handle(event: Event) -> None:
        event.confirm()
        if event.payload == 0:
            watched.fail("claim", OutcomeUnknown, applied=False)

    await timer.post_many(Post(payload=n, delay=0, max_retries=1) for n in range(2))
    async with timer:
        await sim.advance(5_000)

    assert watched.count("claim")[:3] == [0, 1, 1]
    assert (timer.counters.delivered, timer.counters.confirmed) == (2, 2)
    assert [type(error) for error in errors] == [NodeDisturbed]


async def test_a_failed_confirm_that_nobody_awaits_is_told_to_the_error_handlers(
    sim: SimBackend, watched: Watched, timer: DTimer, errors: list[DTimerError]
) -> None:
    timer.on("event", confirm)
    watched.fail("confirm", StoreDenied, times=100)
    async with timer:
        await timer.post("p", 0, max_retries=1)
        await sim.advance(10)

    assert StoreDenied in [type(error) for error in errors]


# --- a joined node (rule N4) ----------------------------------------------------------------------------


async def test_joining_a_store_that_is_away_fails_in_the_end(sim: SimBackend, watched: Watched, timer: DTimer) -> None:
    watched.fail("open", StoreUnreachable, times=1000)
    with pytest.raises(StoreUnreachable):
        await in_time(sim, timer.join())
    assert not timer.joined

    watched.heal()
    async with timer:
        assert timer.joined


async def test_an_outage_is_told_once_and_then_all_goes_on(
    sim: SimBackend, watched: Watched, timer: DTimer, errors: list[DTimerError], caplog: pytest.LogCaptureFixture
) -> None:
    got: list[Event] = []
    timer.on("event", got.append)
    async with timer:
        await timer.post("p", 5_000)
        watched.fail("claim", StoreUnreachable, times=10_000)
        await sim.advance(30_000)
        assert not got
        assert [type(error) for error in errors] == [NodeDisturbed]
        assert isinstance(errors[0].__cause__, StoreUnreachable)
        assert timer.counters.failed_claims < 60

        watched.heal()
        await sim.advance(2_001)

    assert len(got) == 1
    assert timer.counters.reconnects == 1
    assert "works again" in caplog.text


@pytest.mark.parametrize("error", [StoreUnreachable, OutcomeUnknown, StoreBusy, StoreFull, StoreDenied])
async def test_no_error_of_a_claim_stops_a_node(
    sim: SimBackend, watched: Watched, timer: DTimer, errors: list[DTimerError], error: Any
) -> None:
    got: list[Event] = []
    timer.on("event", got.append)
    async with timer:
        watched.fail("claim", error, times=3)
        await timer.post("p", 100)
        await sim.advance(3_000)

    assert len(got) == 1


async def test_a_broken_subscription_is_renewed_and_followed_by_a_claim(
    sim: SimBackend, watched: Watched, timer: DTimer, errors: list[DTimerError]
) -> None:
    async with timer:
        await sim.advance(10)
        watched.fail("wakeups", StoreUnreachable, times=2)
        sim._channels.end_all(StoreUnreachable("wakeups", "the connection broke"))
        claims = timer.counters.claims
        await sim.advance(400)

        assert len(watched.listeners) == 2
        assert timer.counters.claims > claims
    assert [type(error) for error in errors] == [NodeDisturbed]
    assert timer.counters.failed_subscriptions == 3


async def test_a_store_that_lost_everything_is_joined_again(
    sim: SimBackend, watched: Watched, timer: DTimer, errors: list[DTimerError]
) -> None:
    """Rule O1; the original's node was dead from then on."""
    got: list[Event] = []
    ready: list[int] = []
    timer.on("event", got.append)
    timer.on("ready", lambda: ready.append(1))
    async with timer:
        await sim.advance(1_000)
        await sim.purge()
        await sim.advance(2_000)
        await timer.post("p", 100)
        await sim.advance(150)

    assert len(got) == 1
    assert [type(error) for error in errors] == [StoreLostWrites]
    assert (len(ready), timer.counters.lost_writes, timer.counters.rejoins) == (2, 1, 1)
    assert len(watched.listeners) == 2


async def test_any_reply_that_shows_lost_writes_makes_the_node_join_at_once(
    sim: SimBackend, watched: Watched, timer: DTimer, errors: list[DTimerError]
) -> None:
    async with timer:
        await sim.advance(10)
        await sim.purge()
        await timer.post("p", 60_000)
        await sim.advance(1)

        assert len(watched.listeners) == len(watched.count("join")) == 2
        assert len((await sim.inspect()).value.ring) == 1


async def test_a_store_that_disowns_a_node_again_and_again_is_not_besieged(
    sim: SimBackend, watched: Watched, timer: DTimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = watched.claim

    async def disown(*args: Any, **options: Any) -> Applied[Claimed]:
        return evolve(await claim(*args, **options), value=Claimed(status=ClaimStatus.NOT_JOINED))

    monkeypatch.setattr(watched, "claim", disown)
    async with timer:
        await sim.advance(10_000)

    assert 5 < len(watched.count("join")) < 30


async def test_another_store_has_another_clock(sim: SimBackend, timer: DTimer, errors: list[DTimerError]) -> None:
    await timer.peek("x")
    timer._partitions.here().all[0].session.clock.learn(10**17, 0, sent_us=0)
    await sim.purge()
    await timer.peek("x")

    assert timer._partitions.here().all[0].session.clock.offset_us() == 0


async def test_a_timer_that_only_posts_tells_of_lost_writes_too(
    sim: SimBackend, timer: DTimer, errors: list[DTimerError]
) -> None:
    await timer.post("p", 100)
    await sim.purge()
    await timer.post("p", 100)
    await timer.post("p", 100)

    assert [type(error) for error in errors] == [StoreLostWrites]


async def test_a_node_that_the_store_forgot_joins_again(
    sim: SimBackend, watched: Watched, timer: DTimer, errors: list[DTimerError]
) -> None:
    got: list[Event] = []
    timer.on("event", got.append)
    async with timer:
        (member,) = (await sim.inspect()).value.ring
        await sim.leave(Member(member.node, member.incarnation))
        await sim.advance(1_000)
        await timer.post("p", 100)
        await sim.advance(101)

    assert len(got) == 1
    assert timer.counters.rejoins == 1
    assert not errors


async def test_a_malformed_message_changes_nothing(
    sim: SimBackend, watched: Watched, timer: DTimer, errors: list[DTimerError]
) -> None:
    async with timer:
        listener: Any = watched.listeners[0]
        listener.hear(Malformed(b"\xff"))
        await sim.advance(1_000)

    assert [type(error) for error in errors] == [MalformedWakeup]
    assert timer.counters.malformed_wakeups == 1


async def test_a_backends_bug_does_not_stop_a_node(
    sim: SimBackend, watched: Watched, timer: DTimer, errors: list[DTimerError], monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[Event] = []
    timer.on("event", got.append)

    async def broken(*args: object, **options: object) -> None:
        raise ZeroDivisionError

    async with timer:
        monkeypatch.setattr(watched, "claim", broken)
        await timer.post("p", 100)
        await sim.advance(1_000)
        monkeypatch.undo()
        await sim.advance(2_000)

    assert len(got) == 1
    assert [type(error) for error in errors] == [NodeDisturbed]
