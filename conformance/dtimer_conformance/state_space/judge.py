"""Holds every answer, and the state that it leads to, against the rules: by what could be seen before and can be now.

What the machine asserts of itself is asked first, what happens to events is the ledger's, as in simulations, and the
ring, dead letters, refusals and what is left alone are judged here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from dtimer.limits import (
    ARM_GRACE_US,
    BRANCHES_MAX,
    CLAIM_EXTRA_ENTRIES,
    CLOCK_STEP_US,
    INSTANT_MAX_US,
    MEMBER_LIFE_POLLS,
    REFUSAL_ROUNDS,
    REFUSAL_WAIT_MAX_US,
    SECOND_US,
    STORE_TIME_MAX_US,
    UNARMED_OVERDUE_US,
)
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.outcomes import BuryOutcome, ClaimStatus, JoinOutcome, ReleaseOutcome
from dtimer.protocol.values import (
    After,
    Applied,
    Arm,
    Branch,
    Due,
    EventState,
    LastError,
    LetterName,
    Member,
    Parked,
    Pending,
    Release,
    RingMember,
)
from dtimer.sim.checks.ledger import Ledger
from dtimer_conformance.assertions import RuleBroken
from dtimer_conformance.state_space.book import Book, LostCall, Refused, View

T = TypeVar("T")
HOUR_US: Final = 3_600 * SECOND_US


class Judge:
    """Of any number of states: what it must remember of one stands in its book."""

    def __init__(self) -> None:
        self._complaints: list[tuple[str, str]] = []
        self._ledger = Ledger(self._moment, self._complain)
        self._moments = 0

    def guarded(self, ask: Callable[[], T]) -> T:
        """Ask the machine something.

        Raises:
            RuleBroken: it raised. What it asserts of itself does not hold, or it cannot answer.
        """
        try:
            return ask()
        except AssertionError as error:
            raise RuleBroken(f"the machine's own check: {error}", "check") from error
        except Exception as error:
            raise RuleBroken(f"the machine raised {error!r}", "F5") from error

    def time(self, host_us: int, at_us: int, old_skew_us: int, skew_us: int) -> None:
        """The store's time goes at the pace of its host's clock, and the skew is what it is ahead of that (T2)."""
        _expect(host_us <= INSTANT_MAX_US and at_us <= STORE_TIME_MAX_US, "T2", "it is later than a time can be")
        _expect(skew_us >= old_skew_us, "T2", f"the skew has shrunk by {old_skew_us - skew_us} us")
        behind_us = at_us - host_us - skew_us
        _expect(0 <= behind_us <= CLOCK_STEP_US, "T2", f"{behind_us} us are neither the host's time nor the skew")

    def judge(
        self, asked: Operation[Any], reply: Applied[Any], server: str, *, before: View, after: View, book: Book
    ) -> None:
        """Judge one operation other than a read, and note it in the book.

        Args:
            server: the name of the server that it came to.
            before: what could be seen at its time.

        Raises:
            RuleBroken: by the first thing that is wrong.
        """
        _expect(reply.seq == before.seq + 1, "O1", f"it has number {reply.seq} after {before.seq}")
        _expect(reply.at_us >= before.last_us, "T2", f"its time is {before.last_us - reply.at_us} us too early")
        if server:
            _branches(reply, server, before, after)
        self._told(asked, reply, book)
        _agree(after, book)
        _ring(asked, reply, before, after, book)
        if isinstance(asked, op.Claim):
            _taken(asked, reply, before, after)
        _times(asked, reply, before, after)
        _left_alone(asked, reply, before, after)
        _letters(asked, reply, before, after, book)
        _refusals(asked, reply, before, after, book)
        _forget(after, book)

    def done(self, asked: Operation[Any], reply: Applied[Any]) -> Iterator[str | Member]:
        """The events and members to which it did something, as its client was told."""
        match asked:
            case op.Claim():
                yield from (delivery.event.id for delivery in reply.value.deliveries)
                yield from (ended.event.id for ended in reply.value.ended)
            case op.Join() if reply.value:
                yield asked.member
            case op.Post() | op.Cancel() | op.Confirm() | op.Discard() | op.Extend():
                yield from (id for id, outcome in zip(asked.about(), reply.value, strict=True) if outcome)
            case op.Join() | op.Leave():
                pass
            case _ if reply.value:
                yield from asked.about()
            case _:
                pass

    def nothing_undone(self, lost: LostCall, before: View, after: View) -> None:
        """A call was repeated, and is not to undo what others were told meanwhile (F1)."""
        what = f"the repetition of {lost.operation.method} has undone what another client was told was done"
        for subject in lost.others:
            if isinstance(subject, Member):
                name = (subject.node, subject.incarnation)
                _expect(name not in _members(before) or name in _members(after), "F1", f"{what}: {subject} is out")
            else:
                _expect(_seen_of(before, subject) == _seen_of(after, subject), "F1", f"{what} to {subject!r}")

    def _told(self, asked: Operation[Any], reply: Applied[Any], book: Book) -> None:
        """Have the ledger judge it, and keep its entries."""
        ledger = self._ledger
        # Of another state it goes on with nothing but the entries.
        ledger.live, ledger.dead = {}, {}
        ledger.on_rolled_back(None)
        ledger.live, ledger.dead = book.live, book.dead
        ledger.on_applied("client", 0, "world", asked, reply)
        if self._complaints:
            rules, what = self._complaints[0]
            self._complaints.clear()
            raise RuleBroken(what, rules.split()[0])

    def _complain(self, rules: str, who: str, id: str, what: str) -> None:
        self._complaints.append((rules, f"{id!r}: {what}"))

    def _moment(self) -> int:
        """So far apart that the ledger remembers none of its changes, which are never taken back."""
        self._moments += HOUR_US
        return self._moments


def _expect(holds: bool, rule: str, words: str) -> None:
    if not holds:
        raise RuleBroken(words, rule)


def _branches(reply: Applied[Any], server: str, before: View, after: View) -> None:
    """The first call under a name begins a branch, with the number before it (O2)."""
    known = any(branch.server == server for branch in before.branches)
    expected = before.branches if known else (*before.branches, Branch(server, before.seq))[-BRANCHES_MAX:]
    _expect(after.branches == expected, "O2", f"the branches are {after.branches}, and should be {expected}")
    newest = before.branches[-1].server if known else server
    _expect(reply.branch == newest, "O2", f"it was answered in branch {reply.branch}, and should be in {newest}")


# --- events --------------------------------------------------------------------------------------------------


def _agree(after: View, book: Book) -> None:
    """What is live is what was promised (F5, D2, E1)."""
    _expect(
        after.pending.keys() == book.live.keys(), "F5", f"live are {[*after.pending]}, and should be {[*book.live]}"
    )
    for id, entry in book.live.items():
        pending = after.pending[id]
        out = pending.state is EventState.UNCONFIRMED
        _expect(out == (entry.out is not None), "R1", f"{id!r} is {pending.state.value}")
        _expect(
            entry.due_us <= pending.next_us <= entry.due_by_us,
            "T3",
            f"{id!r} is next at {pending.next_us}, and was to be at {entry.due_us}",
        )
        counts = (pending.delivery_number, pending.num_retries + out)
        _expect(counts == (entry.number, entry.counted), "D2", f"{id!r} has {counts} deliveries and attempts")
        _expect(pending.event == entry.data, "P4", f"{id!r} is not what was posted")


def _taken(asked: op.Claim, reply: Applied[Any], before: View, after: View) -> None:
    """Who may take what (D6, T3), that nothing is left without a word (D5, D7), and in which order (T4)."""
    claimed = reply.value
    if claimed.status is not ClaimStatus.JOINED:
        _expect(not claimed.deliveries and not claimed.ended, "N1", "a node that has not joined was given something")
        return
    touched = {receipt.id for receipt in asked.confirming} | {extension.receipt.id for extension in asked.extending}
    arm = _arm_found(asked, reply, before)
    horizon_us = reply.at_us - (UNARMED_OVERDUE_US if arm is not None and arm.node != asked.member.node else 0)
    claimable = [
        id
        for id, pending in sorted(before.pending.items(), key=lambda item: (item[1].next_us, item[0]))
        if pending.next_us <= horizon_us and id not in touched
    ]
    delivered = [delivery.event.id for delivery in claimed.deliveries if delivery.event.id not in touched]
    taken = {*delivered, *(ended.event.id for ended in claimed.ended)}
    _expect(taken - touched <= {*claimable}, "D6", f"it took {taken}, and may take {claimable}")
    left = [id for id in claimable if id not in taken]
    _expect(claimed.more or not left, "D7", f"it left {left} without a word")
    _expect(not claimed.more or bool(left) or bool(touched), "D5", "it says that there is more, and there is none")
    _expect(delivered == [id for id in claimable if id in delivered], "T4", f"{delivered} are in no order")
    _expect(not left or claimable[: len(taken)] == [id for id in claimable if id in taken], "T4", "it passed one over")
    times = [before.last_us, *(delivery.at_us for delivery in claimed.deliveries)]
    _expect(times == sorted({*times}), "T4", "two deliveries have one microsecond")


def _times(asked: Operation[Any], reply: Applied[Any], before: View, after: View) -> None:
    """What is given a time counts from a microsecond of its own, the operation's or a later one (T4, T5, T6)."""
    now_us = max(before.last_us + 1, reply.at_us)
    match asked:
        case op.Post((new,)) if reply.value[0]:
            id, due_us, rule = new.event.id, _due(new.due, now_us, reply.skew_us), "T5"
        case op.ChangeDelay(id, delay_us) if reply.value:
            due_us, rule = _due(After(delay_us), now_us, 0), "E3"
        case op.Resend(letter, due) if reply.value:
            id, due_us, rule = letter.id, _due(due, now_us, reply.skew_us), "E5"
        case op.Extend((extension,)) if reply.value[0]:
            id, due_us, rule = extension.receipt.id, now_us + extension.timeout_us, "E4"
        case op.GiveBack(receipt, how=how, delay_us=delay_us) if reply.value is ReleaseOutcome.RELEASED and how in {
            Release.COUNTED,
            Release.UNCOUNTED,
        }:
            id, due_us, rule = receipt.id, _due(After(delay_us), now_us, 0), "E4"
        case _:
            return
    _expect(after.pending[id].next_us == due_us, rule, f"{id!r} is next at {after.pending[id].next_us}, not {due_us}")


