"""Judges a history after it was drained. Pure.

The checks are those that Jepsen makes of queues: what was lost, delivered too often, early, late, or never posted.
A call whose outcome is unknown may have been applied or not; either is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final

from attrs import define, field, frozen

from soak.history import Cancelled, Deed, Did, Drained, Fault, Got, LeftOver, Moved, Posted, Record, Reply

BOUND_US: Final = 1_000_000
"""How late an event may be while one node lives and the server can be reached (rule D7)."""
SLACK_US: Final = 1_000_000
"""A busy host of two cores may stop any process for as long."""
RECOVERY_US: Final = 4_000_000
"""After an outage nodes reconnect within their longest pause, 2 s, and the bound; the rest is for new processes."""


class Verdict(Enum):
    LOST = "lost"
    TOO_OFTEN = "delivered more often than promised"
    AT_ONCE = "given to two nodes at once"
    AFTER_ITS_END = "delivered after its end"
    EARLY = "early"
    LATE = "late beyond the bound"
    UNEXPECTED = "never posted"
    DAMAGED = "not as posted"
    STUCK = "left in the store"


@frozen
class Violation:
    verdict: Verdict
    id: str
    detail: str


@define
class Life:
    """All that is known of one id; ids are never used twice."""

    posted: Posted | None = None
    cancels: list[Cancelled] = field(factory=list)
    moves: list[Moved] = field(factory=list)
    got: list[Got] = field(factory=list)
    calls: dict[tuple[int, int], Did] = field(factory=dict)

    @property
    def did(self) -> list[Did]:
        return list(self.calls.values())


@define
class Summary:
    """What a run did, for people.

    Attributes:
        lateness_us: of all deliveries, those around outages left out; sorted.
        unlucky: events without retries that a fault took, as is said of them.
    """

    posts: Counter[Reply] = field(factory=Counter)
    deliveries: int = 0
    retries: int = 0
    confirmed: int = 0
    cancelled: int = 0
    dead: int = 0
    unlucky: int = 0
    faults: Counter[str] = field(factory=Counter)
    lateness_us: list[int] = field(factory=list)

    def percentile_ms(self, percent: float) -> float:
        """Of the lateness; NaN without deliveries."""
        if not self.lateness_us:
            return float("nan")
        return self.lateness_us[min(int(len(self.lateness_us) * percent / 100), len(self.lateness_us) - 1)] / 1_000


def judge(history: Iterable[Record]) -> tuple[Summary, list[Violation]]:
    """What happened, and what should not have."""
    lives: dict[str, Life] = {}
    outages: list[tuple[int, int]] = []
    summary = Summary()
    left = LeftOver((), ())
    drained_us: int | None = None
    for record in history:
        match record:
            case Posted():
                lives.setdefault(record.id, Life()).posted = record
                summary.posts[record.reply] += 1
            case Cancelled():
                lives.setdefault(record.id, Life()).cancels.append(record)
            case Moved():
                lives.setdefault(record.id, Life()).moves.append(record)
            case Got():
                lives.setdefault(record.id, Life()).got.append(record)
            case Did():
                # The later one knows more.
                lives.setdefault(record.id, Life()).calls[record.number, record.begin_us] = record
            case Fault():
                summary.faults[record.name] += 1
                if record.outage:
                    outages.append((record.begin_us, record.end_us + RECOVERY_US))
            case LeftOver():
                left = record
            case Drained():
                drained_us = record.at_us
    outages.sort()
    violations = [Violation(Verdict.STUCK, id, "long after everything was due") for id in left.live]
    if drained_us is None:
        violations.append(Violation(Verdict.STUCK, "", "the run was never drained, so nothing is known of losses"))
    for id, life in lives.items():
        life.got.sort(key=lambda got: (got.number, got.at_us))
        violations += _of_one(id, life, left, outages, summary)
    summary.dead = len(left.dead)
    summary.lateness_us.sort()
    return summary, violations


def _of_one(
    id: str, life: Life, left: LeftOver, outages: Sequence[tuple[int, int]], summary: Summary
) -> Iterable[Violation]:
    posted = life.posted
    if posted is None or (posted.reply is Reply.FAILED and life.got):
        yield Violation(Verdict.UNEXPECTED, id, f"it was given to {life.got[0].node}" if life.got else "never given")
        return
    summary.deliveries += len(life.got)
    yield from _timely(posted, life, outages, summary)
    yield from _not_too_often(posted, life)
    yield from _ended(posted, life, left, outages, summary)


def _timely(posted: Posted, life: Life, outages: Sequence[tuple[int, int]], summary: Summary) -> Iterable[Violation]:
    for got in life.got:
        if not got.intact:
            yield Violation(Verdict.DAMAGED, got.id, f"delivery {got.number}")
        if got.at_us < got.due_us:
            yield Violation(Verdict.EARLY, got.id, f"by {got.due_us - got.at_us} us of the store's own clock")
        began_us = max(end for begin, end in [(0, got.due_us), *outages] if begin <= got.at_us and end >= got.due_us)
        if began_us == got.due_us:
            summary.lateness_us.append(got.at_us - got.due_us)
        if got.at_us - began_us > BOUND_US + SLACK_US:
            yield Violation(Verdict.LATE, got.id, f"delivery {got.number} by {(got.at_us - began_us) / 1e6:.3f} s")
    if life.got and life.got[0].number == 1 and not life.moves:
        earliest_us = posted.call_us + posted.delay_us
        if life.got[0].at_us < earliest_us:
            yield Violation(Verdict.EARLY, posted.id, f"by {earliest_us - life.got[0].at_us} us of its caller's clock")


def _not_too_often(posted: Posted, life: Life) -> Iterable[Violation]:
    numbers = [got.number for got in life.got]
    if len(set(numbers)) < len(numbers):
        yield Violation(Verdict.TOO_OFTEN, posted.id, f"one delivery came twice: {numbers}")
    counted = {got.num_retries for got in life.got}
    if counted and max(counted) > posted.max_retries:
        yield Violation(Verdict.TOO_OFTEN, posted.id, f"{max(counted)} retries of {posted.max_retries}")
    if posted.max_retries == 0 and len(numbers) > 1:
        yield Violation(Verdict.TOO_OFTEN, posted.id, "it was to be at most once")
    given_back = {did.number for did in life.did if did.deed in {Deed.RELEASED, Deed.RAISED, Deed.UNKNOWN}}
    extended_us = {did.number: did.begin_us + did.extended_us for did in life.did if did.deed is Deed.EXTENDED}
    for earlier, later in zip(life.got, life.got[1:], strict=False):
        if earlier.deadline_us is None or later.number != earlier.number + 1 or earlier.number in given_back:
            continue
        until_us = extended_us.get(earlier.number, earlier.deadline_us)
        if later.at_us < until_us:
            detail = f"delivery {later.number} came {(until_us - later.at_us) / 1e6:.3f} s before the deadline"
            yield Violation(Verdict.AT_ONCE, posted.id, detail)


def _ended(
    posted: Posted, life: Life, left: LeftOver, outages: Sequence[tuple[int, int]], summary: Summary
) -> Iterable[Violation]:
    ends_us = [did.end_us for did in life.did if did.deed in {Deed.CONFIRMED, Deed.BURIED}]
    ends_us += [cancel.reply_us for cancel in life.cancels if cancel.reply is Reply.DONE]
    summary.retries += sum(got.num_retries > 0 for got in life.got)
    summary.confirmed += any(did.deed is Deed.CONFIRMED for did in life.did)
    summary.cancelled += any(cancel.reply is Reply.DONE for cancel in life.cancels)
    if ends_us and life.got and life.got[-1].at_us > min(ends_us):
        yield Violation(Verdict.AFTER_ITS_END, posted.id, f"delivery {life.got[-1].number}")
    if ends_us or posted.reply is not Reply.DONE or posted.id in left.dead:
        return
    if any(cancel.reply is Reply.UNKNOWN for cancel in life.cancels):
        return
    if any(did.deed in {Deed.UNKNOWN, Deed.TOO_LATE} for did in life.did):
        return  # that confirm, or the one before it, may have ended it
    if posted.max_retries == 0:
        if not life.got:
            # Gone from the store as soon as it is given out; a node that dies, or a reply that is lost, takes it along.
            summary.unlucky += 1
            if not summary.faults:
                yield Violation(Verdict.LOST, posted.id, "without any fault")
        return
    if posted.id not in left.live:
        yield Violation(Verdict.LOST, posted.id, f"after {len(life.got)} deliveries: not confirmed, not a dead letter")
