"""Asking before something is done that cannot be undone."""

from __future__ import annotations

import sys


def agreed(question: str, *, refused: str) -> bool:
    """Whether the answer on the terminal is yes; the end of input is no.

    Without a terminal it is no, and `refused` is said.
    """
    if not sys.stdin.isatty():
        print(f"{refused}: give --yes, or answer on a terminal", file=sys.stderr)
        return False
    try:
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False
