"""Programs: random operations on a few ids and nodes, with time moving, for Hypothesis to draw and to shrink."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define, evolve, field, frozen
from hypothesis import strategies as st

from dtimer.limits import (
    ANNOUNCE_MAX_TRIES,
    BATCH_MAX_BYTES,
    BATCH_MAX_ITEMS,
    CLAIM_EXTRA_ENTRIES,
    DAY_US,
    DEAD_LETTER_AGE_US,
    DEAD_LETTERS_MAX,
    PAGE_MAX_ITEMS,
    PAYLOAD_MAX_BYTES,
    REFUSAL_ROUNDS,
    SECOND_US,
)
from dtimer.protocol import operations as op
from dtimer.protocol.backend import SupportsBranches, TimerBackend
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import (
    EVENT_FIELDS,
    After,
    At,
    Claimed,
    Cursor,
    DeadLetter,
    DeadLetterCursor,
    DeadLetterPage,
    Due,
    EventData,
    Extension,
    Failure,
    FieldKind,
    IfExists,
    LetterName,
    Member,
    NewEvent,
    Page,
    Receipt,
    Release,
    RetryPolicy,
    Window,
)
from dtimer_conformance.features import SupportsServerNames
from dtimer_conformance.history import Record
from dtimer_conformance.probe import Probe

NODES = ("a", "b", "c")
SERVERS = ("s1", "s2", "s3", "?s", "")
NO_RECEIPT = Receipt("", 0, "")
OfDelivery = op.Confirm | op.ConfirmNewest | op.GiveBack | op.Extend | op.Bury
IDS = ("x", "y", "z", "ä", "\U0001f600")


@frozen
class Wait:
    """Let the store's time pass."""

    duration_us: int


@frozen
class Leap:
    """Set the clock of the store's host; left out where that cannot be done."""

    by_us: int


@frozen
class Listen:
    """From now on somebody hears what this node is told, or nobody does any more."""

    node: str
    heard: bool


@frozen
class Serve:
    """From now on a server of this name answers (O2)."""

    server: str


@frozen
class OnDelivery:
    """Do something with a delivery of earlier claims, the newest being 0; nothing if there are not so many.

    Attributes:
        operation: with no receipt in it yet.
    """

    which: int
    operation: OfDelivery

    def on(self, receipt: Receipt) -> Operation[object]:
        """The operation on this delivery."""
        match self.operation:
            case op.Confirm():
                return op.Confirm((receipt, receipt))
            case op.ConfirmNewest():
                return op.ConfirmNewest(receipt.id)
            case op.Extend(extensions):
                return op.Extend(tuple(evolve(extension, receipt=receipt) for extension in extensions))
            case op.GiveBack() | op.Bury():
                return evolve(self.operation, receipt=receipt)


@frozen
class OnLetter:
    """Do something with a dead letter of the last page; nothing if the page has fewer.

    Attributes:
        if_exists: of a resend; None: it is discarded.
    """

    which: int
    if_exists: IfExists | None


@frozen
class ClaimMore:
    """Claim, confirming and extending some of the newest deliveries with it.

    Attributes:
        extending: which of them, and for how long.
    """

    member: Member
    room: int
    pulse: bool
    confirming: tuple[int, ...]
    extending: tuple[tuple[int, int], ...]
    confirm_timeout_us: int


@frozen
class NextPage:
    """Ask for what follows the last page, of events or of dead letters."""

    of_letters: bool
    limit: int


Step = Operation[object] | Wait | Leap | Listen | Serve | OnDelivery | OnLetter | ClaimMore | NextPage

_ids = st.sampled_from(IDS)
_members = st.builds(
    Member,
    st.sampled_from(NODES),
    st.sampled_from(("i1", "i1", "i1", "i1", "i2")),
    st.sampled_from((SECOND_US, DAY_US)),
)
_short = st.sampled_from((0, 1, 2, 3, 60_000))
_delays = st.one_of(_short, _short, st.sampled_from((-1, 10, SECOND_US, DAY_US)), st.integers(0, 200_000))
_timeouts = st.sampled_from((1, 5, 50_000, SECOND_US))


def _at(offset_us: int) -> At:
    return At(1_800_000_000 * SECOND_US + offset_us)


