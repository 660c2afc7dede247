"""Scenarios of posting: who may, under which names, what becomes of what was there, and what comes back."""

from __future__ import annotations

from attrs import evolve

from dtimer import EventExists, InvalidArgument, PayloadTooLarge, Post
from dtimer.limits import BATCH_MAX_ITEMS, ID_MAX_BYTES, PAYLOAD_MAX_BYTES, SECOND_US
from dtimer.protocol.outcomes import ConfirmOutcome, PostOutcome
from dtimer.protocol.values import (
    EVENT_FIELDS,
    After,
    At,
    EndReason,
    EventState,
    IfExists,
    NewEvent,
    Release,
    RetryPolicy,
)
from dtimer_conformance.assertions import RuleBroken, assert_equal, assert_that
from dtimer_conformance.client import event, ids
from dtimer_conformance.environment import Environment
from dtimer_conformance.features import Feature
from dtimer_conformance.scenario import scenario, with_nodes


@scenario("P1")
async def events_can_be_posted_before_any_node_has_joined(env: Environment) -> None:
    """What is posted while no node has joined waits in the store for one that does.

    Whoever posts at start-up must not have to wait for whoever takes.

    Troubleshooting: does `post` look for members, or arm one that is not there?
    """
    assert_equal("the outcome of a post without nodes", await env.store.put("e"), PostOutcome.CREATED)

    await env.store.enter("a")
    assert_equal("what the first node's first claim brings", ids(await env.store.come("a")), ["e"])


@with_nodes("P1")
async def a_timer_posts_without_having_joined(env: Environment) -> None:
    """A timer that has not joined posts, and another one takes it.

    Troubleshooting: does the backend open what `post` needs only in `join`?
    """
    taker = await env.node()
    poster = await env.timer()

    await poster.post("payload", 10, id="e")

    await env.until("a joined node gets what another timer posted", lambda: taker.ids == ["e"])


STRANGE_IDS = ("x", "a b", "{tag}", "a:b*?[c]", "%s'\";--", "\n\t\x00\x7f", "ä", "\u2028", "\U0001f600", "é" * 256)


@scenario("P2")
async def every_string_of_up_to_512_bytes_is_an_id(env: Environment) -> None:
    """Any string of 1 to 512 bytes of UTF-8 names an event, and comes back as it was.

    Ids are the users' own: paths, addresses, whatever they have. Control characters and quotes are among them.

    Troubleshooting: is an id ever part of a text, a pattern or a query that is parsed? Is it normalised, or cut?
    """
    longest = "z" * ID_MAX_BYTES
    await env.store.enter("a")
    await env.store.post([NewEvent(event(id), After(0)) for id in (*STRANGE_IDS, longest)])

    found = await env.store.come("a", 20)

    assert_equal("the ids that come back", ids(found), [*STRANGE_IDS, longest])


@with_nodes("P2")
async def other_names_are_refused_before_any_call(env: Environment) -> None:
    """What is no id, namespace or node id is refused before the store hears of it; a made id is 16 hex digits.

    Troubleshooting: this is the timer's business. If it fails, the backend under test changed what a timer does.
    """
    timer = await env.timer()
    before = len(env.recorder.history)

    for bad in ("", "x" * (ID_MAX_BYTES + 1), "é" * 257, "\ud800", 7, b"x"):
        try:
            await timer.post(None, 0, id=bad)  # type: ignore[arg-type]  # that is what is tried
        except InvalidArgument:
            continue
        raise RuleBroken(f"the id {bad!r} was accepted")
    for name in ("a b", "", "x" * 65, "ä"):
        try:
            await env.timer(name)
        except InvalidArgument:
            continue
        raise RuleBroken(f"the node id {name!r} was accepted")

    assert_equal("calls of the backend meanwhile", len(env.recorder.history) - before, 0)
    made = await timer.post(None, 1000)
    assert_that("a made id is 16 hex digits", len(made) == 16 and int(made, 16) >= 0, seen=made)
    assert_equal("the id that was given is the id returned", await timer.post(None, 1000, id="mine"), "mine")


