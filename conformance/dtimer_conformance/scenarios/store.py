"""Scenarios of the store itself: its one history, repetitions, atomicity, namespaces, schema, and closing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum

from dtimer import BackendClosed, InvalidArgument, SchemaMismatch
from dtimer.limits import BRANCHES_MAX, MILLISECOND_US, SCHEMA
from dtimer.protocol.backend import SupportsPurge
from dtimer.protocol.outcomes import ClaimStatus, JoinOutcome, PostOutcome
from dtimer.protocol.values import After, Applied, Branch, Extension, IfExists, NewEvent, Receipt, Release, Window
from dtimer_conformance.assertions import RuleBroken, assert_equal, assert_that
from dtimer_conformance.client import LONG_US, event, ids, member
from dtimer_conformance.environment import Environment
from dtimer_conformance.explain import is_tuple, items
from dtimer_conformance.features import Feature, SupportsForeignSchema, SupportsServerNames
from dtimer_conformance.scenario import scenario


@scenario("O1")
async def every_operation_but_a_read_has_a_number(env: Environment) -> None:
    """Each operation adds one to the sequence number, whatever it did; reads add nothing and show the current one.

    A gap in a recorded history is an operation whose reply was lost; without that no history could be judged.

    Troubleshooting: also an operation that finds nothing has a number, and a claim that is refused.
    """
    store = env.store
    other = await env.client()
    opened, again = await store.open(), await other.open()
    assert_equal("the epoch that another client sees", again.epoch, opened.epoch)
    assert_that("an epoch is not empty", opened.epoch)

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
    assert_equal("the numbers", numbers, list(range(opened.seq, opened.seq + len(numbers))))
    for client in (store, other):
        await client.peek("e")
        await client.upcoming(Window(), limit=1)
        assert_equal("the number that reads show", client.last.seq, numbers[-1])


@scenario("O1", needs=Feature.PURGE)
async def a_namespace_made_anew_has_another_epoch(env: Environment) -> None:
    """After a purge nothing is left, history begins again, and the epoch is another.

    By that nodes notice that what they know is void.

    Troubleshooting: is the epoch random, and made with the namespace?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", LONG_US)
    before = store.last
    backend = store.backend
    assert isinstance(backend, SupportsPurge), "the feature is there"

    await backend.purge()
    after = await store.open()

    assert_that("the epoch is another", after.epoch != before.epoch, seen=after)
    assert_equal("the number", after.seq, 0)
    assert_equal("what lives", await store.queue(), [])
    await store.cancel(["none"])
    assert_equal("the first number", store.last.seq, 1)


@scenario("O2", needs=Feature.BRANCHES)
async def a_server_that_has_another_name_begins_a_branch(env: Environment) -> None:
    """The first call other than a read under a server's name begins a branch at the number before it, just once.

    By that a client finds out whether what it was told is done has come along to the server that answers now.

    Troubleshooting: reads show the name of the server that answers, and the branch that would begin there, but begin
    none. A name that is known, but not the newest, comes from an old connection.
    """
    store, backend = env.store, env.store.backend
    assert isinstance(backend, SupportsServerNames), "the feature is there"
    servers = [f"s{number}" for number in range(BRANCHES_MAX + 2)]
    begun: list[Branch] = []
    for server in servers:
        backend.server_for_tests = server
        await store.peek("e")
        assert_equal("the branch that a read shows", store.last.branch, server)
        expected = Branch(server, store.last.seq)
        assert_equal("the branch that would begin", (await store.branches()).value[-1], expected)
        for _ in range(2):
            await store.cancel(["none"])
            assert_equal("the branch that a call shows", store.last.branch, server)
        begun.append(expected)
        assert_equal("the newest branches", (await store.branches()).value[-len(begun) :], tuple(begun[-BRANCHES_MAX:]))
    for server, shown in ((servers[-2], servers[-1]), ("?", "?"), ("", servers[-1])):
        backend.server_for_tests = server
        await store.cancel(["none"])
        assert_equal(f"the branch that a call by {server!r} shows", store.last.branch, shown)
        assert_equal("the branches then", (await store.branches()).value, tuple(begun[-BRANCHES_MAX:]))


