"""Passes the events of claims to the consumers, and what those do with them back to the store.

It alone knows both: a fetcher decodes no payload, and consumers know no store.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic

from dtimer import _validation
from dtimer._validation import Delay, Timeout
from dtimer.codecs.codec import Codec, PayloadT
from dtimer.errors import (
    BackendError,
    ConfirmNotRequired,
    HandlerFailed,
    InvalidArgument,
    PayloadRefused,
    RecordUnreadable,
    WrongProcessOrLoop,
)
from dtimer.event import ON_ITS_WAY, Asked, Confirming, Event, decode_ended, delivery_of, delivery_state
from dtimer.limits import REASON_MAX_BYTES, RECEIPTS_REMEMBERED_MAX
from dtimer.loop_local import LoopAffinity
from dtimer.node.batcher import Submission
from dtimer.node.consumers import Consumers, Ending, InFlight
from dtimer.node.context import TimerContext
from dtimer.node.deadline_extender import DeadlineExtender
from dtimer.node.handler_threads import Elsewhere, loop_of_thread
from dtimer.node.loop_monitor import LoopMonitor
from dtimer.node.partitions import Partitions
from dtimer.node.registry import Registry
from dtimer.node.session import did
from dtimer.node.settings import NodeSettings
from dtimer.protocol.outcomes import BuryOutcome, ConfirmOutcome, ExtendOutcome, ReleaseOutcome
from dtimer.protocol.values import Claimed, Delivery, EndedEvent, EndReason, Extension, Failure, Receipt, Release
from dtimer.safe_repr import name_of, safe_repr, text_of
from dtimer.user_code import ends_the_program

PORTION: Final = 32
"""Events that are handed out in one turn of the loop. After a larger claim the next claim is sent before the first of
its events is handled, and what handlers finish at once is freed before more is made for the next events.
"""


class Dispatcher(Generic[PayloadT]):
    """The :class:`dtimer.event.EventActions` of one timer's events.

    Attributes:
        consumers: the handlers or iterators for the events.
        extender: extends the deadlines of events that are being handled.
        monitor: notices when the event loop is blocked.
        changed: called when room, or the work under way, may have changed.
    """

    def __init__(
        self,
        context: TimerContext,
        settings: NodeSettings,
        registry: Registry[PayloadT],
        codec: Codec[PayloadT],
        *,
        partitions: Partitions,
        affinity: LoopAffinity,
        changed: Callable[[], None],
    ) -> None:
        """
        Args:
            affinity: to the running loop (rule F8).
        """
        self.changed = changed
        self.monitor = LoopMonitor(context)
        self.consumers = Consumers(context, registry, self.monitor, self, in_threads=settings.in_threads)
        self._max_run_us = settings.max_run_us
        self.extender = DeadlineExtender(
            context, partitions, self.consumers, max_run_us=settings.max_run_us, on_overrun=self._overran
        )
        self._affinity = affinity
        self._partitions = partitions
        self._codec = codec
        self._refused_for_us = settings.refused_for_us
        self._background = context.background
        self._reporter = context.reporter
        self._end_hooks = context.ended
        self._counters = context.counters
        self._receipts: OrderedDict[str, Receipt] = OrderedDict()
        self._refusals_reported: OrderedDict[str, None] = OrderedDict()
        self._coming: deque[Delivery] = deque()
        self._unsettled_reported = False
        self._next_portion: asyncio.Handle | None = None

    def room(self) -> int:
        """How many events a claim may bring."""
        return self.consumers.room(len(self._coming))

    # --- from the store --------------------------------------------------------------------------------------

    def take(self, claimed: Claimed, *, leaving: bool) -> None:
        """Hand out what a claim brought; while leaving, events that require a confirm go back untouched (rule N1)."""
        # Stored first, so that none of them is lost if a handler raises while the rest is reported.
        if leaving:
            for delivery in claimed.deliveries:
                if delivery.deadline_us is not None:
                    self._release_untouched(delivery.receipt)
                else:
                    self._coming.append(delivery)
        else:
            self._coming += claimed.deliveries
        large = len(self._coming) > PORTION
        try:
            for ended in claimed.ended:
                self._ended(ended)
            for record in claimed.unreadable:
                self._counters.unreadable += 1
                self._reporter.report(RecordUnreadable(record))
            if not large and self._next_portion is None:
                self._hand_out(len(self._coming))
        finally:
            self._hand_out_the_rest()

    def _hand_out_the_rest(self) -> None:
        if self._coming and self._next_portion is None:
            self._next_portion = asyncio.get_running_loop().call_soon(self._hand_out_portion)

    def _hand_out_portion(self) -> None:
        self._next_portion = None
        try:
            self._hand_out(min(PORTION, len(self._coming)))
        finally:
            # Also when a handler ends the program: the other events are handled if the loop goes on.
            self._hand_out_the_rest()
            self.changed()

    def end_all(self) -> None:
        """The node has left: hand out what it has claimed; nothing follows."""
        try:
            self._hand_out(len(self._coming))
        finally:
            self._hand_out_the_rest()
            self.consumers.end_all()

    def _hand_out(self, num: int) -> None:
        coming, decode, deliver = self._coming, self._codec.decode, self.consumers.deliver
        receipts, counters, extender = self._receipts, self._counters, self.extender
        max_run_us = self._max_run_us
        skewed = any(partition.session.history.skew_us for partition in self._partitions.all)
        for _ in range(num):
            delivery = coming.popleft()
            try:
                payload = decode(delivery.event.payload)
            except BaseException as error:
                self._refused(delivery, error)
                continue
            if delivery.deadline_us is not None:
                # Not forgotten when it is confirmed: a second confirm would end an event posted under the id since.
                receipts[delivery.receipt.id] = delivery.receipt
                receipts.move_to_end(delivery.receipt.id)
                # The shorter of its timeout and the time that its handler may run.
                span_us, own_us = delivery.deadline_us - delivery.at_us, delivery.event.max_run_us
                own_us = max_run_us if own_us is None else own_us
                span_us = own_us if own_us < span_us else span_us  # min() is called
                if span_us < extender.shortest_us:
                    extender.watch(span_us)
            counters.delivered += 1
            if delivery.num_retries:
                counters.retried += 1
            skew_us = self._partitions.of(delivery.event.id).session.history.skew_us if skewed else 0
            deliver(Event(payload, delivery, self, skew_us))
        while len(receipts) > RECEIPTS_REMEMBERED_MAX:
            receipts.popitem(last=False)

    def _ended(self, ended: EndedEvent) -> None:
        """Count an ended event, and report it (rules E5 and P7)."""
        if ended.reason is EndReason.EXPIRED:
            self._counters.expired += 1
        else:
            self._counters.exhausted += 1
        if self._end_hooks:
            self._end_hooks.notify(decode_ended(ended, self._codec, self._background.caught))
        else:
            self._reporter.warn(f"event {ended.event.id!r} ended unconfirmed: {ended.reason.value}")

    def _refused(self, delivery: Delivery, error: BaseException) -> None:
        """The codec refused the payload; that of another node may not (rule F4)."""
        self._counters.refused_payloads += 1
        if ends_the_program(error):
            self._reporter.warn(f"the codec ends the program at event {delivery.receipt.id!r}: {safe_repr(error)}")
            raise error
        self._background.caught(error)
        if delivery.deadline_us is not None:
            self._background.start(
                lambda: self._release_refused(delivery, error), f"giving back event {delivery.receipt.id!r}"
            )
        else:
            what_happened = "it required no confirm, so this report alone has its bytes"
            self._report_refused(delivery, error, what_happened)

    async def _release_refused(self, delivery: Delivery, error: BaseException) -> None:
        try:
            outcome = await self._release(
                delivery.receipt, Release.REFUSED, failure=failure_of(error), refused_for_us=self._refused_for_us
            )
        except BackendError as failure:
            what_happened = f"it comes again at its deadline ({failure})"
        else:
            if outcome is ReleaseOutcome.RELEASED and self._was_reported(delivery.receipt.id):
                return
            what_happened = {
                ReleaseOutcome.RELEASED: "it is offered to other nodes, and to this one again",
                ReleaseOutcome.BURIED: "it is a dead letter now",
            }.get(outcome, "it has gone elsewhere meanwhile")
        self._report_refused(delivery, error, what_happened)

    def _was_reported(self, id: str) -> bool:
        """Whether a refusal of this event was reported before: the event may come every few seconds for an hour."""
        notified = id in self._refusals_reported
        self._refusals_reported[id] = None
        if len(self._refusals_reported) > RECEIPTS_REMEMBERED_MAX:
            self._refusals_reported.popitem(last=False)
        return notified

    def _report_refused(self, delivery: Delivery, error: BaseException, what_happened: str) -> None:
        self._reporter.report(PayloadRefused(delivery.receipt.id, delivery.event.payload, what_happened), error)

    # --- from the consumers --------------------------------------------------------------------------------

    def confirm(self, event: Event[PayloadT], repeat_within_us: int | None = None) -> Confirming:
        try:
            self._affinity.check()
        except WrongProcessOrLoop:
            loop = loop_of_thread()
            if loop is None:
                raise
            if not event.requires_confirm:
                return Confirming(None)
            delivery_state(event).ask(ON_ITS_WAY)
            loop.call_soon_threadsafe(self.confirm, event, repeat_within_us)
            return Confirming(Elsewhere())
        if delivery_of(event).deadline_us is None:
            return Confirming(None)
        return Confirming(self._ask_to_confirm(event, repeat_within_us), self._affinity.check)

    def confirm_at_end(self, event: Event[PayloadT]) -> asyncio.Future[Sequence[ConfirmOutcome]] | None:
        self._affinity.check()
        if self.consumers.vote(event, failed=False):
            return None
        submission = self._ask_to_confirm(event)
        # With several partitions another one's claim might take the room before this confirm has left.
        if len(self._partitions.all) == 1:
            self.consumers.make_room(event)
        return submission.future()

    def _ask_to_confirm(
        self, event: Event[PayloadT], repeat_within_us: int | None = None
    ) -> Submission[Receipt, ConfirmOutcome]:
        receipt, its = delivery_of(event).receipt, delivery_state(event)
        submission = self._partitions.of(receipt.id).acks.submit(receipt, repeat_within_us, its)
        if its.settling is not None:
            # This confirm may meet the effect of an earlier one, which was given up without its reply (rule F1).
            submission.lost = any(isinstance(earlier, Submission) and earlier.lost for earlier in its.all)
        its.ask(submission)
        self.consumers.finish_if_iterated(event)
        return submission

    async def confirm_id(self, id: str, partitions: Partitions, repeat_within_us: int | None) -> ConfirmOutcome:
        """Confirm by the receipt of the last delivery here; without one, the newest delivery on any node (rule E1).

        Args:
            partitions: those of the running event loop, which may be any.
        """
        receipt = self._receipts.get(id)
        if receipt is None:
            return await partitions.of(id).acks.newest(id, repeat_within_us)
        if partitions is self._partitions:
            for event in tuple(self.consumers.unfinished):
                if event.receipt == receipt:
                    return await self.confirm(event, repeat_within_us)
        return (await partitions.of(id).acks.submit(receipt, repeat_within_us))[0]

    async def release(self, event: Event[PayloadT], delay: Delay, counted: bool) -> ReleaseOutcome:
        self._check_requires_confirm(event)
        how = Release.COUNTED if _validation.flag(counted, "counted") else Release.UNCOUNTED
        return await self._release_event(event, how, _validation.delay_us(delay), asked_for(event))

    async def extend(self, event: Event[PayloadT], lasting: Timeout) -> ExtendOutcome:
        self._check_requires_confirm(event)
        timeout_us = _validation.timeout_us(lasting, "timeout")
        session = self._partitions.of(event.id).session
        extension = Extension(event.receipt, timeout_us)
        answer = await session.call(lambda: session.backend.extend((extension,)), did("extend", event.id))
        self.extender.extended(event, timeout_us, answer.value[0], at_us=answer.at_us)
        return answer.value[0]

    async def bury(self, event: Event[PayloadT], reason: str) -> BuryOutcome:
        self._check_requires_confirm(event)
        if not isinstance(reason, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument("reason", f"must be a str, not {safe_repr(reason)}")
        detail = cut_to_bytes(reason, REASON_MAX_BYTES)
        session, asked = self._partitions.of(event.id).session, asked_for(event)
        try:
            done = did("bury", event.id)
            answer = await session.call(lambda: session.backend.bury(event.receipt, detail=detail), done)
            asked.outcome = outcome = answer.known_outcome("bury", BuryOutcome.STALE, BuryOutcome.NOT_FOUND)
        finally:
            asked.failed = asked.outcome is None
            self.consumers.finish_if_iterated(event)
        return outcome

    def failed(self, event: Event[PayloadT], error: BaseException) -> None:
        """A handler or a block raised: the event comes again by its retry policy, or else at its deadline (rule F3)."""
        first = event.failure is None
        if first:
            event.failure = failure_of(error)
        if not self.consumers.vote(event, failed=True) and first:
            self._give_up(event)

    def abandoned(self, in_flight: InFlight[PayloadT]) -> None:
        self.extender.abandoned(in_flight)

    def all_ended(self, in_flight: InFlight[PayloadT]) -> None:
        """All handlers of an event have ended, and none has settled it: their votes settle it (rule N2)."""
        event = in_flight.event
        if not event.requires_confirm or in_flight.spoiled:
            return
        if in_flight.failed:
            if in_flight.several:  # else it was given up when it failed
                self._give_up(event)
        elif not delivery_state(event).to_confirm:
            pass  # a confirm or release failed, and its caller got the error
        elif in_flight.voted:
            self.confirm(event)
        elif not self._unsettled_reported:
            self._unsettled_reported = True
            self._reporter.warn(
                f"the handler of event {event.id!r} returned without settling it, so it comes again at its deadline: "
                "do the work in a block `async with event:`, or call event.confirm() when it is done (told once)"
            )

    def _give_up(self, event: Event[PayloadT]) -> None:
        if not event.requires_confirm or delivery_state(event).asked:
            return
        policy, failure = event.data.retry, event.failure
        if policy is None:
            # Code that catches the error can still confirm, release or bury the event.
            self._in_background(lambda: self._release(event.receipt, Release.FAILED, failure=failure), event.id)
            return
        delay_us, asked = policy.delay_after(event.num_retries), asked_for(event)
        self._in_background(lambda: self._release_event(event, Release.COUNTED, delay_us, asked, failure), event.id)

    def at_end(self, event: Event[PayloadT]) -> None:
        self.consumers.at_end(event)

    def give_back(self, event: Event[PayloadT]) -> None:
        """No consumer took the event."""
        delivery_state(event).ask(ON_ITS_WAY)
        self._release_untouched(event.receipt)

    def handler_failed(self, event: Event[PayloadT], error: BaseException, ending: Ending) -> None:
        self._counters.handler_errors += 1
        if ends_the_program(error):
            # No more work may be started, so the event is left to its deadline.
            self.consumers.spoil(event)
            self._reporter.warn(f"the handler of event {event.id!r} ends the program: {safe_repr(error)}")
        elif ending is Ending.RAISED:
            self._background.caught(error)
            self._reporter.report(HandlerFailed(event.id, f"raised {safe_repr(error)}"), error)
            self.failed(event, error)
        elif ending is Ending.OVERRUN:
            # Counted and reported when it was cancelled.
            self._counters.handler_errors -= 1
            self.failed(event, TimeoutError("it ran for longer than max_run"))
        elif ending is Ending.CUT:
            words = "it outlasted the time limit of leave()"
            self._reporter.report(HandlerFailed(event.id, f"was cancelled: {words}"))
            self.failed(event, TimeoutError(words))
        else:
            # The loop is being shut down, in which no more work may be started, or the application cancelled the task
            # of the handler. Either way the event is left to its deadline.
            self.consumers.spoil(event)
            self._reporter.report(HandlerFailed(event.id, "was cancelled"))

    def _overran(self, in_flight: InFlight[PayloadT]) -> None:
        """The handlers of an event have run for as long as they may (rule D4)."""
        self._counters.handler_errors += 1
        if self.consumers.overrun(in_flight):
            what = "is cancelled: it has run for longer than max_run"
        else:
            what = "has run for longer than max_run and cannot be cancelled here; its deadline is not extended any more"
        self._reporter.report(HandlerFailed(in_flight.event.id, what))

    def _check_requires_confirm(self, event: Event[PayloadT]) -> None:
        self._affinity.check()
        if not event.requires_confirm:
            raise ConfirmNotRequired(f"event {event.id!r} was posted without retries, so the store has forgotten it")

    # --- to the store ------------------------------------------------------------------------------------------

    async def _release_event(
        self, event: Event[PayloadT], how: Release, delay_us: int, asked: Asked, failure: Failure | None = None
    ) -> ReleaseOutcome:
        try:
            asked.outcome = outcome = await self._release(event.receipt, how, delay_us=delay_us, failure=failure)
        finally:
            asked.failed = asked.outcome is None
            self.consumers.finish_if_iterated(event)
        if outcome is ReleaseOutcome.EXHAUSTED:
            counted = event.num_retries + 1
            self._ended(
                EndedEvent(
                    event=event.data,
                    reason=EndReason.EXHAUSTED,
                    delivery_number=event.delivery_number,
                    num_counted=counted,
                    dead_letter=event.data.dead_letter,
                )
            )
        return outcome

    async def _release(
        self,
        receipt: Receipt,
        how: Release,
        *,
        delay_us: int = 0,
        failure: Failure | None = None,
        refused_for_us: int = 0,
    ) -> ReleaseOutcome:
        session = self._partitions.of(receipt.id).session
        answer = await session.call(
            lambda: session.backend.release(
                receipt, how=how, delay_us=delay_us, failure=failure, refused_for_us=refused_for_us
            ),
            did("release", receipt.id),
        )
        return answer.known_outcome("release", ReleaseOutcome.STALE, ReleaseOutcome.NOT_FOUND)

    def _release_untouched(self, receipt: Receipt) -> None:
        self._in_background(lambda: self._release(receipt, Release.UNCOUNTED, delay_us=0), receipt.id)

    def _in_background(self, release: Callable[[], Awaitable[ReleaseOutcome]], id: str) -> None:
        self._background.start(lambda: self._reporting(release), f"giving back event {id!r}")

    async def _reporting(self, release: Callable[[], Awaitable[ReleaseOutcome]]) -> None:
        try:
            await release()
        except BackendError as error:
            # The event comes again at its deadline.
            self._reporter.report(error)


def asked_for(event: Event[Any]) -> Asked:
    """Note that a release or burial of the event is asked for; the caller writes the outcome into the result."""
    asked = Asked()
    delivery_state(event).ask(asked)
    return asked


def failure_of(error: BaseException) -> Failure:
    """The failure that is stored for an exception of a handler or a codec (rule E5)."""
    name, text = name_of(type(error), whole=True), text_of(error, REASON_MAX_BYTES)
    return Failure(cut_to_bytes(name, REASON_MAX_BYTES), cut_to_bytes(text, REASON_MAX_BYTES))


def cut_to_bytes(text: str, max_bytes: int) -> str:
    """The beginning of a text, at most `max_bytes` of UTF-8; what UTF-8 cannot encode is replaced."""
    return text.encode(errors="backslashreplace")[:max_bytes].decode(errors="ignore")
