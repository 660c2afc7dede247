"""Files that a user names on the command line; what is wrong with one is a `UsageError`."""

from __future__ import annotations

from pathlib import Path

from dtimer.cli.errors import UsageError
from dtimer.safe_repr import printable


def check_writable(*paths: str | None) -> None:
    """Before anything is run: what is found in an hour must have a place to go.

    Raises:
        UsageError: one of them cannot be written.
    """
    for path in paths:
        if path is None:
            continue
        try:
            existed = Path(path).exists()
            if Path(path).is_dir() or not Path(path).parent.is_dir():
                raise UsageError(f"{printable(path)} cannot be written: it must be a file in a directory that exists")
            with Path(path).open("ab"):
                pass
            if not existed:
                Path(path).unlink()
        except (OSError, ValueError) as error:
            raise UsageError(f"{printable(path)} cannot be written: {_reason(error)}") from error


def read(path: str) -> str:
    """Its text.

    Raises:
        UsageError: it cannot be read as text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{printable(path)} cannot be read as text: {error}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{printable(path)} cannot be read: {_reason(error)}") from error


def _reason(error: OSError | ValueError) -> str:
    """Without the path, which stands beside it."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