def _due(due: Due, now_us: int, skew_us: int) -> int:
    due_us = now_us + due.delay_us if isinstance(due, After) else due.due_us + skew_us
    return max(now_us, min(due_us, STORE_TIME_MAX_US))


def _left_alone(asked: Operation[Any], reply: Applied[Any], before: View, after: View) -> None:
    """What is done with one id affects no other (F5)."""
    about = {*asked.about()} if not isinstance(asked, op.Join | op.Leave) else set[str]()
    if isinstance(asked, op.Claim):
        about |= {extension.receipt.id for extension in asked.extending}
        about |= {delivery.event.id for delivery in reply.value.deliveries}
        about |= {ended.event.id for ended in reply.value.ended}
    for id in before.pending.keys() | after.pending.keys():
        if id not in about:
            _expect(before.pending.get(id) == after.pending.get(id), "F5", f"{id!r} was not left alone")


# --- dead letters (E5) -----------------------------------------------------------------------------------------


def _letters(asked: Operation[Any], reply: Applied[Any], before: View, after: View, book: Book) -> None:
    """A letter is kept until it is too old, resent or discarded; each burial adds one."""
    gone: set[LetterName] = set()
    match asked:
        case op.Resend(name):
            found = _named(name, before, book)
            _expect((found is None) == (reply.value.value == "not_found"), "E5", f"{name} was {reply.value.value}")
            gone = {found} if found is not None and reply.value else set()
        case op.Discard((name,)):
            found = _named(name, before, book)
            _expect((found is not None) == bool(reply.value[0]), "E5", f"{name} was {reply.value[0].value}")
            gone = set() if found is None else {found}
        case _:
            pass
    _errors(asked, reply, before, book)
    kept = [letter for letter in before.letters if letter.name not in gone]
    _expect([*after.letters[: len(kept)]] == kept, "E5", "letters that were there are not, or those that were not are")
    new = after.letters[len(kept) :]
    buried = _buried(asked, reply, before)
    _expect({letter.id for letter in new} == buried, "E5", f"buried are {new}, and should be {buried}")
    _expect(len(new) == len(buried), "E5", "one event has two letters")
    for letter in new:
        was = before.pending[letter.id]
        book.buried[letter.id] = letter.buried_us
        _expect(letter.event == was.event, "E5", f"{letter} is not what was posted")
        _expect(letter.delivery_number == was.delivery_number, "E5", f"{letter} had {was.delivery_number} deliveries")
        error = book.errors.get(letter.id)
        _expect(letter.last_error == error, "E5", f"its last error is {letter.last_error}, and should be {error}")
        _expect(letter.buried_us > before.last_us or letter.buried_us == reply.at_us, "T4", f"{letter} is too early")


