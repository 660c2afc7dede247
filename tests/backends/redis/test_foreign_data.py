"""What others write into a namespace, or say on its channels: reported, and nobody else's loss (F4, F5, F7, O1)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from redis import Redis as Client
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from dtimer import (
    BackendError,
    CancelOutcome,
    ConfirmOutcome,
    DeadEvent,
    DTimer,
    EndReason,
    Event,
    JsonValue,
    Known,
    MalformedWakeup,
    NodeFenced,
    Post,
    RecordUnreadable,
    SchemaMismatch,
    StoreCorrupt,
    StoreFull,
)
from dtimer.backends.redis import RedisBackend
from dtimer.limits import SECOND_US
from dtimer.protocol.values import (
    EVENT_FIELDS,
    After,
    EventData,
    FieldKind,
    LetterName,
    Member,
    NewEvent,
    Release,
)
from support.servers import Server, StartServer
from support.waiting import TIMEOUT_S, until
from support.worlds import NAMESPACE, Node, RedisWorld

pytestmark = pytest.mark.once

PREFIX = f"{{{NAMESPACE}}}:"
QUEUE, RECORDS, STATES = PREFIX + "queue", PREFIX + "records", PREFIX + "states"
CALLS_PER_S_MAX = 40
"""Of one node after something odd; a busy loop makes thousands."""


@pytest.fixture
async def world(server: Server) -> AsyncIterator[RedisWorld]:
    async with RedisWorld(server) as world:
        yield world


@pytest.fixture
def stranger(server: Server) -> Iterator[Client]:
    """Somebody who has a client of the same server."""
    with server.client() as client:
        yield client


async def calls_per_s(server: Server) -> float:
    before, started = server.num_calls("evalsha"), time.monotonic()
    await asyncio.sleep(0.2)
    return (server.num_calls("evalsha") - before) / (time.monotonic() - started)


# --- records -----------------------------------------------------------------------------------------------------

UNREADABLE: dict[str, bytes | None] = {
    "none": None,
    "empty": b"",
    "garbage": b"\x00\xff\x80garbage",
    "a newer major version": b"2 r1\npayload",
    "cut off in its fields": b"1 r",
    "no field ends it": b"1 r3 h12",
    "fewer headers than it says": b"1 h40\n{}",
    "a number that is none": b"1 rx\npayload",
    "a negative number": b"1 r-1\npayload",
    "a number that is too long": b"1 r99999999999999999999\npayload",
    "a retry policy that is none": b"1 r1 pbad\npayload",
    "a retry policy with one number": b"1 r1 p5\npayload",
    "bytes that are no text": b"1 z\xff\xfe\npayload",
    "a long first line": b"1 " + b"z " * 600 + b"\npayload",
} | {
    f"a spoilt {each.name}": b"1 r1 %b~\npayload" % each.letter.encode()
    for each in EVENT_FIELDS
    if each.kind is not FieldKind.FLAG
}
"""The scripts must refuse whatever a node could not read, so the last ones are of each field that has a value."""


@pytest.mark.parametrize("record", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_record_that_nobody_can_read_is_set_aside_and_reported(
    world: RedisWorld, stranger: Client, record: bytes | None
) -> None:
    """With its bytes; its neighbours of the same claim come as if it were not there (rule F4)."""
    timer = world.timer()
    await timer.post_many([Post(payload=1, delay=0, id="before", max_retries=1), Post(payload=2, delay=1, id="after")])
    if record is not None:
        stranger.hset(RECORDS, "bad", record)
    stranger.zadd(QUEUE, {"bad": 1})
    node = await world.node()
    await world.until(lambda: len(node.events) == 2)
    await node.timer.post(3, 0, id="later")
    await world.until(lambda: len(node.events) == 3)

    assert node.ids == ["before", "after", "later"]
    assert await node.events[0].confirm() is ConfirmOutcome.CONFIRMED
    (error,) = node.errors
    assert isinstance(error, RecordUnreadable)
    assert (error.record.id, error.record.raw) == ("bad", record or b"")
    (letter,) = await node.timer.dead_letters()
    assert (letter.id, letter.reason, letter.payload_bytes) == ("bad", EndReason.UNREADABLE, record or b"")
    assert (await world.inspect()).live == 0


async def test_a_state_that_nobody_can_read_is_set_aside_with_its_record(world: RedisWorld, stranger: Client) -> None:
    """How often it was delivered is unknown, so it is not delivered."""
    timer = world.timer()
    await timer.post_many([Post(payload=1, delay=0, id="bad"), Post(payload=2, delay=0, id="good")])
    stranger.hset(STATES, "bad", "garbage")
    node = await world.node()
    await world.until(lambda: node.events and node.errors)

    assert node.ids == ["good"]
    (letter,) = await timer.dead_letters()
    assert (letter.id, letter.payload_bytes.endswith(b"\n1")) == ("bad", True)


async def test_a_record_without_a_place_in_the_queue_harms_nobody(world: RedisWorld, stranger: Client) -> None:
    """It is no event; a post under its id makes one."""
    stranger.hset(RECORDS, "e", "garbage")
    stranger.hset(STATES, "e", "garbage")
    node = await world.node()

    assert await node.timer.peek("e") is None
    assert await node.timer.cancel("e") is CancelOutcome.NOT_FOUND
    await node.timer.post("p", 0, id="other")
    await world.until(lambda: node.events)
    assert node.ids == ["other"]
    assert not node.errors


async def test_fields_of_a_later_minor_version_are_kept(world: RedisWorld, stranger: Client) -> None:
    """They are none of ours to judge (rule F7)."""
    record = b'1 r1 yes z9,8\n"p"'
    stranger.hset(RECORDS, "e", record)
    stranger.zadd(QUEUE, {"e": 1})
    node = await world.node(confirm_timeout=0.1)
    await world.until(lambda: len(node.events) == 1)

    assert stranger.hget(RECORDS, "e") == record
    await world.until(lambda: node.ended)
    assert [event.payload for event in node.events] == ["p", "p"]
    assert not node.errors


async def test_an_unreadable_event_can_be_cancelled_and_replaced(world: RedisWorld, stranger: Client) -> None:
    """And the listing goes past it."""
    timer = world.timer()
    await timer.post("p", 60_000, id="good")
    for id in "ab":
        stranger.hset(RECORDS, id, "garbage")
        stranger.zadd(QUEUE, {id: 9e15})

    assert [entry.id for entry in await timer.upcoming()] == ["good"]
    assert await timer.cancel("a") is CancelOutcome.CANCELLED
    await timer.post("new", 50_000, id="b")
    assert [entry.id for entry in await timer.upcoming()] == ["b", "good"]


async def test_an_id_that_is_no_text_costs_its_neighbours_nothing(world: RedisWorld, stranger: Client) -> None:
    """A claim's reply holds them all: if that could not be read, all of them were lost."""
    timer = world.timer()
    await timer.post_many([Post(payload=1, delay=0, id="a"), Post(payload=2, delay=0, id="b", max_retries=1)])
    stranger.zadd(QUEUE, {b"\xff\xfe": 1})
    stranger.hset(RECORDS, b"\xfe\xff", b'1 r1\n"p"')
    stranger.zadd(QUEUE, {b"\xfe\xff": 2})
    node = await world.node()
    await world.until(lambda: {"a", "b"} <= set(node.ids))

    assert node.error_types() == [RecordUnreadable]
    for event in node.events:
        assert bool(await event.confirm()) == event.requires_confirm
    assert (await world.inspect()).live == 0
    assert len(await timer.dead_letters()) == 1


