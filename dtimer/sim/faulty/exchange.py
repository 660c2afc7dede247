"""One request on one connection, from its sending to its reply, or to whatever comes instead of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dtimer.errors import BackendError, OutcomeUnknown, StoreUnreachable
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import Applied

if TYPE_CHECKING:
    from dtimer.sim.faulty.backend import LinkedBackend
    from dtimer.sim.faulty.channels import Subscription

ADDRESS: Final = "the simulated store"
CLOSED: Final = "Connection closed by server."


class Connection:
    """A connection to the store's process of one generation.

    Attributes:
        generation: that of the store when it was made; -1 before that.
        cut: the store's end has closed it.
        broken: this end knows that it is no good any more.
    """

    __slots__ = ("broken", "cut", "generation")

    def __init__(self) -> None:
        self.generation = -1
        self.cut = False
        self.broken = False


class Exchange:
    """A request that was sent.

    Attributes:
        number: the so-many-th of its host.
        operation: None to connect or to subscribe.
        subscription: what is asked for, if that is it.
        ways: 64 random bits, for how long it is on its ways.
        future: whom the reply is for.
    """

    __slots__ = (
        "backend",
        "connection",
        "deadline_us",
        "future",
        "method",
        "number",
        "operation",
        "subscription",
        "ways",
    )

    def __init__(
        self,
        backend: LinkedBackend,
        connection: Connection,
        method: str,
        number: int,
        deadline_us: int,
        *,
        ways: int,
        operation: Operation[Any] | None = None,
        subscription: Subscription | None = None,
    ) -> None:
        self.backend = backend
        self.connection = connection
        self.method = method
        self.number = number
        self.deadline_us = deadline_us
        self.ways = ways
        self.operation = operation
        self.subscription = subscription
        self.future = backend.host.loop.create_future()

    # --- at the node's end, in its process ------------------------------------------------------------

    def answered(self, applied: Applied[Any] | None, error: BackendError | None) -> None:
        """The reply is here. One that is found after the time limit, by a process that stood still, is too late."""
        if self.future.done():
            return
        host = self.backend.host
        if host.loop.now_us >= self.deadline_us:
            self.timed_out()
            return
        if host.doomed and self.operation is not None and host.dies_at("reply"):
            return
        if error is not None:
            if isinstance(error, OutcomeUnknown | StoreUnreachable):
                self.connection.broken = True
            self._fail(error)
            return
        host.link.note_reply(self, applied)
        self.future.set_result(applied)

    def timed_out(self) -> None:
        """The time limit of the request has passed."""
        if not self.future.done():
            self.connection.broken = True
            if self.operation is not None:
                self._fail(OutcomeUnknown(self.method, "no reply within 5 s"))
            else:
                self._fail(StoreUnreachable(self.method, f"{ADDRESS} was not reached within 5 s"))

    def broke(self, why: str) -> None:
        """The connection is gone."""
        if not self.future.done():
            self.connection.broken = True
            self._fail(self.lost(why))

    def lost(self, why: str) -> BackendError:
        """What it means that the connection ended without a reply."""
        if self.operation is not None:
            return OutcomeUnknown(self.method, f"the reply was lost: {why}")
        return StoreUnreachable(self.method, why)

    def _fail(self, error: BackendError) -> None:
        self.backend.host.link.note_failure(self, error)
        self.future.set_exception(error)
