"""Our parser for what redis-py reads while it connects: its own parser keeps any amount that a server sends."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections import deque
from typing import Any, Final

from redis._parsers import _AsyncRESP2Parser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from typing_extensions import override

from dtimer.backends.redis.wire.resp import Parser, Reply

_READ_BYTES: Final = 1 << 16


class HandshakeParser(_AsyncRESP2Parser):
    """A ``parser_class`` of redis-py, for the few replies until the connection is a :class:`Line`."""

    def __init__(self, socket_read_size: int) -> None:
        super().__init__(socket_read_size)
        self._ours = Parser()
        self._replies: deque[Reply | ResponseError] = deque()

    @override
    async def can_read(self) -> bool:
        return bool(self._replies) or self._ours.pending or await super().can_read()

    @override
    async def read_response(self, disable_decoding: bool = False) -> Any:  # redis-py has no name for this type
        while not self._replies:
            data = await self._stream.read(_READ_BYTES) if self._stream is not None else b""
            if not data:
                raise RedisConnectionError("the server closed the connection")
            self._replies += self._ours.feed(data)
        reply = self._replies.popleft()
        if not isinstance(reply, ResponseError):
            return reply
        # redis-py tells by the type of an error what has become of the connection.
        error: Exception = self.parse_error(str(reply))  # type: ignore[no-untyped-call]  # redis-py's
        if isinstance(error, ResponseError):
            return error
        raise error
