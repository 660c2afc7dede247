"""A namespace in partitions: to its users one namespace, with one `max_events`; to the store several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar, cast

import pytest
from attrs import define
from redis.asyncio import Redis
from typing_extensions import override

from dtimer import (
    BuryOutcome,
    CancelOutcome,
    ChangeOutcome,
    ConfirmOutcome,
    DiscardOutcome,
    DTimer,
    DTimerError,
    Event,
    EventExists,
    ExtendOutcome,
    InvalidArgument,
    NodeDisturbed,
    NodeFenced,
    PartitionsMismatch,
    Post,
    ReleaseOutcome,
    ResendOutcome,
    SimBackend,
    StoreCorrupt,
    StoreLostWrites,
    Unsupported,
)
from dtimer.backends.redis import RedisBackend
from dtimer.protocol.backend import Runtime, TimerBackend
from dtimer.protocol.partitioning import partition_of
from dtimer.protocol.values import After, EventData, Member, NewEvent
from node.watched import Watched
from support.inside import node_of
from support.servers import Server
from support.waiting import TIMEOUT_S, until
from support.worlds import without_blocks

NUM_PARTITIONS = 4

Make = Callable[..., RedisBackend]
T = TypeVar("T")


@pytest.fixture
async def make(server: Server) -> AsyncIterator[Make]:
    """Backends on the server, closed when the test ends."""
    made: list[RedisBackend] = []

    def make(partitions: int = NUM_PARTITIONS) -> RedisBackend:
        made.append(RedisBackend(Redis(host=server.host, port=server.port), partitions=partitions))
        return made[-1]

    yield make
    for backend in made:
        await backend.close()


@pytest.fixture
def backend(make: Make) -> RedisBackend:
    return make()


def ids_in(partition: int, number: int, num_partitions: int = NUM_PARTITIONS) -> list[str]:
    """Some ids that belong to it."""
    fitting = (id for id in map("e{}".format, count()) if partition_of(id, num_partitions) == partition)
    return [next(fitting) for _ in range(number)]


async def listed(backend: RedisBackend) -> list[int]:
    """How many live events each partition has."""
    return [(await partition.inspect()).value.live for partition in backend.partitions]


async def nodes_of(backend: RedisBackend) -> list[list[str]]:
    """Who has joined each partition."""
    return [[member.node for member in (await partition.inspect()).value.ring] for partition in backend.partitions]


# --- where an event is ----------------------------------------------------------------------------------


def test_an_id_belongs_to_the_same_partition_for_ever() -> None:
    """Processes of other versions and languages must agree; CRC-32 has a well-known check value."""
    assert partition_of("123456789", 1 << 32) == 0xCBF43926
    assert [partition_of(id, 16) for id in ("123456789", "cart-7", "é", "x" * 512)] == [6, 1, 14, 13]
    assert partition_of("anything", 1) == 0


def test_ids_are_spread_evenly() -> None:
    sizes = [0] * 16
    for number in range(16_000):
        sizes[partition_of(f"cart-{number}", 16)] += 1

    assert min(sizes) > 850
    assert max(sizes) < 1_150


@pytest.mark.parametrize("partitions", [0, -1, 1_025, True, 2.0, "4"])
def test_a_number_of_partitions_that_cannot_be_is_refused(partitions: Any) -> None:
    with pytest.raises(InvalidArgument, match="partitions"):
        RedisBackend(Redis(), partitions=partitions)


async def test_posts_go_to_the_partitions_of_their_ids_and_results_keep_their_order(backend: RedisBackend) -> None:
    timer = DTimer(backend)
    ids = [f"e{number}" for number in range(40)]
    await timer.post("before", 60_000, id="e20")

    results = await timer.post_many([Post(payload=0, delay=60_000, id=id, if_exists="error") for id in ids])

    assert [result for result in results if isinstance(result, str)] == ids[:20] + ids[21:]
    assert isinstance(results[20], EventExists)
    expected = [sum(partition_of(id, NUM_PARTITIONS) == number for id in ids) for number in range(NUM_PARTITIONS)]
    assert await listed(backend) == expected
    cancelled = await timer.cancel_many([*ids, "nobody"])
    assert cancelled == [CancelOutcome.CANCELLED] * 40 + [CancelOutcome.NOT_FOUND]


@pytest.mark.parametrize("partition", range(NUM_PARTITIONS))
async def test_every_operation_finds_its_event(backend: RedisBackend, partition: int) -> None:
    timer = DTimer(backend)
    (id,) = ids_in(partition, 1)
    taken: list[Event] = []
    timer.on("event", taken.append)
    async with timer:
        await timer.post("p", 3_600_000, id=id, max_retries=3, dead_letter=True)
        peeked = await timer.peek(id)
        assert peeked is not None
        assert await timer.change_delay(id, 0) is ChangeOutcome.MOVED
        await until(lambda: len(taken) == 1)
        assert await taken[0].extend(60) is ExtendOutcome.EXTENDED
        assert await taken[0].release() is ReleaseOutcome.RELEASED
        await until(lambda: len(taken) == 2)
        assert await taken[1].bury("for the test") is BuryOutcome.BURIED
        assert [letter.id for letter in await timer.dead_letters()] == [id]
        assert await timer.resend(id) is ResendOutcome.CREATED
        await until(lambda: len(taken) == 3)
        assert await timer.confirm(id) is ConfirmOutcome.CONFIRMED
        assert await timer.confirm(id) is ConfirmOutcome.NOT_FOUND
        assert await timer.discard(id) is DiscardOutcome.NOT_FOUND
        assert await DTimer(backend).confirm(id) is ConfirmOutcome.NOT_FOUND
        assert await timer.cancel(id) is CancelOutcome.NOT_FOUND


async def test_upcoming_is_one_list_in_claim_order(backend: RedisBackend) -> None:
    """Merged from pages: more than one of each partition are needed here."""
    timer = DTimer(backend)
    await timer.post_many(
        Post(payload=None, delay=100_000 + 100 * ((number * 7_919) % 2_000), id=f"e{number}") for number in range(2_000)
    )

    entries = await timer.upcoming()

    assert len(entries) == 2_000
    assert [entry.due for entry in entries] == sorted(entry.due for entry in entries if entry.due)
    assert [entry.id for entry in await timer.upcoming(limit=50)] == [entry.id for entry in entries[:50]]
    window = await timer.upcoming(offset=timedelta(seconds=150), duration=timedelta(seconds=20))
    assert 150 < len(window) < 250
    async for entry in timer.iter_upcoming():
        assert entry.id == entries[0].id
        break


async def test_dead_letters_are_one_list_oldest_first(backend: RedisBackend) -> None:
    timer = DTimer(backend)
    ids: list[str] = []

    @timer.on("event")
    async def bury(event: Event) -> None:
        ids.append(event.id)
        await event.bury("")

    async with timer:
        for number in range(20):
            await timer.post(number, 0, dead_letter=True)
            await until(lambda number=number: len(ids) == number + 1)  # type: ignore[misc]
        await until(lambda: timer.counters.delivered == 20)
    letters = await timer.dead_letters()

    assert [letter.id for letter in letters] == ids
    assert [letter.id for letter in await timer.dead_letters(limit=3)] == ids[:3]
    assert (await backend.inspect()).value.dead_letters == 20


# --- taking events --------------------------------------------------------------------------------------


async def test_all_that_is_posted_is_taken_once(make: Make) -> None:
    taken: list[str] = []

    async def take(event: Event) -> None:
        async with event:
            taken.append(event.id)

    timers = [DTimer(make(), node_id=f"n{number}") for number in range(3)]
    for timer in timers:
        timer.on("event", take)
        await timer.join()
    await timers[0].post_many([Post(payload=0, delay=number % 50, max_retries=2) for number in range(300)])
    await until(lambda: len(taken) >= 300)
    for timer in timers:
        await timer.leave()

    assert len(set(taken)) == len(taken) == 300
    assert (await timers[0].upcoming()) == []
    assert await nodes_of(make()) == [[]] * NUM_PARTITIONS


@pytest.mark.parametrize("max_events", [1, 3, 8])
async def test_no_node_holds_more_than_it_may_and_no_partition_starves(backend: RedisBackend, max_events: int) -> None:
    """N2: the room is shared. A backlog in one partition does not keep another one's events waiting for its end."""
    timer = DTimer(backend, max_events=max_events)
    order: list[str] = []
    at_work = most = 0

    async def work(event: Event) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        order.append(event.id)
        await asyncio.sleep(0.003)
        at_work -= 1
        await event.confirm()

    backlog = ids_in(0, 200)
    others = [id for partition in range(1, NUM_PARTITIONS) for id in ids_in(partition, 5)]
    await timer.post_many([Post(payload=0, delay=0, id=id, max_retries=1) for id in backlog])
    timer.on("event", work)
    async with timer:
        await until(lambda: len(order) > 5)
        await timer.post_many([Post(payload=0, delay=0, id=id, max_retries=1) for id in others])
        await until(lambda: set(others) <= set(order))
        taken_before = len(order)
        await until(lambda: len(order) == 215)

    assert most == max_events
    assert taken_before < 150
    assert len(set(order)) == 215