_dues: st.SearchStrategy[Due] = st.one_of(_delays.map(After), _short.map(_at))
_OF_KIND: dict[FieldKind, object] = {
    FieldKind.WHOLE: 3_600 * SECOND_US,
    FieldKind.FLAG: True,
    FieldKind.RETRY: RetryPolicy(5, 1.5, 70),
}
_ANY_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    each.name: st.sampled_from((each.default, _OF_KIND[each.kind])) for each in EVENT_FIELDS
}
_events = st.builds(
    EventData,
    id=_ids,
    payload=st.sampled_from((b"", b"1", b"\n 1 r3\n", b"\x00\xff", b"[]")),
    headers=st.sampled_from((b"", b"h", b"\n\n")),
    **_ANY_FIELDS
    | {
        "max_retries": st.sampled_from((0, 0, 1, 2)),
        "confirm_timeout_us": st.one_of(st.none(), _timeouts),
        "expires_after_us": st.one_of(st.none(), st.sampled_from((1, 50_000, 200_000))),
    },
)
_new_events = st.builds(NewEvent, _events, _dues, st.sampled_from(IfExists))
_which = st.integers(0, 3)


_of_deliveries: st.SearchStrategy[OfDelivery] = st.one_of(
    st.just(op.Confirm(())),
    st.just(op.ConfirmNewest("")),
    st.builds(
        op.GiveBack,
        receipt=st.just(NO_RECEIPT),
        how=st.sampled_from((*Release, Release.REFUSED)),
        delay_us=_delays,
        failure=st.sampled_from((None, Failure("", "no\n"), Failure("Err\u00e4\n", ""))),
        refused_for_us=st.sampled_from((0, 100_000, 100_000, DAY_US)),
    ),
    st.builds(
        op.Extend, st.lists(st.builds(Extension, st.just(NO_RECEIPT), _timeouts), min_size=1, max_size=2).map(tuple)
    ),
    st.just(op.Bury(NO_RECEIPT, "said so")),
)
_on_delivery = st.builds(OnDelivery, _which, _of_deliveries)


_claims = st.builds(
    ClaimMore,
    _members,
    st.sampled_from((0, 1, 2, 8, BATCH_MAX_ITEMS)),
    st.booleans(),
    st.lists(_which, max_size=3).map(tuple),
    st.lists(st.tuples(_which, _timeouts), max_size=2).map(tuple),
    _timeouts,
)


def _track(event: EventData, max_retries: int, expires_after_us: int | None) -> EventData:
    return evolve(event, max_retries=max_retries, expires_after_us=expires_after_us)


# What can be delivered, and more than once, when it is 60 ms late.
_requiring_confirm: st.SearchStrategy[EventData] = st.builds(
    _track, _events, st.sampled_from((1, 2, 2)), st.sampled_from((None, 200_000))
)
_ROOMY = ClaimMore(Member("a", "i1", DAY_US), BATCH_MAX_ITEMS, False, (), (), SECOND_US)


_FAILURE = Failure("Err\u00e4\n", "no\n")


def _release(how: Release, delay_us: int) -> op.GiveBack:
    return op.GiveBack(receipt=NO_RECEIPT, how=how, delay_us=delay_us, failure=_FAILURE, refused_for_us=100_000)


_windows = st.builds(Window, st.one_of(st.none(), _delays), st.one_of(st.none(), _delays))
_limits = st.sampled_from((1, 2, PAGE_MAX_ITEMS))

_next_pages = st.builds(NextPage, st.just(False), _limits)

_waits = st.builds(Wait, st.sampled_from((1, 2, 5, 50_000, 60_000, 100_001, SECOND_US)))
_posts = st.builds(op.Post, st.lists(_new_events, min_size=1, max_size=4).map(tuple))

_letters = _ids.map(LetterName)
_on_letters = st.builds(OnLetter, st.integers(0, 3), st.sampled_from((None, IfExists.REPLACE, IfExists.KEEP)))
_seldom: st.SearchStrategy[Step] = st.one_of(
    st.builds(Wait, st.sampled_from((0, 100 * SECOND_US, 101 * SECOND_US, DEAD_LETTER_AGE_US - 1, DEAD_LETTER_AGE_US))),
    st.sampled_from((1, 999, -1_001, 60_000, -60_000, DAY_US, -DAY_US)).map(Leap),
    st.builds(op.Join, _members),
    st.builds(op.Leave, _members),
    st.builds(Listen, st.sampled_from(NODES), st.booleans()),
    st.builds(Serve, st.sampled_from(SERVERS)),
    st.builds(op.Cancel, st.lists(_ids, min_size=1, max_size=3).map(tuple)),
    st.builds(op.ChangeDelay, _ids, _delays),
    st.builds(op.ConfirmNewest, _ids),
    st.builds(op.Peek, _ids),
    st.builds(op.Upcoming, _windows, _limits),
    st.builds(NextPage, st.booleans(), _limits),
    st.builds(op.ListDeadLetters, st.none(), _limits),
    st.builds(op.Resend, _letters, _dues, st.sampled_from(IfExists)),
    st.builds(op.Discard, st.lists(_letters, min_size=1, max_size=3).map(tuple)),
    _on_letters,
    st.builds(op.Inspect),
)


