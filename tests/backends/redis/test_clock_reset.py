"""The reset of a namespace's clock: compared with the machine, refused, interrupted, and in parts (T2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from attrs import define
from hypothesis import HealthCheck, given, settings
from redis.asyncio import Redis

from dtimer import DTimer, RedisBackend, StoreBusy, StoreLostWrites, StoreRefused
from dtimer.backends.redis.clock_reset import Reset, look, reset_clock
from dtimer.epochs import epoch_after_reset
from dtimer.limits import BATCH_MAX_ITEMS, DAY_US, SECOND_US, YEAR_US
from dtimer.protocol import operations as op
from dtimer.protocol.outcomes import ReleaseOutcome
from dtimer.protocol.values import After, At, EventData, Failure, IfExists, Member, NewEvent, Release, Risk, Window
from dtimer.semantics import Machine
from dtimer_conformance.programs import (
    NO_RECEIPT,
    ClaimMore,
    Leap,
    OfDelivery,
    OnDelivery,
    Runner,
    Step,
    Wait,
    programs,
)
from dtimer_conformance.replay import Heard, in_order
from support.servers import Server, StartServer
from support.worlds import without_blocks

START_US = 1_800_000_000 * SECOND_US
NODES = [Member(node, incarnation) for node in "abc" for incarnation in ("i1", "i2", "i3", "i4")]


_DUE_AT_ONCE: tuple[After | At, ...] = (After(0), At(1))


@define
class Clock:
    now_us: int = START_US

    def read(self) -> int:
        return self.now_us

    async def step(self, by_us: int) -> None:
        self.now_us += by_us


@asynccontextmanager
async def backend_of(server: Server, clock: Clock, *, partitions: int = 1) -> AsyncGenerator[RedisBackend]:
    client = Redis.from_url(server.url)
    async with RedisBackend(client, "reset", partitions=partitions, clock_for_tests=clock.read) as backend:
        await backend.purge()
        yield backend


async def compare(server: Server, before: list[Step], *afters: list[Step]) -> None:
    """A program, a reset, another program, and so on: every reply is the machine's."""
    clock = Clock()
    async with backend_of(server, clock) as backend:
        runner = Runner(backend, clock.step, leap=clock.step)
        await runner.run(before)
        machine = Machine(runner.history[0].reply.epoch)
        for after in afters:
            await runner.run([op.Leave(member) for member in NODES])
            replay_on(machine, runner)
            done = await backend.reset_clock()
            if done.skew_us:
                at_us = max(clock.now_us + done.skew_us, machine.last_us)
                expected = machine.reset_clock(epoch_after_reset(machine.epoch), at_us=at_us, skew_us=done.skew_us)
                assert done == expected
            assert (await backend.peek("none")).skew_us == 0
            await runner.run(after)
        replay_on(machine, runner)


def replay_on(machine: Machine, runner: Runner) -> None:
    for record in in_order(runner.history):
        reply = record.reply
        heard = Heard(reply.announced)
        expected = machine.apply(
            record.operation, at_us=reply.at_us, reach=heard, skew_us=reply.skew_us, server=reply.branch
        )
        assert expected == reply, record.operation
        machine.check()
    runner.history.clear()


def posted(name: str, due: After | At, *, dead_letter: bool = True) -> op.Post:
    event = EventData(id=name, payload=b"p", max_retries=2, expires_after_us=2 * DAY_US, dead_letter=dead_letter)
    return op.Post((NewEvent(event, due, IfExists.REPLACE),))


