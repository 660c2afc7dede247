"""Reports once that the store cannot be reached, and once that it can again, however many calls fail in between.

The log has a line for each, with or without `error` handlers: an outage shows there as a pair.
"""

from __future__ import annotations

from dtimer.errors import NodeDisturbed, NodeFenced
from dtimer.node.context import TimerContext
from dtimer.safe_repr import safe_str


class ConnectionHealth:
    """Which calls of a node to its store fail. There is one for all partitions, since they mostly fail together."""

    def __init__(self, node: str, context: TimerContext) -> None:
        self._node = node
        self._reporter = context.reporter
        self._counters = context.counters
        self._broken: set[str] = set()
        self._failures = 0
        self._is_fenced = False

    def began(self, part: str, cause: BaseException) -> None:
        """A call failed. The report names its part: "claims", or "wake-ups of partition 3"."""
        self._failures += 1
        if not self._broken:
            what = f"node {self._node!r}: its {part} fail ({safe_str(cause)}); it tries again by itself"
            if self._reporter.hooks:
                # Without handlers the report itself is logged.
                self._reporter.warn(what)
            self._reporter.report(NodeDisturbed(what), cause)
        self._broken.add(part)

    def ended(self, part: str) -> None:
        """A call worked."""
        if part not in self._broken:
            return
        self._broken.discard(part)
        if not self._broken:
            self._counters.reconnects += 1
            self._reporter.warn(f"node {self._node!r}: all works again, after {self._failures} failed attempts")
            self._failures = 0

    def fenced(self, name: str) -> None:
        """Another process has joined under this node's id. `name` is that of this process, for people."""
        if not self._is_fenced:
            self._is_fenced = True
            what = f"another process has joined as node {self._node!r}; this one, {name}, takes no more events"
            self._reporter.report(NodeFenced(what))

    def forget(self) -> None:
        """The node has stopped trying."""
        self._broken.clear()
        self._failures = 0
