"""The simulator as a store: the whole protocol, by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from freezegun import freeze_time

from dtimer import DTimer
from dtimer.errors import BackendClosed, InvalidArgument
from dtimer.protocol.backend import SupportsDeadLetters, SupportsInspection, SupportsPurge, TimerBackend
from dtimer.protocol.outcomes import (
    BuryOutcome,
    CancelOutcome,
    ChangeOutcome,
    ClaimStatus,
    ConfirmOutcome,
    DiscardOutcome,
    ExtendOutcome,
    JoinOutcome,
    PostOutcome,
    ReleaseOutcome,
    ResendOutcome,
)
from dtimer.protocol.values import (
    After,
    EventData,
    Extension,
    IfExists,
    LetterName,
    Member,
    NewEvent,
    Receipt,
    Release,
    Window,
)
from dtimer.sim import SimBackend, SimMisuse, SimStuck
from dtimer.sim.backend import START

SECOND_US = 1_000_000
MEMBER = Member("node-1", "first")


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


def event(id: str, delay_us: int = SECOND_US, *, max_retries: int = 0, dead_letter: bool = False) -> NewEvent:
    return NewEvent(
        EventData(id=id, payload=b"payload of " + id.encode(), max_retries=max_retries, dead_letter=dead_letter),
        After(delay_us),
    )


async def claim(sim: SimBackend, room: int = 8, **options: Any) -> list[Receipt]:
    """The receipts of what MEMBER is given now."""
    applied = await sim.claim(MEMBER, room=room, confirm_timeout_us=10 * SECOND_US, nonce="n", **options)
    return [delivery.receipt for delivery in applied.value.deliveries]


async def test_waits_that_end_together_end_in_the_order_in_which_they_began(sim: SimBackend) -> None:
    """Also if they were begun at different times, and whatever order they would have by name or by hash."""
    over: list[str] = []

    async def wait(name: str, seconds: int) -> None:
        await sim.sleep(timedelta(seconds=seconds))
        over.append(name)

    async with asyncio.TaskGroup() as group, DTimer(sim) as timer:
        timer.on("event", lambda event: over.append(event.id))
        for name in "dbca":
            group.create_task(wait(name, 2))
        await sim.advance(timedelta(seconds=1))
        for name in "zxy":
            group.create_task(wait(name, 1))
        await sim.advance(timedelta(seconds=1))
        for id in ("3", "1", "2"):
            await timer.post(None, timedelta(seconds=5), id=id)
        await sim.advance(timedelta(seconds=6))

    assert over == [*"dbca", *"zxy", "3", "1", "2"]


async def test_years_pass_for_sleeps_and_events(sim: SimBackend) -> None:
    """A real event loop, whose selector takes no more than 24 days at a time, would have to sleep in parts."""
    over: list[str] = []

    async def wait() -> None:
        await sim.sleep(timedelta(days=90 * 365))
        over.append(f"slept until {sim.now.year}")

    async with asyncio.TaskGroup() as group, DTimer(sim) as timer:
        timer.on("event", lambda event: over.append(f"event in {sim.now.year}"))
        group.create_task(wait())
        await timer.post(None, timedelta(days=50 * 365.25))
        await sim.advance(timedelta(days=100 * 365))

    assert over == ["event in 2080", "slept until 2119"]


async def test_a_week_with_nothing_to_do_costs_no_looks(sim: SimBackend) -> None:
    """Rule W1: the store knows that nothing is due."""
    async with DTimer(sim) as timer, DTimer(sim, node_id="other") as other:
        for node in (timer, other):
            node.on("event", lambda event: None)
        await timer.post("x", timedelta(days=7))
        await sim.advance(0)
        before = timer.counters.claims + other.counters.claims
        await sim.advance(timedelta(days=6, hours=23))
        assert timer.counters.claims + other.counters.claims == before
        await sim.advance(timedelta(hours=1))
        assert timer.counters.claims + other.counters.claims == before + 1


async def test_an_event_whose_node_has_ended_waits_for_no_sign_of_life(sim: SimBackend) -> None:
    """Rules D7 and W1: no announcement is lost, but the armed node claims no more, and has not left."""
    came: list[datetime] = []
    async with DTimer(sim, node_id="n1") as first, DTimer(sim, node_id="n2") as second:
        for node in (first, second):
            node.on("event", lambda event: came.append(sim.now))
        await first.post("x", timedelta(seconds=1))
        arm = (await sim.inspect()).value.arm
        assert arm is not None
        assert arm.node == "n1"
        for task in asyncio.all_tasks():
            if task.get_name().startswith("dtimer: node") and task.get_name().endswith("n1"):
                task.cancel()
        await sim.advance(timedelta(days=1))

    (at,) = came
    assert timedelta(seconds=1) < at - START < timedelta(seconds=2)


def test_it_has_every_ability_of_a_backend(sim: SimBackend) -> None:
    """Checked by mypy, and at run time for what can be asked there."""
    backend: TimerBackend = sim
    abilities: tuple[SupportsDeadLetters, SupportsInspection, SupportsPurge] = (sim, sim, sim)

    assert backend.namespace == "dt"
    assert isinstance(abilities[0], SupportsDeadLetters)
    assert isinstance(abilities[1], SupportsInspection)
    assert isinstance(abilities[2], SupportsPurge)


# --- time --------------------------------------------------------------------------------------------


async def test_virtual_time_starts_where_it_is_told_to_and_moves_by_hand() -> None:
    """Tests of calendars need a date of their own, to the microsecond."""
    start = datetime(2031, 5, 6, 7, 8, 9, 123_457, tzinfo=timezone(timedelta(hours=2)))
    sim = SimBackend(start=start)
    assert sim.now == start
    assert sim.now.tzinfo is UTC

    await sim.advance(timedelta(days=1))
    await sim.advance(1500)

    assert sim.now == start + timedelta(days=1, seconds=1.5)


async def test_the_time_of_day_is_the_stores(sim: SimBackend) -> None:
    """One clock: what `now` says is what replies say."""
    opened = await sim.open()

    assert opened.at_us == (START - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert opened.skew_us == 0


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("start", datetime(2030, 1, 1)),  # naive on purpose
        ("start", datetime(1969, 12, 31, tzinfo=UTC)),
        ("start", datetime(2200, 1, 1, tzinfo=UTC)),
        ("namespace", ""),
        ("namespace", "a:b"),
        ("hang_after", 0),
        ("hang_after", float("nan")),
        ("hang_after", float("inf")),
        ("hang_after", timedelta()),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(argument: str, value: Any) -> None:
    """Before anything runs."""
    with pytest.raises(InvalidArgument) as refused:
        SimBackend(**{argument: value})

    assert refused.value.argument == argument


@pytest.mark.parametrize("duration", [-1, float("nan"), timedelta(days=-1), "1"])
async def test_a_senseless_duration_is_refused(sim: SimBackend, duration: Any) -> None:
    """By both who take one."""
    with pytest.raises(InvalidArgument, match=r"^duration "):
        await sim.advance(duration)
    with pytest.raises(InvalidArgument, match=r"^duration "):
        await sim.sleep(duration)


async def test_two_posts_and_their_delay_later_both_are_due(sim: SimBackend) -> None:
    """Although the store gave the second one a later microsecond."""
    woken: list[int] = []
    await sim.join(MEMBER)
    for id in ("a", "b"):
        await sim.post([event(id)])
        pending = (await sim.peek(id)).value
        assert pending is not None
        sim.runtime.call_at(pending.next_us, lambda: woken.append(sim.runtime.now_us()))

    await sim.advance(1000)

    assert len(woken) == 2
    assert [receipt.id for receipt in await claim(sim)] == ["a", "b"]


async def test_a_handler_sleeps_on_the_simulators_clock(sim: SimBackend) -> None:
    """And time moves on meanwhile."""
    woken: list[datetime] = []

    async def handler() -> None:
        with sim.runtime.working("handler"):
            await sim.sleep(timedelta(hours=1))
            await sim.runtime.sleep(SECOND_US)
            woken.append(sim.now)

    task = asyncio.create_task(handler())
    await sim.advance(timedelta(days=1))

    assert woken == [START + timedelta(hours=1, seconds=1)]
    assert task.done()


async def test_running_until_idle_takes_no_time(sim: SimBackend) -> None:
    """It only lets the loop do what there is to do."""
    task = asyncio.create_task(sim.open())

    await sim.run_until_idle()

    assert task.done()
    assert sim.now == START


async def test_a_call_under_way_holds_the_clock(sim: SimBackend) -> None:
    """A claim is applied at the time at which it was made."""
    task = asyncio.create_task(sim.open())

    await sim.advance(1000)

    assert (await task).at_us == (START - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


async def test_misuse_and_hangs_are_told_apart() -> None:
    """Both are errors of the public module."""
    sim = SimBackend(hang_after=0.05)
    with sim.runtime.working("handler"), pytest.raises(SimMisuse):
        await sim.advance(1)
    sim.runtime.signal("forgotten")
    with pytest.raises(SimStuck):
        await sim.run_until_idle()


async def test_frozen_time_means_nothing_to_the_simulator() -> None:
    """Users freeze the wall clock in the same tests."""
    with freeze_time("1999-12-31"):
        sim = SimBackend()
        await sim.join(MEMBER)
        await sim.post([event("a")])
        await sim.advance(1000)

        assert [receipt.id for receipt in await claim(sim)] == ["a"]
        assert sim.now == START + timedelta(seconds=1, microseconds=1)


# --- chance ------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_run() -> None:
    """A failure must come again."""

    def rolls(seed: int) -> list[object]:
        runtime = SimBackend(seed=seed).runtime
        return [runtime.token(8), *(runtime.draw(1000) for _ in range(20)), runtime.token(4)]

    assert rolls(1) == rolls(1)
    assert rolls(1) != rolls(2)


def test_tokens_and_draws_are_what_was_asked_for(sim: SimBackend) -> None:
    """Lower-case hex of so many bytes; numbers below the bound."""
    token = sim.runtime.token(8)

    assert len(bytes.fromhex(token)) == 8
    assert token == token.lower()
    assert {sim.runtime.draw(3) for _ in range(100)} == {0, 1, 2}


async def test_the_epoch_comes_from_the_seed() -> None:
    """It is part of every reply, and so of every trace."""
    epochs = [(await SimBackend(seed=seed).open()).epoch for seed in (1, 1, 2)]

    assert epochs[0] == epochs[1] != epochs[2]


# --- the operations ------------------------------------------------------------------------------------


async def test_an_event_is_claimed_when_its_time_has_come(sim: SimBackend) -> None:
    """And not before."""
    await sim.join(MEMBER)
    assert (await sim.post([event("a")])).value == (PostOutcome.CREATED,)

    assert await claim(sim) == []
    await sim.advance(999)
    assert await claim(sim) == []
    await sim.advance(1)
    assert await claim(sim) == [Receipt("a", 1, "n")]


async def test_a_stranger_is_given_nothing(sim: SimBackend) -> None:
    """The rules are the machine's."""
    applied = await sim.claim(MEMBER, room=8, confirm_timeout_us=1, nonce="n")

    assert applied.value.status is ClaimStatus.NOT_JOINED