@pytest.mark.parametrize("score", ["+inf", "1e300", "9e15"])
async def test_an_event_that_is_never_due_makes_nobody_busy(
    world: RedisWorld, server: Server, stranger: Client, score: str
) -> None:
    """A time that no clock reaches is just later than all others."""
    node = await world.node()
    stranger.hset(RECORDS, "never", "1\n1")
    stranger.zadd(QUEUE, {"never": score})
    await node.timer.post("p", 50, id="e")
    await world.until(lambda: node.events)

    assert await calls_per_s(server) < CALLS_PER_S_MAX
    assert node.ids == ["e"]
    assert not node.errors
    assert await node.timer.peek("never") is not None
    assert await node.timer.cancel("never") is CancelOutcome.CANCELLED


async def test_an_event_from_before_all_time_is_delivered(world: RedisWorld, stranger: Client) -> None:
    """With a due time that can be shown."""
    stranger.hset(RECORDS, "ever", "1\n1")
    stranger.zadd(QUEUE, {"ever": "-inf"})
    node = await world.node()
    await world.until(lambda: node.events)

    assert node.ids == ["ever"]
    assert node.events[0].due <= node.events[0].delivered_at


@pytest.mark.parametrize("score", ["12345678901234.5", "-123456789012345", "9999999999999999"])
async def test_an_event_with_a_strange_score_of_sixteen_characters_comes_again(
    world: RedisWorld, stranger: Client, score: str
) -> None:
    """A score of that length is taken for the text of a due time only if it is one."""
    stranger.hset(RECORDS, "e", "1 r3\n1")
    stranger.zadd(QUEUE, {"e": score})
    node = await world.node(confirm_timeout=0.1)
    if float(score) > 1e15:  # it never comes by itself
        await node.timer.change_delay("e", 0)
    await world.until(lambda: len(node.events) > 1)

    assert [event.num_retries for event in node.events[:2]] == [0, 1]
    assert not node.errors


