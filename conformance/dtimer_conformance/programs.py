"""Programs: random operations on a few ids and nodes, with time moving, for Hypothesis to draw and to shrink."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, evolve, field, frozen
from hypothesis import strategies as st

from dtimer.limits import BATCH_MAX_ITEMS, DAY_US, DEAD_LETTER_AGE_US, PAGE_MAX_ITEMS, SECOND_US
from dtimer.semantics import operations as op
from dtimer.semantics.operations import Operation
from dtimer.values import (
    After,
    At,
    Claimed,
    Cursor,
    DeadLetterCursor,
    DeadLetterPage,
    Due,
    EventData,
    Extension,
    IfExists,
    Member,
    NewEvent,
    Page,
    Receipt,
    Release,
    RetryPolicy,
    Window,
)
from dtimer_conformance.history import FullBackend, Record, perform
from dtimer_conformance.listening import Listening

NODES = ("a", "b", "c")
NO_RECEIPT = Receipt("", 0, "")
_OfDelivery = op.Confirm | op.ConfirmNewest | op.GiveBack | op.Extend | op.Bury
IDS = ("x", "y", "z", "ä", "\U0001f600")


@frozen
class Wait:
    """Let the store's time pass."""

    duration_us: int


@frozen
class Listen:
    """From now on somebody hears what this node is told, or nobody does any more."""

    node: str
    heard: bool


@frozen
class OnDelivery:
    """Do something with a delivery of earlier claims, the newest being 0; nothing if there are not so many.

    Attributes:
        operation: with no receipt in it yet.
    """

    which: int
    operation: _OfDelivery

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


Step = Operation[object] | Wait | Listen | OnDelivery | ClaimMore | NextPage

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
_events = st.builds(
    EventData,
    id=_ids,
    payload=st.sampled_from((b"", b"1", b"\n 1 r3\n", b"\x00\xff", b"[]")),
    headers=st.sampled_from((b"", b"h", b"\n\n")),
    max_retries=st.sampled_from((0, 0, 1, 2)),
    confirm_timeout_us=st.one_of(st.none(), _timeouts),
    expires_after_us=st.one_of(st.none(), st.sampled_from((1, 50_000))),
    keep=st.booleans(),
    retry=st.sampled_from((None, RetryPolicy(5, 1.5, 70))),
)
_new_events = st.builds(NewEvent, _events, _dues, st.sampled_from(IfExists))
_which = st.integers(0, 3)


_of_deliveries: st.SearchStrategy[_OfDelivery] = st.one_of(
    st.just(op.Confirm(())),
    st.just(op.ConfirmNewest("")),
    st.builds(
        op.GiveBack,
        receipt=st.just(NO_RECEIPT),
        how=st.sampled_from((*Release, Release.REFUSED)),
        delay_us=_delays,
        detail=st.just("so\n"),
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
_windows = st.builds(Window, st.one_of(st.none(), _delays), st.one_of(st.none(), _delays))
_limits = st.sampled_from((1, 2, PAGE_MAX_ITEMS))

_waits = st.builds(Wait, st.sampled_from((1, 2, 5, 50_000, 60_000, 100_001, SECOND_US)))
_posts = st.builds(op.Post, st.lists(_new_events, min_size=1, max_size=4).map(tuple))

_seldom: st.SearchStrategy[Step] = st.one_of(
    st.builds(Wait, st.sampled_from((0, 100 * SECOND_US, 101 * SECOND_US, DEAD_LETTER_AGE_US - 1, DEAD_LETTER_AGE_US))),
    st.builds(op.Join, _members),
    st.builds(op.Leave, _members),
    st.builds(Listen, st.sampled_from(NODES), st.booleans()),
    st.builds(op.Cancel, st.lists(_ids, min_size=1, max_size=3).map(tuple)),
    st.builds(op.ChangeDelay, _ids, _delays),
    st.builds(op.ConfirmNewest, _ids),
    st.builds(op.Peek, _ids),
    st.builds(op.Upcoming, _windows, _limits),
    st.builds(NextPage, st.booleans(), _limits),
    st.builds(op.ListDeadLetters, st.none(), _limits),
    st.builds(op.Resend, _ids, _dues, st.sampled_from(IfExists)),
    st.builds(op.Discard, st.lists(_ids, min_size=1, max_size=3).map(tuple)),
    st.builds(op.Inspect),
)
_chapters: st.SearchStrategy[tuple[Step, ...]] = st.one_of(
    st.tuples(_seldom),
    st.tuples(_posts, _waits, _claims),
    st.tuples(_posts, _waits, _claims, _on_delivery, _waits, _claims),
    st.tuples(_waits, _claims, _on_delivery, _seldom),
    st.tuples(_claims, _on_delivery, _seldom),
)


@st.composite
def programs(draw: st.DrawFn) -> list[Step]:
    """Nodes join first, as in life: without members a claim has nothing to say."""
    heard = draw(st.lists(st.sampled_from(NODES), unique=True))
    program: list[Step] = [*(op.Join(Member(node, "i1")) for node in NODES), *(Listen(node, True) for node in heard)]
    for chapter in draw(st.lists(_chapters, min_size=1, max_size=20)):
        program += chapter
    return program


@define
class Runner:
    """Takes a backend through a program and keeps its history.

    Attributes:
        wait: lets the store's time pass, really or by moving its clock.
        able: whether the backend has the method of an operation; what it has not is left out.
    """

    backend: FullBackend
    wait: Callable[[int], Awaitable[None]]
    able: Callable[[Operation[object]], bool] = lambda _: True
    history: list[Record] = field(factory=list)
    _receipts: list[Receipt] = field(factory=list)
    _cursor: Cursor | None = None
    _letter_cursor: DeadLetterCursor | None = None
    _claims: int = 0

    async def run(self, program: list[Step]) -> list[Record]:
        """Run the whole program, ending with everything there is to see."""
        await self._do(op.Open())
        epoch = self.history[0].reply.epoch
        listeners: dict[str, Listening] = {}
        try:
            for step in program:
                await self._step(step, epoch, listeners)
            await self._do(op.Upcoming(Window(), PAGE_MAX_ITEMS))
            await self._do(op.ListDeadLetters(None, PAGE_MAX_ITEMS))
            await self._do(op.Inspect())
        finally:
            for listener in listeners.values():
                await listener.stop()
        return self.history

    async def _step(self, step: Step, epoch: str, listeners: dict[str, Listening]) -> None:
        match step:
            case Operation():
                await self._do(step)
            case Wait(duration_us):
                await self.wait(duration_us)
            case Listen(node, heard):
                if node in listeners:
                    await listeners.pop(node).stop()
                if heard:
                    listeners[node] = await Listening(self.backend.wakeups(node, epoch)).start()
            case OnDelivery(which=which):
                if which < len(self._receipts):
                    await self._do(step.on(self._receipts[-1 - which]))
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
        reply = await perform(self.backend, operation)
        self.history.append(Record(operation, reply))
        match reply.value:
            case Claimed(deliveries=deliveries):
                self._receipts += [delivery.receipt for delivery in deliveries]
            case Page(next=cursor):
                self._cursor = cursor
            case DeadLetterPage(next=letter_cursor):
                self._letter_cursor = letter_cursor
            case _:
                pass
