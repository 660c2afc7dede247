"""Commands as bytes, and replies out of the pieces in which they arrive."""

from __future__ import annotations

import pytest
from redis.exceptions import InvalidResponse, ResponseError

from dtimer.backends.redis.resp import Parser, Reply, pack, pack_row, pack_some

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
