"""Scenarios of the store itself: its one history, repetitions, atomicity, namespaces, schema, and closing."""

from __future__ import annotations

import asyncio

from dtimer import BackendClosed, InvalidArgument, SchemaMismatch
from dtimer.limits import MILLISECOND_US, SCHEMA
from dtimer.outcomes import PostOutcome
from dtimer.protocol import SupportsPurge
from dtimer.values import After, Extension, IfExists, NewEvent, Window
from dtimer_conformance.client import LONG_US, event, ids, member
from dtimer_conformance.features import Feature, SupportsForeignSchema
from dtimer_conformance.scenario import scenario
from dtimer_conformance.verdicts import Broken, holds, same
from dtimer_conformance.world import World


@scenario("O1")
async def every_operation_but_a_read_has_a_number(world: World) -> None:
    """Each operation adds one to the sequence number, whatever it did; reads add nothing and show the current one.

    A gap in a recorded history is an operation whose reply was lost; without that no history could be judged.

    Troubleshooting: also an operation that finds nothing has a number, and a claim that is refused.
    """
    store = world.store
    other = await world.client()
    opened, again = await store.open(), await other.open()
    same("the epoch that another client sees", again.epoch, opened.epoch)
    holds("an epoch is not empty", opened.epoch)

    numbers = [opened.seq]
    for call in (
        lambda: store.put("e", LONG_US),
        lambda: other.cancel(["none"]),
        lambda: store.change_delay("none", delay_us=0),
        lambda: other.come("stranger"),
        lambda: store.confirm_newest("none"),
        lambda: other.leave(member("stranger")),
        lambda: store.put("e", LONG_US, if_exists=IfExists.KEEP),
    ):
        await call()
        numbers.append(max(store.last.seq, other.last.seq))
    same("the numbers", numbers, list(range(opened.seq, opened.seq + len(numbers))))
    for client in (store, other):
        await client.peek("e")
        await client.upcoming(Window(), limit=1)
        same("the number that reads show", client.last.seq, numbers[-1])


@scenario("O1", needs=Feature.PURGE)
async def a_namespace_made_anew_has_another_epoch(world: World) -> None:
    """After a purge nothing is left, history begins again, and the epoch is another.

    By that nodes notice that what they know is void.

    Troubleshooting: is the epoch random, and made with the namespace?
    """
    store = world.store
    await store.enter("a")
    await store.put("e", LONG_US)
    before = store.last
    backend = store.backend
    assert isinstance(backend, SupportsPurge), "the feature is there"

    await backend.purge()
    after = await store.open()

    holds("the epoch is another", after.epoch != before.epoch, seen=after)
    same("the number", after.seq, 0)
    same("what lives", await store.queue(), [])
    await store.cancel(["none"])
    same("the first number", store.last.seq, 1)


@scenario("F1", "P3")
async def a_repeated_post_changes_nothing(world: World) -> None:
    """A post whose nonce is that of the live event is REPEATED, whatever `if_exists` says, and changes nothing.

    So a post whose reply was lost can be sent again.

    Troubleshooting: an empty nonce is no nonce. Is the nonce kept while the event is delivered and released?
    """
    store = world.store
    await store.enter("a")
    await store.put("e", 0, nonce="n1", payload=b"1", max_retries=1)
    await store.take("a")
    before = await store.see("e")

    outcomes = [await store.put("e", LONG_US, nonce="n1", payload=b"2", if_exists=if_exists) for if_exists in IfExists]

    same("the outcomes", outcomes, [PostOutcome.REPEATED] * 3)
    same("the event", await store.see("e"), before)
    same("another nonce", await store.put("e", LONG_US, nonce="n2"), PostOutcome.REPLACED)
    await store.put("plain", LONG_US)
    same("no nonce", await store.put("plain", LONG_US), PostOutcome.REPLACED)


@scenario("F1")
async def a_closed_backend_says_so(world: World) -> None:
    """`close` may be called twice, and every later call raises BackendClosed.

    Troubleshooting: a driver's own error about a closed connection is not enough.
    """
    client = await world.client()
    await client.peek("e")
    await client.close()
    await client.close()

    for name, call in (
        ("peek", lambda: client.peek("e")),
        ("post", lambda: client.put("e")),
        ("claim", lambda: client.come("a")),
        ("open", client.open),
    ):
        try:
            await call()
        except BackendClosed as error:
            same("the operation that the error names", error.operation, name)
            same("whether it is safe to repeat", error.safe_to_repeat, True)
        else:
            raise Broken(f"{name} after close raised nothing")


@scenario("F1", own_clock=True)
async def a_cancelled_call_leaves_its_client_in_order(world: World) -> None:
    """When a caller is cancelled in the middle of a call, the next call of the client gets its own reply.

    Troubleshooting: is a connection whose reply is still to come used for the next request?
    """
    store = world.store
    for n in range(30):
        call = asyncio.ensure_future(store.peek(f"none-{n}"))
        for _ in range(n % 6):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        same("the reply of the next call", await store.put(f"e{n}", LONG_US), PostOutcome.CREATED)
    same("how many live", len(await store.queue()), 30)