def _errors(asked: Operation[Any], reply: Applied[Any], before: View, book: Book) -> None:
    """What was told of the last delivery that failed, or that its deadline passed and nothing was told."""
    if isinstance(asked, op.GiveBack) and reply.value and asked.failure is not None:
        id = asked.receipt.id
        book.errors[id] = LastError(
            delivery_number=asked.receipt.delivery_number,
            node=book.holders[id],
            at_us=reply.at_us,
            failure=asked.failure,
        )
    if not isinstance(asked, op.Claim):
        return
    given = {delivery.event.id for delivery in reply.value.deliveries}
    extended = {extension.receipt.id for extension in asked.extending}
    for id in {*given, *(ended.event.id for ended in reply.value.ended)}:
        was = before.pending[id]
        told = book.errors[id].delivery_number if id in book.errors else 0
        if was.state is EventState.UNCONFIRMED and told < was.delivery_number and id not in extended:
            book.errors[id] = LastError(
                delivery_number=was.delivery_number, node=book.holders[id], at_us=was.next_us, failure=None
            )
    book.holders.update(dict.fromkeys(given, asked.member.node))


def _forget(after: View, book: Book) -> None:
    """What is not live, or was posted again, has no past."""
    for past in (book.holders, book.errors):
        for id in [id for id in past if id not in after.pending or not after.pending[id].delivery_number]:
            del past[id]