async def test_a_delivery_is_confirmed_extended_given_back_and_buried(sim: SimBackend) -> None:
    """Each method reaches the operation of its name, with its arguments."""
    await sim.join(MEMBER)
    await sim.post([event(id, 0, max_retries=5) for id in "abcdef"])
    a, b, c, d, e, f = await claim(sim)

    assert (await sim.confirm([a, a])).value == (ConfirmOutcome.CONFIRMED, ConfirmOutcome.NOT_FOUND)
    assert (await sim.confirm_newest(b.id)).value is ConfirmOutcome.CONFIRMED
    assert (await sim.extend([Extension(c, 60 * SECOND_US)])).value == (ExtendOutcome.EXTENDED,)
    assert (await sim.release(d, how=Release.COUNTED, delay_us=SECOND_US)).value is ReleaseOutcome.RELEASED
    assert (await sim.bury(e, detail="hopeless")).value is BuryOutcome.BURIED
    await sim.advance(5000)
    assert await claim(sim, confirming=[f]) == [Receipt("d", 2, "n")]
    await sim.advance(10_000)
    assert await claim(sim) == [Receipt("d", 3, "n")]


async def test_events_are_seen_moved_and_cancelled(sim: SimBackend) -> None:
    """The queue, from a poster's side."""
    at_us = (await sim.post([event("a"), event("b", 2 * SECOND_US)])).at_us

    assert (await sim.change_delay("a", delay_us=9 * SECOND_US)).value is ChangeOutcome.MOVED
    pending = (await sim.peek("b")).value
    assert pending is not None
    assert pending.next_us == at_us + 1 + 2 * SECOND_US
    assert (await sim.peek("c")).value is None
    page = (await sim.upcoming(Window(), limit=1)).value
    assert [item.event.id for item in page.items] == ["b"]
    assert page.next is not None
    assert [item.event.id for item in (await sim.upcoming(page.next, limit=1)).value.items] == ["a"]
    assert (await sim.cancel(["a", "x"])).value == (CancelOutcome.CANCELLED, CancelOutcome.NOT_FOUND)