async def test_iterators_take_from_all_partitions(backend: RedisBackend) -> None:
    """Room for one each; what comes is theirs, wherever it was."""
    timer = DTimer(backend)
    await timer.post_many([Post(payload=number, delay=0) for number in range(40)])
    got: list[object] = []

    async def iterate() -> None:
        async for event in timer.events():
            got.append(event.payload)

    async with timer:
        iterating = [asyncio.create_task(iterate()) for _ in range(2)]
        await until(lambda: len(got) == 40)
    await asyncio.gather(*iterating)

    assert sorted(got, key=str) == sorted(range(40), key=str)


async def test_a_partition_that_fails_keeps_no_other_waiting(server: Server, backend: RedisBackend) -> None:
    """Not even with room for a single event. It is reported once, and comes back by itself."""
    timer = DTimer(backend, max_events=1)
    taken: list[str] = []
    errors: list[DTimerError] = []
    timer.on("event", lambda event: taken.append(event.id))
    timer.on("error", without_blocks(errors.append))
    broken, *sound = [ids_in(partition, 20) for partition in range(NUM_PARTITIONS)]
    async with timer:
        with server.client() as client:
            # The queue, for it is empty. The ring is there or not: a node without room is not in it.
            client.set("{dt}:queue", "not a sorted set")
            await until(lambda: timer.counters.failed_claims >= 1)
            await timer.post_many([Post(payload=0, delay=0, id=id) for part in sound for id in part])
            await until(lambda: len(taken) == 60)
            with pytest.raises(StoreCorrupt):
                await timer.post(0, 0, id=broken[0])
            client.delete("{dt}:queue")
        await until(lambda: timer.counters.reconnects >= 1)
        await timer.post_many([Post(payload=0, delay=0, id=id) for id in broken])
        await until(lambda: len(taken) == 80)

    (disturbed,) = [error for error in errors if isinstance(error, NodeDisturbed)]
    assert "partition 0" in str(disturbed)


