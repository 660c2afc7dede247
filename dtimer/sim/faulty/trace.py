"""The record of a run: one flat dictionary for everything that happens, one line of JSON for each, one digest for all.

Two runs are the same run if their digests are equal; so a record holds nothing that could differ between two machines.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Sequence
from typing import Final, TextIO, TypeAlias

Field: TypeAlias = "int | str | bool | Sequence[Field] | None"
"""What a record may hold. No floats: their text is nobody's promise."""
Record: TypeAlias = "dict[str, Field]"
"""``t`` (microseconds since the start), ``who`` (a process, ``store`` or ``world``), ``what``, then its own fields."""

KEPT_DEFAULT: Final = 100_000
"""Records kept in memory: some hundred bytes each."""
_CHUNK: Final = 256
"""Records written and digested at once."""

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, check_circular=False).encode


def line(record: Record) -> str:
    """A record as a line of the trace, without its end."""
    return _encode(record)


class Trace:
    """Collects records.

    Attributes:
        on: whether records are wanted at all. Whoever makes one asks first, so that a run without them is fast.
    """

    def __init__(self, *, on: bool = True, keep: int = KEPT_DEFAULT, file: TextIO | None = None) -> None:
        """
        Args:
            keep: how many records stay in memory, the newest.
            file: gets every line as well.
        """
        self.on = on
        self._kept: deque[Record] = deque(maxlen=keep)
        self._file = file
        self._pending: list[Record] = []
        self._hash = hashlib.sha256()

    def add(self, record: Record) -> None:
        """One more; it must not be changed afterwards."""
        self._pending.append(record)
        if len(self._pending) >= _CHUNK:
            self._flush()

    @property
    def records(self) -> tuple[Record, ...]:
        """The newest ones, oldest first."""
        self._flush()
        return tuple(self._kept)

    @property
    def digest(self) -> str:
        """The sha256 of all lines, in hex: the identity of the run so far."""
        self._flush()
        return self._hash.hexdigest()

    def _flush(self) -> None:
        if not self._pending:
            return
        text = "".join([f"{_encode(record)}\n" for record in self._pending])
        self._hash.update(text.encode("ascii"))
        self._kept.extend(self._pending)
        self._pending.clear()
        if self._file is not None:
            self._file.write(text)
