"""A peer's process, from this side: orders go to it, replies come back."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

from attrs import frozen

ORDER_TIMEOUT_S: Final = 120.0
END_TIMEOUT_S: Final = 5.0
LOG_SHOWN_CHARS: Final = 300

Reply = dict[str, object]


class Broken(Exception):
    """A run from which no figure may be made."""


class TooSlow(Exception):
    """What was asked for takes this peer too long for a figure."""


class Unsupported(Exception):
    """The peer has no such thing."""


@frozen
class Command:
    """What starts a peer's process.

    Attributes:
        root: the checkout that its modules are in.
    """

    words: Sequence[str]
    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the process: nothing of the environment that runs this one is handed on."""
        kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        return kept | {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1", "NODE_ENV": "production"}


class PeerProcess:
    """One process of a peer. As a context manager it is ended for sure."""

    def __init__(self, command: Command, what: str) -> None:
        self.what = what
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._process = subprocess.Popen(
            command.words,
            cwd=command.root,
            env=command.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._left = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            with contextlib.suppress(Broken):
                self.ask("close", timeout_s=END_TIMEOUT_S)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S if error is None else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def ask(self, order: str, *, timeout_s: float = ORDER_TIMEOUT_S, **arguments: object) -> Reply:
        """Give an order and wait for the reply."""
        self.tell(order, **arguments)
        return self.hear(timeout_s)

    def tell(self, order: str, **arguments: object) -> None:
        """Give an order, whose reply must be taken by :meth:`hear`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": order, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Broken(f"{self.what}: its process has ended: {self.log()}") from error

    def hear(self, timeout_s: float = ORDER_TIMEOUT_S) -> Reply:
        """
        Raises:
            Broken: it failed, or took too long.
            Unsupported: it cannot do that.
        """
        reply = cast("Reply", json.loads(self._line(timeout_s)))
        if "error" in reply:
            if reply["unsupported"]:
                raise Unsupported(str(reply["error"]))
            raise Broken(f"{self.what}: {reply['error']}")
        return reply

    def _line(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        deadline_s = time.monotonic() + timeout_s
        parts = [self._left]
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in parts[-1]:
                if not selector.select(max(0.0, deadline_s - time.monotonic())):
                    raise Broken(f"{self.what}: no reply within {timeout_s:.0f} s: {self.log()}")
                part = os.read(self._process.stdout.fileno(), 1 << 20)
                if not part:
                    raise Broken(f"{self.what}: its process has ended: {self.log()}")
                parts.append(part)
        line, _, self._left = b"".join(parts).partition(b"\n")
        return line

    def log(self) -> str:
        """The end of what it printed."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), LOG_SHOWN_CHARS, max(0, size - LOG_SHOWN_CHARS)).decode(errors="replace")


def number(reply: Mapping[str, object], name: str) -> float:
    value = reply[name]
    assert isinstance(value, int | float), f"{name} is a number"
    return float(value)
