"""Scenarios of time: whose clock counts, that it never goes back, that nothing is early, and what comes first."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve

from dtimer import BackendError, InvalidArgument, StoreBusy, StoreClockStepped
from dtimer.epochs import epoch_after_reset
from dtimer.limits import (
    CLOCK_STEP_US,
    DAY_US,
    DELAY_MAX_US,
    INSTANT_MAX_US,
    MILLISECOND_US,
    SECOND_US,
    STORE_TIME_MAX_US,
    YEAR_US,
)
from dtimer.protocol.backend import SupportsClockReset
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import After, Applied, At, NewEvent, Release
from dtimer_conformance.assertions import RuleBroken, assert_equal, assert_that
from dtimer_conformance.client import event, ids, member
from dtimer_conformance.environment import SOON_US, Environment
from dtimer_conformance.features import Feature
from dtimer_conformance.scenario import scenario, with_nodes


@scenario("T1", own_clock=True)
async def every_reply_carries_the_stores_time(env: Environment) -> None:
    """Every reply tells the store's time at which it was true, and that goes on as time does, for all clients alike.

    Troubleshooting: is the time read by the store, once in each operation, or by the client? Is it in microseconds?
    """
    other = await env.client()
    first_us = (await env.store.peek("e")).at_us
    await env.wait(50 * MILLISECOND_US)
    second_us = (await other.cancel(["e"])).at_us

    passed_us = second_us - first_us
    assert_that("50 ms later the store's time is 50 ms or more ahead", passed_us >= 50 * MILLISECOND_US, seen=passed_us)
    assert_that("and it is not far ahead of that", passed_us < 20 * SECOND_US, seen=passed_us)


@scenario("T1", "W2", own_clock=True)
async def wake_ups_carry_points_in_time(env: Environment) -> None:
    """A wake-up says at which time of the store to come, so that one that is read late is still right.

    Troubleshooting: is what is published an interval, or the time of another clock?
    """
    (listening,) = await env.listen("a")
    await env.store.enter("a")
    await env.store.put("e", 10 * SECOND_US)
    posted = env.store.last

    await env.until("the armed node is told", lambda: listening.told)

    (wakeup,) = listening.told
    expected = ((await env.store.see("e")).next_us, posted.at_us, posted.seq)
    assert_equal("due time, time and number of the wake-up", (wakeup.due_us, wakeup.at_us, wakeup.seq), expected)


@scenario("T2", "O1", own_clock=True)
async def time_never_goes_back_for_any_client(env: Environment) -> None:
    """Whatever clients do in turns, no reply is earlier than one before it.

    Troubleshooting: does each process read a clock of its own? The store must order the times as it orders operations.
    """
    clients = [env.store, await env.client(), await env.client()]
    newest_us = 0
    for n in range(60):
        client = clients[n % 3]
        # A batch runs ahead of the clock by giving each item its own microsecond.
        await client.post([NewEvent(event(f"{n}-{item}"), After(DAY_US)) for item in range(20)])
        at_us = client.last.at_us
        assert_that("no reply is earlier than the one before", at_us >= newest_us, seen=(newest_us, at_us))
        newest_us = at_us


@scenario("T2", needs=Feature.CLOCK)
async def a_clock_that_is_set_back_becomes_a_skew(env: Environment) -> None:
    """When the host's clock is set back, the store's time goes on, and the difference is in every later reply as skew.

    Otherwise every event would be late by the step, and history would have no order.

    Troubleshooting: is the last microsecond that was given out kept in the store, with the skew? Reads keep neither.
    """
    clock = env.clock
    assert clock is not None, "the feature is there"
    store = env.store
    await store.put("e", 10 * SECOND_US)
    before = store.last

    clock.now_us -= 3_600 * SECOND_US
    await store.cancel(["none"])
    stepped = store.last
    clock.now_us += SECOND_US
    await store.cancel(["none"])
    later = store.last

    last_us = before.at_us
    assert_equal("the time of the first operation after the step", stepped.at_us, last_us)
    assert_equal("the skew from then on", (stepped.skew_us, later.skew_us), (3_600 * SECOND_US,) * 2)
    assert_equal("a second later it is a second later", later.at_us - stepped.at_us, SECOND_US)


@scenario("T2", needs=Feature.CLOCK_LEAPS)
async def a_clock_beyond_2200_is_refused_until_it_is_right_again(env: Environment) -> None:
    """While the host's clock shows a time beyond 2200, every operation is refused as busy, and changes nothing.

    A host's clock that is 130 years ahead is taken at its word; what it shows with the skew that it leaves behind is
    refused beyond 2255 only, so that it bricks nothing when it is right again.

    Troubleshooting: is the time checked before anything is written? Is each number checked by itself?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", 3_600 * SECOND_US)
    before = store.last
    for beyond_us in (INSTANT_MAX_US - before.at_us + SECOND_US, 2 * INSTANT_MAX_US, 10_000 * YEAR_US):
        await env.set_clock(beyond_us)
        for call in (lambda: store.put("f"), lambda: store.come("a"), lambda: store.peek("e"), store.open):
            try:
                await call()
            except StoreBusy:
                continue
            raise RuleBroken(f"an operation was accepted while the clock was {beyond_us} us ahead")
        await env.set_clock(-beyond_us)
    await store.cancel(["none"])
    assert_equal("the number of the next operation", store.last.seq, before.seq + 1)
    assert_equal("the skew", store.last.skew_us, 0)
    assert_equal("what lives", [item.event.id for item in await store.queue()], ["e"])

    # A century is taken at its word, as the host's clock may be: it is what a leap leaves behind that is checked here.
    await env.set_clock(130 * YEAR_US)
    await store.cancel(["none"])
    await env.set_clock(-130 * YEAR_US)
    await store.put("f", 3_600 * SECOND_US)
    skew_us = store.last.skew_us
    assert_that("the skew after a leap of 130 years", abs(skew_us - 130 * YEAR_US) <= SECOND_US, seen=skew_us)
    assert_equal("what lives", [item.event.id for item in await store.queue()], ["e", "f"])
    # With the skew, a clock that is right by itself would come to a time that no score can hold.
    await env.set_clock(130 * YEAR_US)
    try:
        await store.cancel(["none"])
    except StoreBusy:
        pass
    else:
        raise RuleBroken("an operation was accepted at a time beyond 2255")
    await env.set_clock(-130 * YEAR_US)
    await store.cancel(["f"])


