"""Wake-ups between processes, over datagram sockets in the file system.

A listener binds a socket next to the database and writes its address into a table.
Connecting to the socket of a dead process fails at once, so whether anybody listens can be known inside the
transaction, before a word is said (N3); messages leave after the commit (F5).
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from attrs import frozen
from dtimer.protocol import Malformed, Message, Pulse, Wakeup

ADDRESS_MAX_BYTES: Final = 100
MESSAGE_MAX_BYTES: Final = 4_096


class NobodyThere(Exception):
    """The process that listened has died."""


@frozen
class Letterbox:
    """Somebody who listens."""

    _socket: socket.socket

    @classmethod
    def of(cls, address: str) -> Letterbox:
        """
        Raises:
            NobodyThere: what was left of the socket has been removed.
            OSError: nobody can be told just now, for another reason.
        """
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sender.setblocking(False)
            sender.connect(address)
        except (ConnectionRefusedError, FileNotFoundError) as error:
            sender.close()
            with suppress(OSError):
                os.unlink(address)
            raise NobodyThere(address) from error
        except OSError:
            sender.close()
            raise
        return cls(sender)

    def send(self, message: bytes) -> None:
        """Lost if the listener has gone meanwhile or does not read; the pulse makes up for that (W1)."""
        with self._socket, suppress(OSError):
            self._socket.send(message)

    def close(self) -> None:
        self._socket.close()


def bind(file: Path) -> tuple[socket.socket, str]:
    """A socket to listen at, next to the file unless that makes its address too long, and the address."""
    name = f"{file.name}-{secrets.token_hex(6)}"
    address = str(file.parent / name)
    if len(os.fsencode(address)) > ADDRESS_MAX_BYTES:
        address = str(Path(tempfile.gettempdir()) / name[-64:])
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        listener.setblocking(False)
        listener.bind(address)
        os.chmod(address, 0o600)
    except OSError:
        listener.close()
        raise
    return listener, address


def read(raw: bytes) -> Message:
    """What a message says."""
    try:
        words = json.loads(raw)
        if "pulse" in words:
            return Pulse(str(words["pulse"]), int(words["at_us"]), int(words["seq"]))
        return Wakeup(int(words["due_us"]), int(words["at_us"]), int(words["seq"]))
    except (ValueError, TypeError, KeyError):
        return Malformed(raw)
