"""A fixed program: each operation, on an event of each kind, in each state; chance leaves some of these out."""

from __future__ import annotations

from itertools import permutations, product
from typing import Final

from attrs import evolve, frozen

from dtimer.limits import (
    BATCH_MAX_ITEMS,
    BRANCHES_MAX,
    DAY_US,
    DEAD_LETTER_AGE_US,
    DELAY_MAX_US,
    INSTANT_MAX_US,
    MILLISECOND_US,
    PAGE_MAX_ITEMS,
    SECOND_US,
    YEAR_US,
)
from dtimer.protocol import operations as op
from dtimer.protocol.values import (
    After,
    At,
    Due,
    EventData,
    Extension,
    Failure,
    IfExists,
    LetterName,
    Member,
    NewEvent,
    Receipt,
    Release,
    RetryPolicy,
    Window,
)
from dtimer_conformance.programs import (
    NO_RECEIPT,
    ClaimMore,
    Leap,
    Listen,
    NextPage,
    OfDelivery,
    OnDelivery,
    OnLetter,
    Serve,
    Step,
    Wait,
)

_MEMBER: Final = Member("a", "i1", DAY_US)
_EXPIRES_AFTER_US: Final = SECOND_US
_TIME_US: Final = 1_800_000_000 * SECOND_US
"""About when the tour is made, if the clock is handed in."""
_REACHED_MS: Final = 60
"""How long an event takes to its state, and then to the operation: so late that it may be claimed again."""
_DELAYS_MS: Final = (-1, 0, 300, 2000)
_CLAIMS_MS: Final = (480, 1060, 1200, 1600, 2200, 3200)
"""When the claims come that follow the operations, in time since the post.

The operations come at 120 and the expiry of the post is 1000, so a change of delay makes it 1120, 1420 or 3120, and a
post that was not due yet had 1500: there is a claim before, between and after each old expiry and its new one.
"""
_FIRST_CLAIMS: Final = (0, 1, 3)
"""A claim may end an event, or fix its expiry: so rounds begin with a later one too."""


@frozen
class _State:
    """How all events of a round come to their state.

    Attributes:
        delay_us: of their posts.
        claimed_for_us: the confirm timeout of the claim that takes them; None: they are not claimed.
        given: what is done with each delivery.
        times: how often all that is done.
        waiting_us: passes then.
        posted_again: events of these ids are posted once more.
    """

    delay_us: int = 0
    claimed_for_us: int | None = None
    given: OfDelivery | None = None
    times: int = 1
    waiting_us: int = 0
    posted_again: bool = False


_FAILURE: Final = Failure("Err\n", "no\n")


def _back(how: Release, delay_us: int, refused_for_us: int = DAY_US, failure: Failure | None = _FAILURE) -> op.GiveBack:
    return op.GiveBack(receipt=NO_RECEIPT, how=how, delay_us=delay_us, failure=failure, refused_for_us=refused_for_us)


_BURY: Final = op.Bury(NO_RECEIPT, "enough")
_STATES: Final = (
    _State(),
    _State(delay_us=500 * MILLISECOND_US),
    _State(claimed_for_us=200 * MILLISECOND_US),
    _State(claimed_for_us=1),
    *(_State(claimed_for_us=SECOND_US, given=_back(how, 0)) for how in Release),
    _State(claimed_for_us=SECOND_US, given=_back(Release.COUNTED, 0, failure=None)),
    _State(claimed_for_us=SECOND_US, given=_back(Release.COUNTED, SECOND_US)),
    _State(claimed_for_us=SECOND_US, given=op.Confirm(())),
    _State(claimed_for_us=SECOND_US, given=_BURY),
    _State(claimed_for_us=SECOND_US, given=_BURY, times=2),
    _State(claimed_for_us=SECOND_US, given=_BURY, posted_again=True),
    _State(claimed_for_us=SECOND_US, given=_BURY, waiting_us=DEAD_LETTER_AGE_US),
)
_KINDS: Final = tuple(
    EventData(
        id="",
        payload=b"[]",
        headers=b"h\n" if max_retries else b"",
        max_retries=max_retries,
        confirm_timeout_us=30 * MILLISECOND_US if dead_letter else None,
        expires_after_us=expires_after_us,
        dead_letter=dead_letter,
        retry=RetryPolicy(5, 1.5, 70) if dead_letter else None,
        max_run_us=SECOND_US if dead_letter else None,
    )
    for max_retries, dead_letter, expires_after_us in product(
        (0, len(_CLAIMS_MS)), (False, True), (None, _EXPIRES_AFTER_US)
    )
)


def tour_program() -> list[Step]:
    """What is posted and shown, each operation on each event, deliveries given back to the end, and the members."""
    program: list[Step] = [op.Join(_MEMBER), *_posts_and_pages()]
    for state, first_claim in product(_STATES, _FIRST_CLAIMS):
        program += _round(state, first_claim)
    for how in Release:
        program += _given_back_to_the_end(how)
    return [*program, *_letters(), *_leaps(), *_members(), *_servers()]


