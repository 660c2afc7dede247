"""No record harms a neighbour, whatever its bytes and those of its state: every pair of odd ones, on a real server."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest
from redis import Redis as Client

from dtimer import DTimer, Ended, Event, Failure, LastError, NodeDisturbed, Post, RecordUnreadable
from dtimer.limits import BATCH_MAX_BYTES, EVENT_MAX_BYTES, UNREADABLE_SHOWN_BYTES
from support.servers import Server
from support.waiting import TIMEOUT_S
from support.worlds import NAMESPACE, RedisWorld, without_blocks

pytestmark = [pytest.mark.once, pytest.mark.any_server]

PREFIX: Final = f"{{{NAMESPACE}}}:"
DEEP: Final = 200_000
TOO_LARGE: Final = EVENT_MAX_BYTES + 2_000

RECORDS: dict[str, bytes | None] = {
    "none": None,
    "empty": b"",
    "binary": bytes(range(256)),
    "plain": b"1\n1",
    "deep headers": b"1 r1 h%d\n" % DEEP + b"[" * DEEP + b"1",
    "deep headers of an object": b"1 r1 h%d\n" % (6 * DEEP) + b'{"a":' * DEEP + b" " * DEEP + b"1",
    "headers that are no text": b"1 r1 h2\n\xff\xfe1",
    "headers that are a number": b"1 r1 h1\n11",
    "headers of a surrogate": b'1 r1 h14\n{"a":"\\ud800"}1',
    "headers with a long number": b"1 r1 h9000\n" + b"9" * 9_000 + b"1",
    "deep payload": b"1 r1\n" + b"[" * DEEP,
    "payload that is no text": b"1 r1\n\xff\xfe",
    "payload with a long number": b"1 r1\n" + b"9" * 9_000,
    "payload that is no number": b"1 r1\nNaN",
    "no payload": b"1 r1\n",
    "most retries": b"1 r9999999999999999\n1",
    "longest timeout": b"1 r1 c9999999999999999\n1",
    "no timeout": b"1 r1 c0\n1",
    "expires late": b"1 r1 x9999999999999999\n1",
    "expires at once": b"1 r1 x0\n1",
    "expires, untracked": b"1 x0\n1",
    "kept": b"1 k\n1",
    "kept, with a value": b"1 kept\n1",
    "endless factor": b"1 r5 p1,1e999,1\n1",
    "factor below 1": b"1 r5 p1000,-5,1\n1",
    "large factor": b"1 r5 p1000,1e308,1000\n1",
    "factor that is no number": b"1 r5 p1,1e,1\n1",
    "factor of two points": b"1 r5 p1,1.2.3,1\n1",
    "long delay": b"1 r5 p" + b"9" * 100 + b",2.0,1\n1",
    "long maximum": b"1 r5 p1,2.0," + b"9" * 100 + b"\n1",
    "nonce of other characters": b"1 r1 n~!@#$%^&*()\n1",
    "long nonce": b"1 r1 n" + b"x" * 400 + b"\n1",
    "fields twice": b"1 r1 r2 h0 h1 h0\n1",
    "fields in another alphabet": "1 r1 \u00e9\n1".encode(),
    "numbers of another alphabet": "1 r\u0661\n1".encode(),
    "spaces": b"1  r1  \n1",
    "a tab": b"1\tr1\n1",
    "large": b"1 r1\n" + b"1" * (1 << 20),
    "larger than a reply's bytes": b"1 r1\n" + b"1" * (BATCH_MAX_BYTES + 1),
    "unreadable and large": b"9" * (BATCH_MAX_BYTES + 1),
}

STATES: dict[str, bytes | None] = {
    "none": None,
    "of schema 1": b"1 1 0 nonce -",
    "exhausted": b"3 3 0 - n 1",
    "exhausted for sure": b"9 99999999999999999 0 - n 1",
    "unconfirmed": b"1 1 0 nonce n 1",
    "given back": b"1 0 0 - n 1",
    "due late": b"1 1 0 - n 99999999999999999999",
    "due at nan": b"1 0 0 - n nan",
    "due in hex": b"1 0 0 - n 0x10",
    "due before": b"1 0 0 - n -5",
    "due at a half": b"1 0 0 - n 1.5",
    "node that is no text": b"1 0 0 - \xff 1",
    "node of no name": b"1 0 0 - a:b 1",
    "long node": b"1 0 0 - " + b"n" * 1_000 + b" 1",
    "high number": b"99999999999999999999 0 0 - n 1",
    "long number": b"9" * 400 + b" 0 0 - n 1",
    "refusals": b"5 0 5,1,1 - n 1",
    "high refusals": b"1 0 99999999999999999999,99999999999999999999,99999999999999999999 - n 1",
    "refusals that are none": b"1 0 7 - n 1",
    "refusals of commas": b"1 0 ,,, - n 1",
    "nonce that is no text": b"1 0 0 \xff\xfe n 1",
    "error": b"1 1 0 - n 1\n1 1 n 1\nEx",
    "error that is garbage": b"1 1 0 nonce n 1\n\xff",
    "error of nobody": b"1 1 0 nonce n 1\n1 1 \xff 1\nEx",
    "error of too many digits": b"1 1 0 - n 1\n" + b"9" * 400 + b" 1 n 1\nEx",
    "long error": b"1 1 0 - n 1\n1 1 n 1\n" + b"x" * 9_000_000,
    "more behind it": b"1 1 0 - n 1 more",
    "garbage": b"garbage",
    "binary": bytes(range(256)),
    "empty": b"",
    "padded": b"1 0 0 - n      1",
}


@pytest.fixture
async def world(server: Server) -> AsyncIterator[RedisWorld]:
    # A busy host needs longer than the usual limit for a reply of 64 MiB, and a claim is not repeated.
    async with RedisWorld(server, request_timeout=TIMEOUT_S) as world:
        yield world


@pytest.fixture
def stranger(server: Server) -> Iterator[Client]:
    with server.client() as client:
        yield client


def looked_at(event: Event | Ended) -> list[object]:
    """All that a handler can ask for."""
    return [
        getattr(event, name) for name in dir(event) if not name.startswith("_") and not callable(getattr(event, name))
    ]


class Nodes:
    """A node that looks at all that it is given, and what it was told."""

    def __init__(self, world: RedisWorld) -> None:
        self.timer = world.timer("n", max_events=512, confirm_timeout=0.2)
        self.ids: list[str] = []
        self.errors: list[Exception] = []
        self.timer.on("event", self._take)
        self.timer.on("ended", looked_at)
        self.timer.on("error", without_blocks(self.errors.append))

    async def _take(self, event: Event) -> None:
        self.ids.append(event.id)
        looked_at(event)
        if event.id.startswith("fails"):
            raise RuntimeError
        await event.confirm()


def plant(stranger: Client, id: str | bytes, record: bytes | None, state: bytes | None, score: float = 1) -> None:
    if record is not None:
        stranger.hset(PREFIX + "records", id, record)
    if state is not None:
        stranger.hset(PREFIX + "states", id, state)
    stranger.execute_command("ZADD", PREFIX + "queue", score, id)


async def all_is_well(world: RedisWorld, node: Nodes, neighbours: set[str]) -> None:
    """They came, once, and the node goes on; and people can look."""
    await world.until(lambda: neighbours <= set(node.ids))
    await node.timer.post(1, 0, id="later")
    await world.until(lambda: "later" in node.ids)
    assert not [error for error in node.errors if isinstance(error, NodeDisturbed)]
    # One that requires a confirm comes again if so much is to be looked at that its confirm is late.
    assert all(node.ids.count(id) == 1 for id in neighbours - {"t"})
    assert all(entry.id for entry in await node.timer.upcoming())
    assert all(letter.id for letter in await node.timer.dead_letters())
    await node.timer.peek("0")
    await world.inspect()


@pytest.mark.parametrize("record", RECORDS)
async def test_no_record_harms_a_neighbour(world: RedisWorld, stranger: Client, record: str) -> None:
    """With every state: in one claim with events that are at most once, which would be lost if anything were raised."""
    node = Nodes(world)
    await node.timer.post_many([Post(payload=1, delay=0, id="u"), Post(payload=2, delay=0, id="t", max_retries=1)])
    large = len(RECORDS[record] or b"") > 1 << 19
    states = ["none", "exhausted", "garbage"] if large else [*STATES]
    for number, state in enumerate(states):
        plant(stranger, str(number), RECORDS[record], STATES[state])
        plant(stranger, f"fails {number}", RECORDS[record], STATES[state])
    await node.timer.join()

    await all_is_well(world, node, {"u", "t"})


@pytest.mark.parametrize("record", [b"1\n" + b"1" * TOO_LARGE, b"9" * TOO_LARGE], ids=["event", "unreadable"])
async def test_a_record_that_no_reply_can_hold_is_set_aside(world: RedisWorld, stranger: Client, record: bytes) -> None:
    """Its beginning is told; the whole of it is in the store."""
    node = Nodes(world)
    await node.timer.post(1, 0, id="u")
    plant(stranger, "large", record, None)
    assert await node.timer.peek("large") is None
    await node.timer.upcoming()
    await node.timer.join()

    await all_is_well(world, node, {"u"})
    (error,) = node.errors
    assert isinstance(error, RecordUnreadable)
    assert error.record.raw == record[:UNREADABLE_SHOWN_BYTES]
    (letter,) = await node.timer.dead_letters()
    assert letter.payload_bytes == record[:UNREADABLE_SHOWN_BYTES]
    assert stranger.hstrlen(PREFIX + "letters", "large") > TOO_LARGE


@pytest.mark.parametrize(
    "id",
    [b"\xff\xfe", b"a b", b"\n1 2 3", b"x" * 600, b"x" * (BATCH_MAX_BYTES // 2), b"\x1b[2J"],
    ids=["no text", "a space", "a line's end", "long", "very long", "control"],
)
@pytest.mark.parametrize("record", [b"1\n1", b"1 r1 k\n1", b"garbage"])
@pytest.mark.parametrize("state", [None, b"3 3 0 - n 1"])
async def test_no_id_harms_a_neighbour(
    world: RedisWorld, stranger: Client, id: bytes, record: bytes, state: bytes | None
) -> None:
    """Many of them are in one reply."""
    node = Nodes(world)
    await node.timer.post_many([Post(payload=1, delay=0, id="u"), Post(payload=2, delay=0, id="t", max_retries=1)])
    for number in range(6 if len(id) > 1_000 else 24):
        plant(stranger, id + b"%d" % number, record, state)
        plant(stranger, id + b"%d never" % number, record, None, 9e15)
    await node.timer.join()

    await all_is_well(world, node, {"u", "t"})


@pytest.mark.parametrize("seed", range(8))
async def test_no_header_that_the_scripts_take_is_too_odd_for_a_node(
    world: RedisWorld, stranger: Client, seed: int
) -> None:
    """What the scripts hand out a node must be able to read (rule F4): both read the same fields."""
    chance = random.Random(seed)
    node = Nodes(world)
    await node.timer.post(1, 0, id="u")
    letters = " rcxhkpnz0123456789,.e+-_"
    for number in range(200):
        line = "1" + "".join(
            f" {chance.choice('rcxhkpnz')}{''.join(chance.choices(letters, k=chance.randrange(8)))}"
            for _ in range(chance.randrange(4))
        )
        plant(stranger, f"{'fails' if number % 2 else ''} {number}", line.encode() + b"\n{}1", None)
    await node.timer.join()

    await all_is_well(world, node, {"u"})


LETTERS: dict[str, bytes] = {
    "empty": b"",
    "garbage": bytes(range(256)),
    "no reason": b"1 murdered 1 0 1 1 0\n1\n1",
    "of schema 1": b"1 buried 1 0\n1\n1",
    "long detail": b"1 buried 1 9000000 1 1 0\n" + b"x" * 9_000_000 + b"1\n1",
    "more detail than there is": b"1 buried 1 99999999 1 1 0\nx1\n1",
    "long numbers": b"9" * 400 + b" buried " + b"9" * 400 + b" 0 1 1 0\n1\n1",
    "more long numbers": b"1 buried 1 0 " + b"9" * 400 + b" " + b"9" * 400 + b" 0\n1\n1",
    "detail of an unreadable one": b"1 unreadable 0 9000000 1 1 0\n" + b"x" * 9_000_000,
    "unreadable and large": b"1 unreadable 0 0 1 1 0\n" + b"9" * (BATCH_MAX_BYTES + 1),
    "unreadable of too many digits": b"1 unreadable 0 " + b"9" * 5_000 + b" 1 1 0\nx",
    "detail that is no text": b"1 buried 1 2 1 1 0\n\xff\xfe1\n1",
    "deep headers": b"1 buried 1 0 1 1 0\n1 h%d\n" % DEEP + b"[" * DEEP + b"1",
    "time that is no number": b"x buried 1 0 1 1 0\n1\n1",
    "garbage for an error": b"1 buried 1 0 1 1 7\ngarbage1\n1",
    "error that is no text": b"1 buried 1 0 1 1 10\n1 1 n 1\n\xff\xfe1\n1",
    "error of a strange node": b"1 buried 1 0 1 1 9\n1 1 \xff 0\n1\n1",
    "error of too many digits": b"1 buried 1 0 1 1 308\n" + b"9" * 300 + b" 1 n 0\n1\n1",
    "error that is longer than all": b"1 buried 1 0 1 1 4000\n1 1 n 9\nx1\n1",
    "long error": b"1 buried 1 0 1 1 9000000\n" + b"x" * 9_000_000 + b"1\n1",
}


async def test_no_dead_letter_hides_another(world: RedisWorld, stranger: Client) -> None:
    """All of them in one list, which shows each in its place, or at least the others."""
    timer: DTimer = world.timer()
    now = stranger.time()[0] * 1_000_000
    for number, written in enumerate(LETTERS.values()):
        stranger.hset(PREFIX + "letters", f"odd {number}", written)
        stranger.zadd(PREFIX + "buried", {f"odd {number}": now + number})
    stranger.hset(PREFIX + "letters", "good", b"1 buried 1 3 1 1 10\nwhy1 1 n 1\nEx1\n1")
    stranger.zadd(PREFIX + "buried", {b"good": now + 1_000, b"long" * 300: now + 500, b"\xff": now + 501})
    letters = await timer.dead_letters()

    assert letters[-1].id == "good"
    assert letters[-1].detail == "why"
    assert letters[-1].last_error == LastError(delivery_number=1, node="n", at_us=1, failure=Failure("E", "x"))
    for letter in letters:
        _ = (letter.payload_bytes, letter.detail, letter.buried_at, letter.reason, letter.due, letter.headers)
        _ = (letter.last_error, letter.failed_at, letter.delivery_number)
    assert {f"odd {number}" for number in range(len(LETTERS))} < {letter.id for letter in letters}
    for number in range(len(LETTERS)):
        assert await timer.discard(f"odd {number}")


MEMBERS: dict[bytes, str | bytes] = {
    b"a b": "1-a 1 -",
    b"c": b"\xff\xfe 1 -",
    b"\xff\xfe": "1-a 2 -",
    b"long" * 100_000: "1-a 3 -",
    b"d": "1" * 1_000_000 + " 4 -",
    b"e": "1-a 99999999999999999999 -",
    b"f": "1-a 5 strange",
    b"g\x1b[2J": "1-a 6 -",
    b"h": "",
    b"i": "1-a -5 -",
    b"j\n1 2 3": "1-a 7 -",
}


async def test_no_member_harms_another(world: RedisWorld, stranger: Client) -> None:
    """They are asked to come in vain, and passed over."""
    node = Nodes(world)
    await node.timer.join()
    for number, (name, info) in enumerate(MEMBERS.items()):
        stranger.hset(PREFIX + "nodes", name, info)
        stranger.zadd(PREFIX + "ring", {name: number})
        stranger.zadd(PREFIX + "lives", {name: "+inf"})
    for number in range(40):
        await node.timer.post(1, 0, id=f"x{number}")

    await all_is_well(world, node, {f"x{number}" for number in range(40)})
    assert "n" in {member.node for member in (await world.inspect()).ring}