def _named(name: LetterName, before: View, book: Book) -> LetterName | None:
    """The letter that is meant, if it is there: that of the last burial, if only the id is given."""
    named = LetterName(name.id, book.buried.get(name.id)) if name.buried_us is None else name
    return named if any(letter.name == named for letter in before.letters) else None


def _buried(asked: Operation[Any], reply: Applied[Any], before: View) -> set[str]:
    match asked:
        case op.Claim():
            return {ended.event.id for ended in reply.value.ended if ended.event.dead_letter}
        case op.Bury(receipt) if reply.value is BuryOutcome.BURIED:
            return {receipt.id}
        case op.GiveBack(receipt):
            kept = reply.value is ReleaseOutcome.EXHAUSTED and before.pending[receipt.id].event.dead_letter
            return {receipt.id} if kept or reply.value is ReleaseOutcome.BURIED else set()
        case _:
            return set()


# --- refusals (F4) -----------------------------------------------------------------------------------------------


def _refusals(asked: Operation[Any], reply: Applied[Any], before: View, after: View, book: Book) -> None:
    """At once while the ring goes round, then after waits of at most 4 s, and buried only after the time given."""
    for id in [id for id in book.refused if id not in after.pending or after.pending[id].delivery_number == 0]:
        if not (isinstance(asked, op.GiveBack) and asked.how is Release.REFUSED):
            del book.refused[id]
    if not isinstance(asked, op.GiveBack) or not reply.value:
        return
    id = asked.receipt.id
    if asked.how is Release.COUNTED:
        book.refused.pop(id, None)
    if asked.how is not Release.REFUSED:
        return
    old = book.refused.get(id)
    if old is None:
        now = Refused(1, reply.at_us, book.joins)
    else:
        now = Refused(old.number + 1 if old.joins == book.joins else 1, old.since_us, book.joins)
    over = reply.at_us - now.since_us >= asked.refused_for_us
    _expect(over == (reply.value is ReleaseOutcome.BURIED), "F4", f"refused since {now.since_us}: {reply.value.value}")
    if over:
        book.refused.pop(id, None)
        return
    book.refused[id] = now
    wait_us = after.pending[id].next_us - max(before.last_us + 1, reply.at_us)
    _expect(0 <= wait_us <= REFUSAL_WAIT_MAX_US, "F4", f"{id!r} waits for {wait_us} us")
    members = max(len(before.look.ring), 1)
    if now.number < members * REFUSAL_ROUNDS:
        round_is_over = now.number % members == 0
        _expect(round_is_over == (wait_us > 0), "F4", f"{id!r} waits for {wait_us} us after refusal {now.number}")


