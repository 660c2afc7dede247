"""The text around a payload, written and read."""

from __future__ import annotations

import pytest

from dtimer.backends.redis import RedisBackend
from dtimer.backends.redis.records import read_record, write_record
from dtimer.limits import DELAY_MAX_US
from dtimer.outcomes import PostOutcome
from dtimer.values import After, EventData, NewEvent, RetryPolicy
from support.servers import Server

EVENTS = {
    "nothing asked for": EventData(id="e", payload=b""),
    "a nonce": EventData(id="e", payload=b"n1 \n", nonce="0123456789abcdef"),
    "a nonce that is the id": EventData(id="0123456789abcdef", payload=b"", nonce="0123456789abcdef"),
    "everything": EventData(
        id="é",
        payload=b"\x00\n\xff",
        headers=b'{"n":"h9"}',
        max_retries=3,
        confirm_timeout_us=1,
        expires_after_us=DELAY_MAX_US,
        keep=True,
        retry=RetryPolicy(5, 1.5, 10**15),
        nonce="n",
    ),
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_what_is_written_is_read(event: EventData) -> None:
    assert read_record(event.id, write_record(event)) == event


def test_an_id_that_was_made_is_not_written_twice() -> None:
    """With a payload of 200 bytes, those 16 would cost 32 of the server's memory."""
    assert write_record(EventData(id="0123456789abcdef", payload=b"p", nonce="0123456789abcdef")) == b"1 n\np"


async def test_such_a_post_is_known_when_it_is_repeated(server: Server) -> None:
    """And another post under the id is another (rule F1)."""

    def post(nonce: str) -> list[NewEvent]:
        return [NewEvent(EventData(id="e", payload=b"", nonce=nonce), After(60_000_000))]

    async with RedisBackend.from_url(server.url) as backend:
        outcomes = [(await backend.post(post(nonce))).value[0] for nonce in ("e", "e", "f", "f", "e")]

    created, repeated, replaced = PostOutcome.CREATED, PostOutcome.REPEATED, PostOutcome.REPLACED
    assert outcomes == [created, repeated, replaced, repeated, replaced]