SCORES = ["inf", "-inf", "1e300", "-1e300", "9.1e15", "9e15", "-5", "0.5"]


@pytest.mark.parametrize("key", ["queue", "ring", "lives", "buried"])
async def test_a_score_is_always_a_number(world: RedisWorld, stranger: Client, key: str) -> None:
    """So that no script has to think of what compares with nothing."""
    await world.timer().post("p", 60_000)
    with pytest.raises(ResponseError, match="not a valid float"):
        stranger.execute_command("ZADD", PREFIX + key, "nan", "x")
    stranger.execute_command("ZADD", PREFIX + key, "inf", "x")
    with pytest.raises(ResponseError, match="NaN"):
        stranger.execute_command("ZINCRBY", PREFIX + key, "-inf", "x")


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("key", ["queue", "ring", "lives", "buried"])
async def test_no_score_that_others_write_stops_anything(
    world: RedisWorld, stranger: Client, key: str, score: str
) -> None:
    """Of a member of ours, and of one that is not: every call is answered, and neighbours come (rules F4, F5)."""

    async def bury(event: Event) -> None:
        if event.id == "mine":
            await event.bury("why")

    node = await world.node("n", bury)
    other = await world.node("m", bury)
    timer = node.timer
    await timer.post(1, 0, id="mine", dead_letter=True)
    await until(lambda: node.events or other.events)
    await timer.post_many(Post(payload=n, delay=60_000, id=f"later{n}", max_retries=1) for n in range(4))

    async def buried(payload: bytes) -> DeadEvent[JsonValue]:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                for letter in await timer.dead_letters():
                    if letter.payload_bytes == payload:
                        return letter

    await buried(b"1")
    known = {"queue": ["later0", "later1"], "ring": ["n"], "lives": ["n"], "buried": ["mine"]}[key]
    for member in [*known, "strange"]:
        stranger.execute_command("ZADD", PREFIX + key, score, member)

    await timer.peek("later0")
    await timer.peek("strange")
    await timer.change_delay("later0", 30_000)
    await timer.cancel("later0")
    shown = [entry.id for entry in await timer.upcoming()]
    await world.inspect()
    listed = [letter.id for letter in await timer.dead_letters()]
    # Buried once more, beside the letter that there is.
    await timer.post(2, 0, id="mine", dead_letter=True)
    await timer.post_many(Post(payload=n, delay=0, id=f"neighbour{n}") for n in range(8))
    await world.until(lambda: {f"neighbour{n}" for n in range(8)} <= {*node.ids, *other.ids})
    await world.until(lambda: [*node.ids, *other.ids].count("mine") == 2)
    newer = await buried(b"2")

    assert {"later2", "later3"} <= set(shown)
    kept = key != "buried" or float(score) > 1e15
    assert ("mine" in listed) is kept
    assert {letter.id for letter in await timer.dead_letters()} <= {"mine", "strange"}
    assert [letter.id for letter in await timer.dead_letters()].count("mine") == 1 + kept
    assert await timer.resend(newer)
    await timer.discard("mine")
    await timer.discard("strange")
    assert node.timer.joined
    assert other.timer.joined
    assert {*node.error_types(), *other.error_types()} <= {RecordUnreadable}


