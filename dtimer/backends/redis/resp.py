"""RESP2 as bytes: commands packed, replies parsed. Pure.

redis-py has both, but awaits each part of a reply by itself, which takes longer than all else that a request needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from redis.exceptions import InvalidResponse, ResponseError

Reply: TypeAlias = "int | bytes | list[Reply] | None"
"""What a server answers in RESP2. Status replies (``+OK``) are bytes too."""

Argument: TypeAlias = bytes | str | int
"""Part of a command; text goes as UTF-8."""

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
    """What text is on the wire. Ids that somebody else made may be no UTF-8; they go back as they came."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


class Parser:
    """Makes replies of the pieces in which they arrive."""

    __slots__ = ("_missing", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._missing = 0

    @property
    def pending(self) -> bool:
        """Part of a reply is here."""
        return bool(self._pieces)

    def feed(self, data: bytes) -> list[Reply | ResponseError]:
        """The replies that are whole now. An error reply is a ResponseError, with the text as the server sent it.

        Raises:
            InvalidResponse: this is not RESP2.
        """
        if self._pieces:
            # A large reply comes in many pieces; they are looked at again when enough of them are there.
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return []
            data = b"".join(self._pieces)
            self._pieces = []
        replies: list[Reply | ResponseError] = []
        place = 0
        try:
            while place < len(data):
                reply, place = _read(data, place)
                replies.append(reply)
        except _Incomplete as incomplete:
            self._pieces = [data[place:]]
            self._missing = incomplete.num_bytes
        except ValueError as error:
            raise InvalidResponse(f"not a reply: {data[place : place + 40]!r}") from error
        return replies


class _Incomplete(Exception):
    """At least so many more bytes are needed."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes


def _read(data: bytes, place: int) -> tuple[Reply | ResponseError, int]:
    """The reply that begins at `place`, and where it ends."""
    stop = data.find(_END, place)
    if stop < 0:
        raise _Incomplete(1)
    kind = data[place]
    after = stop + 2
    if kind == _INTEGER:
        return int(data[place + 1 : stop]), after
    if kind == _BULK:
        length = int(data[place + 1 : stop])
        if length < 0:
            return None, after
        end = after + length
        if end + 2 > len(data):
            raise _Incomplete(end + 2 - len(data))
        return data[after:end], end + 2
    if kind == _ARRAY:
        length = int(data[place + 1 : stop])
        if length < 0:
            return None, after
        items: list[Reply] = []
        for _ in range(length):
            item, after = _read(data, after)
            if isinstance(item, ResponseError):
                raise ValueError("an error inside a reply")
            items.append(item)
        return items, after
    if kind == _STATUS:
        return data[place + 1 : stop], after
    if kind == _ERROR:
        return ResponseError(data[place + 1 : stop].decode(errors="replace")), after
    raise ValueError("of no known kind")
