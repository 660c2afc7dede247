"""One operation inside its transaction: what time it is, its number, and what it has to say to whom."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final, TypeAlias

from attrs import define, field
from dtimer.protocol import (
    CLOCK_STEP_US,
    INSTANT_MAX_US,
    STORE_TIME_MAX_US,
    After,
    Announcement,
    Applied,
    Arm,
    Due,
    SchemaMismatch,
    StoreBusy,
)

from dtimer_sqlite.post_office import Letterbox, NobodyThere
from dtimer_sqlite.schema import SCHEMA

Row: TypeAlias = sqlite3.Row
_COLUMNS: Final = "ns, schema, epoch, seq, last_us, skew_us, arm_node, arm_due_us, arm_at_us, letters_dropped, joins"


@define
class Turn:
    """What an operation knows and changes of its namespace, apart from the tables.

    Attributes:
        at_us: the store's time, read once (T1).
        arm: who was told to come (W2).
        posts: messages to be sent once the transaction has been committed.
    """

    db: sqlite3.Connection
    ns: int
    epoch: str
    seq: int
    at_us: int
    skew_us: int
    arm: Arm | None
    letters_dropped: int
    joins: int
    _last_us: int
    announced: list[Announcement] = field(factory=list)
    posts: list[tuple[Letterbox, bytes]] = field(factory=list)

    @classmethod
    def begin(cls, db: sqlite3.Connection, operation: str, namespace: str, host_us: int) -> Turn | None:
        """None if there is no such namespace."""
        row = db.execute(f"SELECT {_COLUMNS} FROM namespaces WHERE name = ?", (namespace,)).fetchone()
        if row is None:
            return None
        ns, schema, epoch, seq, last_us, skew_us, arm_node, arm_due_us, arm_at_us, dropped, joins = row
        if schema != SCHEMA:
            raise SchemaMismatch(operation, f"namespace {namespace!r} has schema {schema}; this program knows {SCHEMA}")
        at_us = host_us + skew_us
        if host_us > INSTANT_MAX_US or at_us > STORE_TIME_MAX_US:
            raise StoreBusy(operation, "the clock of this host is later than the year 2200")
        if at_us < last_us - CLOCK_STEP_US:  # the host's clock has been set back (T2)
            skew_us = last_us - host_us
        return cls(
            db=db,
            ns=ns,
            epoch=epoch,
            seq=seq,
            at_us=max(at_us, last_us),
            skew_us=skew_us,
            arm=None if arm_node is None else Arm(arm_node, arm_due_us, arm_at_us),
            letters_dropped=dropped,
            joins=joins,
            last_us=last_us,
        )

    def stamp(self) -> int:
        """A microsecond that nobody else was given (T4)."""
        self._last_us = max(self.at_us, self._last_us + 1)
        return self._last_us

    def due(self, stamp_us: int, due: Due) -> int:
        """The time at which something is due that was given this microsecond (T5, T6)."""
        due_us = stamp_us + due.delay_us if isinstance(due, After) else due.due_us + self.skew_us
        return max(min(due_us, STORE_TIME_MAX_US), stamp_us)

    def save(self) -> None:
        """Write down what has changed."""
        arm = self.arm
        self.db.execute(
            "UPDATE namespaces SET seq = ?, last_us = ?, skew_us = ?, arm_node = ?, arm_due_us = ?, arm_at_us = ?, "
            "letters_dropped = ?, joins = ? WHERE ns = ?",
            (
                self.seq,
                max(self._last_us, self.at_us),
                self.skew_us,
                arm and arm.node,
                arm and arm.due_us,
                arm and arm.at_us,
                self.letters_dropped,
                self.joins,
                self.ns,
            ),
        )

    def reply(self, value: object) -> Applied[Any]:
        return Applied(self.epoch, self.seq, self.at_us, value, tuple(self.announced), self.skew_us)

    # --- messages ---------------------------------------------------------------------------------

    def tell(self, node: str, due_us: int) -> bool:
        """Announce; whether anybody listens is known now, the message leaves after the commit (N3)."""
        reached = self._send("node = ?", (node,), due_us=due_us, at_us=self.at_us, seq=self.seq)
        self.announced.append(Announcement(node, due_us, reached))
        return reached

    def pulse(self, node: str) -> None:
        """Tell all that somebody looked (W1)."""
        self._send("TRUE", (), pulse=node, at_us=self.at_us, seq=self.seq)

    def _send(self, whom: str, arguments: tuple[str, ...], **words: object) -> bool:
        message = json.dumps(words).encode()
        sql = f"SELECT address FROM listeners WHERE ns = ? AND epoch = ? AND {whom}"
        reached = False
        for (address,) in self.db.execute(sql, (self.ns, self.epoch, *arguments)).fetchall():
            try:
                box = Letterbox.of(address)
            except NobodyThere:
                self.db.execute("DELETE FROM listeners WHERE address = ?", (address,))
            except OSError:
                pass  # as if nobody had heard it (F5)
            else:
                self.posts.append((box, message))
                reached = True
        return reached