def _done_to(event: EventData) -> st.SearchStrategy[Step]:
    """What happens to an event by its id; receipts are forged, of deliveries that were and that never were."""
    id = st.just(event.id)
    forged = st.builds(Receipt, id, st.integers(0, 2), st.sampled_from(("-", "n")))
    return st.one_of(
        st.builds(op.ChangeDelay, id, _delays),
        st.builds(op.Peek, id),
        st.builds(op.ConfirmNewest, id),
        st.builds(op.Cancel, st.tuples(id)),
        st.builds(op.Post, st.tuples(st.builds(NewEvent, st.just(event), _dues, st.sampled_from(IfExists)))),
        st.builds(op.Confirm, st.tuples(forged)),
    )


@st.composite
def _lives(draw: st.DrawFn) -> tuple[Step, ...]:
    """One event that is delivered, and then anything that can happen to it: chance seldom means one event twice."""
    event = draw(_requiring_confirm)
    anything = st.one_of(st.builds(OnDelivery, st.just(0), _of_deliveries), _claims, _waits, _done_to(event))
    return (*_posted(event), draw(_claims), *draw(st.lists(anything, min_size=2, max_size=8)))


@st.composite
def _given_back(draw: st.DrawFn) -> tuple[Step, ...]:
    """A delivery is given back, and then something else happens to its event, of whose past more is known by now."""
    event = draw(_requiring_confirm)
    release = OnDelivery(0, _release(draw(st.sampled_from(Release)), draw(_delays)))
    moved = st.builds(op.ChangeDelay, st.just(event.id), _delays)
    done = draw(st.lists(st.one_of(moved, moved, _done_to(event)), min_size=1, max_size=2))
    return (*_posted(event), _ROOMY, release, *done, draw(_waits), draw(_claims), op.Peek(event.id))


@st.composite
def _given_back_again(draw: st.DrawFn) -> tuple[Step, ...]:
    """All deliveries of an event are given back: it is exhausted, buried, or scheduled again without end."""
    back = OnDelivery(0, _release(draw(st.sampled_from(Release)), 0))
    between: list[tuple[Step, ...]] = [(), (), *((op.Join(Member("c", name, DAY_US)),) for name in ("i2", "i3"))]
    turns = draw(st.lists(st.sampled_from(between), min_size=1, max_size=4))
    return (
        *_posted(draw(_requiring_confirm)),
        *(step for more in turns for step in (_ROOMY, back, *more, Wait(60_000))),
    )


@st.composite
def _buried(draw: st.DrawFn) -> tuple[Step, ...]:
    """Dead letters, by pages, and what operators and time do to them."""
    steps: list[Step] = []
    aging = st.sampled_from((1, 60_000, DEAD_LETTER_AGE_US - 60_000, DEAD_LETTER_AGE_US)).map(Wait)
    events = draw(st.lists(_requiring_confirm, min_size=1, max_size=3))
    # Often the second is of the id of the first.
    events += events[: draw(st.integers(0, 1))]
    for event in events:
        steps += [*_posted(event), _ROOMY, OnDelivery(0, op.Bury(NO_RECEIPT, "enough")), draw(aging)]
    steps += [op.ListDeadLetters(None, draw(st.integers(1, 2))), NextPage(True, draw(_limits))]
    letters = st.sampled_from([LetterName(event.id) for event in events])
    ends: st.SearchStrategy[Step] = st.one_of(
        st.builds(op.Resend, letters, _dues, st.sampled_from(IfExists)),
        st.builds(op.Resend, letters, _dues, st.sampled_from(IfExists)),
        st.builds(op.Discard, st.tuples(letters)),
        _on_letters,
        aging,
    )
    # Beside a letter there may be an event of its id.
    beside = draw(
        st.sampled_from(
            [[], *([_posted(events[-1])[0], op.Resend(LetterName(events[-1].id), After(0), do)] for do in IfExists)]
        )
    )
    return (*steps, *beside, *draw(st.lists(ends, max_size=5)))