# --- being a node -----------------------------------------------------------------------------------------


async def test_ready_is_told_once_when_all_have_been_joined(backend: RedisBackend) -> None:
    timer = DTimer(backend, node_id="n")
    ready: list[bool] = []
    timer.on("ready", lambda: ready.append(timer.joined))

    await timer.join()

    assert ready == [True]
    assert await nodes_of(backend) == [["n"]] * NUM_PARTITIONS
    await timer.leave()
    assert not timer.joined
    assert await nodes_of(backend) == [[]] * NUM_PARTITIONS
    async with timer:
        assert await nodes_of(backend) == [["n"]] * NUM_PARTITIONS


async def test_a_join_that_fails_somewhere_leaves_no_member_anywhere(server: Server, backend: RedisBackend) -> None:
    await backend.open()
    with server.client() as client:
        client.set("{dt:2}:queue", "not a sorted set")
        timer = DTimer(backend)
        with pytest.raises(StoreCorrupt):
            await timer.join()
        client.delete("{dt:2}:queue")

    assert not timer.joined
    assert await nodes_of(backend) == [[]] * NUM_PARTITIONS
    async with timer:
        assert timer.joined


async def test_fenced_in_one_partition_is_fenced_in_all(make: Make) -> None:
    """And told once: it is one node."""
    backend = make()
    earlier, later = DTimer(backend, node_id="n"), DTimer(make(), node_id="n")
    errors: list[DTimerError] = []
    earlier.on("error", without_blocks(errors.append))
    earlier.on("event", print)  # with nobody to take events it would look every ten seconds only
    await earlier.join()
    await later.join()

    await until(lambda: any(isinstance(error, NodeFenced) for error in errors))
    assert not earlier.joined
    await until(lambda: not node_of(earlier)._fetchers)
    assert [type(error) for error in errors] == [NodeFenced]
    assert await nodes_of(backend) == [["n"]] * NUM_PARTITIONS
    async with earlier as again:
        assert again.joined
    await later.leave()


