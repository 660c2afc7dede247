"""Judges a history after it was drained. Pure.

The checks are those that Jepsen makes of queues: what was lost, delivered too often, early, late, or never posted.
A call whose outcome is unknown may have been applied or not; either is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Final

from attrs import define, field, frozen

from soak.history import Cancelled, Deed, Did, Drained, Fault, Got, LeftOver, Moved, Posted, Record, Reply, Told

BOUND_US: Final = 1_000_000
"""How late an event may be while one node lives and the server can be reached (rule D7)."""
SLACK_US: Final = 1_000_000
"""A busy host of two cores may stop any process for as long."""
FOREVER_US: Final = 2**63
LOSS: Final = "StoreLostWrites"
FAILURE: Final = "HandlerFailed"
UNHEARD_US: Final = 3_000_000
"""A node that ends within this time of a call or an exception may not have lived to report it."""
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
    UNTOLD = "not told"
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
    told: list[Told] = field(factory=list)

    @property
    def did(self) -> list[Did]:
        return list(self.calls.values())


@frozen
class Troubles:
    """When what was wrong, in the order of time."""

    outages: Sequence[tuple[int, int]] = ()
    leaps: Sequence[tuple[int, int]] = ()
    losses: Sequence[tuple[int, int]] = ()
    ends: Mapping[str, Sequence[tuple[int, int]]] = field(factory=dict)

    @classmethod
    def of(cls, faults: Iterable[Fault]) -> Troubles:
        ordered = sorted(faults, key=lambda fault: fault.begin_us)
        ends: dict[str, list[tuple[int, int]]] = {}
        for fault in ordered:
            for node in fault.ended:
                ends.setdefault(node, []).append((fault.begin_us, fault.end_us))
        return cls(
            outages=[(fault.begin_us, fault.end_us + RECOVERY_US) for fault in ordered if fault.outage],
            leaps=[(fault.begin_us, fault.end_us) for fault in ordered if fault.leap],
            losses=[(fault.begin_us, fault.end_us) for fault in ordered if fault.lossy],
            ends=ends,
        )

    def leapt(self, from_us: int, to_us: int) -> bool:
        """The server's clock went ahead in that time."""
        return _meets(self.leaps, from_us, to_us)

    def lost(self, from_us: int, to_us: int) -> bool:
        """A server may have lost what was done at the one time, seen by what came at the other."""
        return _meets(self.losses, from_us, to_us)

    def silenced(self, node: str, from_us: int) -> bool:
        """The node's process ended before it can be taken to have told."""
        return _meets(self.ends.get(node, ()), from_us, from_us + UNHEARD_US)


def _meets(spans: Iterable[tuple[int, int]], from_us: int, to_us: int) -> bool:
    return any(begin <= to_us and end >= from_us for begin, end in spans)


@define
class Summary:
    """What a run did, for people.

    Attributes:
        lateness_us: of all deliveries, those around outages left out; sorted.
        unlucky: events without retries that a fault took, as is said of them.
        told: reports, by type.
        lost_told: events that a server lost, as was told to those who called.
        undone_told: confirms and cancels of the kind, after which the event came again.
    """

    posts: Counter[Reply] = field(factory=Counter)
    deliveries: int = 0
    retries: int = 0
    confirmed: int = 0
    cancelled: int = 0
    dead: int = 0
    unlucky: int = 0
    faults: Counter[str] = field(factory=Counter)
    told: Counter[str] = field(factory=Counter)
    lost_told: int = 0
    undone_told: int = 0
    lateness_us: list[int] = field(factory=list)

    def percentile_ms(self, percent: float) -> float:
        """Of the lateness; NaN without deliveries."""
        if not self.lateness_us:
            return float("nan")
        return self.lateness_us[min(int(len(self.lateness_us) * percent / 100), len(self.lateness_us) - 1)] / 1_000


def judge(history: Iterable[Record]) -> tuple[Summary, list[Violation]]:
    """What happened, and what should not have."""
    lives: dict[str, Life] = {}
    faults: list[Fault] = []
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
                faults.append(record)
            case Told():
                summary.told[record.of] += 1
                for id in record.ids:
                    lives.setdefault(id, Life()).told.append(record)
            case LeftOver():
                left = record
            case Drained():
                drained_us = record.at_us
    troubles = Troubles.of(faults)
    violations = [Violation(Verdict.STUCK, id, "long after everything was due") for id in left.live]
    if drained_us is None:
        violations.append(Violation(Verdict.STUCK, "", "the run was never drained, so nothing is known of losses"))
    for id, life in lives.items():
        life.got.sort(key=lambda got: (got.number, got.now_us))
        violations += _of_one(id, life, left, troubles, summary)
    summary.dead = len(left.dead)
    summary.lateness_us.sort()
    return summary, violations


def _of_one(id: str, life: Life, left: LeftOver, troubles: Troubles, summary: Summary) -> Iterable[Violation]:
    posted = life.posted
    if posted is None or (posted.reply is Reply.FAILED and life.got):
        yield Violation(Verdict.UNEXPECTED, id, f"it was given to {life.got[0].node}" if life.got else "never given")
        return
    summary.deliveries += len(life.got)
    yield from _timely(posted, life, troubles, summary)
    yield from _not_too_often(posted, life, troubles)
    yield from _ended(posted, life, left, troubles, summary)
    yield from _reported(life, troubles)


