"""What SQLite says when it fails, in dtimer's words."""

from __future__ import annotations

import sqlite3
from typing import Final

from dtimer.protocol import (
    BackendError,
    OutcomeUnknown,
    SchemaMismatch,
    StoreBusy,
    StoreCorrupt,
    StoreDenied,
    StoreFull,
    StoreReadOnly,
    StoreRefused,
    StoreUnreachable,
)

from dtimer_sqlite.schema import ForeignFile, OtherVersion

_BY_CODE: Final[dict[int, type[BackendError]]] = {
    sqlite3.SQLITE_BUSY: StoreBusy,
    sqlite3.SQLITE_LOCKED: StoreBusy,
    sqlite3.SQLITE_FULL: StoreFull,
    sqlite3.SQLITE_NOTADB: StoreCorrupt,
    sqlite3.SQLITE_CORRUPT: StoreCorrupt,
    sqlite3.SQLITE_READONLY: StoreReadOnly,
    sqlite3.SQLITE_PERM: StoreDenied,
    sqlite3.SQLITE_AUTH: StoreDenied,
    sqlite3.SQLITE_CANTOPEN: StoreUnreachable,
}


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without the details; 0 when it is Python's own error."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def of_operation(operation: str, error: Exception) -> BackendError:
    """For what failed before the commit: the transaction is rolled back, so nothing was applied."""
    match error:
        case BackendError():
            return error
        case sqlite3.Error():
            kind = _BY_CODE.get(primary_code(error), StoreRefused)
            if kind is StoreRefused and primary_code(error) == sqlite3.SQLITE_ERROR:
                kind = StoreCorrupt  # a table or a column is not there
            return kind(operation, str(error))
        case ForeignFile():
            return StoreCorrupt(operation, str(error))
        case OtherVersion():
            return SchemaMismatch(operation, str(error))
        case _:
            return StoreRefused(operation, repr(error))


def of_commit(operation: str, error: sqlite3.Error) -> BackendError:
    """A commit that failed for want of a lock or of space did nothing; after any other failure nobody can say."""
    if primary_code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL}:
        return of_operation(operation, error)
    return OutcomeUnknown(operation, str(error))