@scenario("P3")
async def if_exists_decides_what_becomes_of_a_live_event(env: Environment) -> None:
    """`replace` puts the new event in the old one's place, `keep` and `error` leave the old; the outcome says which.

    Afterwards exactly one event has the id, and it is due when the one that stands was to be.

    Troubleshooting: are the check and the change one atomic step? Does a post that changes nothing move the old one?
    """
    store = env.store
    outcomes = [await store.put("e", 60 * SECOND_US, payload=b"1")]
    first_us = (await store.see("e")).next_us
    outcomes += [
        await store.put("e", 0, payload=b"2", if_exists=IfExists.KEEP),
        await store.put("e", 0, payload=b"3", if_exists=IfExists.ERROR),
    ]
    kept = await store.see("e")
    outcomes.append(await store.put("e", 30 * SECOND_US, payload=b"4"))
    replaced = await store.see("e")

    expected = [PostOutcome.CREATED, PostOutcome.KEPT, PostOutcome.CONFLICT, PostOutcome.REPLACED]
    assert_equal("the outcomes of create, keep, error, replace", outcomes, expected)
    assert_equal("payload and due time of what was kept", (kept.event.payload, kept.next_us), (b"1", first_us))
    assert_equal("the payload of the replacement", replaced.event.payload, b"4")
    assert_that("the replacement is due by its own delay", replaced.next_us < first_us, seen=replaced)
    assert_equal("how many events live", len(await store.queue()), 1)


@scenario("P3", "E1")
async def a_replacement_starts_afresh(env: Environment) -> None:
    """A replaced event leaves nothing behind: no deliveries, no counts, and its receipts are void.

    Otherwise a slow handler of the old event would confirm the new one, which nobody has worked on.

    Troubleshooting: is the state of deliveries (number, counted, refusals, nonce) removed with the replaced event?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", max_retries=3)
    old = await store.take("a")

    assert_equal(
        "the outcome of replacing an unconfirmed event", await store.put("e", max_retries=3), PostOutcome.REPLACED
    )
    fresh = await store.see("e")
    stale = (await store.confirm([old.receipt])).value[0]
    new = await store.take("a")
    stale_again = (await store.confirm([old.receipt])).value[0]

    assert_equal(
        "state, counts of the replacement",
        (fresh.state, fresh.num_retries, fresh.delivery_number),
        (EventState.SCHEDULED, 0, 0),
    )
    assert_equal(
        "the old receipt, before and after the new delivery", (stale, stale_again), (ConfirmOutcome.STALE,) * 2
    )
    assert_equal("retries and number of its delivery", (new.num_retries, new.receipt.delivery_number), (0, 1))


@scenario("P3", needs=Feature.DEAD_LETTERS)
async def a_dead_letter_is_not_in_the_way(env: Environment) -> None:
    """A dead letter with the same id does not count as a live event, and stays.

    Troubleshooting: are dead letters kept apart from live events, also by id?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", max_retries=1, payload=b"old")
    await store.bury((await store.take("a")).receipt, detail="why")

    outcome = await store.put("e", 1000, payload=b"new", if_exists=IfExists.ERROR)

    assert_equal("the outcome of posting under a dead letter's id", outcome, PostOutcome.CREATED)
    letters = (await store.dead_letters(None, limit=10)).value.items
    assert_equal("the dead letters", [(letter.id, letter.reason) for letter in letters], [("e", EndReason.BURIED)])


PAYLOADS = (b"", bytes(range(256)), b"[]", b"9007199254740993", b"1 r3\n\x00\r\n", b"null", b"\xff\xfe", b" x ")


@scenario("P4")
async def payloads_come_back_byte_for_byte(env: Environment) -> None:
    """Payload and headers come back byte for byte, on the first delivery and on every later one.

    The original lost digits of large numbers and turned `[]` into `{}`, since its store looked into payloads.

    Troubleshooting: is a payload decoded, trimmed, or kept as text? Is it written anew for a retry?
    """
    store = env.store
    await store.enter("a")
    news = [
        NewEvent(event(str(n), payload=payload, headers=payload[::-1], max_retries=2), After(0))
        for n, payload in enumerate(PAYLOADS)
    ]
    await store.post(news)

    for attempt in range(2):
        deliveries = (await store.come("a", 20)).deliveries
        found = [delivery.event.payload for delivery in deliveries]
        assert_equal(f"the payloads of delivery {attempt + 1}", found, list(PAYLOADS))
        for delivery in deliveries:
            assert_equal("the headers", delivery.event.headers, delivery.event.payload[::-1])
            await store.give_back(delivery, Release.COUNTED)