def _timely(posted: Posted, life: Life, troubles: Troubles, summary: Summary) -> Iterable[Violation]:
    for got in life.got:
        if not got.intact:
            yield Violation(Verdict.DAMAGED, got.id, f"delivery {got.number}")
        if got.at_us < got.due_us:
            yield Violation(Verdict.EARLY, got.id, f"by {got.due_us - got.at_us} us of the store's own clock")
        if got.at_us > got.now_us:
            continue  # the server's clock is ahead just now, and what it makes due has waited for nothing
        spans = [(0, got.due_us), *troubles.outages]
        began_us = max(end for begin, end in spans if begin <= got.at_us and end >= got.due_us)
        if began_us == got.due_us:
            summary.lateness_us.append(got.at_us - got.due_us)
        if got.at_us - began_us > BOUND_US + SLACK_US:
            yield Violation(Verdict.LATE, got.id, f"delivery {got.number} by {(got.at_us - began_us) / 1e6:.3f} s")
    if life.got and life.got[0].number == 1 and not life.moves:
        earliest_us = posted.call_us + posted.delay_us
        if life.got[0].at_us < earliest_us and not troubles.leapt(posted.call_us, life.got[0].now_us):
            yield Violation(Verdict.EARLY, posted.id, f"by {earliest_us - life.got[0].at_us} us of its caller's clock")


def _not_too_often(posted: Posted, life: Life, troubles: Troubles) -> Iterable[Violation]:
    numbers = [got.number for got in life.got]
    for got, again in zip(life.got, life.got[1:], strict=False):
        if got.number == again.number and not _undone(life, got.node, _claimed_us(got), again.now_us, troubles):
            yield Violation(Verdict.TOO_OFTEN, posted.id, f"one delivery came twice: {numbers}")
            break
    counted = {got.num_retries for got in life.got}
    if counted and max(counted) > posted.max_retries:
        yield Violation(Verdict.TOO_OFTEN, posted.id, f"{max(counted)} retries of {posted.max_retries}")
    if posted.max_retries == 0 and len(set(numbers)) > 1:
        yield Violation(Verdict.TOO_OFTEN, posted.id, "it was to be at most once")
    given_back = {did.number for did in life.did if did.deed in {Deed.RELEASED, Deed.RAISED, Deed.UNKNOWN}}
    extended_us = {did.number: did.begin_us + did.extended_us for did in life.did if did.deed is Deed.EXTENDED}
    for earlier, later in zip(life.got, life.got[1:], strict=False):
        if earlier.deadline_us is None or later.number != earlier.number + 1 or earlier.number in given_back:
            continue
        until_us = extended_us.get(earlier.number, earlier.deadline_us)
        if later.at_us < until_us and not troubles.leapt(_claimed_us(earlier), later.now_us):
            detail = f"delivery {later.number} came {(until_us - later.at_us) / 1e6:.3f} s before the deadline"
            yield Violation(Verdict.AT_ONCE, posted.id, detail)


def _claimed_us(got: Got) -> int:
    """Not after it was claimed, by the host's clock: while the server's is ahead, it is known roughly only."""
    return got.at_us if got.at_us <= got.now_us else got.now_us - SLACK_US


def _undone(life: Life, by: str, at_us: int, seen_us: int, troubles: Troubles) -> bool:
    """A server lost what was done, and who had called was told, unless its process had ended."""
    if not troubles.lost(at_us, seen_us):
        return False
    return any(told.of == LOSS and told.at_us >= at_us for told in life.told) or troubles.silenced(by, at_us)


def _reported(life: Life, troubles: Troubles) -> Iterable[Violation]:
    """Each exception of a handler is one report."""
    nodes = {got.number: got.node for got in life.got}
    raised = [did for did in life.did if did.deed is Deed.RAISED]
    unheard = sum(troubles.silenced(nodes[did.number], did.begin_us) for did in raised if did.number in nodes)
    reports = sum(told.of == FAILURE for told in life.told)
    if not len(raised) - unheard <= reports <= len(raised):
        detail = f"{len(raised)} exceptions, {reports} reports"
        yield Violation(Verdict.UNTOLD, raised[0].id if raised else life.told[0].ids[0], detail)


def _ended(posted: Posted, life: Life, left: LeftOver, troubles: Troubles, summary: Summary) -> Iterable[Violation]:
    nodes = {got.number: got.node for got in life.got}
    ends = [(did.end_us, nodes.get(did.number, "")) for did in life.did if did.deed in {Deed.CONFIRMED, Deed.BURIED}]
    ends += [(cancel.reply_us, "") for cancel in life.cancels if cancel.reply is Reply.DONE]
    summary.retries += sum(got.num_retries > 0 for got in life.got)
    summary.confirmed += any(did.deed is Deed.CONFIRMED for did in life.did)
    summary.cancelled += any(cancel.reply is Reply.DONE for cancel in life.cancels)
    last = max(life.got, key=_claimed_us, default=None)
    undone = False
    for end_us, node in ends:
        if last is None or _claimed_us(last) <= end_us:
            continue
        if _undone(life, node, end_us, last.now_us, troubles):
            undone = True
            continue
        yield Violation(Verdict.AFTER_ITS_END, posted.id, f"delivery {last.number}")
        break
    summary.undone_told += undone
    if ends or posted.reply is not Reply.DONE or posted.id in left.dead:
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
        if troubles.lost(posted.call_us, FOREVER_US) and any(told.of == LOSS for told in life.told):
            summary.lost_told += 1
            return
        yield Violation(Verdict.LOST, posted.id, f"after {len(life.got)} deliveries: not confirmed, not a dead letter")