@scenario("T2", "T6", needs=(Feature.CLOCK_LEAPS, Feature.CLOCK_RESET))
async def a_reset_takes_the_skew_out_of_all_times(env: Environment) -> None:
    """A reset of the clock is refused while a node is joined. Without one it makes the skew 0, under the epoch that
    follows: events are due again at the times of day that they were posted for, and what is left of delays and
    deadlines is left still.

    Troubleshooting: is it kept with an event that it was posted for a time of day, and under which skew? A change of
    delay takes that away.
    """
    store, backend = env.store, env.store.backend
    assert isinstance(backend, SupportsClockReset), "the feature is there"
    # Its reply is none of the protocol's, so the machine cannot follow.
    env.recorder.replayable = False
    await store.enter("a")
    host_us = store.last.at_us
    await store.put("taken", max_retries=1, expires_after_us=DAY_US)
    await store.take("a", timeout_us=10 * DAY_US)
    for id in ("at", "moved"):
        await store.put(id, at_us=host_us + 3 * DAY_US)
    await store.put("after", 5 * DAY_US)
    await store.change_delay("moved", delay_us=5 * DAY_US)
    await env.set_clock(DAY_US)
    await store.cancel(["none"])
    await env.set_clock(-DAY_US)
    await store.put("later", at_us=host_us + 6 * DAY_US)
    # The leap has made it silent for too long.
    await store.enter("a")
    before, skew_us = {item.event.id: item.next_us for item in await store.queue()}, store.last.skew_us
    epoch, seq, at_us = store.last.epoch, store.last.seq, store.last.at_us

    try:
        await backend.reset_clock()
    except BackendError as error:
        assert_that("the refusal names the node", "a" in str(error), seen=error)
    else:
        raise RuleBroken("the clock was reset while a node was joined")
    assert_equal("the skew then", (await store.peek("none")).skew_us, skew_us)
    await store.leave(member("a"))
    done = await backend.reset_clock()

    assert_equal("what was done", (done.skew_us, done.events), (skew_us, 5))
    after = {item.event.id: item.next_us for item in await store.queue()}
    assert_equal("the time of day of a post before the leap", after["at"], host_us + 3 * DAY_US)
    assert_equal("the time of day of a post after the leap", after["later"], host_us + 6 * DAY_US)
    moved = {id: before[id] - after[id] for id in ("taken", "after", "moved")}
    assert_equal("by how much a deadline and delays are earlier", set(moved.values()), {skew_us})
    await store.cancel(["none"])
    last = store.last
    assert_equal("the epoch", last.epoch, epoch_after_reset(epoch))
    assert_that("the number goes on", last.seq > seq, seen=last.seq)
    assert_equal("the skew", last.skew_us, 0)
    assert_that(
        "the time is the host's", abs(at_us - skew_us - last.at_us) < 20 * SECOND_US, seen=(at_us, skew_us, last)
    )
    await store.enter("a")
    await env.wait(3 * DAY_US)
    assert_equal("what comes on the third day", ids(await store.come("a")), ["at"])