def everything(leap_us: int) -> list[Step]:
    """Events in each state, before a leap, during it and after it."""
    claim = ClaimMore(Member("a", "i1", DAY_US), 8, False, (), (), 5 * SECOND_US)
    steps: list[Step] = [op.Join(Member("a", "i1", DAY_US))]
    failure = Failure("Err\u00e4\n", "no\n")
    backs: list[OfDelivery] = [
        *(
            op.GiveBack(receipt=NO_RECEIPT, how=how, delay_us=DAY_US, failure=failure, refused_for_us=DAY_US)
            for how in Release
        ),
        op.Bury(NO_RECEIPT, "enough \u00e4"),
    ]
    for phase, leap in enumerate((leap_us, -leap_us, 0)):
        for number, back in enumerate((None, *backs)):
            for kind, due in enumerate(_DUE_AT_ONCE):
                steps += [posted(f"{phase}{number}{kind}", due), Wait(60_000), claim]
                steps += [] if back is None else [OnDelivery(0, back)]
        again: list[Step] = [
            posted(f"{phase}again", At(1)),
            Wait(60_000),
            claim,
            OnDelivery(0, op.Bury(NO_RECEIPT, "")),
        ]
        steps += again * 3
        for number, hours in enumerate((1, 30, 60)):
            steps += [posted(f"{phase}at{number}", At(START_US + hours * DAY_US // 24))]
            steps += [posted(f"{phase}after{number}", After(hours * DAY_US // 24), dead_letter=False)]
        steps += [posted(f"{phase}moved", At(START_US + 9 * DAY_US)), op.ChangeDelay(f"{phase}moved", DAY_US)]
        steps += [Leap(leap), op.Cancel(("none",))]
    return steps


@pytest.mark.parametrize("leap_us", [SECOND_US, DAY_US, 40 * DAY_US, 130 * YEAR_US])
async def test_every_state_is_moved_as_by_the_machine(server: Server, leap_us: int) -> None:
    claim = ClaimMore(Member("b", "i4", DAY_US), BATCH_MAX_ITEMS, False, (), (), 5 * SECOND_US)
    steps: list[Step] = [op.Upcoming(Window(), 256), op.ListDeadLetters(None, 256), op.Inspect()]
    steps += [op.Join(Member("b", "i4", DAY_US))]
    for hours in (0, 1, 12, 24, 48, 96, 31 * 24):
        steps += [Wait(hours * DAY_US // 24), claim, op.Upcoming(Window(), 256), op.ListDeadLetters(None, 256)]
    # What is kept of an event is seen when it ends, and that its time of day was put right when that is done again.
    refused = op.GiveBack(receipt=NO_RECEIPT, how=Release.REFUSED, delay_us=0, failure=None, refused_for_us=DAY_US // 2)
    ends: list[Step] = [op.Join(Member("b", "i4", DAY_US)), Wait(20 * DAY_US // 24), claim]
    ends += [OnDelivery(n, (op.Bury(NO_RECEIPT, "enough"), refused)[n % 2]) for n in range(40)]
    again: list[Step] = [Leap(DAY_US), op.Cancel(("none",)), Leap(-DAY_US), op.Cancel(("none",))]
    shown = [op.Upcoming(Window(), 256), op.ListDeadLetters(None, 256)]

    await compare(server, everything(leap_us), steps)
    await compare(server, everything(leap_us), [*again, *shown], [*ends, *shown])


@pytest.mark.once
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(before=programs(), after=programs())
def test_any_program_goes_on_as_the_machine_does(server: Server, before: list[Step], after: list[Step]) -> None:
    back: list[Step] = [Leap(DAY_US), op.Cancel(("none",)), Leap(-DAY_US)]
    asyncio.run(compare(server, [*before, *back], after))


async def skewed(backend: RedisBackend, clock: Clock, *, num: int = 1) -> DTimer:
    """Post events for times of day and with delays, and let the clock leap a day ahead and back."""
    timer: DTimer = DTimer(backend)
    for part in backend.partitions:
        await part.open()
    for number in range(num):
        await timer.post(number, timedelta(days=2), id=f"after{number}")
    for offset_us in (DAY_US, -DAY_US):
        clock.now_us += offset_us
        for part in backend.partitions:
            await part.cancel(["none"])
    return timer


async def test_what_was_interrupted_refuses_all_calls_and_goes_on_where_it_was(server: Server) -> None:
    """A script moves a bounded number of events: beside this one the server has other clients."""
    clock = Clock()
    num = 1_200
    async with backend_of(server, clock) as backend:
        await backend.open()
        for first in range(0, num, 100):
            events = [
                NewEvent(
                    EventData(id=f"{n}", payload=b""), At(START_US + n * SECOND_US) if n % 2 else After(n * SECOND_US)
                )
                for n in range(first, first + 100)
            ]
            await backend.post(events)
        await skewed(backend, clock, num=0)
        reset = Reset(backend._connector, "reset", 1, clock.read)
        begun = await reset._begin(0, going_on=False)
        assert begun is not None
        assert await reset._marked[0].some(epoch_after_reset(begun.epoch)) == (False, BATCH_MAX_ITEMS, 0)

        with pytest.raises(StoreBusy, match="dtimer clock-reset"):
            await backend.peek("1")
        found = await look(Redis.from_url(server.url), "reset")
        assert found is not None
        assert (found.skew_us, found.interrupted) == (begun.skew_us, True)
        done = await backend.reset_clock()

        assert (done.skew_us, done.events) == (begun.skew_us, num)
        page = (await backend.upcoming(Window(), limit=256)).value
        items = list(page.items)
        while page.next is not None:
            page = (await backend.upcoming(page.next, limit=256)).value
            items += page.items
        assert len(items) == num
        for item in items:
            # Of a delay the leap has taken a day; a time of day is what it was.
            number = int(item.event.id)
            meant_us = START_US + number * SECOND_US - (0 if number % 2 else done.skew_us)
            off_us = item.next_us - meant_us
            assert 0 <= off_us < SECOND_US, item


@pytest.mark.parametrize("partitions", [1, 3])
async def test_nothing_is_changed_while_a_node_is_joined(server: Server, partitions: int) -> None:
    """Nor in the partitions that it was not found in."""
    clock = Clock()
    async with backend_of(server, clock, partitions=partitions) as backend:
        timer = await skewed(backend, clock)
        await backend.partitions[-1].join(Member("clerk", "1"))
        with pytest.raises(StoreRefused, match="clerk"):
            await backend.reset_clock()
        shown = await timer.peek("after0")
        assert shown is not None
        assert (await backend.open()).skew_us == DAY_US
        await backend.partitions[-1].leave(Member("clerk", "1"))

        done = await backend.reset_clock()

        assert (done.skew_us, done.events) == (DAY_US, 1)
        assert (await backend.open()).skew_us == 0
        assert (await backend.reset_clock()).skew_us == 0
        shown_again = await timer.peek("after0")
        assert shown_again is not None
        assert abs(shown_again.time_left - shown.time_left).total_seconds() < 1


async def test_a_timer_that_was_there_before_is_told_of_no_loss(server: Server) -> None:
    """Nothing is lost, though the epoch is another: that of the next history has a name that follows from the old."""
    clock = Clock()
    async with backend_of(server, clock) as backend:
        timer = await skewed(backend, clock)
        errors: list[Exception] = []
        timer.on("error", without_blocks(errors.append))
        await backend.reset_clock()
        await timer.post("more", 5_000, id="more")

        assert not errors
        assert timer.counters.lost_writes == 0
        timer.on("event", print)
        async with timer:
            assert [event.id for event in await timer.upcoming()] == ["more", "after0"]
        assert not errors


async def test_what_was_lost_before_a_reset_is_told_after_it(private_server: StartServer) -> None:
    """The epoch is one that follows, and says that the reset itself has lost nothing; not so what came before."""
    server, clock = private_server(), Clock()
    async with backend_of(server, clock) as backend:
        timer: DTimer = DTimer(backend)
        errors: list[Exception] = []
        timer.on("error", errors.append)
        await timer.post("kept", timedelta(days=2), id="kept")
        with server.client() as client:
            client.save()
        await timer.post("lost", timedelta(days=2), id="lost")
        server.restart()
        async with RedisBackend.from_url(server.url, "reset", clock_for_tests=clock.read) as operators:
            await skewed(operators, clock)
            await operators.reset_clock()
        assert not errors

        await timer.peek("kept", repeat_within=10)
        await timer.peek("kept")

        (error,) = errors
        assert isinstance(error, StoreLostWrites)
        assert [id for call in error.calls for id in call.ids] == ["lost"]


async def test_a_timer_whose_namespace_was_made_anew_is_told_so(server: Server) -> None:
    """Its epoch follows from nothing."""
    clock = Clock()
    async with backend_of(server, clock) as backend:
        timer = await skewed(backend, clock)
        errors: list[Exception] = []
        timer.on("error", errors.append)
        await backend.purge()
        await skewed(backend, clock)
        await backend.reset_clock()
        await timer.peek("after0")

        assert [type(error) for error in errors] == [StoreLostWrites]


async def test_a_silent_member_is_none_after_a_reset(server: Server) -> None:
    """By the clock that was wrong its time was over, so it did not stop the reset; by the right one it is not."""
    clock = Clock()
    async with backend_of(server, clock) as backend:
        await backend.join(Member("silent", "1"))
        async with backend.wakeups("silent", (await backend.open()).epoch):
            await skewed(backend, clock)
            assert (await backend.inspect()).value.arm is not None
            await backend.reset_clock()

        assert (await backend.inspect()).value.arm is None
        with server.client() as client:
            assert not client.exists("{reset}:ring", "{reset}:nodes", "{reset}:lives")


async def test_a_dead_letter_that_was_too_old_does_not_come_back_with_a_reset(server: Server) -> None:
    """There are more than one script forgets."""
    clock = Clock()
    async with backend_of(server, clock) as backend:
        timer: DTimer = DTimer(backend)
        await timer.post("x", timedelta(days=60))
        with server.client() as client:
            for number in range(BATCH_MAX_ITEMS + 9):
                client.hset("{reset}:letters", f"e{number}", b"1 buried 1 0 1 1 0\n1\n1")
                client.zadd("{reset}:buried", {f"e{number}": START_US + number})
        for offset_us in (31 * DAY_US, -31 * DAY_US):
            clock.now_us += offset_us
            await backend.cancel(["none"])
        assert not await timer.dead_letters()

        assert (await backend.reset_clock()).dead_letters == 0
        assert not await timer.dead_letters()


async def test_the_first_refusal_stays_as_long_ago_as_it_was(server: Server) -> None:
    """Rule F4: how long an event has been refused counts from it."""
    clock = Clock()
    async with backend_of(server, clock) as backend:
        await skewed(backend, clock, num=0)
        await backend.post([NewEvent(EventData(id="e", payload=b"", max_retries=1), After(0))])

        async def refuse(incarnation: str) -> ReleaseOutcome:
            clock.now_us += 60 * SECOND_US
            member = Member("n", incarnation)
            await backend.join(member)
            claimed = await backend.claim(member, room=1, confirm_timeout_us=DAY_US, nonce=incarnation)
            (delivery,) = claimed.value.deliveries
            released = await backend.release(
                delivery.receipt, how=Release.REFUSED, delay_us=0, refused_for_us=30 * SECOND_US
            )
            await backend.leave(member)
            return released.value

        assert await refuse("1") is ReleaseOutcome.RELEASED
        await backend.reset_clock()
        assert await refuse("2") is ReleaseOutcome.BURIED


async def test_there_is_no_namespace(server: Server) -> None:
    assert await reset_clock(Redis.from_url(server.url), "none") is None


async def test_two_resets_at_once_do_it_together(server: Server) -> None:
    """Two operators, or one who has lost patience: neither undoes what the other does, or fails for it."""
    clock = Clock()
    async with backend_of(server, clock, partitions=3) as backend:
        timer = await skewed(backend, clock, num=600)
        before = {event.id: event.due for event in await timer.upcoming(limit=1_000)}
        done = await asyncio.gather(*(backend.reset_clock() for _ in range(3)))

        assert max(each.skew_us for each in done) == DAY_US
        after = {event.id: event.due for event in await timer.upcoming(limit=1_000)}
        assert after == before
        assert [(await part.open()).skew_us for part in backend.partitions] == [0] * 3


async def test_a_reset_that_is_refused_takes_back_nothing_that_another_has_done(server: Server) -> None:
    """The other one has found no node, and has begun to move times meanwhile."""
    clock = Clock()
    async with backend_of(server, clock, partitions=2) as backend:
        timer = await skewed(backend, clock, num=600)
        before = {event.id: event.due for event in await timer.upcoming(limit=1_000)}
        reset = Reset(backend._connector, "reset", 2, clock.read)
        for place in range(2):
            begun = await reset._begin(place, going_on=False)
            assert begun is not None
            await reset._marked[place].some(epoch_after_reset(begun.epoch))
        for part in reset._marked:
            await part.take_back()

        assert (await backend.reset_clock()).events == 600
        assert {event.id: event.due for event in await timer.upcoming(limit=1_000)} == before


async def test_a_reset_goes_on_though_a_node_has_come_where_it_was_done(server: Server) -> None:
    """A node that tries to join meanwhile gets into one partition, and is refused by the next one."""
    clock = Clock()
    async with backend_of(server, clock, partitions=2) as backend:
        await skewed(backend, clock, num=10)
        reset = Reset(backend._connector, "reset", 2, clock.read)
        begun = [await reset._begin(place, going_on=False) for place in range(2)]
        assert begun[0] is not None
        await reset._finish(0, begun[0])
        await backend.partitions[0].join(Member("clerk", "1"))
        found = await look(Redis.from_url(server.url), "reset")
        assert found is not None
        assert found.interrupted

        await backend.reset_clock()

        assert [(await part.open()).skew_us for part in backend.partitions] == [0, 0]


async def test_a_node_warns_of_the_skew_of_any_partition(server: Server) -> None:
    clock = Clock()
    async with backend_of(server, clock, partitions=2) as backend:
        await backend.open()
        for offset_us in (DAY_US, -DAY_US):
            clock.now_us += offset_us
            await backend.partitions[1].cancel(["none"])

        assert Risk.CLOCK in [finding.risk for finding in await backend.examine()]
