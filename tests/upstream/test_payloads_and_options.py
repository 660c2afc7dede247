"""What may be posted and how it comes out, and what is no option."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dtimer import (
    ConfirmOutcome,
    DTimer,
    Event,
    HandlerFailed,
    InvalidArgument,
    JsonValue,
    PayloadNotEncodable,
    PayloadRefused,
    Post,
)
from support.worlds import Node, World

CONFIRM_TIMEOUT_S = 0.15


class Raw:
    """The codec of somebody who posts bytes that he made himself."""

    def encode(self, payload: bytes) -> bytes:
        return payload

    def decode(self, data: bytes) -> bytes:
        return data


async def given(node: Node, world: World, count: int) -> list[Any]:
    """The payloads of the first so many deliveries."""
    await world.until(lambda: len(node.events) >= count)
    return [event.payload for event in node.events]


@pytest.mark.parametrize("payload", ["x", 3, None, {}, {"id": 5, "maxRetries": "1", "__proto__": 1}, [], [1, 2], False])
async def test_any_json_is_a_payload(world: World, payload: JsonValue) -> None:
    """What the original dtimer 0.3.3 did: other things than objects were thrown at (P31), and an array destroyed what
    was due with it (P32), as ids and retries were fields of the payload. They are parameters here."""
    node = await world.node()
    await node.timer.post_many([Post(payload=payload, delay=0), Post(payload="next", delay=0)])

    assert await given(node, world, 2) == [payload, "next"]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("id", 5),
        ("id", ""),
        ("max_retries", "1"),
        ("max_retries", math.nan),
        ("max_retries", None),
        ("max_retries", -1),
        ("max_retries", 1.5),
    ],
)
async def test_what_is_no_option_is_refused_and_leaves_nothing(world: World, argument: str, value: Any) -> None:
    """What the original dtimer 0.3.3 did (P31): it threw at most of these, but accepted -1 and 1.5 retries."""
    with pytest.raises(InvalidArgument, match=argument):
        await world.timer().post("p", 0, **{argument: value})

    assert await world.nothing_is_kept()


@pytest.mark.parametrize("id", ["__proto__", "hasOwnProperty", "{dt}:queue", "a b\n\0c", "é" * 256])
async def test_any_text_is_an_id(world: World, id: str) -> None:
    """What the original dtimer 0.3.3 did (P31), as here: it accepted ``__proto__``."""
    node = await world.node()
    await node.timer.post("p", 0, id=id, max_retries=1)
    await world.until(lambda: node.events)

    assert node.ids == [id]
    assert await node.timer.confirm(id) is ConfirmOutcome.CONFIRMED


async def test_one_bad_payload_costs_its_neighbours_nothing(world: World) -> None:
    """What the original dtimer 0.3.3 did (P33): of four events due together, with bad ones among them, none came, one
    was lost for good and three were kept for ever; the node said nothing."""
    posted: DTimer[bytes] = DTimer(world.backend(), codec=Raw())
    await posted.post_many(
        [
            Post(payload=b'"p0"', delay=0, id="p0"),
            Post(payload=b"{", delay=0, id="p1"),
            Post(payload=b'"p2"', delay=0, id="p2", max_retries=1),
            Post(payload=b"\xff", delay=0, id="p3"),
        ]
    )
    node = await world.node()

    assert await given(node, world, 2) == ["p0", "p2"]
    assert node.error_types() == [PayloadRefused, PayloadRefused]
    assert {error.id for error in node.errors if isinstance(error, PayloadRefused)} == {"p1", "p3"}
    assert await node.events[1].confirm()
    assert await world.nothing_is_kept()


EXACT: dict[str, JsonValue] = {
    "empty": [],
    "nested": [[], [1]],
    "large": 9007199254740991,
    "larger": 2**70,
    "sum": 0.30000000000000004,
    "pi": 3.141592653589793,
    "z": 1,
    "a": None,
}


async def test_a_payload_comes_out_of_a_retry_as_it_went_in(world: World) -> None:
    """What the original dtimer 0.3.3 did (P34): ``[]`` came back as ``{}``, numbers lost digits, keys their order."""
    node = await world.node(confirm_timeout=CONFIRM_TIMEOUT_S)
    await node.timer.post(EXACT, 0, max_retries=1)

    first, second = await given(node, world, 2)

    assert first == second == EXACT
    assert list(second) == list(EXACT)


async def test_every_byte_comes_out_of_a_retry_as_it_went_in(world: World) -> None:
    """What the original dtimer 0.3.3 did (P34): its store parsed payloads. Here none does."""
    payload = bytes(range(256)) + b"\r\n$-1\r\n"
    timer: DTimer[bytes] = DTimer(world.backend(), codec=Raw(), confirm_timeout=CONFIRM_TIMEOUT_S)
    seen: list[bytes] = []
    timer.on("event", lambda event: seen.append(event.payload))
    async with timer:
        await timer.post(payload, 0, max_retries=1)
        await world.until(lambda: len(seen) == 2)

    assert seen == [payload, payload]


def nest(depth: int) -> JsonValue:
    value: JsonValue = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [500, 1_100, 100_000])
async def test_a_deep_payload_is_delivered_or_refused(world: World, depth: int) -> None:
    """What the original dtimer 0.3.3 did (P35): at a depth of 1,100 it was accepted, and dropped unsaid when due."""
    node = await world.node()
    try:
        await node.timer.post(nest(depth), 0)
    except PayloadNotEncodable:
        assert depth > 500
    else:
        await world.until(lambda: node.events or node.errors)
    assert await world.nothing_is_kept()


async def test_a_store_does_not_care_how_deep_a_payload_is(world: World) -> None:
    """What the original dtimer 0.3.3 did (P35): its store parsed payloads, and dropped what was too deep for it."""
    payload = b"[" * 100_000
    timer: DTimer[bytes] = DTimer(world.backend(), codec=Raw())
    seen: list[bytes] = []
    timer.on("event", lambda event: seen.append(event.payload))
    async with timer:
        await timer.post(payload, 0)
        await world.until(lambda: seen)

    assert seen == [payload]


async def test_a_payload_of_8_mib_is_delivered(world: World) -> None:
    """What the original dtimer 0.3.3 did (P36), as here, where so much has to be asked for."""
    payload = "x" * (8 << 20)
    node = await world.node(payload_max_bytes=9 << 20)
    await node.timer.post(payload, 0)

    assert await given(node, world, 1) == [payload]


async def test_a_handler_that_raises_costs_the_others_of_its_batch_nothing(world: World) -> None:
    """What the original dtimer 0.3.3 did (P37): the handlers of the others never ran, and their events were lost."""
    done: list[JsonValue] = []

    def handle(event: Event) -> None:
        if event.payload == 0:
            raise ValueError("boom")
        done.append(event.payload)

    node = await world.node(handler=handle)
    await node.timer.post_many(Post(payload=number, delay=0) for number in range(3))
    await node.timer.post(3, 50)
    await world.until(lambda: len(done) == 3)

    assert done == [1, 2, 3]
    (error,) = node.errors
    assert isinstance(error, HandlerFailed)
    assert isinstance(error.__cause__, ValueError)


@pytest.mark.parametrize("value", [0, -4])
async def test_no_room_at_all_means_the_rooms_first_size(world: World, value: int) -> None:
    """What the original dtimer 0.3.3 did (P38), as here: 0 or less restored what the constructor was given."""
    timer = world.timer(max_events=5)
    timer.max_events = 3
    timer.max_events = value

    assert timer.max_events == 5


@pytest.mark.parametrize("value", ["5", 2.5, math.nan, None])
async def test_what_is_no_number_of_events_is_refused_when_it_is_set(world: World, value: Any) -> None:
    """What the original dtimer 0.3.3 did (P38): it accepted 2.5, and from then on delivered nothing, without a word."""
    node = await world.node()
    with pytest.raises(InvalidArgument, match="max_events"):
        node.timer.max_events = value
    await node.timer.post("p", 0)

    assert await given(node, world, 1) == ["p"]


async def test_joining_and_leaving_may_be_repeated(world: World) -> None:
    """What the original dtimer 0.3.3 did (P39), as here: one membership for two joins; leaving is always allowed."""
    timer = world.timer("n")
    await timer.leave()
    await timer.join()
    await timer.join()
    assert [member.node for member in (await world.inspect()).ring] == ["n"]

    await timer.leave()
    await timer.leave()

    assert not (await world.inspect()).ring


async def test_posting_needs_nothing_before_it(world: World) -> None:
    """What the original dtimer 0.3.3 did (P39), as here: posting worked straight after the constructor."""
    await world.timer().post("p", 0, id="e")
    node = await world.node()

    assert await given(node, world, 1) == ["p"]