@scenario("T2", needs=Feature.CLOCK)
async def less_than_a_millisecond_back_is_waited_for(env: Environment) -> None:
    """A host's clock that is less than a millisecond behind the last time given makes no skew: the time waits.

    A batch runs ahead by a microsecond for each item, which is no step of the clock.

    Troubleshooting: compare with `CLOCK_STEP_US`; at exactly that it still waits.
    """
    clock = env.clock
    assert clock is not None, "the feature is there"
    store = env.store
    await store.cancel(["none"])
    at_us = store.last.at_us

    clock.now_us -= CLOCK_STEP_US
    await store.cancel(["none"])
    assert_equal("time and skew, 1 ms back", (store.last.at_us, store.last.skew_us), (at_us, 0))
    clock.now_us -= 1
    await store.cancel(["none"])
    assert_equal("time and skew, 1 us more", (store.last.at_us, store.last.skew_us), (at_us, CLOCK_STEP_US + 1))


@with_nodes("T2")
async def a_node_reports_that_the_clock_was_set_back(env: Environment) -> None:
    """A node that sees the skew grow reports it once.

    Troubleshooting: this is the timer's business; does the backend hand on the `skew_us` of each reply?
    """
    node = await env.node()
    perform = node.client.perform
    skew_us = 5 * SECOND_US

    async def skewed(operation: Operation[Any]) -> Applied[Any]:
        reply = await perform(operation)
        return evolve(reply, skew_us=reply.skew_us + skew_us)

    node.client.perform = skewed  # type: ignore[method-assign]  # as a store would answer whose host stepped back
    await node.timer.peek("e")
    await node.timer.peek("e")

    await env.until("the step is reported", lambda: node.errors)
    assert_equal("the reports", [type(error) for error in node.errors], [StoreClockStepped])