@scenario("F5", "P5", own_clock=True)
async def nobody_sees_half_of_an_operation(world: World) -> None:
    """While one client replaces all events again and again, another always sees events of one and the same call.

    Troubleshooting: is each operation one transaction? Is each page read at one instant?
    """
    writer, reader = world.store, await world.client()
    names = [f"{n:02}" for n in range(40)]

    async def write() -> None:
        for n in range(25):
            await writer.post([NewEvent(event(name, payload=b"%d" % n), After(LONG_US)) for name in names])
        await writer.cancel(names)

    writing = asyncio.ensure_future(write())
    while not writing.done():
        page = (await reader.upcoming(Window(), limit=100)).value
        seen = {item.event.payload for item in page.items}
        holds("a page shows events of one call", len(seen) <= 1, seen=seen)
        holds("all of them or none", len(page.items) in {0, len(names)}, seen=len(page.items))
        await asyncio.sleep(0)
    await writing


@scenario("F5")
async def one_id_affects_no_other(world: World) -> None:
    """What is done with one event leaves all others as they are, also those whose ids look alike.

    Troubleshooting: is an id ever matched as a prefix, a pattern, or without regard to case?
    """
    store = world.store
    await store.enter("a")
    others = ["E", "e ", "e*", "e:", "ee", "%", "\x00e", "é"]
    for other in others:
        await store.put(other, LONG_US, payload=other.encode(), max_retries=3)
    before = {other: await store.see(other) for other in others}

    await store.put("e", max_retries=3)
    await store.change_delay("e", delay_us=0)
    await world.wait(MILLISECOND_US)
    delivery = await store.take("a")
    await store.extend([Extension(delivery.receipt, LONG_US)])
    await store.cancel(["e"])
    await store.put("e", max_retries=1)
    await store.confirm([(await store.take("a")).receipt])

    same("the others", {other: await store.see(other) for other in others}, before)


@scenario("F6")
async def namespaces_share_nothing(world: World) -> None:
    """Two namespaces on one store have nothing in common: neither events, nor nodes, nor numbers, nor wake-ups.

    Troubleshooting: is the namespace part of every key, and of every channel?
    """
    here, name = world.store, world.fresh_namespace()
    there = await world.client(namespace=name)
    (ears,) = await world.listen("a")
    await here.enter("a")
    before = (await here.open()).seq
    epochs = {(await here.open()).epoch, (await there.open()).epoch}
    same("how many epochs there are", len(epochs), 2)

    await there.put("e", payload=b"there")
    same("the status of a node that joined elsewhere", bool((await there.come("a")).status), False)
    await there.enter("a")
    await there.come("a", 0, pulse=True)
    await here.put("e", LONG_US, payload=b"here")
    await world.until("the node here is told", lambda: ears.told)

    same("the number here", here.last.seq, before + 1)
    same("what the node here was told", [wakeup.seq for wakeup in ears.told], [before + 1])
    same("pulses heard here", ears.pulses, [])
    same("the event here", (await here.see("e")).event.payload, b"here")
    same("what is claimed there", ids(await there.come("a")), ["e"])


@scenario("F7")
async def what_was_written_is_opened_again(world: World) -> None:
    """A namespace that this version made is opened by another client of this version, with all that is in it.

    Troubleshooting: is the schema number written with the namespace, and compared with ours?
    """
    await world.store.put("e", LONG_US, payload=b"p")
    other = await world.client()

    opened = await other.open()

    same("the epoch", opened.epoch, world.store.last.epoch)
    same("the event", (await other.see("e")).event.payload, b"p")


@scenario("F7", needs=Feature.FOREIGN_SCHEMA)
async def another_versions_namespace_is_refused(world: World) -> None:
    """Every operation on a namespace of another major schema raises SchemaMismatch and changes nothing.

    Troubleshooting: is the number checked by each operation, and not only when the backend is opened?
    """
    store = world.store
    await store.put("e", LONG_US)
    backend = store.backend
    assert isinstance(backend, SupportsForeignSchema), "the feature is there"
    await backend.write_schema(SCHEMA + 1)

    for name, call in (
        ("open", store.open),
        ("post", lambda: store.put("f")),
        ("cancel", lambda: store.cancel(["e"])),
        ("claim", lambda: store.come("a")),
        ("peek", lambda: store.peek("e")),
        ("upcoming", lambda: store.upcoming(Window(), limit=1)),
        ("join", lambda: store.join(member("a"))),
    ):
        try:
            await call()
        except SchemaMismatch:
            continue
        raise Broken(f"{name} on a namespace of schema {SCHEMA + 1} raised no SchemaMismatch")
    await backend.write_schema(SCHEMA)
    same("what lives once it is ours again", [item.event.id for item in await store.queue()], ["e"])


@scenario("P2")
async def a_namespace_has_a_proper_name(world: World) -> None:
    """Namespaces of every allowed character and length work; others are refused when the backend is made.

    Troubleshooting: `NAME_PATTERN` allows letters, digits, `_`, `.` and `-`, up to 64 of them.
    """
    longest = (world.fresh_namespace() + "._-" + "Zz09" * 16)[:64]
    client = await world.client(namespace=longest)
    same("a post to a namespace with a long name", await client.put("e", LONG_US), PostOutcome.CREATED)
    for bad in ("", "a b", "x" * 65, "ä", "{x}"):
        try:
            await world.client(namespace=bad)
        except InvalidArgument:
            continue
        raise Broken(f"the namespace {bad!r} was accepted")
