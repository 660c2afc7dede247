"""From the stored form of an earlier version to that of this one: nothing is lost, early, or harmed (rule F7)."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from attrs import define, field
from redis import Redis as Client
from redis.asyncio import Redis

from dtimer import DTimer, Ended, Event, SchemaMismatch, StoreRefused, StoreUnreachable
from dtimer.backends.redis import RedisBackend, Upgraded, upgrade_namespace
from dtimer.backends.redis.pool import Pool
from support.guide import more_rights, rights_of_the_guide
from support.schema_1 import BEGAN_US, DEAD, DELIVERED, HOUR_US, MINUTE_US, Shown, everything, lay_out, recorded
from support.servers import Binary, Server, server_binaries
from support.waiting import until

pytestmark = pytest.mark.once

DAY_US = 24 * HOUR_US


@pytest.fixture(
    scope="session",
    params=server_binaries()[:2] or [pytest.param(None, marks=pytest.mark.skip("no server"))],
    ids=lambda binary: getattr(binary, "name", "none"),
)
def server_program(request: pytest.FixtureRequest) -> Binary:
    """Of all servers the first two: they differ by much, and what takes long here takes as long on each."""
    binary: Binary = request.param
    return binary


@pytest.fixture
def looking(server: Server) -> Iterator[Client]:
    with server.client() as client:
        yield client


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    async with Redis(host=server.host, port=server.port) as client:
        yield client


def contents(looking: Client) -> dict[bytes, Any]:
    """Every key, in bytes."""
    return {
        key: looking.hgetall(key) if looking.type(key) == b"hash" else looking.zrange(key, 0, -1, withscores=True)
        for key in looking.scan_iter()
    }


@define
class Clock:
    """That of the server, which can be set on; it goes on by itself from there."""

    _ahead_us: int = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000 + self._ahead_us

    def set_to(self, time_us: int) -> None:
        self._ahead_us += time_us - self()


@define
class Taken:
    """What a node was given and told."""

    events: dict[str, Event] = field(factory=dict)
    ended: dict[str, Ended] = field(factory=dict)

    async def take(self, event: Event) -> None:
        async with event:
            assert event.id not in self.events, "it was confirmed"
            self.events[event.id] = event

    def end(self, ended: Ended) -> None:
        self.ended[ended.id] = ended

    @property
    def ids(self) -> set[str]:
        return {*self.events, *self.ended}

    async def all_of(self, ids: set[str]) -> None:
        """Return when they have come or ended."""
        await until(lambda: ids <= self.ids, timeout_s=60)


async def test_ten_thousand_events_outlast_the_upgrade(looking: Client, client: Redis) -> None:
    """Pending, unconfirmed and dead, written by b08225d. Today's node gets each, in time, with all that it had."""
    lay_out(looking)
    _, live, dead = recorded()
    assert len(live) + len(dead) == 10_000

    assert await upgrade_namespace(client) == Upgraded("1", events=DELIVERED, dead_letters=DEAD)

    clock, taken = Clock(), Taken()
    clock.set_to(BEGAN_US + DAY_US + 30 * MINUTE_US)
    async with RedisBackend(client, clock_for_tests=clock) as backend:
        assert await everything(backend) == (live, dead)
        timer: DTimer = DTimer(backend, max_events=1_000)
        timer.on("event", taken.take)
        timer.on("ended", taken.end)
        async with timer:
            await timer.post("now", 0, id="now")
            await until(lambda: "now" in taken.events)
            assert set(taken.events) == {"now"}
            # Deadlines; then delays, some with little left to live; then times of day.
            for minutes in (61.5, 65, 300):
                now_us = BEGAN_US + DAY_US + int(minutes * MINUTE_US)
                clock.set_to(now_us)
                await taken.all_of({event["id"] for event in live if event["next_us"] <= now_us})
        assert (await backend.inspect()).value.live == 0
    assert taken.ids == {"now"} | {event["id"] for event in live}
    for event in live:
        assert as_before(event, taken), event
    assert {"delivered", "pending"} == {id.partition("-")[0] for id in taken.ended}


