"""Calls that are repeated inside, because a second time does no harm whatever others have done since (rule F1)."""

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
"""Failures that may be over in a moment. A server that only reads, or has lost its replicas, was a master until then:
a failover is under way."""


async def retrying(runtime: Runtime, request: Callable[[], Awaitable[T]], within_us: int) -> tuple[T, bool]:
    """Call until it works.

    Args:
        within_us: no try begins later than this after the first one.

    Returns:
        What the last try answered; and whether the outcome of an earlier try is unknown,
        so that this one may have met its traces.

    Raises:
        OutcomeUnknown: some try's reply was lost, and none worked.
        BackendError: no try was applied.
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
    """That the last try was not applied says nothing about an earlier one whose reply was lost."""
    if lost and error.known is Known.NOT_APPLIED:
        raise OutcomeUnknown(error.operation, f"an earlier try's reply was lost, then: {error.problem}") from error
    raise error


def restated(error: BaseException, operation: str, *, lost: bool = False) -> Exception:
    """The same failure as an instance of one caller's own, named after what that caller asked for.

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
