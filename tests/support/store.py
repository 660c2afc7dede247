"""A machine to talk to in one line, with its own little clock and nodes that hear or do not."""

from __future__ import annotations

from dtimer.limits import SECOND_US
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation, ReplyT_co
from dtimer.protocol.outcomes import PostOutcome, ReleaseOutcome
from dtimer.protocol.values import (
    After,
    Applied,
    At,
    Claimed,
    Delivery,
    EventData,
    Failure,
    IfExists,
    Inspection,
    Member,
    NewEvent,
    Page,
    Release,
    RetryPolicy,
    Window,
)
from dtimer.semantics import Machine

START_US = 1_900_000_000 * SECOND_US


class Store:
    """The machine, at a time that only :meth:`wait` moves.

    Attributes:
        deaf: nodes whom announcements do not reach.
        told: every announcement so far, as (node, due in us after the start, reached).
    """

    def __init__(self) -> None:
        self.machine = Machine("epoch")
        self.now_us = START_US
        self.deaf: set[str] = set()
        self.told: list[tuple[str, int, bool]] = []
        self._claims = 0

    def do(self, operation: Operation[ReplyT_co]) -> ReplyT_co:
        return self.reply(operation).value

    def reply(self, operation: Operation[ReplyT_co]) -> Applied[ReplyT_co]:
        at_us = max(self.now_us, self.machine.last_us)
        reply = self.machine.apply(operation, at_us=at_us, reach=lambda node: node not in self.deaf)
        self.machine.check()
        self.told += [(told.node, told.due_us - START_US, told.reached) for told in reply.announced]
        return reply

    def wait(self, duration_us: int) -> None:
        self.now_us = max(self.now_us, self.machine.last_us) + duration_us

    def join(self, *nodes: str) -> None:
        for node in nodes:
            self.do(op.Join(Member(node, "1")))

    def post(
        self,
        id: str = "e",
        delay_us: int = 0,
        *,
        payload: bytes = b"",
        at_us: int | None = None,
        max_retries: int = 0,
        dead_letter: bool = False,
        if_exists: IfExists = IfExists.REPLACE,
        confirm_timeout_us: int | None = None,
        expires_after_us: int | None = None,
        retry: RetryPolicy | None = None,
    ) -> PostOutcome:
        event = EventData(
            id=id,
            payload=payload,
            max_retries=max_retries,
            dead_letter=dead_letter,
            confirm_timeout_us=confirm_timeout_us,
            expires_after_us=expires_after_us,
            retry=retry,
        )
        due = After(delay_us) if at_us is None else At(at_us)
        return self.do(op.Post((NewEvent(event, due, if_exists),)))[0]

    def claim(self, node: str = "a", room: int = 8, *, timeout_us: int = SECOND_US, incarnation: str = "1") -> Claimed:
        self._claims += 1
        claim = op.Claim(
            member=Member(node, incarnation), room=room, confirm_timeout_us=timeout_us, nonce=f"c{self._claims}"
        )
        return self.do(claim)

    def take(self, node: str = "a", *, timeout_us: int = SECOND_US) -> Delivery:
        """A claim that brings exactly one delivery."""
        (delivery,) = self.claim(node, timeout_us=timeout_us).deliveries
        return delivery

    def release(
        self,
        delivery: Delivery,
        how: Release,
        delay_us: int = 0,
        failure: Failure | None = None,
        *,
        refused_for_us: int = SECOND_US,
    ) -> ReleaseOutcome:
        return self.do(
            op.GiveBack(
                receipt=delivery.receipt, how=how, delay_us=delay_us, failure=failure, refused_for_us=refused_for_us
            )
        )

    def page(self, window: Window | None = None, limit: int = 256) -> Page:
        return self.do(op.Upcoming(window or Window(), limit))

    def look(self) -> Inspection:
        return self.do(op.Inspect())


def ids(claimed: Claimed) -> list[str]:
    """What a claim brought, in its order."""
    return [delivery.event.id for delivery in claimed.deliveries]