async def test_dead_letters_are_listed_sent_again_and_forgotten(sim: SimBackend) -> None:
    """The operator's side."""
    await sim.join(MEMBER)
    await sim.post([event("a", 0, dead_letter=True), event("b", 0, dead_letter=True)])
    for receipt in await claim(sim):
        await sim.bury(receipt, detail="hopeless")

    page = (await sim.dead_letters(None, limit=8)).value
    assert [(letter.id, letter.detail) for letter in page.items] == [("a", "hopeless"), ("b", "hopeless")]
    resent = await sim.resend(LetterName("a"), due=After(0), if_exists=IfExists.ERROR)
    assert resent.value is ResendOutcome.CREATED
    assert (await sim.discard([LetterName("b"), LetterName("x")])).value == (
        DiscardOutcome.DISCARDED,
        DiscardOutcome.NOT_FOUND,
    )
    inspection = (await sim.inspect()).value
    assert inspection.dead_letters == 0
    assert [member.node for member in inspection.ring] == [MEMBER.node]


async def test_leaving_takes_a_member_out(sim: SimBackend) -> None:
    """Joining twice is joining once."""
    assert (await sim.join(MEMBER)).value is JoinOutcome.JOINED
    assert (await sim.join(MEMBER)).value is JoinOutcome.ALREADY_JOINED
    assert (await sim.leave(MEMBER)).value is True
    assert (await sim.leave(MEMBER)).value is False


