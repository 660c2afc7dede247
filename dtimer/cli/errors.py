"""What a user of the command line got wrong."""

from __future__ import annotations


class UsageError(Exception):
    """An option, a file or a target that a user named does not serve; the message is one line for that user."""