def _posts_and_pages() -> list[Step]:
    """A batch that has an id more than once, all kinds of due times, and what is upcoming in all kinds of windows."""
    dues: tuple[Due, ...] = (After(0), After(-1), After(SECOND_US), At(1), At(2_000_000_000 * SECOND_US))
    posts: list[Step] = [
        op.Post(tuple(NewEvent(EventData(id="x", payload=b""), due, if_exists) for if_exists in order))
        for due, order in product(dues, permutations(IfExists))
    ]
    ids = tuple(f"{place}" for place in range(6))
    several = tuple(
        NewEvent(EventData(id=id, payload=b""), After(place * 50 * MILLISECOND_US)) for place, id in enumerate(ids)
    )
    pages: list[Step] = []
    for offset_us, duration_us in product((None, -1, 0, 100 * MILLISECOND_US), (None, 0, 150 * MILLISECOND_US)):
        pages += [op.Upcoming(Window(offset_us, duration_us), 2), *[NextPage(False, 1)] * 2]
    return [*posts, op.Post(several), *pages, op.Cancel(("x", *ids))]


def _round(state: _State, first_claim: int) -> list[Step]:
    """One event of each kind for each operation, all brought to the state.

    What an operation leaves behind is shown at once, and then by claims, since an expiry shows in nothing else.
    """
    num_operations = len(_operations(_KINDS[0], 0, 0))
    events = [
        evolve(kind, id=f"{place:02}{number}") for place in range(num_operations) for number, kind in enumerate(_KINDS)
    ]
    posted = op.Post(tuple(NewEvent(event, After(state.delay_us), IfExists.REPLACE) for event in events))
    there: list[Step] = [posted, _wait(_REACHED_MS)]
    if state.claimed_for_us is not None:
        there.append(_claim(state.claimed_for_us))
    if state.given is not None:
        there += [OnDelivery(which, state.given) for which in range(len(events))]
    steps = there * state.times
    if state.posted_again:
        steps.append(posted)
    steps += [Wait(state.waiting_us), _wait(_REACHED_MS), op.ListDeadLetters(None, PAGE_MAX_ITEMS)]
    letter = 0
    for place, event in enumerate(events):
        # What was posted first is delivered first, and so has the oldest delivery.
        step = _operations(event, len(events) - 1 - place, letter)[place // len(_KINDS)]
        letter += event.requires_confirm
        if isinstance(step, OnDelivery) and state.claimed_for_us is None:
            step = step.on(Receipt(event.id, 1, "-"))
        steps.append(step)
    steps += [op.Upcoming(Window(), PAGE_MAX_ITEMS), op.ListDeadLetters(None, PAGE_MAX_ITEMS), op.Inspect()]
    now_ms = 2 * _REACHED_MS
    for claim_ms in _CLAIMS_MS[first_claim:]:
        steps += [_wait(claim_ms - now_ms), _claim(1)]
        now_ms = claim_ms
    return [*steps, *_cleared(events)]


def _operations(event: EventData, which: int, letter: int) -> list[Step]:
    """All there are; those that end others' deliveries, claims, come last.

    Args:
        which: the event's delivery is that, if there is one.
        letter: the place of its dead letter, likewise.
    """
    id = event.id
    forged = Receipt(id, 1, "n")
    of_delivery: list[OfDelivery] = [
        op.Confirm(()),
        *(_back(how, 300 * MILLISECOND_US, failure=failure) for how in Release for failure in (None, _FAILURE)),
        _back(Release.REFUSED, 0, refused_for_us=0),
        op.Extend((Extension(NO_RECEIPT, 500 * MILLISECOND_US),)),
        _BURY,
    ]
    return [
        op.Peek(id),
        *(op.Post((NewEvent(event, After(300 * MILLISECOND_US), if_exists),)) for if_exists in IfExists),
        op.Cancel((id, id)),
        *(op.ChangeDelay(id, delay_ms * MILLISECOND_US) for delay_ms in _DELAYS_MS),
        op.ConfirmNewest(id),
        *(OnDelivery(which, operation) for operation in of_delivery),
        op.Confirm((forged,)),
        op.Confirm((evolve(forged, nonce="-"),)),
        op.Confirm((evolve(forged, delivery_number=2),)),
        op.Extend((Extension(forged, SECOND_US),)),
        *(op.Resend(LetterName(id), After(300 * MILLISECOND_US), if_exists) for if_exists in IfExists),
        op.Discard((LetterName(id), LetterName(id))),
        *(OnLetter(letter, if_exists) for if_exists in (None, *IfExists)),
        ClaimMore(_MEMBER, 0, True, (which, which), (), SECOND_US),
        ClaimMore(_MEMBER, 0, False, (), ((which, 500 * MILLISECOND_US),), SECOND_US),
    ]


def _given_back_to_the_end(how: Release) -> list[Step]:
    """All deliveries of each kind of event: it is exhausted, refused for too long, or expired, or goes on for ever."""
    events = [evolve(kind, id=f"{number}") for number, kind in enumerate(_KINDS)]
    other = Member("b", "i1", DAY_US)
    steps: list[Step] = [op.Post(tuple(NewEvent(event, After(0)) for event in events))]
    for turn in range(len(_CLAIMS_MS) + 2):
        # Whoever joins may be able to read what the others refuse.
        joined: list[Step] = [op.Join(other)] if turn == 1 else []
        extended = OnDelivery(0, op.Extend((Extension(NO_RECEIPT, SECOND_US),)))
        steps += [*joined, _claim(SECOND_US), extended]
        steps += [OnDelivery(which, _back(how, 0, refused_for_us=SECOND_US)) for which in range(len(events))]
        steps.append(_wait(_CLAIMS_MS[0]))
    return [*steps, op.Leave(other), *_cleared(events)]


def _letters() -> list[Step]:
    """Pages of dead letters, of which one is buried again after it was shown."""
    events = [evolve(_KINDS[-1], id=id) for id in ("x", "y")]
    buried: list[list[Step]] = [
        [op.Post((NewEvent(event, After(0)),)), _wait(_REACHED_MS), _claim(SECOND_US), OnDelivery(0, _BURY)]
        for event in events
    ]
    pages: list[Step] = [op.ListDeadLetters(None, 1), *buried[0], NextPage(True, 1), NextPage(True, 1)]
    return [*buried[0], *buried[1], *pages, *_cleared(events)]


def _leaps() -> list[Step]:
    """Times of day before a leap of the clock, during it and after, and the end of time."""
    steps: list[Step] = []
    names = ("past", "soon", "late", "after")
    for leap_us in (DAY_US, -DAY_US, -_TIME_US, 130 * YEAR_US, -130 * YEAR_US):
        dues: tuple[Due, ...] = (At(1), At(_TIME_US + DAY_US), At(INSTANT_MAX_US - 1), After(DELAY_MAX_US))
        events = [evolve(_KINDS[-1], id=id) for id in names]
        steps.append(op.Post(tuple(NewEvent(event, due) for event, due in zip(events, dues, strict=True))))
        steps += [Leap(leap_us), _claim(SECOND_US), OnDelivery(0, _BURY), op.ListDeadLetters(None, 1)]
        steps += [OnLetter(0, IfExists.REPLACE), op.Resend(LetterName("past"), dues[1], IfExists.REPLACE)]
        steps += [op.Upcoming(Window(), PAGE_MAX_ITEMS), *(op.ChangeDelay(id, SECOND_US) for id in names)]
        steps += [op.Upcoming(Window(), PAGE_MAX_ITEMS), *_cleared(events)]
    return steps


def _members() -> list[Step]:
    """What a node does as its incarnation, an earlier or a later one, armed or not, heard or not, early or late."""
    steps: list[Step] = []
    for heard, armed, waiting_ms in product((False, True), (False, True), (0, _REACHED_MS, 11_000)):
        steps += [Listen("a", heard), Listen("b", heard)]
        for incarnation in ("i1", "i2", "i3"):
            member = Member("b", incarnation, SECOND_US)
            for step in (op.Join(member), op.Leave(member), evolve(_claim(SECOND_US), member=member)):
                posted = op.Post((NewEvent(EventData(id="x", payload=b""), After(0)),))
                nodes: list[Step] = [op.Join(_MEMBER), op.Join(Member("b", "i2", SECOND_US))]
                steps += nodes[::-1] if armed else nodes
                steps += [posted, _wait(waiting_ms), step, op.Inspect(), _claim(SECOND_US), op.Inspect()]
                # What a repeated join tells is kept with a member whatever becomes of it.
                steps += [op.Join(member), evolve(_claim(SECOND_US), member=member), op.Join(member)]
                steps += [op.Leave(Member("b", name, SECOND_US)) for name in ("i2", "i3")]
                steps.append(op.Leave(_MEMBER))
    return steps


def _servers() -> list[Step]:
    """More servers than are remembered, each of which reads before it writes; old names, and those that are none."""
    steps: list[Step] = []
    for name in ("", "?", *(f"s{number}" for number in range(BRANCHES_MAX + 1)), "s5", "", "?", "s0"):
        steps += [Serve(name), op.ListBranches(), op.Cancel(("x",)), op.ListBranches()]
    return steps


def _cleared(events: list[EventData]) -> list[Step]:
    """Show the dead letters; then nothing is left of these events."""
    letters = tuple(LetterName(event.id) for event in events)
    ids = tuple(event.id for event in events)
    return [op.ListDeadLetters(None, PAGE_MAX_ITEMS), *[op.Discard(letters)] * 2, op.Cancel(ids)]


def _claim(confirm_timeout_us: int) -> ClaimMore:
    return ClaimMore(_MEMBER, BATCH_MAX_ITEMS, False, (), (), confirm_timeout_us)


def _wait(duration_ms: int) -> Wait:
    return Wait(duration_ms * MILLISECOND_US)
