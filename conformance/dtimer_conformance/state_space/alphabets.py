"""The six small worlds: two nodes and two ids each, and a dozen moves at most."""

from __future__ import annotations

from typing import Any, Final

from dtimer.limits import BATCH_MAX_ITEMS, DAY_US, DEAD_LETTER_AGE_US, MILLISECOND_US, SECOND_US, YEAR_US
from dtimer.protocol import operations as op
from dtimer.protocol.values import (
    After,
    EventData,
    Extension,
    Failure,
    IfExists,
    LetterName,
    Member,
    NewEvent,
    Receipt,
    Release,
)
from dtimer_conformance.programs import NO_RECEIPT, ClaimMore, Leap, Listen, OnDelivery, OnLetter, Serve, Wait
from dtimer_conformance.state_space.moves import Alphabet, Lost, Move, Repeated, TimeOfDay

OVERDUE_US: Final = 60 * MILLISECOND_US
"""Later than this every member may claim an event (D6), and an armed node that has not come is suspect (W5)."""
TIMEOUT_US: Final = 80 * MILLISECOND_US
"""Of confirms: passed by two waits."""

REFUSED_FOR_US: Final = 150 * MILLISECOND_US
"""Passed by three waits."""
POLL_US: Final = 10 * MILLISECOND_US
"""Of a member that is silent for too long after two waits (N3)."""

A: Final = Member("a", "i1")
B: Final = Member("b", "i1")
_HEARD: Final = (Listen("a", True), Listen("b", True))


def _post(id: str, delay_us: int = 0, if_exists: IfExists = IfExists.REPLACE, **fields: Any) -> op.Post:
    return op.Post((NewEvent(EventData(id=id, payload=b"\n", **fields), After(delay_us), if_exists),))


def _claim(member: Member, room: int = BATCH_MAX_ITEMS) -> ClaimMore:
    return ClaimMore(member, room, False, (), (), TIMEOUT_US)


def _give_back(how: Release, delay_us: int = 0, refused_for_us: int = 0) -> op.GiveBack:
    failure = None if how is Release.UNCOUNTED else Failure("E", "no")
    return op.GiveBack(receipt=NO_RECEIPT, how=how, delay_us=delay_us, failure=failure, refused_for_us=refused_for_us)


RETRIES: Final = Alphabet(
    "retries",
    "deliveries that are confirmed, given back, extended or left to their deadlines, by the newest receipt or an older",
    (*_HEARD, op.Join(A), op.Join(B)),
    (
        Move("post x, one retry", _post("x", max_retries=1)),
        Move("post y, kept when dead", _post("y", -1, dead_letter=True, confirm_timeout_us=55 * MILLISECOND_US)),
        Move("a claims all", _claim(A)),
        Move("b claims one", _claim(B, 1)),
        Move("a claims, extending the newest", ClaimMore(A, 1, False, (), ((0, OVERDUE_US),), TIMEOUT_US)),
        Move("confirm", OnDelivery(0, op.Confirm(()))),
        Move("confirm the delivery before", OnDelivery(1, op.Confirm(()))),
        Move("release, counted", OnDelivery(0, _give_back(Release.COUNTED, OVERDUE_US))),
        Move("release the one before, uncounted", OnDelivery(1, _give_back(Release.UNCOUNTED))),
        Move("extend", OnDelivery(0, op.Extend((Extension(NO_RECEIPT, TIMEOUT_US),)))),
        Move("say that it failed", OnDelivery(0, _give_back(Release.FAILED))),
        Move("60 ms pass", Wait(OVERDUE_US)),
    ),
    depth=8,
    short_depth=5,
    past_us=55 * MILLISECOND_US,
    ahead_us=SECOND_US,
)

REFUSALS: Final = Alphabet(
    "refusals",
    "nodes without room (D8), payloads that are refused or buried (F4), and who is asked next",
    (*_HEARD, op.Join(A), op.Join(B)),
    (
        Move("post x, two retries", _post("x", max_retries=2)),
        Move("post y, kept when dead", _post("y", dead_letter=True)),
        Move("a claims one", _claim(A, 1)),
        Move("b claims all", _claim(B)),
        Move("a claims without room", _claim(A, 0)),
        Move("refuse", OnDelivery(0, _give_back(Release.REFUSED, 0, REFUSED_FOR_US))),
        Move("refuse the delivery before", OnDelivery(1, _give_back(Release.REFUSED, 0, REFUSED_FOR_US))),
        Move("release, counted", OnDelivery(0, _give_back(Release.COUNTED))),
        Move("bury", OnDelivery(0, op.Bury(NO_RECEIPT, "enough"))),
        Move("b joins again", op.Join(Member("b", "i2"))),
        Move("60 ms pass", Wait(OVERDUE_US)),
    ),
    depth=8,
    short_depth=5,
    past_us=REFUSED_FOR_US + 5 * MILLISECOND_US,
    ahead_us=SECOND_US,
)

