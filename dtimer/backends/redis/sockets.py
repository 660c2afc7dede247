"""Sockets whose event loop cannot close them: because it is closed itself, or belongs to the parent process.

No other module touches private attributes of asyncio (``_sock``, ``_ssl_protocol``).
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any, Final
from weakref import WeakSet

from typing_extensions import override

from dtimer.loop_local import after_fork, keep_alive


class _Closed(asyncio.Transport):
    """What a writer is told to have, lest it complains when it is forgotten."""

    @override
    def is_closing(self) -> bool:
        return True


def close_socket(writer: asyncio.StreamWriter) -> None:
    """Close what is below a writer of a loop that is closed. Some loops, uvloop say, have done so themselves."""
    transport: Any = writer.transport
    # The loop is closed; and a TLS transport of Python 3.11.2 that was closed twice has lost its protocol.
    with suppress(RuntimeError, AttributeError):
        transport.abort()
    vars(writer)["_transport"] = _Closed()
    tls = getattr(transport, "_ssl_protocol", None)
    if tls is not None:
        transport = tls._transport
    sock = getattr(transport, "_sock", None)
    if sock is not None:
        sock.close()
        transport._sock = None  # by which it knows that it is closed


class _Inherited:
    """All sockets that a process has, in case that it is forked.

    The child's copies are exchanged for the null device, so the other end sees it at once when the parent ends.
    To close them would free their numbers for other files, which the copied transports might close some day.
    No poll set is asked, since it would be the parent's.
    """

    def __init__(self) -> None:
        self._writers: WeakSet[asyncio.StreamWriter] = WeakSet()
        after_fork(self, _Inherited._forked)

    def add(self, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)

    def _forked(self) -> None:
        writers = [writer for writer in self._writers if not writer.is_closing()]
        keep_alive(writers)
        null = os.open(os.devnull, os.O_RDWR)
        for writer in writers:
            number = writer.get_extra_info("socket").fileno()
            if number >= 0:
                with suppress(OSError):
                    os.dup2(null, number, inheritable=False)
        os.close(null)
        self._writers = WeakSet()


_all: Final = _Inherited()
let_go_when_forked: Final = _all.add
"""The socket below this writer is no child's."""