# --- the ring and the arm (N1, N3, D8, W2 to W5) --------------------------------------------------------------------


def _ring(asked: Operation[Any], reply: Applied[Any], before: View, after: View, book: Book) -> None:
    expected = {member.node: member for member in before.look.ring}
    claimer: str | None = None
    match asked:
        case op.Join(member):
            _joined(member, reply, expected, book)
        case op.Leave(member):
            there = member.node in expected and expected[member.node].incarnation == member.incarnation
            _expect(reply.value is there, "N1", f"a leave was answered with {reply.value}")
            if there:
                del expected[member.node]
        case op.Claim(member):
            _expect(reply.value.status is _status(member, expected), "N1", f"it is {reply.value.status.value}")
            if reply.value.status is ClaimStatus.JOINED:
                claimer = member.node
                _claimed(asked, reply, before, expected)
        case _:
            pass
    _announced(reply, after, expected)
    seen = [(member.node, member) for member in after.look.ring]
    if [node for node, _ in seen] != [*expected]:
        raise RuleBroken(f"the ring is {seen}, and should be {[*expected]}", "N1")
    for node, found in seen:
        should = expected[node]
        _expect(found.incarnation == should.incarnation, "N1", f"{node} is {found.incarnation}")
        _expect(found.parked == should.parked, "D8", f"{node} is parked as {found.parked}, not {should.parked}")
        _expect(found.expires_us == should.expires_us, "N3", f"{node} is a member until {found.expires_us}")
    _armed(asked, reply, before, after, claimer)


def _joined(member: Member, reply: Applied[Any], expected: dict[str, RingMember], book: Book) -> None:
    old = expected.get(member.node)
    expires_us = reply.at_us + MEMBER_LIFE_POLLS * member.poll_us
    if old is not None and old.incarnation > member.incarnation:
        outcome = JoinOutcome.FENCED
    elif old is not None and old.incarnation == member.incarnation:
        outcome = JoinOutcome.TOOK_OVER if book.took_over.get(member) else JoinOutcome.ALREADY_JOINED
        expected[member.node] = RingMember(member.node, member.incarnation, old.parked, expires_us)
    else:
        took_over = old is not None and old.expires_us > reply.at_us
        outcome = JoinOutcome.TOOK_OVER if took_over else JoinOutcome.JOINED
        book.took_over[member] = took_over
        book.joins += 1
        expected.pop(member.node, None)
        expected[member.node] = RingMember(member.node, member.incarnation, None, expires_us)
    _expect(reply.value is outcome, "N1", f"a join was answered with {reply.value.value}, not {outcome.value}")
    _silent_are_out(expected, reply.at_us)


def _claimed(asked: op.Claim, reply: Applied[Any], before: View, expected: dict[str, RingMember]) -> None:
    member, given = asked.member, len(reply.value.deliveries)
    node = expected[member.node]
    full = Parked.FULL if given >= asked.room else None
    expires_us = reply.at_us + MEMBER_LIFE_POLLS * member.poll_us
    expected[member.node] = RingMember(node.node, node.incarnation, full, expires_us)
    _silent_are_out(expected, reply.at_us)
    suspect = before.look.arm
    if suspect is not None and suspect.node in expected and _is_late(suspect, member, reply.at_us):
        late = expected[suspect.node]
        expected[suspect.node] = RingMember(late.node, late.incarnation, Parked.SUSPECT, late.expires_us)
    if given:
        expected[member.node] = expected.pop(member.node)


