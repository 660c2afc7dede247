"""The text around a payload, written and read."""

from __future__ import annotations

import pytest

from dtimer.backends.redis import RedisBackend
from dtimer.backends.redis.wire.values import read_record, write_record
from dtimer.limits import DELAY_MAX_US
from dtimer.protocol.values import EVENT_FIELDS, After, EventData, Member, NewEvent, RetryPolicy
from support.servers import Server

EVENTS = {
    "nothing asked for": EventData(id="e", payload=b""),
    "everything": EventData(
        id="é",
        payload=b"\x00\n\xff",
        headers=b'{"n":"h9"}',
        max_retries=3,
        confirm_timeout_us=1,
        expires_after_us=DELAY_MAX_US,
        dead_letter=True,
        retry=RetryPolicy(5, 1.5, 10**15),
        max_run_us=DELAY_MAX_US,
    ),
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
@pytest.mark.parametrize("wall", [False, True])
def test_what_is_written_is_read(event: EventData, wall: bool) -> None:
    assert read_record(event.id, write_record(event, wall=wall)) == event


BYTES = {
    ("nothing asked for", False): b"1\n",
    ("nothing asked for", True): b"1 w\n",
    ("everything", False): b"1 r3 c1 x%d k p5,1.5,1000000000000000 m%d h10\n" % (DELAY_MAX_US, DELAY_MAX_US)
    + b'{"n":"h9"}\x00\n\xff',
    ("everything", True): b"1 r3 c1 x%d k p5,1.5,1000000000000000 m%d h10 w\n" % (DELAY_MAX_US, DELAY_MAX_US)
    + b'{"n":"h9"}\x00\n\xff',
}


def test_every_field_is_tried_here() -> None:
    """A new one gets a value in `EVENTS`, so that its bytes are seen."""
    everything = EVENTS["everything"]

    assert [field.name for field in EVENT_FIELDS if getattr(everything, field.name) == field.default] == []


@pytest.mark.parametrize(("name", "wall"), BYTES)
def test_an_event_is_kept_as_ever(name: str, wall: bool) -> None:
    """Byte by byte: what another version of dtimer has written is read by this one, and the reverse."""
    assert write_record(EVENTS[name], wall=wall) == BYTES[name, wall]


@pytest.mark.parametrize("header", [b"1 n", b"1 n0123456789abcdef", b"1 r3 nx h2", b"1 r3 h2 zoo", b"1 r3 m7 h2"])
async def test_fields_that_are_not_known_are_kept_and_ignored(server: Server, header: bytes) -> None:
    """F7. Earlier versions wrote one, ``n``, the nonce of the post."""
    record = header + b"\n[]p"
    async with RedisBackend.from_url(server.url, "old") as backend:
        member = Member("a", "1")
        await backend.join(member)
        await backend.post([NewEvent(EventData(id="e", payload=b"", max_retries=1), After(0))])
        with server.client() as client:
            client.hset("{old}:records", "e", record)
        seen = (await backend.peek("e")).value
        (delivery,) = (await backend.claim(member, room=1, confirm_timeout_us=1, nonce="c")).value.deliveries

    assert read_record("e", record) == delivery.event
    assert seen is not None
    assert seen.event == delivery.event
    assert delivery.event.payload.endswith(b"p")
    assert delivery.event.max_retries == (3 if b"r3" in header else 0)