@st.composite
def _leaps(draw: st.DrawFn) -> tuple[Step, ...]:
    """The clock is wrong for a while, and times of day are given before, meanwhile and after."""
    by_us = draw(st.sampled_from((-DAY_US, -60_000, 60_000, DAY_US)))
    steps: list[Step] = []
    for step in (Leap(by_us), Leap(-by_us)):
        steps += [draw(_posts), step, draw(st.one_of(_posts, _claims))]
    return (*steps, draw(_posts), draw(_waits), draw(_claims))


@st.composite
def _pages(draw: st.DrawFn) -> tuple[Step, ...]:
    """What is upcoming, in small pages, between which something may happen."""
    first = op.Upcoming(draw(_windows), draw(st.integers(1, 2)))
    return (
        draw(_posts),
        draw(_claims),
        first,
        *draw(st.lists(st.one_of(_next_pages, _next_pages, _seldom), max_size=4)),
    )


_chapters: st.SearchStrategy[tuple[Step, ...]] = st.one_of(
    _lives(),
    _lives(),
    _given_back(),
    _given_back_again(),
    _buried(),
    _pages(),
    _leaps(),
    st.tuples(_seldom),
    st.tuples(_posts, _waits, _claims),
    st.tuples(_posts, _waits, _claims, _on_delivery, _waits, _claims),
    st.tuples(_waits, _claims, _on_delivery, _seldom),
    st.tuples(_claims, _on_delivery, _seldom),
)


def _posted(event: EventData) -> tuple[Step, ...]:
    """In place of whatever has its id, and overdue, so that any node may take it."""
    return (op.Post((NewEvent(event, After(0), IfExists.REPLACE),)), Wait(60_000))


@st.composite
def programs(draw: st.DrawFn) -> list[Step]:
    """Nodes join first, as in life: without members a claim has nothing to say."""
    heard = draw(st.lists(st.sampled_from(NODES), unique=True))
    program: list[Step] = [*(op.Join(Member(node, "i1")) for node in NODES), *(Listen(node, True) for node in heard)]
    for chapter in draw(st.lists(_chapters, min_size=2, max_size=10)):
        program += chapter
    return program