# --- keys of another type, another schema, no numbers ---------------------------------------------------------------

KEYS = {
    "meta": "hash",
    "queue": "zset",
    "records": "hash",
    "states": "hash",
    "ring": "zset",
    "nodes": "hash",
    "lives": "zset",
    "letters": "hash",
    "buried": "zset",
}


CALLS: dict[str, tuple[Callable[[DTimer], Awaitable[object]], set[str]]] = {
    "post": (lambda timer: timer.post("p", 60_000), {"meta", "queue", "records", "states", "ring", "nodes"}),
    "cancel": (lambda timer: timer.cancel("e"), {"meta", "queue", "records", "states", "ring", "nodes"}),
    "upcoming": (lambda timer: timer.upcoming(), {"meta", "queue", "records", "states"}),
    "join": (lambda timer: timer.join(), {"meta", "queue", "ring", "nodes", "lives"}),
    "confirm": (lambda timer: timer.confirm("e"), {"meta", "queue", "records", "states", "ring", "nodes"}),
    "dead letters": (lambda timer: timer.dead_letters(), {"meta", "letters", "buried"}),
}
"""Some of each kind, and the keys that they use."""


async def refused(timer: DTimer, kind: type[BackendError]) -> None:
    """Every kind of call is, and has done nothing."""
    for call, _ in CALLS.values():
        with pytest.raises(kind, match="not applied"):
            await call(timer)
    assert not timer.joined


def everything(client: Client) -> dict[bytes, object]:
    """What each key holds. No DUMP: the order in which it writes a large hash depends on how far it has grown."""
    return {bytes(key): content(client, bytes(key)) for key in client.scan_iter()}


def content(client: Client, key: bytes) -> object:
    match client.type(key):
        case b"hash":
            return client.hgetall(key)
        case b"zset":
            return client.zrange(key, 0, -1, withscores=True)
        case b"list":
            return client.lrange(key, 0, -1)
        case b"string":
            return client.get(key)
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("key", KEYS)
async def test_a_key_of_another_type_is_refused_by_the_calls_that_use_it(
    world: RedisWorld, stranger: Client, key: str, call: str
) -> None:
    """Before anything is written, as a script cannot be rolled back; and named (rule F5). Other calls go on."""
    timer = world.timer()
    await timer.post("p", 60_000, id="e")
    stranger.delete(PREFIX + key)
    stranger.lpush(PREFIX + key, "not yours")
    before = everything(stranger)
    called, keys = CALLS[call]

    if key in keys:
        with pytest.raises(StoreCorrupt, match=f"{key} is a list; it was not applied"):
            await called(timer)
        assert everything(stranger) == before
    else:
        await called(timer)
        await timer.leave()


async def test_a_node_outlives_a_key_of_another_type(world: RedisWorld, stranger: Client) -> None:
    """It says so, and goes on when that is over."""
    node = await world.node()
    stranger.delete(QUEUE)
    stranger.set(QUEUE, "not yours")
    await world.until(lambda: node.errors)
    stranger.delete(QUEUE)
    await node.timer.post("p", 0)
    await world.until(lambda: node.events)

    assert isinstance(node.errors[0].__cause__, StoreCorrupt)


