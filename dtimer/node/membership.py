"""Which node a timer has, and in which event loop (rule F8)."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Generic

from dtimer.codecs.codec import Codec, PayloadT
from dtimer.loop_local import LoopAffinity, LoopLocal, LoopRef, after_fork, keep_alive
from dtimer.node.context import TimerContext
from dtimer.node.node import Node
from dtimer.node.partitions import Partitions
from dtimer.node.registry import Registry
from dtimer.node.settings import NodeSettings


class Membership(Generic[PayloadT]):
    """Makes a timer's node when an event loop first needs it, and another node in another loop.

    Attributes:
        node: the newest node of the timer, joined or not; None before the first.
        affinity: to the loop of that node; to no loop without a node.
    """

    def __init__(
        self,
        context: TimerContext,
        settings: NodeSettings,
        registry: Registry[PayloadT],
        codec: Codec[PayloadT],
        partitions: LoopLocal[Partitions],
    ) -> None:
        self.node: Node[PayloadT] | None = None
        self.affinity = self._no_affinity()
        self._context = context
        self._settings = settings
        self._registry = registry
        self._codec = codec
        self._partitions = partitions
        self._left_behind = False
        self._moving = threading.Lock()
        after_fork(self, Membership[PayloadT]._forked)

    @property
    def joined(self) -> bool:
        """Whether the timer is joined in any event loop of this process, as far as is known."""
        return self.affinity.lives and self.node is not None and self.node.joined

    @contextmanager
    def node_here(self) -> Generator[Node[PayloadT]]:
        """The timer's node, in the running loop; it stays there for the block.

        Raises:
            WrongProcessOrLoop: the node is at work in another loop, which is not closed.
        """
        home, partitions = LoopRef(), self._partitions.here()
        with self._moving:
            there = self.affinity.home
            if there is not None and not there.is_here():
                if there.lives and self.node is not None and self.node.busy:
                    self.affinity.check()
                self._move()
            if self.node is None:
                self.affinity.home = home
                self.node = Node(
                    self._context,
                    self._settings,
                    self._registry,
                    self._codec,
                    partitions=partitions,
                    affinity=self.affinity,
                    left_behind=self._left_behind,
                )
            node = self.node
            node.callers += 1
        try:
            yield node
        finally:
            node.callers -= 1

    def look_again(self) -> None:
        """Handlers or iterators have changed: notify the node, in its loop."""
        node, home = self.node, self.affinity.home
        if node is None or home is None:
            return
        if home.is_here():
            node.dispatcher.consumers.look_again()
        else:
            home.call_soon(node.dispatcher.consumers.look_again)

    def leave_closed_loop(self) -> None:
        """Forget iterators of a closed loop: they wait without end, and must not exclude handlers."""
        with self._moving:
            there = self.affinity.home
            if there is not None and not there.lives:
                self._move()

    def _move(self) -> None:
        """Give up the node. Its events and iterators stay with it; the registered handlers are for the next node."""
        node, self.node = self.node, None
        # A loop that was closed while the node was joined leaves a member behind.
        self._left_behind = node is not None and (node.busy or node.left_behind)
        if node is not None:
            node.replaced()
        self.affinity.end()
        self.affinity = self._no_affinity()
        self._registry.leave_slots()

    def _forked(self) -> None:
        keep_alive((self.node, self._registry.slots))
        self._moving = threading.Lock()
        self._move()
        self._left_behind = False  # the member is the parent's

    @staticmethod
    def _no_affinity() -> LoopAffinity:
        return LoopAffinity("the timer, as far as it takes events,")