def large_program() -> list[Step]:
    """Goes beyond limits that are too far off for chance: of a reply, a claim, the announcements, the dead letters."""
    heavy = [
        _numbered("heavy", place, b"x" * PAYLOAD_MAX_BYTES) for place in range(BATCH_MAX_BYTES // PAYLOAD_MAX_BYTES + 1)
    ]
    program: list[Step] = [Serve(""), op.ListBranches(), Serve("s1"), op.Join(Member("a", "i1", DAY_US))]
    # A page that ends between two of one time.
    same = [evolve(_numbered("same", place, b""), due=_at(DAY_US)) for place in range(2)]
    program += [op.Post(tuple(same)), op.Upcoming(Window(), 1), NextPage(False, 1), op.Cancel(("same0", "same1"))]
    program += [op.Post((event,)) for event in heavy]
    program += [op.Upcoming(Window(), PAGE_MAX_ITEMS), NextPage(False, PAGE_MAX_ITEMS), Wait(60_000), _ROOMY, _ROOMY]
    program += [step for place in range(len(heavy)) for step in (OnDelivery(place, op.Bury(NO_RECEIPT, "")),)]
    program += [op.ListDeadLetters(None, PAGE_MAX_ITEMS), NextPage(True, PAGE_MAX_ITEMS)]
    # As many refusals as it takes until one member is asked at a time.
    refuse = evolve(_release(Release.REFUSED, 0), refused_for_us=DAY_US)
    program += [op.Join(Member("b", "i1", DAY_US)), op.Post((_numbered("refused", 0, b""),))]
    program += [Wait(5 * SECOND_US), _ROOMY, OnDelivery(0, refuse)] * (2 * REFUSAL_ROUNDS + 2)
    # Letters beyond their number, buried by claims that find so many expired.
    expired = [
        _numbered("expired", place, b"", expires_after_us=1) for place in range(DEAD_LETTERS_MAX + CLAIM_EXTRA_ENTRIES)
    ]
    for first in range(0, len(expired), BATCH_MAX_ITEMS):
        program.append(op.Post(tuple(expired[first : first + BATCH_MAX_ITEMS])))
    program += [Wait(60_000), *[_ROOMY] * (len(expired) // CLAIM_EXTRA_ENTRIES + 1)]
    # Nobody hears what so many nodes are told.
    program += [op.Join(Member(f"deaf{place}", "i1", DAY_US)) for place in range(ANNOUNCE_MAX_TRIES + 1)]
    return [*program, op.Post((_numbered("last", 0, b""),))]


def _numbered(name: str, place: int, payload: bytes, expires_after_us: int | None = None) -> NewEvent:
    return NewEvent(
        EventData(id=f"{name}{place}", payload=payload, expires_after_us=expires_after_us, dead_letter=True), After(0)
    )


@define
class Runner:
    """Takes a backend through a program and keeps its history.

    Attributes:
        wait: lets the store's time pass, really or by moving its clock.
        leap: sets the clock of the store's host by so much.
        able: whether the backend has the method of an operation; what it has not is left out.
    """

    backend: TimerBackend
    wait: Callable[[int], Awaitable[None]]
    able: Callable[[Operation[object]], bool] = lambda _: True
    leap: Callable[[int], Awaitable[None]] | None = None
    history: list[Record] = field(factory=list)
    _receipts: list[Receipt] = field(factory=list)
    _cursor: Cursor | None = None
    _letter_cursor: DeadLetterCursor | None = None
    _page: tuple[DeadLetter, ...] = ()
    _claims: int = 0

    async def run(self, program: list[Step]) -> list[Record]:
        """Run the whole program, ending with everything there is to see."""
        await self._do(op.Open())
        epoch = self.history[0].reply.epoch
        listeners: dict[str, Probe] = {}
        try:
            for step in program:
                await self._step(step, epoch, listeners)
            await self._do(op.Upcoming(Window(), PAGE_MAX_ITEMS))
            await self._do(op.ListDeadLetters(None, PAGE_MAX_ITEMS))
            await self._do(op.Inspect())
            if isinstance(self.backend, SupportsBranches):
                await self._do(op.ListBranches())
        finally:
            for listener in listeners.values():
                await listener.stop()
        return self.history

    async def _step(self, step: Step, epoch: str, listeners: dict[str, Probe]) -> None:
        match step:
            case Operation():
                await self._do(step)
            case Wait(duration_us):
                await self.wait(duration_us)
            case Leap(by_us):
                if self.leap is not None:
                    await self.leap(by_us)
            case Serve(server):
                if isinstance(self.backend, SupportsServerNames):
                    self.backend.server_for_tests = server
            case Listen(node, heard):
                if node in listeners:
                    await listeners.pop(node).stop()
                if heard:
                    listeners[node] = await Probe(self.backend.wakeups(node, epoch)).start()
            case OnDelivery(which=which):
                if which < len(self._receipts):
                    await self._do(step.on(self._receipts[-1 - which]))
            case OnLetter(which, if_exists):
                if which >= len(self._page):
                    return
                name = self._page[which].name
                if if_exists is None:
                    await self._do(op.Discard((name, name)))
                else:
                    await self._do(op.Resend(name, After(0), if_exists))
            case ClaimMore():
                confirming = [self._receipts[-1 - which] for which in step.confirming if which < len(self._receipts)]
                extending = [
                    Extension(self._receipts[-1 - which], timeout_us)
                    for which, timeout_us in step.extending
                    if which < len(self._receipts)
                ]
                self._claims += 1
                claim = op.Claim(
                    member=step.member,
                    room=step.room,
                    confirm_timeout_us=step.confirm_timeout_us,
                    nonce=f"{self._claims:016x}",
                    confirming=tuple(confirming),
                    extending=tuple(extending),
                    pulse=step.pulse,
                )
                await self._do(claim)
            case NextPage(of_letters, limit):
                if of_letters:
                    await self._do(op.ListDeadLetters(self._letter_cursor, limit))
                else:
                    await self._do(op.Upcoming(self._cursor or Window(), limit))

    async def _do(self, operation: Operation[object]) -> None:
        if not self.able(operation):
            return
        reply = await self.backend.perform(operation)
        self.history.append(Record(operation, reply))
        match reply.value:
            case Claimed(deliveries=deliveries):
                self._receipts += [delivery.receipt for delivery in deliveries]
            case Page(next=cursor):
                self._cursor = cursor
            case DeadLetterPage(items, letter_cursor):
                self._page, self._letter_cursor = items, letter_cursor
            case _:
                pass