_A_LATER: Final = Member("a", "i2")
_MINE: Final = Receipt("x", 1, f"{1:016x}")
"""Of the delivery with which the alphabet of lost calls begins."""
LOST_CALLS: Final = Alphabet(
    "lost calls",
    "a call whose reply is lost, and its repetition, with calls of another client in between (F1)",
    (*_HEARD, op.Join(A), _post("x", max_retries=1, dead_letter=True), _claim(A)),
    (
        Move("its post of x is lost", Lost(_post("x", OVERDUE_US), arrives=True)),
        Move("its cancel of x is lost", Lost(op.Cancel(("x",)), arrives=True)),
        Move("its join is lost", Lost(op.Join(A), arrives=True)),
        Move("its join does not arrive", Lost(op.Join(A), arrives=False)),
        Move("its leave is lost", Lost(op.Leave(A), arrives=True)),
        Move("its burial of x is lost", Lost(op.Bury(_MINE, "enough"), arrives=True)),
        Move("it repeats the call", Repeated()),
        Move("another posts x", _post("x", max_retries=1)),
        Move("another cancels x", op.Cancel(("x",))),
        Move("another joins in its place", op.Join(_A_LATER)),
        Move("the one in its place claims", _claim(_A_LATER)),
        Move("another sends the dead x again", op.Resend(LetterName("x"), After(0), IfExists.REPLACE)),
    ),
    depth=20,
    short_depth=6,
    past_us=55 * MILLISECOND_US,
    ahead_us=SECOND_US,
)

_BRIEF_A: Final = Member("a", "i1", POLL_US)
_BRIEF_B: Final = Member("b", "i1", POLL_US)
_BRIEF_LATER_A: Final = Member("a", "i2", POLL_US)
RING: Final = Alphabet(
    "ring",
    "members that join, leave, claim, hear nothing, come late or fall silent (N1, N3, W2 to W5)",
    (*_HEARD,),
    (
        Move("a joins", op.Join(_BRIEF_A)),
        Move("a joins elsewhere", op.Join(_BRIEF_LATER_A)),
        Move("a leaves", op.Leave(_BRIEF_A)),
        Move("b joins", op.Join(_BRIEF_B)),
        Move("a claims all", _claim(_BRIEF_A)),
        Move("b claims one", _claim(_BRIEF_B, 1)),
        Move("a hears nothing", Listen("a", False)),
        Move("b hears nothing", Listen("b", False)),
        Move("post x for soon", _post("x", OVERDUE_US)),
        Move("post y for now", _post("y")),
        Move("cancel x", op.Cancel(("x",))),
        Move("60 ms pass", Wait(OVERDUE_US)),
    ),
    depth=8,
    short_depth=5,
    past_us=55 * MILLISECOND_US,
    ahead_us=SECOND_US,
)

CLOCK: Final = Alphabet(
    "clock",
    "a host's clock that leaps and comes back, with delays and times of day (T1 to T6)",
    (*_HEARD, Serve("s1"), op.Join(A)),
    (
        Move("post x for a time of day", TimeOfDay(EventData(id="x", payload=b"\n", max_retries=1), SECOND_US)),
        Move("post y with a delay", _post("y", SECOND_US)),
        Move("move x", op.ChangeDelay("x", SECOND_US)),
        Move("claim all", _claim(A)),
        Move("release, counted", OnDelivery(0, _give_back(Release.COUNTED, SECOND_US))),
        Move("a day ahead", Leap(DAY_US)),
        Move("a day back", Leap(-DAY_US)),
        Move("130 years ahead", Leap(130 * YEAR_US)),
        Move("130 years back", Leap(-130 * YEAR_US)),
        Move("another server answers", Serve("s2")),
        Move("the first server answers", Serve("s1")),
        Move("a second passes", Wait(SECOND_US)),
    ),
    depth=7,
    short_depth=5,
    # A leap brings back whatever lies in between.
    past_us=400 * YEAR_US,
    ahead_us=400 * YEAR_US,
)

EXPIRY: Final = Alphabet(
    "expiry",
    "events that expire (P7), and dead letters that are sent again, discarded, or kept for thirty days (E5)",
    (*_HEARD, op.Join(Member("a", "i1", DEAD_LETTER_AGE_US))),
    (
        Move("post x, kept when dead", _post("x", dead_letter=True, expires_after_us=TIMEOUT_US)),
        Move("post y, one retry", _post("y", max_retries=1, expires_after_us=TIMEOUT_US)),
        Move("claim all", _claim(Member("a", "i1", DEAD_LETTER_AGE_US))),
        Move("release, uncounted", OnDelivery(0, _give_back(Release.UNCOUNTED))),
        Move("confirm", OnDelivery(0, op.Confirm(()))),
        Move("bury", OnDelivery(0, op.Bury(NO_RECEIPT, "enough"))),
        Move("move x", op.ChangeDelay("x", 0)),
        Move("send the dead x again", op.Resend(LetterName("x"), After(0), IfExists.KEEP)),
        Move("discard the last dead x", op.Discard((LetterName("x"),))),
        Move("discard the oldest letter", OnLetter(0, None)),
        Move("60 ms pass", Wait(OVERDUE_US)),
        Move("thirty days pass", Wait(DEAD_LETTER_AGE_US)),
    ),
    depth=8,
    short_depth=5,
    past_us=DEAD_LETTER_AGE_US + SECOND_US,
    ahead_us=10 * DEAD_LETTER_AGE_US,
)

ALPHABETS: Final = {alphabet.name: alphabet for alphabet in (RETRIES, REFUSALS, LOST_CALLS, RING, CLOCK, EXPIRY)}
