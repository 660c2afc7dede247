"""Extends the deadlines of deliveries whose handlers are running, and ends handlers that run too long (rule D4).

Most deliveries end long before their deadline, and cost nothing here.
Several times in each confirm timeout, or `max_run` if that is shorter, all unfinished deliveries are checked.
A delivery that is a third of its timeout old is extended by the next claim, which is made anyway.
One that is two thirds of it old is extended by a call of its own, which leaves time to repeat that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from dtimer.errors import BackendError
from dtimer.event import Event, delivery_state, hears_of_its_loss, own_timeout_us
from dtimer.limits import BATCH_MAX_ITEMS, DELAY_MAX_US, MILLISECOND_US
from dtimer.node.consumers import Consumers, InFlight
from dtimer.node.context import TimerContext
from dtimer.node.partitions import Partitions
from dtimer.node.session import StoreSession, did
from dtimer.protocol.backend import Cancellable
from dtimer.protocol.outcomes import ExtendOutcome
from dtimer.protocol.values import Extension

LOOKS: Final = 12
"""Checks of the unfinished deliveries in each confirm timeout."""
NEVER_US: Final = 1 << 62


class DeadlineExtender:
    """Extends the deliveries of one timer.

    Attributes:
        shortest_us: the shortest time to a deadline, or to the end of a `max_run`, that the checks are made for. A
            shorter one must be given to :meth:`watch`.
    """

    def __init__(
        self,
        context: TimerContext,
        partitions: Partitions,
        consumers: Consumers[Any],
        *,
        max_run_us: int,
        on_overrun: Callable[[InFlight[Any]], None],
    ) -> None:
        """
        Args:
            max_run_us: for events that have none of their own.
            on_overrun: called when the handlers of a delivery have run for that long; it is not extended any more.
        """
        self.shortest_us = NEVER_US
        self._runtime = context.runtime
        self._partitions = partitions
        self._consumers = consumers
        self._background = context.background
        self._max_run_us = max_run_us
        self._on_overrun = on_overrun
        # The simulator loses no node, so a deadline may be stretched: until a handler that merely sleeps wakes up,
        # which costs no more for a year than for a day, or else by as long as the delivery has been worked on already.
        self._stretching = partitions.all[0].session.backend.pace.stretch_deadlines
        self._abandoned: list[InFlight[Any]] = []
        self._looked_us = 0
        self._alarm: Cancellable | None = None
        self._riding: dict[StoreSession, list[InFlight[Any]]] = {}

    def watch(self, timeout_us: int) -> None:
        """A delivery is about to be handled whose deadline, or `max_run`, ends after `timeout_us`."""
        now_us = self._runtime.now_us()
        if self._alarm is None:
            self._looked_us = now_us
        elif now_us - self._looked_us > timeout_us // LOOKS:
            # The delivery would seem to have begun at the last look.
            for event, in_flight in self._consumers.unfinished.items():
                if event.requires_confirm:
                    self._begin(event, in_flight)
            self._looked_us = now_us
        self.shortest_us = timeout_us
        self._set_alarm(now_us + timeout_us // LOOKS)

    # --- with a claim ------------------------------------------------------------------------------------------

    def take(self, session: StoreSession, now_us: int) -> list[InFlight[Any]]:
        """The deliveries that a claim extends, also those that a call of their own extends just now: the claim may take
        what is overdue.

        The reply goes to `answered`; if the claim fails, the next one takes them.
        """
        if self._alarm is not None and now_us - self._looked_us > 2 * self.shortest_us // LOOKS:
            self._look()  # the loop was blocked
        if not self._riding:
            return []
        due = [in_flight for in_flight in self._riding.get(session, ()) if self._is_due(in_flight, now_us)]
        return due[:BATCH_MAX_ITEMS]

    @staticmethod
    def _is_due(in_flight: InFlight[Any], now_us: int) -> bool:
        its = delivery_state(in_flight.event)
        return not its.asked and not its.lost and now_us - in_flight.since_us >= in_flight.timeout_us // 3

    def extensions(self, all_in_flight: Sequence[InFlight[Any]]) -> tuple[Extension, ...]:
        return tuple(Extension(in_flight.event.receipt, in_flight.asking_us) for in_flight in all_in_flight)

    def answered(
        self, all_in_flight: Sequence[InFlight[Any]], outcomes: Sequence[ExtendOutcome], *, sent_us: int, at_us: int
    ) -> None:
        for in_flight, outcome in zip(all_in_flight, outcomes, strict=False):
            if outcome is ExtendOutcome.EXTENDED:
                in_flight.since_us, in_flight.timeout_us = max(in_flight.since_us, sent_us), in_flight.asking_us
                delivery_state(in_flight.event).deadline_us = at_us + in_flight.asking_us
            elif not delivery_state(in_flight.event).asked:
                # Else a confirm, say, has come first.
                self._lost(in_flight.event, at_us)

    def extended(self, event: Event[Any], timeout_us: int, outcome: ExtendOutcome, *, at_us: int) -> None:
        """The application has extended the event itself, perhaps by more than is done here."""
        in_flight = self._consumers.unfinished.get(event)
        if outcome is not ExtendOutcome.EXTENDED:
            self._lost(event, at_us)
            return
        delivery_state(event).deadline_us = at_us + timeout_us
        if in_flight is not None:
            if not in_flight.begun_us:
                in_flight.begun_us = self._looked_us
            in_flight.since_us, in_flight.timeout_us = self._runtime.now_us(), timeout_us
            if timeout_us < self.shortest_us:
                self.watch(timeout_us)

    @staticmethod
    def _lost(event: Event[Any], at_us: int) -> None:
        """An extension found, at the store's time `at_us`, that the delivery is not in charge of its event any more."""
        its = delivery_state(event)
        # Before the deadline no other node is given it (rule D1), so it was cancelled or replaced.
        its.withdrawn = its.withdrawn or (its.deadline_us is not None and at_us < its.deadline_us)
        its.lost = True
        event.lost.set()

    def rest(self) -> None:
        """The node has left: end the checks if no delivery is left."""
        if self._alarm is not None and not self._consumers.unfinished and not self._abandoned:
            self._alarm.cancel()
            self._alarm, self.shortest_us = None, NEVER_US

    # --- alone -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        now_us = self._runtime.now_us()
        shortest_us, next_us = NEVER_US, NEVER_US
        alone: dict[StoreSession, list[InFlight[Any]]] = {}
        overrun: list[InFlight[Any]] = []
        self._riding = {}
        for event, in_flight in self._consumers.unfinished.items():
            its = delivery_state(event)
            extended = not its.asked and not its.lost
            # A handler that goes on although there is nothing to extend any more takes up room all the same.
            if in_flight.over or not event.requires_confirm or not (extended or in_flight.tasks):
                continue
            self._begin(event, in_flight)
            max_run_us = self._max_run_us if event.data.max_run_us is None else event.data.max_run_us
            ends_us = in_flight.begun_us + max_run_us
            if now_us >= ends_us and not its.pending:
                overrun.append(in_flight)
                continue
            shortest_us, next_us = min(shortest_us, max_run_us), min(next_us, ends_us)
            if not extended:
                continue
            asleep_us = self._asleep_until(in_flight) if self._stretching else 0
            if asleep_us > now_us:
                own_us = own_timeout_us(event)
                # Just before it wakes up, so that it knows then if the delivery was lost meanwhile, as in production.
                last_look_us = asleep_us - own_us // LOOKS
                short = in_flight.since_us + in_flight.timeout_us < asleep_us + own_us // 3
                last = now_us >= last_look_us and now_us - in_flight.since_us >= 2 * own_us // 3
                if not in_flight.extending and (short or last):
                    self._stretch(in_flight, asleep_us - now_us + own_us, ends_us - now_us)
                    alone.setdefault(self._partitions.of(event.id).session, []).append(in_flight)
                next_us = min(next_us, last_look_us if last_look_us > now_us else asleep_us + own_us // LOOKS)
                continue
            shortest_us = min(shortest_us, in_flight.timeout_us)
            age_us = now_us - in_flight.since_us
            if age_us >= in_flight.timeout_us // 3:
                session = self._partitions.of(event.id).session
                in_flight.asking_us = in_flight.timeout_us
                if self._stretching:
                    self._stretch(in_flight, max(in_flight.timeout_us, now_us - in_flight.begun_us), ends_us - now_us)
                self._riding.setdefault(session, []).append(in_flight)
                if age_us >= 2 * in_flight.timeout_us // 3 and not in_flight.extending:
                    alone.setdefault(session, []).append(in_flight)
        for in_flight in self._abandoned:
            in_flight.asking_us = own_timeout_us(in_flight.event)
            alone.setdefault(self._partitions.of(in_flight.event.id).session, []).append(in_flight)
        self._abandoned = []
        self._looked_us = now_us
        self.shortest_us = shortest_us
        if shortest_us != NEVER_US:
            soon_us = now_us + max(shortest_us // LOOKS, MILLISECOND_US)
            self._set_alarm(min(next_us, soon_us) if next_us > now_us else soon_us)
        for session, all_in_flight in alone.items():
            for start in range(0, len(all_in_flight), BATCH_MAX_ITEMS):
                self._send(session, all_in_flight[start : start + BATCH_MAX_ITEMS])
        for in_flight in overrun:
            self._on_overrun(in_flight)

    def _asleep_until(self, in_flight: InFlight[Any]) -> int:
        """When the first handler of the event wakes up, if all merely sleep and none waits for `lost`; else 0."""
        if in_flight.open != len(in_flight.tasks) or hears_of_its_loss(in_flight.event) is not None:
            return 0
        simulator = self._runtime.simulator
        if simulator is None:
            return 0
        return min((simulator.asleep_until(task) or 0 for task in in_flight.tasks), default=0)

    @staticmethod
    def _stretch(in_flight: InFlight[Any], timeout_us: int, left_us: int) -> None:
        """Ask for `timeout_us`, but not for longer than the handler may run, and one timeout."""
        own_us = own_timeout_us(in_flight.event)
        in_flight.asking_us = max(min(timeout_us, left_us + own_us, DELAY_MAX_US), own_us)
        in_flight.stretched = True

    def abandoned(self, in_flight: InFlight[Any]) -> None:
        """No handler works on the event any more, and it is not settled: it comes again as soon as in production."""
        self._abandoned.append(in_flight)
        # Not at once: the loop may be about to end, and a task that is started then would never run.
        self._set_alarm(self._runtime.now_us())

    def _begin(self, event: Event[Any], in_flight: InFlight[Any]) -> None:
        """Set the times of a delivery that is seen for the first time: it began after the last look."""
        if not in_flight.timeout_us:
            in_flight.begun_us = in_flight.since_us = self._looked_us
            in_flight.timeout_us = max(own_timeout_us(event), MILLISECOND_US)

    def _send(self, session: StoreSession, all_in_flight: Sequence[InFlight[Any]]) -> None:
        for in_flight in all_in_flight:
            in_flight.extending = True
        self._background.start(lambda: self._extend(session, all_in_flight), "extending deliveries")

    async def _extend(self, session: StoreSession, all_in_flight: Sequence[InFlight[Any]]) -> None:
        sent_us = self._runtime.now_us()
        try:
            done = did("extend", *[in_flight.event.id for in_flight in all_in_flight])
            answer = await session.call(lambda: session.backend.extend(self.extensions(all_in_flight)), done)
        except BackendError:
            pass  # the node's own calls report it; the next look tries again
        else:
            self.answered(all_in_flight, answer.value, sent_us=sent_us, at_us=answer.at_us)
        finally:
            for in_flight in all_in_flight:
                in_flight.extending = False

    def _set_alarm(self, at_us: int) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._runtime.call_at(at_us, self._look)
