"""The file: one connection, used by one thread, and one transaction for each operation."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from attrs import define, field
from dtimer.protocol import Applied

from dtimer_sqlite import failures, ring, schema
from dtimer_sqlite.turn import Turn

CACHED_STATEMENTS: Final = 256
EPOCH_BYTES: Final = 8


@define
class File:
    """All methods block, and belong to one thread.

    Attributes:
        clock: the host's time of day in us since 1970.
        busy_timeout_s: how long to wait for the transactions of others.
    """

    path: Path
    namespace: str
    clock: Callable[[], int]
    busy_timeout_s: float
    synchronous: str
    _db: sqlite3.Connection | None = field(default=None, init=False)

    def read(self, operation: str, look: Callable[[Turn], object]) -> Applied[Any]:
        """An operation that changes nothing: it sees one instant, and waits for nobody."""
        db = self._begun(operation, "BEGIN")
        try:
            turn = Turn.begin(db, operation, self.namespace, self.clock())
            if turn is not None:
                return turn.reply(look(turn))
        except Exception as error:
            raise self._failed(operation, error) from error
        finally:
            self._roll_back()
        self.do(operation, self._make_namespace)
        return self.read(operation, look)

    def change(self, operation: str, act: Callable[[Turn], object], *, settled: bool = False) -> Applied[Any]:
        """An operation that may change something: counted, and the ring is settled after it unless it has been."""

        def acting(db: sqlite3.Connection) -> Applied[Any]:
            self._make_namespace(db)
            turn = Turn.begin(db, operation, self.namespace, self.clock())
            assert turn is not None
            turns.append(turn)
            turn.seq += 1
            value = act(turn)
            if not settled:
                ring.settle(turn)
            turn.save()
            return turn.reply(value)

        turns: list[Turn] = []
        try:
            reply: Applied[Any] = self.do(operation, acting)
        except BaseException:
            for box, _ in [post for turn in turns for post in turn.posts]:
                box.close()
            raise
        for box, message in turns[0].posts:
            box.send(message)
        return reply

    def do(self, operation: str, act: Callable[[sqlite3.Connection], Any]) -> Any:
        """A transaction."""
        db = self._begun(operation, "BEGIN IMMEDIATE")
        try:
            value = act(db)
        except Exception as error:
            self._roll_back()
            raise self._failed(operation, error) from error
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            self.close()
            raise failures.of_commit(operation, error) from error
        return value

    def purge(self) -> None:
        """Remove every trace of the namespace."""

        def act(db: sqlite3.Connection) -> None:
            for table in ("events", "letters", "members", "listeners"):
                db.execute(
                    f"DELETE FROM {table} WHERE ns IN (SELECT ns FROM namespaces WHERE name = ?)", (self.namespace,)
                )
            db.execute("DELETE FROM namespaces WHERE name = ?", (self.namespace,))

        self.do("purge", act)

    def listen(self, address: str, node: str, epoch: str) -> None:
        """Let those who have something to say to the node know the address."""

        def act(db: sqlite3.Connection) -> None:
            self._make_namespace(db)
            db.execute(
                "INSERT INTO listeners (address, ns, epoch, node) SELECT ?, ns, ?, ? FROM namespaces WHERE name = ?",
                (address, epoch, node, self.namespace),
            )

        self.do("wakeups", act)

    def forget(self, address: str) -> None:
        self.do("wakeups", lambda db: db.execute("DELETE FROM listeners WHERE address = ?", (address,)))

    def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def _make_namespace(self, db: sqlite3.Connection) -> None:
        db.execute(
            "INSERT INTO namespaces (name, schema, epoch) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING",
            (self.namespace, schema.SCHEMA, secrets.token_hex(EPOCH_BYTES)),
        )

    def _begun(self, operation: str, begin: str) -> sqlite3.Connection:
        try:
            if self._db is None:
                self._db = self._connected()
            self._db.execute(begin)
        except Exception as error:
            raise self._failed(operation, error) from error
        return self._db

    def _connected(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=self.busy_timeout_s, isolation_level=None, cached_statements=CACHED_STATEMENTS
        )
        try:
            db.row_factory = sqlite3.Row
            schema.prepare(db)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {self.synchronous}")
        except BaseException:
            db.close()
            raise
        return db

    def _roll_back(self) -> None:
        if self._db is not None and self._db.in_transaction:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _failed(self, operation: str, error: Exception) -> Exception:
        """After a failure that may concern the connection, the next operation makes a new one."""
        if isinstance(error, sqlite3.Error) and failures.primary_code(error) not in {
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_FULL,
        }:
            self._roll_back()
            self.close()
        return failures.of_operation(operation, error)