async def test_a_delivered_event_keeps_when_it_was_due(looking: Client, client: Redis) -> None:
    """It expires by that, and a dead letter tells it. Where schema 1 did not keep it, the deadline bounds it."""
    lay_out(looking)
    _, live, _ = recorded()
    lives_us = {event["id"].encode(): event["expires_after_us"] for event in live}
    queue: Any = looking.zrange("{dt}:queue", 0, -1, withscores=True)
    next_us = dict(queue)
    last_us = int(looking.hgetall("{dt}:meta")[b"counts"].split()[1])
    states = looking.hgetall("{dt}:states")
    await upgrade_namespace(client)
    due_us = {id: int(state.split()[-1]) for id, state in looking.hgetall("{dt}:states").items()}

    expiring = {id: int(state.split()[4]) for id, state in states.items() if state.split()[4] != b"-"}
    assert 0 < len(expiring) < len(states) == DELIVERED
    assert due_us == {
        id: expiring[id] - lives_us[id] if id in expiring else min(int(next_us[id]), last_us) for id in states
    }


def as_before(event: Shown, taken: Taken) -> bool:
    """It came once: not early, not past its expiry, or it ended by that; and with all that it had."""
    lives_us: int | None = event["expires_after_us"]
    # A delivery does not change when an event expires.
    due_us = BEGAN_US + DAY_US + DELIVERED if event["id"].startswith("delivered") else event["next_us"]
    expires_us = None if lives_us is None else due_us + lives_us
    if event["id"] in taken.ended:
        return expires_us is not None and expires_us < BEGAN_US + DAY_US + 66 * MINUTE_US
    came = taken.events[event["id"]]
    at_us = came.delivered_at.timestamp() * 1e6
    return (
        at_us > event["next_us"] - 1
        and (expires_us is None or at_us < expires_us + 1_000_000)
        and came.payload == json.loads(event["payload"])
        and (came.headers == {}) is (event["headers"] == "")
        and came.num_retries == event["num_retries"] + (event["state"] == "unconfirmed")
        and came.max_retries == event["max_retries"]
    )


async def test_the_dead_can_be_listed_sent_again_and_discarded(looking: Client, client: Redis) -> None:
    """Each has a time of burial of its own now, which is a part of its name."""
    lay_out(looking)
    await upgrade_namespace(client)

    clock = Clock()
    clock.set_to(BEGAN_US + DAY_US)
    async with RedisBackend(client, clock_for_tests=clock) as backend:
        timer: DTimer = DTimer(backend)
        letters = await timer.dead_letters()
        assert len({letter.buried_at for letter in letters}) == len(letters) == DEAD
        readable = [letter for letter in letters if letter.letter.event is not None]
        for letter in readable[::50]:
            assert await timer.resend(letter, 1_000)
            shown = await timer.peek(letter.id)
            assert shown is not None
            assert shown.payload == letter.payload
            assert shown.delivery_number == 0
        assert all([await timer.discard(letter) for letter in readable[1::50]])
        assert len(await timer.dead_letters()) == DEAD - len(readable[::50]) - len(readable[1::50])


