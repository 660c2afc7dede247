"""The tables, and who they belong to."""

from __future__ import annotations

import sqlite3
from typing import Final

APPLICATION_ID: Final = 0x6474_6D72
"""Says in the file's header that it is dtimer's."""
SCHEMA: Final = 4

_EVENT: Final = """
    schema INTEGER NOT NULL, max_retries INTEGER NOT NULL, confirm_timeout_us INTEGER, expires_after_us INTEGER,
    dead_letter INTEGER NOT NULL, retry_delay_us INTEGER, retry_factor REAL, retry_delay_max_us INTEGER,
    max_run_us INTEGER, headers BLOB NOT NULL, payload BLOB NOT NULL
"""

_ERROR: Final = """
    error_delivery INTEGER, error_node TEXT, error_us INTEGER, error_type TEXT, error_text TEXT
"""

TABLES: Final = (
    """
    CREATE TABLE namespaces (
        ns INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, schema INTEGER NOT NULL, epoch TEXT NOT NULL,
        seq INTEGER NOT NULL DEFAULT 0, last_us INTEGER NOT NULL DEFAULT 0, skew_us INTEGER NOT NULL DEFAULT 0,
        arm_node TEXT, arm_due_us INTEGER, arm_at_us INTEGER, letters_dropped INTEGER NOT NULL DEFAULT 0,
        joins INTEGER NOT NULL DEFAULT 0
    ) STRICT
    """,
    f"""
    CREATE TABLE events (
        rowid INTEGER PRIMARY KEY, ns INTEGER NOT NULL, id TEXT NOT NULL, next_us INTEGER NOT NULL,
        unconfirmed INTEGER NOT NULL, number INTEGER NOT NULL, counted INTEGER NOT NULL,
        refusals INTEGER, refused_us INTEGER, refused_joins INTEGER, claim TEXT NOT NULL, node TEXT NOT NULL,
        due_us INTEGER NOT NULL, {_ERROR}, {_EVENT},
        UNIQUE (ns, id)
    ) STRICT
    """,
    "CREATE UNIQUE INDEX queue ON events (ns, next_us, id)",
    f"""
    CREATE TABLE letters (
        rowid INTEGER PRIMARY KEY, ns INTEGER NOT NULL, id TEXT NOT NULL, buried_us INTEGER NOT NULL,
        reason TEXT NOT NULL, detail TEXT NOT NULL, last INTEGER NOT NULL, due_us INTEGER NOT NULL,
        number INTEGER NOT NULL, counted INTEGER NOT NULL, {_ERROR}, raw BLOB NOT NULL, {_EVENT}
    ) STRICT
    """,
    "CREATE UNIQUE INDEX graveyard ON letters (ns, buried_us)",
    "CREATE INDEX names ON letters (ns, id)",
    """
    CREATE TABLE members (
        ns INTEGER NOT NULL, node TEXT NOT NULL, incarnation TEXT NOT NULL, place INTEGER NOT NULL, parked TEXT,
        expires_us INTEGER NOT NULL, took_over INTEGER NOT NULL,
        PRIMARY KEY (ns, node)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE UNIQUE INDEX ring ON members (ns, place)",
    """
    CREATE TABLE listeners (
        address TEXT PRIMARY KEY, ns INTEGER NOT NULL, epoch TEXT NOT NULL, node TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX ears ON listeners (ns, epoch, node)",
)


class ForeignFile(Exception):
    """It is an SQLite file, but not dtimer's."""


class OtherVersion(Exception):
    """It is dtimer's, but of a version that this one does not know."""


def prepare(db: sqlite3.Connection) -> None:
    """Make the tables, unless they are there already."""
    if _checked(db):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if not _checked(db):
            for statement in TABLES:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _checked(db: sqlite3.Connection) -> bool:
    """Whether the tables are there; False for an empty file."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID:
        if version != SCHEMA:
            raise OtherVersion(f"the file has schema {version}, and this program knows {SCHEMA}")
        return True
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application or tables:
        raise ForeignFile("the file belongs to another application")
    return False