@pytest.mark.parametrize("schema", ["1", "1.1", "3", "20", "", "x"])
async def test_another_major_schema_is_refused_by_every_call(world: RedisWorld, stranger: Client, schema: str) -> None:
    """Clearly, when joining and when posting (rule F7)."""
    timer = world.timer()
    await timer.post("p", 60_000, id="e")
    stranger.hset(PREFIX + "meta", "schema", schema)
    before = everything(stranger)

    await refused(timer, SchemaMismatch)

    assert everything(stranger) == before


async def test_another_minor_schema_is_ours(world: RedisWorld, stranger: Client) -> None:
    """What it adds does no harm (rule F7)."""
    timer = world.timer()
    await timer.post("p", 60_000, id="e")
    stranger.hset(PREFIX + "meta", "schema", "2.7")

    assert await timer.cancel("e") is CancelOutcome.CANCELLED
    assert stranger.hget(PREFIX + "meta", "schema") == b"2.7"


ODD = (b"", b"x", b"a b", b"-1", b"1e400", b"nan", b"9" * 400, b"\xff\xfe", b"\x1b[2J", b"1\n2", bytes(range(256)))


FIELDS = ("schema", "epoch", "counts", "arm", "joins", "partitions", "branch", "branches", "reset", "-", "other")


@pytest.mark.parametrize("field", FIELDS)
async def test_no_call_is_half_applied_whatever_the_fields_of_a_namespace_hold(
    world: RedisWorld, stranger: Client, field: str
) -> None:
    """It is refused and has changed nothing, or it is applied; and what it says can be printed (rule F5)."""
    timer = world.timer("n")
    await timer.post("p", 60_000, id="e")
    sound = stranger.hgetall(PREFIX + "meta").items()
    for text in ODD:
        for call, _ in CALLS.values():
            stranger.delete(PREFIX + "meta")
            for name, value in (*sound, (field, text)):
                stranger.hset(PREFIX + "meta", name, value)
            before = everything(stranger)
            error = await failure(call(timer))
            if error is None:
                await timer.leave()
            else:
                assert error.known is Known.NOT_APPLIED, (text, error)
                assert str(error).isprintable()
                assert everything(stranger) == before, (text, error)


async def failure(call: Awaitable[object]) -> BackendError | None:
    try:
        await call
    except BackendError as error:
        return error
    return None


NUMBERS = {"counts": ("seq", "last", "skew", "position", "dropped"), "arm": ("arm_due", "arm_at", "arm")}
"""The numbers of each field; `arm` is none, and comes last."""


@pytest.mark.parametrize("text", ["x", "", "nan", "-inf", "-1", "1e3", "9" * 40])
@pytest.mark.parametrize(
    ("field", "place"),
    [
        pytest.param(field, place, id=name)
        for field, names in NUMBERS.items()
        for place, name in enumerate(names)
        if name != "arm"
    ],
)
async def test_a_number_that_is_none_is_refused_by_every_call(
    world: RedisWorld, stranger: Client, field: str, place: int, text: str
) -> None:
    """To go on counting from it would ruin the rest."""
    timer = world.timer()
    await timer.post("p", 60_000, id="e")
    stranger.hset(PREFIX + "meta", "arm", "1 2 somebody")
    stored = stranger.hget(PREFIX + "meta", field)
    assert isinstance(stored, bytes)
    numbers = stored.decode().split(" ")
    numbers[place] = text
    stranger.hset(PREFIX + "meta", field, " ".join(numbers))
    before = everything(stranger)

    await refused(timer, StoreCorrupt)

    assert everything(stranger) == before


@pytest.mark.parametrize("field", [*NUMBERS, "epoch"])
async def test_a_missing_field_is_refused_by_every_call(world: RedisWorld, stranger: Client, field: str) -> None:
    """Likewise."""
    timer = world.timer()
    await timer.post("p", 60_000, id="e")
    stranger.hdel(PREFIX + "meta", field)

    await refused(timer, StoreCorrupt)


