"""Repeats failed calls of which a second attempt does no harm, whatever other clients have done since (rule F1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, TypeVar

from dtimer.errors import (
    BackendError,
    Known,
    OutcomeUnknown,
    StoreBusy,
    StoreNotWritable,
    StoreReadOnly,
    StoreRefused,
    StoreUnreachable,
    WrongProcessOrLoop,
)
from dtimer.node.fetch_schedule import Backoff
from dtimer.protocol.backend import Runtime
from dtimer.safe_repr import safe_repr

T = TypeVar("T")

TRANSIENT: Final = (StoreUnreachable, OutcomeUnknown, StoreBusy, StoreReadOnly, StoreNotWritable)
"""Failures that may be over in a moment. A server that is read-only, or has lost its replicas, was the master before:
a failover is under way."""


async def retrying(runtime: Runtime, request: Callable[[], Awaitable[T]], within_us: int) -> tuple[T, bool]:
    """Repeat a request until it works, or its time is over.

    Args:
        within_us: no attempt begins later than this after the first.

    Returns:
        The reply to the last attempt; and whether the outcome of an earlier attempt is unknown,
        so that the reply may show the effect of that one.

    Raises:
        OutcomeUnknown: no attempt worked, and at least one reply was lost.
        BackendError: no attempt was applied.
    """
    give_up_us = runtime.now_us() + within_us
    backoff: Backoff | None = None
    lost = False
    while True:
        try:
            return await request(), lost
        except TRANSIENT as error:
            backoff = backoff or Backoff(runtime.draw)
            lost = lost or error.known is Known.PERHAPS_APPLIED
            pause_us = backoff.next_us()
            if not error.safe_to_repeat or runtime.now_us() + pause_us > give_up_us:
                raise_truthfully(error, lost=lost)
        except BackendError as error:
            raise_truthfully(error, lost=lost)
        await runtime.sleep(pause_us)


def raise_truthfully(error: BackendError, *, lost: bool) -> NoReturn:
    """Raise the error of the last attempt; an earlier attempt whose reply was lost makes it an `OutcomeUnknown`."""
    if lost and error.known is Known.NOT_APPLIED:
        raise OutcomeUnknown(error.operation, f"an earlier try's reply was lost, then: {error.problem}") from error
    raise error


def restated(error: BaseException, operation: str, *, lost: bool = False) -> Exception:
    """A failure as one caller gets it: an instance of its own, with the operation that this caller asked for.

    An exception that several tasks raise would collect the tracebacks of all.
    """
    if isinstance(error, WrongProcessOrLoop):
        own: Exception = WrongProcessOrLoop(*error.args)
    elif not isinstance(error, BackendError):
        own = OutcomeUnknown(operation, f"the backend raised {safe_repr(error)}")
    elif lost or error.known is Known.PERHAPS_APPLIED:
        own = OutcomeUnknown(operation, error.problem)
    elif type(error).__init__ is BackendError.__init__:
        own = type(error)(operation, error.problem)
    else:
        own = StoreRefused(operation, error.problem)
    own.__cause__ = error
    return own
