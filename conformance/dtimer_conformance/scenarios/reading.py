"""Scenarios of looking at events."""

from __future__ import annotations

from dtimer.limits import BATCH_MAX_BYTES, MILLISECOND_US, PAGE_MAX_ITEMS, PAYLOAD_MAX_BYTES, SECOND_US
from dtimer.protocol.values import After, EventState, NewEvent, Release, Window
from dtimer_conformance.assertions import assert_equal, assert_that
from dtimer_conformance.client import LONG_US, event
from dtimer_conformance.environment import Environment
from dtimer_conformance.scenario import scenario, with_nodes


@scenario("R1")
async def peek_shows_an_event_through_its_life(env: Environment) -> None:
    """`peek` shows a live event's state, its retries and its time, and None where there is no live event.

    Troubleshooting: while an event is unconfirmed, its time is the deadline, and `num_retries` is the delivery's own.
    """
    store = env.store
    await store.enter("a")
    assert_equal("peek at nothing", (await store.peek("e")).value, None)
    await store.put("e", max_retries=3)
    scheduled = await store.see()
    await store.give_back(await store.take("a"), Release.COUNTED)
    failed = await store.see()
    delivery = await store.take("a")
    unconfirmed = await store.see()
    await store.confirm([delivery.receipt])
    gone = (await store.peek("e")).value

    seen = [(found.state, found.num_retries, found.delivery_number) for found in (scheduled, failed, unconfirmed)]
    before, out = EventState.SCHEDULED, EventState.UNCONFIRMED
    assert_equal("state, retries, deliveries", seen, [(before, 0, 0), (before, 1, 1), (out, 1, 2)])
    assert_equal("the time of an unconfirmed event", unconfirmed.next_us, delivery.deadline_us)
    assert_equal("peek at a confirmed event", gone, None)


