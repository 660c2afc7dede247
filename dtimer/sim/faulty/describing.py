"""Operations and replies in a few words and numbers, for the trace."""

from __future__ import annotations

from enum import Enum
from typing import cast

from dtimer.protocol import operations as op
from dtimer.protocol.values import Branch, Claimed
from dtimer.sim.faulty.trace import Field


def outcome_of(value: object) -> list[Field]:
    """What came of each of these; of a claim only the outcomes of its confirms."""
    if isinstance(value, tuple):
        parts = cast("tuple[Enum | Branch, ...]", value)
        return [part.server if isinstance(part, Branch) else str(part.value) for part in parts]
    if isinstance(value, Enum):
        return [str(value.value)]
    if isinstance(value, bool):
        return [value]
    if isinstance(value, Claimed):
        return [str(outcome.value) for outcome in value.confirmed]
    return []


def taken_by(claim: op.Claim, claimed: Claimed) -> dict[str, Field]:
    """The fields that the record of a claim has besides: ``got`` holds id, number and retries of each delivery."""
    fields: dict[str, Field] = {
        "status": claimed.status.value,
        "got": [
            [delivery.receipt.id, delivery.receipt.delivery_number, delivery.num_retries]
            for delivery in claimed.deliveries
        ],
    }
    if claimed.extended:
        outcomes = zip(claim.extending, claimed.extended, strict=True)
        fields["extended"] = [[extension.receipt.id, outcome.value] for extension, outcome in outcomes]
    if claimed.ended:
        fields["ended"] = [[ended.event.id, ended.reason.value] for ended in claimed.ended]
    if claimed.unreadable:
        fields["unreadable"] = [unreadable.id for unreadable in claimed.unreadable]
    fields["more"] = claimed.more
    fields["come"] = claimed.come_at_us
    return fields