def _announced(reply: Applied[Any], after: View, expected: dict[str, RingMember]) -> None:
    """Those who did not hear it are parked (N3), and only the last one may have."""
    for told in reply.announced:
        _expect(told.due_us == after.look.head_us, "W3", f"{told} was told, and the head is {after.look.head_us}")
        _expect(told.node in expected and expected[told.node].parked is None, "N3", f"{told.node} is not to be told")
        if not told.reached:
            deaf = expected[told.node]
            expected[told.node] = RingMember(deaf.node, deaf.incarnation, Parked.UNREACHED, deaf.expires_us)
    _expect(all(not told.reached for told in reply.announced[:-1]), "W2", "two nodes were told and have heard it")


def _armed(asked: Operation[Any], reply: Applied[Any], before: View, after: View, claimer: str | None) -> None:
    arm, head_us = after.look.arm, after.look.head_us
    come_at_us = reply.value.come_at_us if isinstance(asked, op.Claim) else None
    mine = arm is not None and arm.node == claimer
    _expect(come_at_us == (arm.due_us if arm is not None and mine else None), "W4", f"it is to come at {come_at_us}")
    eligible = [member.node for member in after.look.ring if member.parked is None]
    _expect(arm is not None or head_us is None or not eligible, "W2", f"none is armed, and {eligible} could be")
    _expect(arm is None or arm.node in eligible, "D8", f"it is armed, and only {eligible} can come")
    if arm is None:
        return
    _expect(head_us is None or arm.due_us <= head_us, "W2", f"{arm.node} comes at {arm.due_us}, after {head_us}")
    if arm != before.look.arm:
        told = [told for told in reply.announced if told.reached and (told.node, told.due_us) == (arm.node, arm.due_us)]
        _expect(mine or bool(told), "W2", f"{arm.node} does not know of it")
    kept = _arm_found(asked, reply, before)
    if isinstance(asked, op.Claim) and kept is not None and kept.node == claimer and reply.value.deliveries:
        kept = None
    if kept is None or kept.node not in eligible or not _is_same(kept.node, before, after):
        # After the claim of the one that was armed the arm goes to the first of those who can come.
        _expect(arm.node == eligible[0], "W4", f"{arm.node} is armed, and {eligible[0]} comes first")
    elif claimer != kept.node and reply.announced:
        _expect(reply.announced[0].due_us < kept.due_us, "W3", "the armed node was told what it knows")


def _arm_found(asked: Operation[Any], reply: Applied[Any], before: View) -> Arm | None:
    """The arm that is left when a claim has come, and silent members and the suspect are out."""
    arm = before.look.arm
    if arm is None or not isinstance(asked, op.Claim) or reply.value.status is not ClaimStatus.JOINED:
        return arm
    ring = {member.node: member for member in before.look.ring}
    silent = ring[arm.node].expires_us <= reply.at_us and arm.node != asked.member.node
    return None if silent or _is_late(arm, asked.member, reply.at_us) else arm


def _is_late(arm: Arm, claimer: Member, at_us: int) -> bool:
    """W5."""
    return arm.node != claimer.node and at_us > arm.at_us + ARM_GRACE_US


def _silent_are_out(expected: dict[str, RingMember], at_us: int) -> None:
    """N3."""
    silent = sorted((member.expires_us, node) for node, member in expected.items() if member.expires_us <= at_us)
    for _, node in silent[:CLAIM_EXTRA_ENTRIES]:
        del expected[node]


def _status(member: Member, ring: dict[str, RingMember]) -> ClaimStatus:
    """N1."""
    known = ring.get(member.node)
    if known is None or known.incarnation < member.incarnation:
        return ClaimStatus.NOT_JOINED
    return ClaimStatus.JOINED if known.incarnation == member.incarnation else ClaimStatus.FENCED


def _is_same(node: str, before: View, after: View) -> bool:
    """The member is still of the same incarnation."""
    return {member for member in _members(before) if member[0] == node} == {
        member for member in _members(after) if member[0] == node
    }


def _members(view: View) -> set[tuple[str, str]]:
    return {(member.node, member.incarnation) for member in view.look.ring}


def _seen_of(view: View, id: str) -> tuple[Pending | None, list[object]]:
    return view.pending.get(id), [letter for letter in view.letters if letter.id == id]