async def test_members_that_nobody_can_read_are_passed_over(world: RedisWorld, stranger: Client) -> None:
    """Of the ring, too: the next one is told to come, and an operator still gets to see the rest."""
    stranger.hset(PREFIX + "nodes", "bad", "garbage")
    stranger.zadd(PREFIX + "ring", {"bad": 0, "ghost": 0})
    node = await world.node("good")
    for number in range(2):
        await node.timer.post("p", 0)
        await world.taken(number + 1, node)

    assert "good" in [member.node for member in (await world.inspect()).ring]
    assert not node.errors


@pytest.mark.parametrize("entry", [b"\xff 3 -", b"[[[[ 3 -", b"Z 1 -", b"~ 1 full", b"", b"9", b"1 x -"])
async def test_a_strange_entry_of_a_node_does_not_stop_it(world: RedisWorld, stranger: Client, entry: bytes) -> None:
    """It joins again; only another join may fence it."""
    node = await world.node("a")
    stranger.hset(PREFIX + "nodes", "a", entry)
    await node.timer.post("p", 0, id="x")

    await until(lambda: node.events)

    assert node.timer.joined
    assert not [error for error in node.errors if isinstance(error, NodeFenced)]


async def test_a_dead_letter_that_nobody_can_read_hides_no_other(world: RedisWorld, stranger: Client) -> None:
    """It is shown with its bytes, and can be discarded."""
    node = await world.node(confirm_timeout=0.05)
    await node.timer.post("p", 0, id="mine", dead_letter=True)
    await world.until(lambda: node.ended)
    buried = float(stranger.zscore(PREFIX + "buried", "mine") or 0)
    for id, letter in {"bad": b"garbage", "none": None, "cut": b"1 exhausted 1 0\ngarbage"}.items():
        stranger.zadd(PREFIX + "buried", {id: buried - 1})
        if letter is not None:
            stranger.hset(PREFIX + "letters", id, letter)

    letters = {letter.id: letter for letter in await node.timer.dead_letters()}

    assert letters["mine"].payload == "p"
    assert letters["bad"].payload_bytes == b"garbage"
    assert {letters[id].reason for id in ("bad", "none", "cut")} == {EndReason.UNREADABLE}
    for id in ("bad", "none", "cut"):
        assert not await node.timer.resend(id)
        assert await node.timer.discard(id)
    assert [letter.id for letter in await node.timer.dead_letters()] == ["mine"]


# --- wake-ups ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def told(world: RedisWorld, stranger: Client, channel: str, *messages: bytes | str) -> AsyncIterator[Node]:
    """A node that has heard these from a stranger, while an event is due in 150 ms."""
    node = await world.node("n")
    epoch = (await world.backend().open()).epoch
    await node.timer.post("p", 150, id="e")
    for message in messages:
        assert stranger.publish(f"{PREFIX}{epoch}:{channel}", message) == 1
    yield node
    await world.until(lambda: node.events)
    assert node.ids == ["e"]
    assert node.events[0].lateness.total_seconds() < 2


@pytest.mark.parametrize("channel", ["n:n", "p"])
async def test_a_malformed_wakeup_is_reported_and_changes_nothing(
    world: RedisWorld, stranger: Client, channel: str
) -> None:
    """Whoever may publish may say anything."""
    async with told(world, stranger, channel, b"\xff\x00", "", "1 2 3", "9" * 100_000) as node:
        await world.until(lambda: len(node.errors) == 4)

        assert {type(error) for error in node.errors} == {MalformedWakeup}
        assert node.timer.counters.malformed_wakeups == 4
        assert max(len(error.raw) for error in node.errors if isinstance(error, MalformedWakeup)) <= 256


FORGED = {
    "long ago": "1 1 1 99999999999999999",
    "in the far future": "1 99999999999999999 1 99999999999999999",
    "of another time": "1 1 99999999999999999 0",
}


@pytest.mark.parametrize("message", FORGED.values(), ids=FORGED)
async def test_a_forged_wakeup_makes_nobody_busy(
    world: RedisWorld, server: Server, stranger: Client, message: str
) -> None:
    """It looks like ours, from a history that is not: the node may come in vain, once."""
    async with told(world, stranger, "n:n", message):
        assert await calls_per_s(server) < CALLS_PER_S_MAX