async def test_who_is_fenced_in_one_partition_alone_leaves_the_others(backend: RedisBackend) -> None:
    """The process that joined under its id may never come to them, and nobody else would tell them for 100 s."""
    timer = DTimer(backend, node_id="n")
    timer.on("event", print)
    await timer.join()
    await backend.partitions[1].join(Member("n", "another", 10_000_000))
    await until(lambda: not timer.joined)
    async with asyncio.timeout(TIMEOUT_S):
        while await nodes_of(backend) != [[], ["n"], [], []]:  # noqa: ASYNC110  # a store does not notify
            await asyncio.sleep(0.01)


class _Slow(Watched):
    """A partition that calls of some kinds reach when they are let through."""

    def __init__(self, partition: TimerBackend, *operations: str) -> None:
        super().__init__(cast("SimBackend", partition))
        self.let = {operation: asyncio.Event() for operation in operations}
        self.answered: list[str] = []

    @override
    async def _pass(self, operation: str, size: int, request: Callable[[], Awaitable[T]]) -> T:
        if operation in self.let:
            await self.let[operation].wait()
        reply = await super()._pass(operation, size, request)
        self.answered.append(operation)
        return reply


@define
class _Spread:
    """A namespace in these partitions, which is all that a timer asks of it."""

    partitions: tuple[TimerBackend, ...]

    @property
    def runtime(self) -> Runtime:
        return self.partitions[0].runtime

    def claim(self) -> None:
        """By this a timer knows a backend from what is none; each partition has one of its own."""
        raise NotImplementedError


def spread(*partitions: TimerBackend) -> TimerBackend:
    return cast("TimerBackend", _Spread(partitions))


async def test_who_is_fenced_while_it_joins_another_partition_stays_in_none(backend: RedisBackend) -> None:
    """The leave must not overtake the join: the store would tell a node that does not listen, for 100 s."""
    quick, slow = backend.partitions[0], _Slow(backend.partitions[1], "join")
    timer = DTimer(spread(quick, slow), node_id="n")
    errors: list[DTimerError] = []
    timer.on("error", without_blocks(errors.append))
    timer.on("event", print)
    joining = asyncio.create_task(timer.join())
    async with asyncio.timeout(TIMEOUT_S):
        while not (await quick.inspect()).value.ring:  # noqa: ASYNC110  # a store does not notify
            await asyncio.sleep(0.01)
    await quick.join(Member("n", "z", 10_000_000))
    await until(lambda: errors)

    slow.let["join"].set()
    await joining
    await until(lambda: "leave" in slow.answered and not node_of(timer)._fetchers)

    assert [type(error) for error in errors] == [NodeFenced]
    assert await nodes_of(backend) == [["n"], [], [], []]


