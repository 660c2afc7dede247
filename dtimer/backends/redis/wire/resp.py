"""RESP2 as bytes: commands packed, replies parsed. Pure.

redis-py has both, but awaits each part of a reply by itself, which takes longer than all else that a request needs.
hiredis shows no clear gain in rates. It has no bound on the parts of a reply, and reserves memory for them when they
are announced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from redis.exceptions import InvalidResponse, ResponseError

from dtimer.limits import REPLY_MAX_BYTES
from dtimer.safe_repr import printable

Reply: TypeAlias = "int | bytes | list[Reply] | None"
"""What a server answers in RESP2. Status replies (``+OK``) are bytes too."""

Argument: TypeAlias = bytes | str | int
"""Part of a command; text goes as UTF-8."""

LINE_MAX_BYTES: Final = 64 << 10
"""A status, an error or a number is a line, and so is what announces anything else."""
PARTS_MAX: Final = 1_000_000
"""In a reply, those of parts among them. A cluster of 16,384 single slots with two replicas each has some 300,000."""
DEPTH_MAX: Final = 8
"""Of parts within parts; our scripts and ``CLUSTER SLOTS`` have up to 4."""
SHOWN_BYTES: Final = 40
SHOWN_PARTS: Final = 4

_END: Final = b"\r\n"
_ARRAY, _BULK, _INTEGER, _STATUS, _ERROR = b"*$:+-"
"""The first byte of a reply says what it is."""


def pack(arguments: Sequence[Argument]) -> bytes:
    """A command as it goes over the wire."""
    return b"*%d\r\n%b" % (len(arguments), pack_some(arguments))


def pack_some(arguments: Sequence[Argument]) -> bytes:
    """Some of the arguments of a command."""
    parts: list[bytes] = []
    for argument in arguments:
        if isinstance(argument, str):
            blob = utf8(argument)
        elif isinstance(argument, bytes):
            blob = argument
        else:
            blob = b"%d" % argument
        parts.append(b"$%d" % len(blob))
        parts.append(blob)
    parts.append(b"")
    return _END.join(parts)


def pack_row(first: bytes, second: bytes, third: bytes) -> bytes:
    """Three arguments, in half the time: a post has so many for each event."""
    return b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(first), first, len(second), second, len(third), third)


def utf8(text: str) -> bytes:
    """The bytes of a text on the wire. Ids that another program made need not be UTF-8; they go back unchanged."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


class ReplyTooLarge(InvalidResponse):
    """The reply has more bytes than any of ours."""


class Parser:
    """Makes replies of the pieces in which they arrive. What it keeps of a reply that is not whole has a bound.

    Of such a reply the parts that are whole are read once, into `_open`: the arrays that are not full yet, outermost
    first, with the lengths that they are to have.
    """

    __slots__ = ("_lengths", "_missing", "_num_bytes", "_num_parts", "_open", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._missing = 0
        self._open: list[list[Reply]] = []
        self._lengths: list[int] = []
        self._num_bytes = 0
        self._num_parts = 0

    @property
    def pending(self) -> bool:
        """Part of a reply is here."""
        return bool(self._pieces or self._open)

    def feed(self, data: bytes) -> list[Reply | ResponseError]:
        """The replies that are whole now. An error reply is a ResponseError, with its control characters escaped.

        Raises:
            InvalidResponse: this is not RESP2, or larger than any reply of ours.
        """
        if self._pieces:
            # A large part comes in many pieces; they are looked at again when enough of them are there.
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return []
            data = b"".join(self._pieces)
            self._pieces = []
        replies: list[Reply | ResponseError] = []
        place = start = 0
        end = len(data)
        self._missing = 1
        try:
            while place < end:
                stop = data.find(_END, place, place + LINE_MAX_BYTES)
                if stop < 0:
                    if end - place >= LINE_MAX_BYTES:
                        raise ValueError("a line without an end")
                    break
                kind, after = data[place], stop + 2
                item: Reply | ResponseError
                if kind == _BULK:
                    length = int(data[place + 1 : stop])
                    if length >= 0:
                        until = after + length
                        if until + 2 > end:
                            self._missing = until + 2 - end
                            break
                        item, after = data[after:until], until + 2
                    else:
                        item = _none(length)
                elif kind == _INTEGER:
                    item = int(data[place + 1 : stop])
                elif kind == _ARRAY:
                    length = int(data[place + 1 : stop])
                    if length > 0:
                        self._begin(length)
                        place = after
                        continue
                    item = _none(length) if length else []
                elif kind == _STATUS:
                    item = data[place + 1 : stop]
                elif kind == _ERROR:
                    item = ResponseError(printable(data[place + 1 : stop].decode(errors="replace")))
                else:
                    raise ValueError("of no known kind")
                place = after
                while self._open:
                    if isinstance(item, ResponseError):
                        raise ValueError("an error inside a reply")
                    self._open[-1].append(item)
                    if len(self._open[-1]) < self._lengths[-1]:
                        break
                    self._lengths.pop()
                    item = self._open.pop()
                else:
                    replies.append(item)
                    start, self._num_bytes, self._num_parts = place, 0, 0
        except ValueError as error:
            raise InvalidResponse(f"not a reply ({error}): {data[place : place + SHOWN_BYTES]!r}") from None
        if place < end:
            self._pieces = [data[place:]]
        if self._num_bytes + end - start + self._missing > REPLY_MAX_BYTES:
            raise ReplyTooLarge(f"a reply of more than {REPLY_MAX_BYTES >> 20} MiB")
        self._num_bytes += place - start
        return replies

    def _begin(self, length: int) -> None:
        """An array of so many parts."""
        self._num_parts += length
        if self._num_parts > PARTS_MAX:
            raise ValueError("of too many parts")
        if len(self._open) == DEPTH_MAX:
            raise ValueError("of too many levels")
        self._open.append([])
        self._lengths.append(length)


def _none(length: int) -> Reply:
    """What has this length."""
    if length != -1:
        raise ValueError("of a negative length")
    return None


# --- parts of a reply; a server that answers something else does not speak our protocol ----------------------------


def as_list(reply: Reply) -> list[Reply]:
    """It is one; like those below, raises InvalidResponse if not."""
    if not isinstance(reply, list):
        raise _unexpected(reply)
    return reply


def as_int(reply: Reply) -> int:
    if not isinstance(reply, int):
        raise _unexpected(reply)
    return reply


def as_bytes(reply: Reply) -> bytes:
    if not isinstance(reply, bytes):
        raise _unexpected(reply)
    return reply


def _unexpected(reply: Reply) -> InvalidResponse:
    return InvalidResponse(f"not what was asked for: {shown(reply)}")


def shown(reply: Reply) -> str:
    """The beginning of it, for messages."""
    if isinstance(reply, bytes):
        return repr(reply[:SHOWN_BYTES])
    return repr(reply) if not isinstance(reply, list) else f"[{', '.join(map(shown, reply[:SHOWN_PARTS]))}]"