async def test_replies_of_concurrent_calls_have_one_order(sim: SimBackend) -> None:
    """Each changing operation has a number of its own; a read shows the current one."""
    replies = await asyncio.gather(*(sim.post([event(str(number))]) for number in range(5)))
    seen = await sim.peek("0")

    assert [reply.seq for reply in replies] == [1, 2, 3, 4, 5]
    assert seen.seq == 5


async def test_purging_leaves_nothing(sim: SimBackend) -> None:
    """Not even the epoch: a node sees that its store was emptied."""
    await sim.join(MEMBER)
    posted = await sim.post([event("a")])

    await sim.purge()

    opened = await sim.open()
    assert opened.epoch != posted.epoch
    assert opened.seq == 0
    assert opened.at_us > posted.at_us
    assert (await sim.inspect()).value.ring == ()
    assert (await sim.peek("a")).value is None


# --- the way there -------------------------------------------------------------------------------------


async def enter_wakeups(sim: SimBackend) -> None:
    async with sim.wakeups("node-1", "epoch"):
        pass


CALLS: dict[str, Callable[[SimBackend], Awaitable[object]]] = {
    "open": lambda sim: sim.open(),
    "post": lambda sim: sim.post([event("a")]),
    "cancel": lambda sim: sim.cancel(["a"]),
    "change_delay": lambda sim: sim.change_delay("a", delay_us=1),
    "claim": lambda sim: sim.claim(MEMBER, room=1, confirm_timeout_us=1, nonce="n"),
    "confirm": lambda sim: sim.confirm([Receipt("a", 1, "n")]),
    "confirm_newest": lambda sim: sim.confirm_newest("a"),
    "release": lambda sim: sim.release(Receipt("a", 1, "n"), how=Release.COUNTED, delay_us=1),
    "extend": lambda sim: sim.extend([Extension(Receipt("a", 1, "n"), 1)]),
    "bury": lambda sim: sim.bury(Receipt("a", 1, "n"), detail=""),
    "peek": lambda sim: sim.peek("a"),
    "upcoming": lambda sim: sim.upcoming(Window(), limit=1),
    "join": lambda sim: sim.join(MEMBER),
    "leave": lambda sim: sim.leave(MEMBER),
    "wakeups": enter_wakeups,
    "dead_letters": lambda sim: sim.dead_letters(None, limit=1),
    "resend": lambda sim: sim.resend(LetterName("a"), due=After(1), if_exists=IfExists.KEEP),
    "discard": lambda sim: sim.discard([LetterName("a")]),
    "inspect": lambda sim: sim.inspect(),
    "purge": lambda sim: sim.purge(),
}