@scenario("R2")
async def upcoming_lists_all_live_events_in_claim_order(env: Environment) -> None:
    """`upcoming` with nothing given lists all live events, overdue and unconfirmed ones too, as they will be claimed.

    Troubleshooting: are unconfirmed events in the same queue, by their deadlines?
    """
    store = env.store
    await store.enter("a")
    await store.put("unconfirmed", max_retries=1)
    await store.take("a", timeout_us=LONG_US)
    await store.put("late", 2 * LONG_US)
    await store.put("soon", LONG_US // 2)
    await store.put("overdue")
    await env.wait(5 * MILLISECOND_US)

    found = await store.queue()

    assert_equal("the ids", [item.event.id for item in found], ["overdue", "soon", "unconfirmed", "late"])
    assert_equal("the times are in order", [item.next_us for item in found], sorted(item.next_us for item in found))


@scenario("R2")
async def windows_have_both_their_ends(env: Environment) -> None:
    """Both ends of a window belong to it; an offset begins it after now, a duration counts from the offset or from now.

    Troubleshooting: is the window made absolute by the store's time, read once?
    """
    store = env.store
    await store.put("overdue")
    for seconds in (100, 200, 300, 400):
        await store.put(str(seconds), seconds * SECOND_US)
    second, minute = SECOND_US, 60 * SECOND_US
    await env.wait(MILLISECOND_US)

    expected = {
        Window(): ["overdue", "100", "200", "300", "400"],
        Window(0): ["100", "200", "300", "400"],
        Window(150 * second): ["200", "300", "400"],
        Window(150 * second, 100 * second): ["200"],
        Window(None, 250 * second): ["overdue", "100", "200"],
        Window(0, 5 * minute): ["100", "200", "300"],
        Window(500 * second): [],
    }
    for window, names in expected.items():
        assert_equal(f"what {window} shows", [item.event.id for item in await store.queue(window)], names)


@scenario("R2")
async def a_window_on_the_microsecond_includes_its_ends(env: Environment) -> None:
    """An event that is due at the very first or the very last microsecond of a window is in it.

    Troubleshooting: are both comparisons `<=`?
    """
    store = env.store
    await store.put("e", LONG_US)
    due_us = (await store.see("e")).next_us
    for name in ("the end", "the beginning"):
        for _ in range(200):
            # With a clock of its own the store's now is known only afterwards: try until one hits the microsecond.
            left_us = due_us - store.last.at_us - (0 if env.clock is not None or env.virtual else 300)
            window = Window(0, left_us) if name == "the end" else Window(left_us, 0)
            page = (await store.upcoming(window, limit=10)).value
            reached_us = store.last.at_us + left_us
            inside = reached_us >= due_us if name == "the end" else reached_us == due_us
            assert_equal(
                f"an event at {name} of a window is in it", [item.event.id for item in page.items], ["e"] * inside
            )


@scenario("R2", "D5")
async def pages_cover_everything_once(env: Environment) -> None:
    """Page by page, every event is shown exactly once and in order, also those with equal times.

    Troubleshooting: does a page go on after the last entry's time and id? Do two entries with one time fall between?
    """
    store = env.store
    number = PAGE_MAX_ITEMS + 20
    at_us = store.last.at_us + LONG_US
    for start in range(0, number, 150):
        batch = range(start, min(start + 150, number))
        await store.post([NewEvent(event(f"{n:03}"), After(LONG_US)) for n in batch])
    for n in range(10):
        await store.put(f"same-{n}", at_us=at_us)
    expected = [item.event.id for item in await store.queue()]
    assert_equal("how many pages of the largest size show", len(expected), number + 10)

    first = (await store.upcoming(Window(), limit=PAGE_MAX_ITEMS)).value
    assert_equal("how many a full page holds", len(first.items), PAGE_MAX_ITEMS)
    assert_that("a full page with more behind it says where to go on", first.next is not None)
    for limit in (7, 100):
        assert_equal(
            f"what pages of {limit} show", [item.event.id for item in await store.queue(limit=limit)], expected
        )


@scenario("R2", "D5")
async def a_page_ends_early_for_large_payloads(env: Environment) -> None:
    """A page holds at most 8 MiB of payloads, but at least one event, and the next one goes on behind it.

    Troubleshooting: compare with `BATCH_MAX_BYTES`, payload and headers together.
    """
    store = env.store
    fitting = BATCH_MAX_BYTES // PAYLOAD_MAX_BYTES
    for n in range(fitting + 1):
        await store.put(str(n), LONG_US, payload=b"x" * PAYLOAD_MAX_BYTES)

    page = (await store.upcoming(Window(), limit=PAGE_MAX_ITEMS)).value
    everything = await store.queue()

    assert_equal("how many the first page has", len(page.items), fitting)
    assert_equal("how many all pages have", len(everything), fitting + 1)


@with_nodes("R2", "R1")
async def a_timer_goes_through_all_pages(env: Environment) -> None:
    """A timer's `upcoming` shows everything whatever the pages; negative bounds and a limit of 0 count as not given.

    Troubleshooting: see the scenarios of the backend's own pages.
    """
    timer = await env.timer()
    for n in range(5):
        await timer.post(n, 60_000 + n * 1000, id=str(n), headers={"n": str(n)})

    shown = await timer.upcoming()
    assert_equal("ids and payloads", [(item.id, item.payload) for item in shown], [(str(n), n) for n in range(5)])
    assert_equal("with a limit", [item.id for item in await timer.upcoming(limit=2)], ["0", "1"])
    everything = await timer.upcoming(offset=-5, duration=-5, limit=0)
    assert_equal("with bounds that count as not given", len(everything), 5)
    assert_equal("in a window", [item.id for item in await timer.upcoming(offset=0, duration=62_500)], ["0", "1", "2"])
    found = await timer.peek("3")
    assert_that(
        "peek shows one", found is not None and (found.payload, dict(found.headers)) == (3, {"n": "3"}), seen=found
    )
    assert_equal("peek at nothing", await timer.peek("none"), None)
