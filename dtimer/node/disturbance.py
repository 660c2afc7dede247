"""Tells once that the store cannot be reached, and once that it can again, however many calls fail in between.

The log has a line for each, whether or not anybody listens: an outage shows there as a pair.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from dtimer.counters import Tally
from dtimer.errors import NodeDisturbed
from dtimer.node.reports import Reports

Part: TypeAlias = Literal["claims", "wake-ups"]


class Disturbance:
    """What of a node's way to its store is broken."""

    def __init__(self, node: str, reports: Reports, tally: Tally) -> None:
        self._node = node
        self._reports = reports
        self._tally = tally
        self._broken: set[Part] = set()
        self._failures = 0

    def began(self, part: Part, cause: Exception) -> None:
        """A call failed."""
        self._failures += 1
        if not self._broken:
            what = f"node {self._node!r}: its {part} fail ({cause}); it tries again by itself"
            if self._reports.listeners:
                # What nobody listens to is logged by itself.
                self._reports.warn(what)
            self._reports.report(NodeDisturbed(what), cause)
        self._broken.add(part)

    def ended(self, part: Part) -> None:
        """A call worked."""
        if part not in self._broken:
            return
        self._broken.discard(part)
        if not self._broken:
            self._tally.reconnects += 1
            self._reports.warn(f"node {self._node!r}: all works again, after {self._failures} failed attempts")
            self._failures = 0

    def forget(self) -> None:
        """The node does not try any more."""
        self._broken.clear()
        self._failures = 0