async def test_an_upgrade_that_was_interrupted_anywhere_can_be_finished(
    looking: Client, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each of its scripts in turn; until it is finished every other call is refused, and says what to do."""
    lay_out(looking)
    await upgrade_namespace(client)
    uninterrupted = contents(looking)
    looking.flushall()
    lay_out(looking)
    call = Pool.call
    left = 0

    async def failing(self: Pool, operation: str, *args: Any, **options: Any) -> Any:
        nonlocal left
        if operation == "upgrade_namespace" and b"EVAL" in args[0][:40]:
            if not left:
                raise StoreUnreachable(operation, "interrupted")
            left -= 1
        return await call(self, operation, *args, **options)

    interruptions = 0
    while True:
        interruptions += 1
        left = interruptions
        monkeypatch.setattr(Pool, "call", failing)
        try:
            await upgrade_namespace(client)
            break
        except StoreUnreachable:
            monkeypatch.setattr(Pool, "call", call)
            assert looking.hget("{dt}:meta", "schema") == b"1>2"
            await refused(client)
    assert interruptions > 40
    assert contents(looking) == uninterrupted


async def refused(client: Redis) -> None:
    """By whatever a client calls first."""
    backend = RedisBackend(client)
    timer: DTimer = DTimer(backend)
    for call in (lambda: timer.post("x", 0), timer.join, timer.upcoming):
        with pytest.raises(SchemaMismatch, match="stop its nodes and run dtimer upgrade URL"):
            await call()
    await backend.close()


async def test_a_node_that_is_joined_stands_in_the_way(looking: Client, client: Redis) -> None:
    """It has deliveries in hand, of which it will tell in the old form. Nothing is changed."""
    lay_out(looking)
    looking.zadd("{dt}:lives", {"clerk": 9e15})
    before = contents(looking)

    with pytest.raises(StoreRefused, match=r"nodes are joined.*: clerk;"):
        await upgrade_namespace(client)

    assert contents(looking) == before


async def test_a_node_that_joins_just_before_the_mark_stands_in_the_way(
    looking: Client, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark is taken away again, so that it goes on undisturbed."""
    lay_out(looking)
    call = Pool.call

    async def late(self: Pool, operation: str, *args: Any, **options: Any) -> Any:
        if b"EVAL" in args[0][:40]:
            # The script that marks it comes after the first look for nodes.
            looking.zadd("{dt}:lives", {"clerk": 9e15})
        return await call(self, operation, *args, **options)

    monkeypatch.setattr(Pool, "call", late)
    with pytest.raises(StoreRefused, match=r"nodes are joined.*: clerk;"):
        await upgrade_namespace(client)

    assert looking.hget("{dt}:meta", "schema") == b"1"


async def test_all_partitions_are_upgraded_and_those_that_nothing_has_used_are_made(
    looking: Client, client: Redis
) -> None:
    """Lest a client of the earlier version makes them; those that went out of use are to refuse clients as before."""
    for prefix in ("{dt}:", "{dt:2}:", "{dt:9}:"):
        lay_out(looking, prefix)
        looking.hset(prefix + "meta", "partitions", "4")

    assert (await upgrade_namespace(client)).dead_letters == 3 * DEAD

    schemas = {place: looking.hget(f"{{dt:{place}}}:meta" if place else "{dt}:meta", "schema") for place in range(12)}
    assert {place for place, schema in schemas.items() if schema == b"2"} == {0, 1, 2, 3, 9}
    async with RedisBackend(client, partitions=4) as backend:
        assert (await backend.inspect()).value.dead_letters == 0, "they are older than 30 days by this server's clock"
        assert (await backend.inspect()).value.live > 0


async def test_a_user_with_the_rights_of_the_guide_can_upgrade(looking: Client, server: Server) -> None:
    lay_out(looking, "{shop}:")
    rights = [*rights_of_the_guide(), *more_rights("`dtimer upgrade`, which looks for all partitions")]
    looking.execute_command("ACL", "SETUSER", "shop", *rights)
    try:
        async with Redis(host=server.host, port=server.port, username="shop", password="password") as user:
            assert (await upgrade_namespace(user, "shop")).dead_letters == DEAD
    finally:
        looking.execute_command("ACL", "DELUSER", "shop")


@pytest.mark.parametrize(
    ("schema", "said"),
    [("3", "upgrade dtimer"), ("2>3", "upgrade dtimer"), ("0", "cannot"), ("x\x1b[2J", "cannot"), ("", "cannot")],
)
async def test_what_is_no_earlier_schema_is_left_alone(looking: Client, client: Redis, schema: str, said: str) -> None:
    lay_out(looking)
    looking.hset("{dt}:meta", "schema", schema)
    before = contents(looking)

    with pytest.raises(SchemaMismatch, match=said) as caught:
        await upgrade_namespace(client)

    assert str(caught.value).isprintable()
    assert contents(looking) == before


async def test_what_is_not_there_or_has_been_upgraded_is_left_alone(looking: Client, client: Redis) -> None:
    assert await upgrade_namespace(client) == Upgraded(None)
    assert not looking.keys()

    lay_out(looking)
    await upgrade_namespace(client)
    # Nor are its nodes in the way.
    looking.zadd("{dt}:lives", {"clerk": 9e15})
    after = contents(looking)
    assert await upgrade_namespace(client) == Upgraded("2")
    assert contents(looking) == after


FOREIGN_STATES: tuple[bytes, ...] = (
    b"",
    bytes(range(256)),
    b"9" * 400 + b" 1 0 - -",
    b"1 1 0 - " + b"9" * 400,
    b"1 1 0 - -5",
    b"1 1 0 - 1-1",
    b"1 1 0 \xff\xfe -",
    b"x" * 9_000_000,
)
FOREIGN_LETTERS: tuple[bytes, ...] = (
    b"",
    bytes(range(256)),
    b"1 murdered 1 0\n1\n1",
    b"1 buried 1 9000000\n1\n1",
    b"1 buried " + b"9" * 400 + b" 0\n1\n1",
    b"1 unreadable 0 0\n" + b"9" * 9_000_000,
)


async def test_no_foreign_record_hinders_the_upgrade_or_the_node_after_it(looking: Client, client: Redis) -> None:
    """What dtimer did not write is set aside afterwards, as ever (rule F4)."""
    now = looking.time()[0] * 1_000_000
    looking.hset("{dt}:meta", mapping={"schema": "1", "epoch": "e", "counts": "1 1 0 0 0", "arm": ""})
    for number, state in enumerate(FOREIGN_STATES):
        looking.hset("{dt}:states", f"odd-{number}", state)
        looking.hset("{dt}:records", f"odd-{number}", b"1 r3 x1000\n1")
        looking.execute_command("ZADD", "{dt}:queue", ["1", "inf", "-inf"][number % 3], f"odd-{number}")
    for number, letter in enumerate(FOREIGN_LETTERS):
        looking.hset("{dt}:letters", f"odd-{number}", letter)
        looking.execute_command("ZADD", "{dt}:buried", str(now), f"odd-{number}")
    for score in ("inf", "-inf", "1e300"):
        looking.hset("{dt}:letters", f"at {score}", b"1 buried 1 0\n1 r3\n1")
        looking.execute_command("ZADD", "{dt}:buried", score, f"at {score}")
    looking.execute_command("ZADD", "{dt}:buried", "inf", b"\xff", "-inf", b"x" * 100_000, "1.5", "")
    looking.hset("{dt}:records", "good", b"1 r3\n1")
    looking.hset("{dt}:states", "good", b"1 1 0 - -    ")
    looking.zadd("{dt}:queue", {"good": 2})

    await upgrade_namespace(client)
    for number in (2, 3):  # too many digits
        assert looking.hget("{dt}:states", f"odd-{number}") == FOREIGN_STATES[number]

    taken: dict[str, Event] = {}
    async with RedisBackend(client) as backend:
        timer: DTimer = DTimer(backend)
        timer.on("event", lambda event: taken.setdefault(event.id, event))
        async with timer:
            await until(lambda: "good" in taken)
            assert taken["good"].num_retries == 1
            letters = await timer.dead_letters()
    assert {f"odd-{number}" for number in range(len(FOREIGN_LETTERS))} <= {letter.id for letter in letters}
