"""A dtimer backend on an SQLite file, for the processes of one machine."""

from dtimer_sqlite.backend import SqliteBackend

__all__ = ["SqliteBackend"]