async def test_of_two_who_join_at_once_one_is_left_in_all_partitions(make: Make) -> None:
    """Although they come to the partitions in different orders."""
    backend = make()
    first, slow = _Slow(backend.partitions[0]), _Slow(backend.partitions[1], "open", "leave")
    earlier = DTimer(spread(first, slow), node_id="n")
    others = [_Slow(partition) for partition in make().partitions[:2]]
    later = DTimer(spread(*others), node_id="n")
    for timer in (earlier, later):
        timer.on("event", print)
        timer.on("error", lambda error: None)
    joining = asyncio.create_task(earlier.join())
    await until(lambda: "open" in first.answered)
    await later.join()

    slow.let["open"].set()
    await joining
    for other in others:
        other.answered.clear()
    await until(lambda: all("claim" in other.answered for other in others))
    slow.let["leave"].set()
    await until(lambda: not node_of(earlier)._fetchers)

    assert later.joined
    assert await nodes_of(backend) == [["n"], ["n"], [], []]
    await later.leave()


async def test_a_store_that_was_emptied_is_joined_again_in_all_partitions(
    server: Server, backend: RedisBackend
) -> None:
    async with DTimer(backend, node_id="n") as timer:
        errors: list[DTimerError] = []
        taken: list[object] = []
        timer.on("error", without_blocks(errors.append))
        timer.on("event", lambda event: taken.append(event.payload))
        with server.client() as client:
            client.flushall()
        await until(lambda: timer.counters.rejoins == NUM_PARTITIONS)
        await timer.post_many([Post(payload=number, delay=0) for number in range(20)])
        await until(lambda: len(taken) == 20)

    assert {type(error) for error in errors} == {StoreLostWrites}


# --- how many there are -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "then"), [(1, 4), (4, 1), (4, 8), (4, 2)])
async def test_the_first_use_decides_about_the_number(make: Make, first: int, then: int) -> None:
    """Whoever counted differently would look for events where they are not. Any partition says so."""
    await DTimer(make(first)).post("p", 60_000, id="e")

    for id in map(str, range(8)):
        with pytest.raises(PartitionsMismatch, match=rf"in {first} partitions, not in {then}"):
            await DTimer(make(then)).post("p", 60_000, id=id)
    with pytest.raises(PartitionsMismatch):
        await DTimer(make(then)).join()
    with pytest.raises(PartitionsMismatch):
        await make(then).open()
    assert await DTimer(make(first)).peek("e") is not None


async def test_of_several_first_users_one_decides(make: Make) -> None:
    """They begin at the same time, each with another partition of its own."""
    backends = [make(partitions) for partitions in (2, 3, 4, 5) * 3]
    posts = [DTimer(backend).post("p", 60_000, id=f"e{number}") for number, backend in enumerate(backends)]

    outcomes = await asyncio.gather(*posts, return_exceptions=True)

    numbers = [len(backend.partitions) for backend in backends]
    won = {number for number, outcome in zip(numbers, outcomes, strict=True) if isinstance(outcome, str)}
    assert len(won) == 1
    assert [type(outcome) for outcome in outcomes if not isinstance(outcome, str)] == [PartitionsMismatch] * 9


async def test_a_spread_backend_has_no_operations_of_its_own(backend: RedisBackend) -> None:
    """It would do them in one partition, and look for the outcome in another."""
    new = NewEvent(EventData(id="e", payload=b""), After(0))
    with pytest.raises(Unsupported, match="post is for one partition, and namespace 'dt' has 4"):
        await backend.post([new])
    with pytest.raises(Unsupported, match="wakeups"):
        async with backend.wakeups("n", "e"):
            pass


async def test_inspecting_sums_and_purging_removes_all(server: Server, backend: RedisBackend) -> None:
    async with DTimer(backend, node_id="n") as timer:
        await timer.post_many([Post(payload=0, delay=60_000 + number) for number in range(30)])
        inspection = (await backend.inspect()).value
        head = (await timer.upcoming(limit=1))[0].due

    assert (inspection.live, inspection.delivered, inspection.dead_letters) == (30, 0, 0)
    assert [member.node for member in inspection.ring] == ["n"]
    assert head is not None
    assert inspection.head_us == round(head.timestamp() * 1e6)
    await backend.purge()
    with server.client() as client:
        assert client.keys("*") == []