@pytest.mark.parametrize("operation", CALLS)
async def test_every_call_lets_other_tasks_go_on(sim: SimBackend, operation: str) -> None:
    """As with a network; code that relies on the contrary would break in production only."""
    held: list[bool] = []
    asyncio.get_running_loop().call_soon(lambda: held.append(sim._world.work.held))

    await CALLS[operation](sim)

    assert held == [True], "another task went on, and the clock was held meanwhile"
    assert not sim._world.work.held


@pytest.mark.parametrize("operation", CALLS)
async def test_every_call_after_closing_is_refused_by_name(sim: SimBackend, operation: str) -> None:
    """Nothing was applied, so it is safe to repeat elsewhere."""
    await sim.close()
    await sim.close()

    with pytest.raises(BackendClosed) as closed:
        await CALLS[operation](sim)

    assert closed.value.operation == operation
    assert closed.value.safe_to_repeat


async def test_a_call_that_is_cancelled_before_it_arrives_changes_nothing(sim: SimBackend) -> None:
    """Rule P5: a caller cancelled before sending is taken out."""
    task = asyncio.create_task(sim.post([event("a")]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})

    assert (await sim.open()).seq == 0


async def test_time_may_be_moved_to_a_time_of_day() -> None:
    """What lies on the way happens; the past is refused."""
    sim = SimBackend()
    seen: list[object] = []
    async with DTimer(sim) as timer:
        timer.on("event", lambda event: seen.append(event.payload))
        await timer.post("x", timedelta(hours=3))
        await sim.advance_to(sim.now + timedelta(hours=2))
        assert seen == []
        at = datetime(2030, 1, 1, 5, tzinfo=timezone(timedelta(hours=2)))
        await sim.advance_to(at)
        assert seen == ["x"]
        assert at <= sim.now < at + timedelta(milliseconds=2)
        with pytest.raises(InvalidArgument, match="time never goes back"):
            await sim.advance_to(at - timedelta(seconds=1))