async def test_a_forged_pulse_costs_a_second_at_most(world: RedisWorld, stranger: Client) -> None:
    """It says that somebody looked; the armed node comes all the same."""
    async with told(world, stranger, "p", "1 n 99999999999999999 99999999999999999") as node:
        assert not node.errors


# --- a full server -------------------------------------------------------------------------------------------------


def fill(client: Client) -> None:
    """From now on it refuses whatever would add something."""
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)


def new(id: str, due_us: int = 0, **more: int) -> NewEvent:
    return NewEvent(EventData(id=id, payload=b"1", max_retries=more.get("max_retries", 0)), After(due_us))


async def test_a_full_server_takes_no_posts_and_all_of_a_call_or_nothing(private_server: StartServer) -> None:
    """Whoever posts is told so (rules P5 and F5)."""
    server = private_server()
    async with RedisBackend(Redis(port=server.port), NAMESPACE) as backend:
        await backend.post([new("e", 60 * SECOND_US)])
        with server.client() as client:
            before, seq = everything(client), (await backend.open()).seq
            fill(client)

            for events in ([new("f")], [new("e"), new("f")], [new(f"many-{n}") for n in range(500)]):
                with pytest.raises(StoreFull) as caught:
                    await backend.post(events)
                assert caught.value.safe_to_repeat

            assert everything(client) == before
            assert (await backend.open()).seq == seq


async def test_a_full_server_can_be_emptied(private_server: StartServer) -> None:
    """Claiming, confirming, cancelling, giving back, burying, leaving: what ends or takes events works (rule F5)."""
    server = private_server()
    member = Member("n", "1")
    async with RedisBackend(Redis(port=server.port), NAMESPACE) as backend:
        await backend.join(member)
        await backend.post([new(id, max_retries=2) for id in "abcdef"] + [new("untracked"), new("x", 60 * SECOND_US)])
        with server.client() as client:
            fill(client)

            claimed = (await backend.claim(member, room=9, confirm_timeout_us=SECOND_US, nonce="c")).value
            receipt = {delivery.receipt.id: delivery.receipt for delivery in claimed.deliveries}
            assert list(receipt) == [*"abcdef", "untracked"]
            assert (await backend.confirm([receipt["a"]])).value == (ConfirmOutcome.CONFIRMED,)
            assert (await backend.confirm_newest("b")).value is ConfirmOutcome.CONFIRMED
            assert (await backend.cancel(["c", "x"])).value == (CancelOutcome.STOPPED, CancelOutcome.CANCELLED)
            assert (await backend.release(receipt["d"], how=Release.COUNTED, delay_us=0)).value
            assert (await backend.bury(receipt["e"], detail="full")).value
            again = (
                await backend.claim(member, room=9, confirm_timeout_us=1, nonce="d", confirming=[receipt["f"]])
            ).value
            assert [delivery.event.id for delivery in again.deliveries] == ["d"]
            assert again.confirmed == (ConfirmOutcome.CONFIRMED,)
            assert (await backend.confirm([again.deliveries[0].receipt])).value == (ConfirmOutcome.CONFIRMED,)
            assert (await backend.discard([LetterName("e")])).value[0]
            assert (await backend.leave(member)).value
            assert (await backend.inspect()).value.live == 0


async def test_a_node_delivers_and_confirms_on_a_full_server(private_server: StartServer) -> None:
    """And says nothing, for nothing is wrong with it."""
    server = private_server()
    async with RedisWorld(server) as world:
        node = await world.node()
        await node.timer.post_many(Post(payload=n, delay=100, id=str(n), max_retries=1) for n in range(20))
        with server.client() as client:
            fill(client)
        for number in range(20):
            await world.taken(number + 1, node)
            assert await node.events[number].confirm() is ConfirmOutcome.CONFIRMED

        assert not node.errors
        assert await world.nothing_is_kept()
