"""The wake-ups of the simulator: what pubsub is to Redis, in memory. Nothing is kept for those who do not listen."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

from typing_extensions import override

from dtimer.errors import BackendError
from dtimer.protocol.values import Message
from dtimer.sim.signal import SimSignal
from dtimer.sim.work import Work


class Listener(AsyncIterator[Message]):
    """Hears what is said to one node.

    A message counts as work from when it is said until the next one is asked for: no time passes before the answer.
    Between the subscription and the first message nothing is under way.
    """

    def __init__(self, work: Work, epoch: str, node: str) -> None:
        self.epoch = epoch
        self.node = node
        # Without a limit: unread messages hold the clock, so no more than one instant's can come together.
        self._messages: deque[Message] = deque()
        self._signal = SimSignal(work, f"whoever listens to the wake-ups of node {node!r}", idle=True)
        self._end: BackendError | None = None

    @override
    async def __anext__(self) -> Message:
        while self._end is None:
            if self._messages:
                return self._messages.popleft()
            await self._signal.wait()
        raise self._end

    def hear(self, message: Message) -> None:
        self._messages.append(message)
        self._signal.set()

    def end(self, error: BackendError) -> None:
        """Whoever asks for a message gets this error from now on; what is unread is lost."""
        self._end = error
        self._signal.set()
        self._signal.close()


class Channels:
    """All listeners. A channel is named by the epoch too: an emptied namespace says nothing to the old listeners."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._listeners: list[Listener] = []

    def listen(self, epoch: str, node: str) -> Listener:
        listener = Listener(self._work, epoch, node)
        self._listeners.append(listener)
        return listener

    def leave(self, listener: Listener, error: BackendError) -> None:
        self._listeners = [other for other in self._listeners if other is not listener]
        listener.end(error)

    def reaches(self, epoch: str, node: str) -> bool:
        """Whether anybody would hear what is said to this node."""
        return any((listener.epoch, listener.node) == (epoch, node) for listener in self._listeners)

    def tell(self, epoch: str, node: str, message: Message) -> None:
        """Say something to one node."""
        for listener in self._listeners:
            if (listener.epoch, listener.node) == (epoch, node):
                listener.hear(message)

    def tell_all(self, epoch: str, message: Message) -> None:
        """Say something to all nodes of the namespace."""
        for listener in self._listeners:
            if listener.epoch == epoch:
                listener.hear(message)

    def forget_all(self) -> None:
        """They are in an event loop that was closed."""
        self._listeners = []

    def end_all(self, error: BackendError) -> None:
        """Nobody will hear anything any more."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.end(error)