@scenario("F1", "E1", "E4", "F4")
async def what_a_receipt_fences_can_be_repeated(env: Environment) -> None:
    """A confirm, an extension, a release and a burial that come a second time change nothing of what others did since.

    So they can be sent again when a reply was lost, whoever acts in between.

    Troubleshooting: does a delivery's end, a release and a new post of the id void its receipt?
    """
    store = env.store
    await store.enter("a", "b")
    repeatable: list[Callable[[Receipt], Awaitable[Applied[object]]]] = [
        lambda receipt: store.confirm([receipt]),
        lambda receipt: store.release(receipt, how=Release.COUNTED, delay_us=0),
        lambda receipt: store.bury(receipt, detail=""),
        lambda receipt: store.extend([Extension(receipt, 1)]),
    ]
    for number, ask in enumerate(repeatable):
        reposted, retaken = f"reposted {number}", f"retaken {number}"
        for name in (reposted, retaken):
            await store.put(name, max_retries=5)
        await env.wait(60 * MILLISECOND_US)  # overdue, so that any node may take it (D6)
        receipts = [delivery.receipt for delivery in (await store.come("a", timeout_us=1)).deliveries]
        for receipt in receipts:
            await ask(receipt)
        await store.put(reposted, LONG_US, max_retries=5)
        await store.put(retaken, max_retries=5, if_exists=IfExists.KEEP)
        await env.wait(60 * MILLISECOND_US)
        (taken,) = (await store.come("b")).deliveries
        assert_equal("what the other took", taken.event.id, retaken)
        before = await store.queue()

        again = [_name((await ask(receipt)).value) for receipt in receipts]

        assert_equal("what is known of a second time", again, ["stale", "stale"])
        assert_equal("what lives then", await store.queue(), before)
        await store.cancel([reposted, retaken])


def _name(outcome: object) -> object:
    """Of an outcome, or of a tuple of one."""
    one = items(outcome)[0] if is_tuple(outcome) else outcome
    return one.value if isinstance(one, Enum) else one


@scenario("F1", "N1")
async def what_an_incarnation_fences_can_be_repeated(env: Environment) -> None:
    """A join and a leave that come a second time change nothing for who has joined under the node id since.

    Troubleshooting: does a join look whether the incarnation that is there is a later one?
    """
    store = env.store
    assert_equal("a first join", (await store.join(member("a", "1"))).value, JoinOutcome.JOINED)
    assert_equal("the same again", (await store.join(member("a", "1"))).value, JoinOutcome.ALREADY_JOINED)
    assert_equal("a later one", (await store.join(member("a", "2"))).value, JoinOutcome.TOOK_OVER)

    assert_equal("the first one again", (await store.join(member("a", "1"))).value, JoinOutcome.FENCED)
    assert_equal("its leaving", (await store.leave(member("a", "1"))).value, False)
    assert_equal("the claim of the later one", (await store.come("a", incarnation="2")).status, ClaimStatus.JOINED)
    assert_equal("that of the first", (await store.come("a", incarnation="1")).status, ClaimStatus.FENCED)


@scenario("N1", "F1")
async def a_join_says_whether_it_fences_a_member(env: Environment) -> None:
    """A join that fences an earlier incarnation says so, if that had not left and is not due to be removed (N3).

    By that two processes with one node id both learn of it, also when the reply of the first try was lost (F1).

    Troubleshooting: is the earlier member's life compared with the operation's time, before it is removed? Is it kept
    with a member whether its join has fenced another?
    """
    store = env.store
    short_lived = member("a", "3", poll_us=5 * MILLISECOND_US)
    assert_equal("the first", (await store.join(member("a", "1"))).value, JoinOutcome.JOINED)
    assert_equal("one that fences it", (await store.join(member("a", "2"))).value, JoinOutcome.TOOK_OVER)
    assert_equal("the same again", (await store.join(member("a", "2"))).value, JoinOutcome.TOOK_OVER)
    assert_equal("its claim", (await store.come("a", incarnation="2")).status, ClaimStatus.JOINED)
    assert_equal("the same after that", (await store.join(member("a", "2"))).value, JoinOutcome.TOOK_OVER)
    assert_equal("under another id", (await store.join(member("b", "3"))).value, JoinOutcome.JOINED)
    assert_equal("its leaving", (await store.leave(member("a", "2"))).value, True)

    assert_equal("one that comes after it has left", (await store.join(short_lived)).value, JoinOutcome.JOINED)
    await env.wait(60 * MILLISECOND_US)
    assert_equal("one that comes after its life", (await store.join(member("a", "4"))).value, JoinOutcome.JOINED)


@scenario("F1")
async def a_closed_backend_says_so(env: Environment) -> None:
    """`close` may be called twice, and every later call raises BackendClosed.

    Troubleshooting: a driver's own error about a closed connection is not enough.
    """
    client = await env.client()
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
            assert_equal("the operation that the error names", error.operation, name)
            assert_equal("whether it is safe to repeat", error.safe_to_repeat, True)
        else:
            raise RuleBroken(f"{name} after close raised nothing")


@scenario("F1", own_clock=True)
async def a_cancelled_call_leaves_its_client_in_order(env: Environment) -> None:
    """When a caller is cancelled in the middle of a call, the next call of the client gets its own reply.

    Troubleshooting: is a connection whose reply is still to come used for the next request?
    """
    store = env.store
    for n in range(30):
        call = asyncio.ensure_future(store.peek(f"none-{n}"))
        for _ in range(n % 6):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert_equal("the reply of the next call", await store.put(f"e{n}", LONG_US), PostOutcome.CREATED)
    assert_equal("how many live", len(await store.queue()), 30)