@scenario("T3")
async def no_claim_gives_out_an_event_before_it_is_due(env: Environment) -> None:
    """Whoever claims however often gets nothing before the due time, by the store's clock; and then gets it.

    Troubleshooting: is the due time rounded down, to milliseconds say? Is `now` read before or after the queue?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", 30 * MILLISECOND_US)
    due_us = (await store.see("e")).next_us
    assert_equal("the due time, from the post on", due_us - store.last.at_us <= 30 * MILLISECOND_US, True)

    for _ in range(100):
        deliveries = (await store.come("a")).deliveries
        if deliveries:
            break
        assert_that("an empty claim was made before the due time", store.last.at_us < due_us, seen=store.last)
        await env.wait(MILLISECOND_US)
    else:
        raise RuleBroken("the event never came")

    assert_that("it came at its due time or later", store.last.at_us >= due_us, seen=deliveries)
    assert_equal("when it could be claimed from", deliveries[0].due_us, due_us)


@with_nodes("T3")
async def no_handler_gets_an_event_early(env: Environment) -> None:
    """Events with many delays come to their handlers no earlier than they are due.

    Troubleshooting: as for the claims; a node itself never hands out what no claim gave it.
    """
    node = await env.node()
    await node.timer.post_many([_post(n, 7 * n % 120) for n in range(30)])

    await env.until("all have come", lambda: len(node.events) == 30)

    early = [event for event in node.events if event.lateness < timedelta(0)]
    assert_equal("events that came early", early, [])


def _post(payload: int, delay_ms: float) -> Any:
    from dtimer import Post

    return Post(payload=payload, delay=delay_ms)


@scenario("T4")
async def equal_delays_come_in_the_order_posted(env: Environment) -> None:
    """Events with one delay come in the order in which they were posted, within a batch and across calls.

    Each item is given a microsecond of its own, later than any before it; delays count from there.

    Troubleshooting: is the order kept by time alone, with a resolution of less than a microsecond a item?
    """
    store = env.store
    await store.enter("a")
    names = [f"{n * 37 % 50:02}" for n in range(50)]
    await store.post([NewEvent(event(name), After(1)) for name in names[:30]])
    for name in names[30:40]:
        await store.put(name, 1)
    await store.post([NewEvent(event(name), After(1)) for name in names[40:]])
    await env.wait(MILLISECOND_US)

    assert_equal("the order in which they come", ids(await store.come("a", 60)), names)


@scenario("T4", "D3")
async def retries_come_in_the_order_of_the_deliveries(env: Environment) -> None:
    """Events that were delivered by one claim and not confirmed come again in the same order.

    Troubleshooting: has each delivery a microsecond of its own, from which its deadline counts?
    """
    store = env.store
    await store.enter("a")
    names = [f"{n * 7 % 20:02}" for n in range(20)]
    await store.post([NewEvent(event(name, max_retries=2), After(0)) for name in names])

    for attempt in range(3):
        claimed = await store.come("a", 30, timeout_us=20 * MILLISECOND_US)
        assert_equal(f"the order of delivery {attempt + 1}", ids(claimed), names)
        own = [delivery.at_us for delivery in claimed.deliveries]
        assert_that("each delivery has a microsecond of its own", own == sorted(set(own)), seen=own)
        await env.wait(60 * MILLISECOND_US)


@scenario("T4")
async def released_and_moved_events_take_their_place_anew(env: Environment) -> None:
    """What is moved or released is due after what was posted before with the same delay.

    Troubleshooting: is the microsecond taken from the operation's own place in history?
    """
    store = env.store
    await store.enter("a")
    await store.put("moved", 60 * SECOND_US)
    await store.put("released", max_retries=1)
    delivery = await store.take("a")
    await store.put("first", 1)
    await store.give_back(delivery, Release.UNCOUNTED, 1)
    await store.change_delay("moved", delay_us=1)
    await store.put("last", 1)
    await env.wait(MILLISECOND_US)

    assert_equal("the order", ids(await store.come("a")), ["first", "released", "moved", "last"])


@scenario("T4")
async def equal_times_go_by_the_bytes_of_the_id(env: Environment) -> None:
    """Events posted for one instant come in the order of the bytes of their ids in UTF-8.

    Troubleshooting: is a collation at work, or an order of UTF-16 units?
    """
    store = env.store
    await store.enter("a")
    names = ["\U0001f600", "b", "\uffee", "B", "ä", "aa", "a", "10", "9", "~"]
    at_us = store.last.at_us + 20 * MILLISECOND_US
    await store.post([NewEvent(event(name), At(at_us)) for name in names])
    await env.wait(SECOND_US // 20)

    assert_equal("the order", ids(await store.come("a", 20)), sorted(names, key=str.encode))


@scenario("T5")
async def delays_count_to_the_microsecond_and_up_to_a_hundred_years(env: Environment) -> None:
    """A delay is kept to the microsecond, from 0, or less, which is at once, up to 100 years.

    Troubleshooting: floating point loses microseconds above 2**53; a hundred years from today stay below.
    """
    store = env.store
    for delay_us in (-5, 0, 1, 999, 1_000_001, DAY_US + 1, DELAY_MAX_US - 1, DELAY_MAX_US):
        await store.put("e", delay_us)
        posted_us = store.last.at_us
        due_us = (await store.see("e")).next_us
        ahead_us = due_us - posted_us - max(delay_us, 0)
        # Its own microsecond may be a little later than the operation's time.
        assert_that(f"a delay of {delay_us} us is kept", 0 <= ahead_us < MILLISECOND_US, seen=(posted_us, due_us))


@with_nodes("T5")
async def impossible_delays_are_refused_before_any_call(env: Environment) -> None:
    """NaN, infinities, booleans, other types and more than 100 years are refused before the store hears of them.

    Troubleshooting: this is the timer's business.
    """
    timer = await env.timer()
    before = len(env.recorder.history)
    bad: list[Any] = [math.nan, math.inf, -math.inf, True, "5", None, DELAY_MAX_US // 1000 + 1, timedelta(days=36_600)]
    for delay in bad:
        try:
            await timer.post(None, delay)
        except InvalidArgument:
            continue
        raise RuleBroken(f"the delay {delay!r} was accepted")
    assert_equal("calls meanwhile", len(env.recorder.history) - before, 0)


@scenario("T6")
async def times_of_day_are_the_stores(env: Environment) -> None:
    """An event may be posted for a time of day by the store's clock; one that is past is due at once.

    Troubleshooting: is a time of day turned into a delay by the client's clock?
    """
    store = env.store
    await store.enter("a")
    now_us = (await store.peek("none")).at_us
    for at_us in (now_us + DAY_US + 1, INSTANT_MAX_US - 1):
        await store.put("e", at_us=at_us)
        assert_equal("the due time", (await store.see("e")).next_us, at_us)

    await store.put("e", at_us=1)
    posted_us, due_us = store.last.at_us, (await store.see("e")).next_us

    assert_that("a past time is now", 0 <= due_us - posted_us < MILLISECOND_US, seen=(posted_us, due_us))
    assert_equal("what a claim brings", ids(await store.come("a")), ["e"])


@scenario("T6", "T2", needs=Feature.CLOCK_LEAPS)
async def times_of_day_are_right_after_a_leap_that_was_taken_back(env: Environment) -> None:
    """After the host's clock was a day ahead and back, a time of day is when the host's clock shows it, and a delay is
    as long as ever: the store's own time, which never goes back, is ahead of the host's by the skew.

    Troubleshooting: is the skew added to the times of day of posts and resends, and to nothing else?
    """
    store = env.store
    await store.enter("a")
    await env.set_clock(DAY_US)
    await store.cancel(["none"])
    await env.set_clock(-DAY_US)
    await store.cancel(["none"])
    skew_us = store.last.skew_us
    # The first reading after it may be a moment later than the last one before.
    assert_that("the skew is a day", 0 <= DAY_US - skew_us < 20 * SECOND_US, seen=skew_us)
    host_us = store.last.at_us - skew_us

    await store.put("at", at_us=host_us + 3_600 * SECOND_US)
    assert_equal(
        "when an hour's time of day is due", (await store.see("at")).next_us, host_us + 3_600 * SECOND_US + skew_us
    )
    await store.put("after", 3_600 * SECOND_US)
    ahead_us = (await store.see("after")).next_us - store.last.at_us - 3_600 * SECOND_US
    assert_that("a delay of an hour is kept", 0 <= ahead_us < MILLISECOND_US, seen=ahead_us)
    await store.put("past", at_us=host_us - 1)
    assert_equal("what a claim brings", ids(await store.come("a")), ["past"])
    # The latest of all is still a time that the store's clock can show.
    await store.put("last", at_us=INSTANT_MAX_US - 1)
    assert_equal("the latest time of day", (await store.see("last")).next_us, INSTANT_MAX_US - 1 + skew_us)


@scenario("T6", "T2", needs=Feature.CLOCK_LEAPS)
async def no_time_is_later_than_the_stores_own_can_be(env: Environment) -> None:
    """With a century of skew, what would be due after 2255 is due at its end: no number loses its last digits.

    Troubleshooting: beyond 2**53 us a floating-point number has no microseconds any more.
    """
    store = env.store
    await env.set_clock(130 * YEAR_US)
    await store.cancel(["none"])
    await env.set_clock(-130 * YEAR_US)
    await store.put("at", at_us=INSTANT_MAX_US - 1)
    await store.put("after", DELAY_MAX_US)
    assert_equal(
        "when the latest times are due", [item.next_us for item in await store.queue()], [STORE_TIME_MAX_US] * 2
    )


@with_nodes("T6")
async def a_timer_takes_aware_times_of_day(env: Environment) -> None:
    """A timer takes aware times before 2200, and refuses others before the store hears of them.

    Troubleshooting: this is the timer's business; only the due time is the store's.
    """
    node = await env.node()
    for bad in (datetime(2030, 1, 1), datetime(2200, 1, 1, tzinfo=UTC), "2030-01-01"):
        try:
            await node.timer.post(None, at=bad)  # type: ignore[arg-type]  # that is what is tried
        except InvalidArgument:
            continue
        raise RuleBroken(f"the time {bad!r} was accepted")

    due = start = datetime(1970, 1, 1, tzinfo=UTC)
    for soon_us in SOON_US:
        node.events.clear()
        now_us = (await env.store.peek("none")).at_us
        due = start + timedelta(microseconds=now_us + soon_us)
        await node.timer.post("later", at=due, id="later")
        await node.timer.post("past", at=due - timedelta(days=1), id="past")
        await env.until("both come", lambda: len(node.events) == 2, within_us=soon_us + SECOND_US)
        if node.ids == ["past", "later"]:
            break

    assert_equal("what came", node.ids, ["past", "later"])
    assert_equal("when the later one was due", node.events[1].due, due)
