"""Confirming, giving back, extending and burying (E1, E4, F4)."""

from __future__ import annotations

from collections.abc import Sequence

from dtimer.protocol import (
    REFUSAL_ROUNDS,
    REFUSAL_WAIT_MAX_US,
    REFUSAL_WAIT_MIN_US,
    BuryOutcome,
    ConfirmOutcome,
    EndReason,
    ExtendOutcome,
    Extension,
    Receipt,
    Release,
    ReleaseOutcome,
)
from dtimer.protocol import operations as op

from dtimer_sqlite import letters, ring
from dtimer_sqlite.records import end, failed, live
from dtimer_sqlite.turn import Row, Turn


def _holds(row: Row, receipt: Receipt) -> bool:
    """Whether the receipt is for the newest delivery, and that is unconfirmed."""
    return bool(row["unconfirmed"]) and (row["number"], row["claim"]) == (receipt.delivery_number, receipt.nonce)


def confirm(turn: Turn, receipts: Sequence[Receipt]) -> tuple[ConfirmOutcome, ...]:
    return tuple(_confirm_one(turn, receipt) for receipt in receipts)


def _confirm_one(turn: Turn, receipt: Receipt) -> ConfirmOutcome:
    row = live(turn, receipt.id)
    if row is None:
        return ConfirmOutcome.NOT_FOUND
    if not _holds(row, receipt):
        return ConfirmOutcome.STALE
    end(turn, row)
    return ConfirmOutcome.CONFIRMED


def confirm_newest(turn: Turn, id: str) -> ConfirmOutcome:
    row = live(turn, id)
    if row is None or not row["unconfirmed"]:
        return ConfirmOutcome.NOT_FOUND
    end(turn, row)
    return ConfirmOutcome.CONFIRMED


def release(turn: Turn, asked: op.GiveBack) -> ReleaseOutcome:
    how, delay_us = asked.how, asked.delay_us
    row = live(turn, asked.receipt.id)
    if row is None:
        return ReleaseOutcome.NOT_FOUND
    if not _holds(row, asked.receipt):
        return ReleaseOutcome.STALE
    if asked.failure is not None:
        row = failed(turn, row, turn.at_us, asked.failure)
    if how is Release.FAILED:
        return ReleaseOutcome.RELEASED
    counted = row["counted"] - (how is not Release.COUNTED)
    refusals, refused_us, refused_joins = None, None, None
    if how is not Release.COUNTED:
        refusals, refused_us, refused_joins = row["refusals"], row["refused_us"], row["refused_joins"]
    if how is Release.COUNTED and counted > row["max_retries"]:
        if row["dead_letter"]:
            letters.bury(turn, row, EndReason.EXHAUSTED, counted=counted)
        else:
            end(turn, row)
        return ReleaseOutcome.EXHAUSTED
    if how is Release.REFUSED:
        # One that has joined since the last refusal may be able to read it, so the ring goes round again.
        refusals = refusals + 1 if refusals is not None and refused_joins == turn.joins else 1
        refused_us = turn.at_us if refused_us is None else refused_us
        refused_joins = turn.joins
        if turn.at_us - refused_us >= asked.refused_for_us:
            letters.bury(turn, row, EndReason.REFUSED, counted=counted)
            return ReleaseOutcome.BURIED
        delay_us = _wait_us(refusals, len(ring.members(turn)))
    turn.db.execute(
        "UPDATE events SET unconfirmed = 0, counted = ?, refusals = ?, refused_us = ?, refused_joins = ?, next_us = ? "
        "WHERE rowid = ?",
        (counted, refusals, refused_us, refused_joins, turn.stamp() + max(delay_us, 0), row["rowid"]),
    )
    return ReleaseOutcome.RELEASED


def _wait_us(refusals: int, members: int) -> int:
    """None while the ring goes round; after each round a longer one (F4)."""
    rounds, rest = divmod(refusals, max(members, 1))
    if rounds < REFUSAL_ROUNDS and rest:
        return 0
    return int(min(REFUSAL_WAIT_MIN_US << min(rounds - 1, REFUSAL_ROUNDS), REFUSAL_WAIT_MAX_US))


def extend(turn: Turn, extensions: Sequence[Extension]) -> tuple[ExtendOutcome, ...]:
    return tuple(_extend_one(turn, each.receipt, each.timeout_us) for each in extensions)


def _extend_one(turn: Turn, receipt: Receipt, timeout_us: int) -> ExtendOutcome:
    row = live(turn, receipt.id)
    if row is None:
        return ExtendOutcome.NOT_FOUND
    if not _holds(row, receipt):
        return ExtendOutcome.STALE
    turn.db.execute("UPDATE events SET next_us = ? WHERE rowid = ?", (turn.stamp() + timeout_us, row["rowid"]))
    return ExtendOutcome.EXTENDED


def bury(turn: Turn, receipt: Receipt, detail: str) -> BuryOutcome:
    row = live(turn, receipt.id)
    if row is None:
        return BuryOutcome.NOT_FOUND
    if not _holds(row, receipt):
        return BuryOutcome.STALE
    letters.bury(turn, row, EndReason.BURIED, counted=row["counted"], detail=detail)
    return BuryOutcome.BURIED