@scenario("F5", "P5", own_clock=True)
async def nobody_sees_half_of_an_operation(env: Environment) -> None:
    """While one client replaces all events again and again, another always sees events of one and the same call.

    Troubleshooting: is each operation one transaction? Is each page read at one instant?
    """
    writer, reader = env.store, await env.client()
    names = [f"{n:02}" for n in range(40)]

    async def write() -> None:
        for n in range(25):
            await writer.post([NewEvent(event(name, payload=b"%d" % n), After(LONG_US)) for name in names])
        await writer.cancel(names)

    writing = asyncio.ensure_future(write())
    while not writing.done():
        page = (await reader.upcoming(Window(), limit=100)).value
        seen = {item.event.payload for item in page.items}
        assert_that("a page shows events of one call", len(seen) <= 1, seen=seen)
        assert_that("all of them or none", len(page.items) in {0, len(names)}, seen=len(page.items))
        await asyncio.sleep(0)
    await writing


@scenario("F5")
async def one_id_affects_no_other(env: Environment) -> None:
    """What is done with one event leaves all others as they are, also those whose ids look alike.

    Troubleshooting: is an id ever matched as a prefix, a pattern, or without regard to case?
    """
    store = env.store
    await store.enter("a")
    others = ["E", "e ", "e*", "e:", "ee", "%", "\x00e", "é"]
    for other in others:
        await store.put(other, LONG_US, payload=other.encode(), max_retries=3)
    before = {other: await store.see(other) for other in others}

    await store.put("e", max_retries=3)
    await store.change_delay("e", delay_us=0)
    await env.wait(MILLISECOND_US)
    delivery = await store.take("a")
    await store.extend([Extension(delivery.receipt, LONG_US)])
    await store.cancel(["e"])
    await store.put("e", max_retries=1)
    await store.confirm([(await store.take("a")).receipt])

    assert_equal("the others", {other: await store.see(other) for other in others}, before)


@scenario("F6")
async def namespaces_share_nothing(env: Environment) -> None:
    """Two namespaces on one store have nothing in common: neither events, nor nodes, nor numbers, nor wake-ups.

    Troubleshooting: is the namespace part of every key, and of every channel?
    """
    here, name = env.store, env.fresh_namespace()
    there = await env.client(namespace=name)
    (probe,) = await env.listen("a")
    await here.enter("a")
    before = (await here.open()).seq
    epochs = {(await here.open()).epoch, (await there.open()).epoch}
    assert_equal("how many epochs there are", len(epochs), 2)

    await there.put("e", payload=b"there")
    assert_equal("the status of a node that joined elsewhere", bool((await there.come("a")).status), False)
    await there.enter("a")
    await there.come("a", 0, pulse=True)
    await here.put("e", LONG_US, payload=b"here")
    await env.until("the node here is told", lambda: probe.told)

    assert_equal("the number here", here.last.seq, before + 1)
    assert_equal("what the node here was told", [wakeup.seq for wakeup in probe.told], [before + 1])
    assert_equal("pulses heard here", probe.pulses, [])
    assert_equal("the event here", (await here.see("e")).event.payload, b"here")
    assert_equal("what is claimed there", ids(await there.come("a")), ["e"])


@scenario("F7")
async def what_was_written_is_opened_again(env: Environment) -> None:
    """A namespace that this version made is opened by another client of this version, with all that is in it.

    Troubleshooting: is the schema number written with the namespace, and compared with ours?
    """
    await env.store.put("e", LONG_US, payload=b"p")
    other = await env.client()

    opened = await other.open()

    assert_equal("the epoch", opened.epoch, env.store.last.epoch)
    assert_equal("the event", (await other.see("e")).event.payload, b"p")


@scenario("F7", needs=Feature.FOREIGN_SCHEMA)
async def another_versions_namespace_is_refused(env: Environment) -> None:
    """Every operation on a namespace of another major schema raises SchemaMismatch and changes nothing.

    Troubleshooting: is the number checked by each operation, and not only when the backend is opened?
    """
    store = env.store
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
        raise RuleBroken(f"{name} on a namespace of schema {SCHEMA + 1} raised no SchemaMismatch")
    await backend.write_schema(SCHEMA)
    assert_equal("what lives once it is ours again", [item.event.id for item in await store.queue()], ["e"])


@scenario("P2")
async def a_namespace_has_a_proper_name(env: Environment) -> None:
    """Namespaces of every allowed character and length work; others are refused when the backend is made.

    Troubleshooting: `NAME_PATTERN` allows letters, digits, `_`, `.` and `-`, up to 64 of them.
    """
    longest = (env.fresh_namespace() + "._-" + "Zz09" * 16)[:64]
    client = await env.client(namespace=longest)
    assert_equal("a post to a namespace with a long name", await client.put("e", LONG_US), PostOutcome.CREATED)
    for bad in ("", "a b", "x" * 65, "ä", "{x}"):
        try:
            await env.client(namespace=bad)
        except InvalidArgument:
            continue
        raise RuleBroken(f"the namespace {bad!r} was accepted")
