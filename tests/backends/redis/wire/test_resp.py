"""Commands as bytes, and replies out of the pieces in which they arrive."""

from __future__ import annotations

import pytest
from redis.exceptions import InvalidResponse, ResponseError

from dtimer.backends.redis.wire.resp import LINE_MAX_BYTES, Parser, Reply, pack, pack_row, pack_some
from dtimer.limits import EVENT_MAX_BYTES, REPLY_MAX_BYTES

LARGE = bytes(range(256)) * 300

STREAM = (
    b"+OK\r\n:-5\r\n$-1\r\n*-1\r\n$0\r\n\r\n$4\r\n\r\n\r\n\r\n*0\r\n"
    b"*4\r\n:1\r\n*2\r\n$1\r\na\r\n*1\r\n+s\r\n$-1\r\n$76800\r\n" + LARGE + b"\r\n:1790000000000000\r\n"
)
REPLIES: list[Reply] = [
    *(b"OK", -5, None, None, b"", b"\r\n\r\n", []),
    [1, [b"a", [b"s"]], None, LARGE],
    1_790_000_000_000_000,
]


def test_a_command_is_an_array_of_bulk_strings() -> None:
    """Text goes as UTF-8; an id that somebody else made and that is no UTF-8 goes back as it came."""
    assert pack((b"A\r\n", "é", -5, "\udcff", b"")) == (
        b"*5\r\n$3\r\nA\r\n\r\n$2\r\n\xc3\xa9\r\n$2\r\n-5\r\n$1\r\n\xff\r\n$0\r\n\r\n"
    )


@pytest.mark.parametrize("row", [(b"id", b"-5", LARGE), (b"", b"\r\n", b"x")])
def test_a_row_is_three_arguments_like_others(row: tuple[bytes, bytes, bytes]) -> None:
    """Only faster."""
    assert pack_row(*row) == pack_some(row)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 65536, len(STREAM)])
def test_replies_come_out_whole_however_they_were_cut(size: int) -> None:
    """The network cuts where it likes: between the two bytes of a line's end, too."""
    parser = Parser()
    replies = []
    for start in range(0, len(STREAM), size):
        replies += parser.feed(STREAM[start : start + size])

    assert replies == REPLIES
    assert not parser.pending


def test_the_beginning_of_a_reply_is_pending() -> None:
    """A connection on which half a reply stands is not idle."""
    parser = Parser()

    assert parser.feed(b"$4\r\nab") == []
    assert parser.pending
    assert parser.feed(b"cd\r\n") == [b"abcd"]
    assert not parser.pending


def test_an_error_reply_keeps_its_text() -> None:
    """Its code says what is known; redis-py would cut some codes off."""
    (error,) = Parser().feed(b"-NOSCRIPT No matching script.\r\n")

    assert isinstance(error, ResponseError)
    assert str(error) == "NOSCRIPT No matching script."


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad Request\r\n", b"\r\n", b":x\r\n", b"$x\r\n", b"*x\r\n", b"*1\r\n-ERR\r\n", b"%0\r\n"]
)
def test_what_is_no_reply_is_refused(data: bytes) -> None:
    """Something else listens there."""
    with pytest.raises(InvalidResponse):
        Parser().feed(data)


@pytest.mark.parametrize(
    "data",
    [
        b"$%d\r\n" % (REPLY_MAX_BYTES + 1),
        b"*2000000000\r\n",
        b"*2\r\n$5\r\nhello\r\n$%d\r\n" % REPLY_MAX_BYTES,
        b"*1\r\n" * 100_000,
        b"+" + b"a" * (LINE_MAX_BYTES + 1),
        b"-ERR " + b"a" * (LINE_MAX_BYTES + 1) + b"\r\n",
        b":" + b"1" * 5_000 + b"\r\n",
        b"$-5\r\n",
        b"*-5\r\n",
    ],
)
def test_what_no_script_of_ours_replies_is_refused_as_soon_as_it_is_announced(data: bytes) -> None:
    """A server may say that a reply has so many bytes, parts or levels; nothing is kept for it."""
    with pytest.raises(InvalidResponse):
        Parser().feed(data)


def test_a_reply_without_an_end_is_refused_at_the_limit() -> None:
    """Each part of it may be small."""
    parser, part = Parser(), b"$1000000\r\n" + bytes(1_000_000) + b"\r\n"
    parser.feed(b"*100000\r\n")
    for _ in range(REPLY_MAX_BYTES // len(part)):
        parser.feed(part)
    with pytest.raises(InvalidResponse, match="a reply of more than 80 MiB"):
        parser.feed(part)


def test_a_reply_with_the_largest_event_is_taken() -> None:
    """A limit below what is legal would make that event a stone."""
    parser = Parser()
    parser.feed(b"*2\r\n:1\r\n$%d\r\n" % EVENT_MAX_BYTES)
    (reply,) = parser.feed(bytes(EVENT_MAX_BYTES) + b"\r\n")

    assert reply == [1, bytes(EVENT_MAX_BYTES)]


def test_control_characters_of_an_error_reply_are_escaped() -> None:
    """It ends in logs and on terminals, which would obey them; letters of any language stay."""
    (error,) = Parser().feed("-ERR \x1b]0;title\x07 é \u202e\n\x9b2J\r\n".encode())

    assert str(error) == r"ERR \x1b]0;title\x07 é \u202e\n\x9b2J"