@scenario("P4")
async def all_of_an_event_is_kept(env: Environment) -> None:
    """Every field of an event comes back from `peek`, `upcoming` and each claim, also what the store ignores.

    Troubleshooting: compare the fields of `EventData` with what the record of your store holds. None is not 0.
    """
    store = env.store
    await store.enter("a")
    full = event(
        "full",
        payload=b"p",
        headers=b"h",
        max_retries=5,
        confirm_timeout_us=7_000_001,
        expires_after_us=60 * SECOND_US,
        dead_letter=True,
        retry=RetryPolicy(1_500, 1.75, 90_000_000_000),
        max_run_us=90_000_000_001,
    )
    assert all(getattr(full, each.name) != each.default for each in EVENT_FIELDS), "no field goes untried"
    for data in (
        full,
        evolve(full, id="plain", retry=None, dead_letter=False, confirm_timeout_us=None, max_run_us=None),
    ):
        await store.post([NewEvent(data, After(0))])
        assert_equal("the event that peek shows", (await store.see(data.id)).event, data)
        assert_equal("the event that upcoming shows", [item.event for item in await store.queue()], [data])
        delivery = await store.take("a")
        assert_equal("the event that a claim brings", delivery.event, data)
        await store.confirm([delivery.receipt])


@scenario("P5", "P3")
async def a_batch_is_as_its_items_one_by_one(env: Environment) -> None:
    """Items take effect one after the other: of two with one id, the second meets the first.

    Troubleshooting: are all items of a post checked against the store as it was before the call?
    """
    news = [
        NewEvent(event("x", payload=b"1"), After(1000)),
        NewEvent(event("x", payload=b"2"), After(1000), IfExists.KEEP),
        NewEvent(event("y"), After(1000)),
        NewEvent(event("x", payload=b"3"), After(1000)),
        NewEvent(event("y"), After(1000), IfExists.ERROR),
        NewEvent(event("z"), At(0), IfExists.ERROR),
        NewEvent(event("z"), At(0), IfExists.ERROR),
    ]
    before = env.store.last.seq

    applied = await env.store.post(news)

    created, replaced = PostOutcome.CREATED, PostOutcome.REPLACED
    conflict = PostOutcome.CONFLICT
    expected = (created, PostOutcome.KEPT, created, replaced, conflict, created, conflict)
    assert_equal("the outcomes", applied.value, expected)
    assert_equal("what the call adds to the sequence number", applied.seq - before, 1)
    assert_equal("the ids that live", sorted(item.event.id for item in await env.store.queue()), ["x", "y", "z"])
    assert_equal("the payload that stands", (await env.store.see("x")).event.payload, b"3")


@with_nodes("P5")
async def posts_of_one_turn_travel_together(env: Environment) -> None:
    """What callers post in one turn of the event loop is one call; a conflict is raised to its own caller alone.

    Troubleshooting: this is the timer's business, and rests on `post` taking items in order with an outcome for each.
    """
    import asyncio

    timer = await env.timer()
    await timer.post(None, 60_000, id="taken")
    before = len(env.recorder.history)

    results = await asyncio.gather(
        *(timer.post(n, 60_000, id=f"e{n}") for n in range(20)),
        timer.post(None, 60_000, id="taken", if_exists="error"),
        return_exceptions=True,
    )

    assert_equal("how many calls were made", len(env.recorder.history) - before, 1)
    assert_equal("the ids", results[:20], [f"e{n}" for n in range(20)])
    assert_that("the conflict is raised to its caller", isinstance(results[20], EventExists), seen=results[20])


@with_nodes("P5", "D5")
async def a_long_list_is_split_in_order(env: Environment) -> None:
    """More events than one call takes travel in several, in order, and none is lost.

    Troubleshooting: is there a lower limit on a call than `BATCH_MAX_ITEMS`? The protocol allows 512 items.
    """
    timer = await env.timer()
    number = BATCH_MAX_ITEMS + 88

    posted = await timer.post_many(Post(payload=n, delay=60_000, id=f"{n:04}") for n in range(number))

    assert_equal("how many were posted", len(posted), number)
    assert_equal("their order in the queue", [item.id for item in await timer.upcoming()], posted)


@with_nodes("P6")
async def a_payload_over_the_limit_is_refused_before_any_call(env: Environment) -> None:
    """A payload of 1 MiB travels; one byte more is refused before the store hears of it.

    Troubleshooting: does the store, or its driver, have a limit of its own below 1 MiB?
    """
    node = await env.node()
    # JSON adds two quotes.
    largest = "x" * (PAYLOAD_MAX_BYTES - 2)
    before = len([record for record in env.recorder.history if record.operation.method == "post"])
    try:
        await node.timer.post(largest + "x", 0)
    except PayloadTooLarge:
        pass
    else:
        raise RuleBroken("a payload over the limit was accepted")
    after = len([record for record in env.recorder.history if record.operation.method == "post"])
    assert_equal("posts that reached the backend", after - before, 0)

    await node.timer.post(largest, 0, id="largest")

    await env.until("the largest payload is delivered", lambda: node.ids == ["largest"])
    assert_that("it comes back as it was", node.events[0].payload == largest)
