"""The claim loop of one membership: one call in flight at a time, with what is to be confirmed aboard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final, Protocol, assert_never

from attrs import evolve

from dtimer.errors import BackendClosed, BackendError, Known, MalformedWakeup, StoreUnreachable
from dtimer.node.acks import AckBatch
from dtimer.node.context import TimerContext
from dtimer.node.dispatcher import Dispatcher
from dtimer.node.fetch_schedule import ClaimNow, FetchSchedule
from dtimer.node.health import ConnectionHealth
from dtimer.node.partitions import Partition
from dtimer.node.prefetch import Prefetch
from dtimer.node.retry import TRANSIENT
from dtimer.node.session import Done, did
from dtimer.node.settings import NodeSettings
from dtimer.node.subscriber import Subscriber
from dtimer.node.tasks import start_task
from dtimer.protocol.outcomes import ClaimStatus, JoinOutcome
from dtimer.protocol.values import Applied, Claimed, Member, Message, Pulse, Receipt, Wakeup
from dtimer.user_code import ends_the_task

HEX_DIGITS: Final = 14
"""Of a time in us: enough for two thousand years. Of a place in the store's history: no double counts further."""
READING_TURNS: Final = 4
"""Of the loop: in one the socket is read, in the next its reader wakes up; and as much again."""
INCARNATION_BYTES: Final = 8
NONCE_BYTES: Final = 8
"""Of a claim, and so of its receipts."""


class FetcherOwner(Protocol):
    """What the fetchers of one node, one for each partition, share; and to whom they tell what becomes of them."""

    @property
    def context(self) -> TimerContext: ...

    @property
    def settings(self) -> NodeSettings: ...

    @property
    def dispatcher(self) -> Dispatcher[Any]: ...

    @property
    def prefetch(self) -> Prefetch: ...

    def ready(self) -> None:
        """One has joined."""
        ...

    def fenced(self, fetcher: Fetcher) -> None:
        """This one has come to its end because it was fenced or dismissed."""
        ...

    def stopped(self, error: BaseException | None) -> None:
        """One has come to its end although it was neither fenced nor told to; and why."""
        ...


class Fetcher:
    """A member at work, from its join until it leaves or is fenced.

    Attributes:
        member: under which the store knows it.
        fenced: another process has joined under its node id.
        dismissed: it was not fenced here, but in another partition, and has ended or is about to.
        took_over: its join fenced a member under its node id that was alive, as far as the store knew.
        joined: it is at work, and the store knows it, or did when it was last heard of.
        known: the store may know it as a member, whether it is at work or not.
    """

    def __init__(self, node: str, partition: Partition, health: ConnectionHealth, owner: FetcherOwner) -> None:
        """
        Args:
            node: its id.
            health: that of all fetchers of one join.
        """
        session = partition.session
        self.member = Member(node, "", session.backend.pace.poll_us)
        self.fenced = False
        self.dismissed = False
        self.took_over = False
        self.joined = False
        self.known = False
        self._session = session
        self._runtime = session.runtime
        self._dispatcher = owner.dispatcher
        self._prefetch = owner.prefetch
        self._monitor = owner.dispatcher.monitor
        self._acks = partition.acks
        self._settings = owner.settings
        self._reporter = owner.context.reporter
        self._counters = owner.context.counters
        self._owner = owner
        self._schedule = FetchSchedule(self._runtime.draw, session.backend.pace)
        self._health = health
        self._label = partition.label
        self._subscriber = Subscriber(
            session.backend,
            node,
            on_message=self._received,
            on_subscribed=self._subscribed_now,
            on_lost=self._subscription_lost,
        )
        self._epoch = ""
        self._leaving = False
        self._closed: BackendClosed | None = None
        """The backend was closed, which is for good."""
        self._unwelcome = 0
        self._rejoin = False
        self._signal = self._runtime.signal(f"node {node}")
        self._watch_no_longer = session.losses.add(self._lost_writes)
        self._task: asyncio.Task[None] | None = None
        self._alarm_us: int | None = None
        """When the alarm rings that is set while nothing is to be done."""

    @property
    def at_work(self) -> bool:
        """It claims, and will go on."""
        return self._task is not None and not (self._task.done() or self._leaving or self._out)

    @property
    def _out(self) -> bool:
        return self.fenced or self.dismissed

    @property
    def begun(self) -> bool:
        """It has joined once, whatever became of it since."""
        return self._task is not None

    # --- from outside --------------------------------------------------------------------------------------

    async def open(self) -> str:
        """Reach the store, and make up a later incarnation than those of earlier joins. Raises a BackendError."""
        opened = await self._session.call(self._session.backend.open)
        # By the store's time, so that an earlier incarnation which the store knows can be told from a later one;
        # and by its history, for in virtual time two joins come at the same instant.
        place = self._session.history.mark().seq
        return f"{opened.at_us:0{HEX_DIGITS}x}-{place:0{HEX_DIGITS}x}-{self._runtime.token(INCARNATION_BYTES)}"

    async def start(self, incarnation: str) -> None:
        """Subscribe, join, and begin to claim (rule N1); it is open.

        Raises:
            BackendError: it has not joined.
        """
        try:
            self.member = evolve(self.member, incarnation=incarnation)
            error = await (await self._subscribe())
            if error is not None and not isinstance(error, TRANSIENT):
                raise error
            await self._join()
        except BaseException:
            await self.close()
            raise
        self._task = start_task(self._run, f"dtimer: node {self.member.node}")
        self._task.add_done_callback(self._ended)
        self._acks.batcher.hand_over(self._signal.set)
        if self.joined:
            self._owner.ready()

    def ring(self) -> None:
        """Something has changed: look again."""
        self._signal.set()

    def _lost_writes(self) -> None:
        """The store may not know this member any more."""
        self._rejoin = True
        self._signal.set()

    def dismiss(self) -> None:
        """It was fenced in another partition, and comes to its end here when the call in flight has been answered."""
        self.dismissed, self.joined = True, False
        self._signal.set()

    def stop_claiming(self) -> None:
        """No claim follows the one in flight, and what that brings goes back."""
        self._leaving, self.joined = True, False
        self._signal.set()

    async def stop(self) -> None:
        """Return when the call in flight, if any, has been answered and no other will follow."""
        self.stop_claiming()
        if self._task is not None:
            await asyncio.wait([self._task])
        await self.close()

    async def tell_store(self) -> None:
        """It is a member no more."""
        await self._session.call(lambda: self._session.backend.leave(self.member), did("leave"))
        self.known = False

    async def close(self) -> None:
        """It does not begin, or has come to its end."""
        await self._subscriber.stop()
        self._end()

    def _end(self) -> None:
        self._watch_no_longer()
        self._signal.close()

    # --- the loop ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while not self._leaving and not self._out:
                try:
                    await self._step()
                except BaseException as error:
                    # No path leaves a node without a next wake-up (rule N4), a backend's bug neither.
                    if ends_the_task(error) or isinstance(error, BackendClosed):
                        raise
                    self._failed(error)
        except BaseException as error:
            # Told before the next turn, in which a program that ends may be leaving.
            if not isinstance(error, GeneratorExit):
                self._stopped(error)
            if isinstance(error, BackendClosed):
                await self._subscriber.stop()
            raise
        finally:
            self.joined = False
            self._end()
            self._prefetch.gone(self)
            self._acks.batcher.take_back()
        if self._out:
            await self._subscriber.stop()
            self._owner.fenced(self)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._stopped(asyncio.CancelledError() if task.cancelled() else task.exception())

    def _stopped(self, error: BaseException | None) -> None:
        """It has come to its end; unless it was told to, that is reported, once."""
        if not self._leaving and not self._out:
            self._owner.stopped(error)

    async def _step(self) -> None:
        if self._closed is not None:
            raise self._closed
        now_us = self._runtime.now_us()
        may_call = self._schedule.may_call(now_us)
        if self._rejoin and may_call:
            await self._join_again()
            return
        claim = self._schedule.next_claim(now_us, self._prefetch.of(self))
        if isinstance(claim, ClaimNow) and claim.subscription_lost:
            # A loop that was blocked has not read yet what was said meanwhile.
            for _ in range(READING_TURNS):
                await asyncio.sleep(0)
            claim = self._schedule.next_claim(now_us, self._prefetch.of(self))
        if isinstance(claim, ClaimNow):
            if claim.subscription_lost:
                self._subscription_lost(
                    StoreUnreachable("wakeups", "the subscription is dead: its own pulse was not heard")
                )
                # Not waited for: claims go on without it, and it makes the next one when it is there.
                await self._subscribe()
            await self._claim(claim)
            return
        batch = self._acks.take() if may_call else None
        if batch is not None:
            await self._confirm(batch)
            return
        self._set_alarm(claim.at_us)
        try:
            await self._signal.wait()
            assert self._alarm_us is not None, "it was set just now"
            self._monitor.rang(self._alarm_us)  # a pulse may have moved it
        finally:
            self._alarm.cancel()
            self._alarm_us = None

    def _set_alarm(self, at_us: int) -> None:
        self._alarm_us = at_us
        self._alarm = self._runtime.call_at(at_us, self._signal.set)

    async def _claim(self, claim: ClaimNow) -> None:
        batch = self._acks.take()
        receipts = batch.items if batch is not None else ()
        # One that comes back full is followed by the next at once.
        room = self._prefetch.reserve(self)
        nonce = self._runtime.token(NONCE_BYTES)
        extender, sent_us = self._dispatcher.extender, self._runtime.now_us()
        kept = extender.take(self._session, sent_us)
        self._schedule.claiming(sent_us, claim)
        self._counters.claims += 1
        try:
            applied = await self._session.once(
                lambda: self._session.backend.claim(
                    self.member,
                    room=room,
                    confirm_timeout_us=self._settings.confirm_timeout_us,
                    nonce=nonce,
                    confirming=receipts,
                    extending=extender.extensions(kept) if kept else (),
                    pulse=claim.pulse,
                ),
                lambda claimed: _claimed(receipts, claimed),
            )
        except BaseException as error:
            if ends_the_task(error):
                if batch is not None:
                    batch.cancel()
                raise
            # What it took, if anything, is not known: what requires a confirm comes again, the rest is lost (F2).
            self._counters.failed_claims += 1
            self._prefetch.failed(self)
            if batch is not None:
                self._acks.failed(batch, error)
            if isinstance(error, BackendClosed):
                raise
            self._failed(error)
            return
        self._worked()
        if kept:
            extender.answered(kept, applied.value.extended, sent_us=sent_us, at_us=applied.at_us)
        self._prefetch.answered(self, len(applied.value.deliveries))
        # The node re-arms itself before anything is handled (rule W4).
        if applied.value.status is ClaimStatus.JOINED:
            self._plan(applied, room)
        if batch is not None:
            self._acks.answered(batch, applied.value.confirmed)
        self._welcome(applied)
        self._dispatcher.take(applied.value, leaving=self._leaving)
        self._prefetch.changed()

    def _plan(self, applied: Applied[Claimed], room: int) -> None:
        claimed = applied.value
        self._schedule.claimed(
            self._runtime.now_us(),
            seq=applied.seq,
            room_left=room - len(claimed.deliveries),
            more=claimed.more,
            come_at_us=None if claimed.come_at_us is None else self._session.clock.local_us(claimed.come_at_us),
        )

    def _welcome(self, applied: Applied[Claimed]) -> None:
        status = applied.value.status
        if status is ClaimStatus.JOINED:
            self._unwelcome = 0
        elif status is ClaimStatus.NOT_JOINED:
            self._rejoin = True
            self._unwelcome += 1
            if self._unwelcome > 1:
                # It was joined just now: do not go round and round without a pause, which grows until it is known.
                self._schedule.failed(self._runtime.now_us())
        elif status is ClaimStatus.FENCED:
            self._is_fenced()
        else:
            assert_never(status)

    def _is_fenced(self) -> None:
        self.fenced, self.joined = True, False
        self._health.fenced(self._settings.identity.name)

    async def _confirm(self, batch: AckBatch) -> None:
        try:
            done = did("confirm", *[receipt.id for receipt in batch.items])
            applied = await self._session.once(lambda: self._session.backend.confirm(batch.items), done)
        except BaseException as error:
            if ends_the_task(error):
                batch.cancel()
                raise
            self._acks.failed(batch, error)
            if isinstance(error, BackendClosed):
                raise
            self._failed(error)
        else:
            self._worked()
            self._acks.answered(batch, applied.value)

    # --- being a member --------------------------------------------------------------------------------------

    async def _subscribe(self) -> Awaitable[Exception | None]:
        epoch = self._session.history.epoch
        assert epoch is not None, "open() was answered"
        self._epoch = epoch
        self._schedule.unsubscribed()
        return await self._subscriber.subscribe(epoch)

    async def _join(self) -> None:
        self.known = True
        try:
            joined = await self._session.call(lambda: self._session.backend.join(self.member), did("join"))
        except BackendError as error:
            self.known = error.known is not Known.NOT_APPLIED
            raise
        self.took_over = joined.value is JoinOutcome.TOOK_OVER
        self._came(joined.value)

    def _came(self, outcome: JoinOutcome) -> None:
        """A join was answered. Whether it was the first try or its repetition, a later one of another fences it."""
        if outcome is JoinOutcome.FENCED:
            self._is_fenced()
            return
        self.joined = not self.dismissed
        self._rejoin = False
        self._schedule.joined(self._runtime.now_us())

    async def _join_again(self) -> None:
        self._rejoin = False
        self._counters.rejoins += 1
        try:
            if self._session.history.epoch != self._epoch:
                await (await self._subscribe())
            joined = await self._session.once(lambda: self._session.backend.join(self.member), did("join"))
        except Exception:
            self._rejoin = True
            raise
        self._worked()
        self._came(joined.value)
        if self.joined:
            self._owner.ready()

    def _failed(self, error: BaseException) -> None:
        self._schedule.failed(self._runtime.now_us())
        self._health.began(f"claims{self._label}", error)

    def _worked(self) -> None:
        self._health.ended(f"claims{self._label}")

    # --- what is heard ---------------------------------------------------------------------------------------

    def _received(self, message: Message) -> None:
        if isinstance(message, Pulse):
            self._counters.pulses_heard += 1
            self._schedule.received_pulse(self._runtime.now_us())
            # No reason to look again now, and where the silence was waited for none to look at its end either.
            if self._alarm_us is not None and (at_us := self._schedule.due_us()) > self._alarm_us:
                self._alarm.cancel()
                self._set_alarm(at_us)
            return
        if isinstance(message, Wakeup):
            due_us = self._session.clock.local_us(message.due_us)
            # Before the first reply of a new store the time is unknown; coming at once is harmless.
            self._schedule.notified(self._runtime.now_us() if due_us is None else due_us, message.seq)
        else:
            self._counters.malformed_wakeups += 1
            self._reporter.report(MalformedWakeup(message.raw))
        self._signal.set()

    def _subscribed_now(self) -> None:
        self._health.ended(f"wake-ups{self._label}")
        self._schedule.subscribed(self._runtime.now_us())
        self._signal.set()

    def _subscription_lost(self, error: Exception) -> None:
        self._counters.failed_subscriptions += 1
        self._schedule.unsubscribed()
        if isinstance(error, BackendClosed):
            self._closed = error
        self._health.began(f"wake-ups{self._label}", error)
        self._signal.set()


def _claimed(receipts: Sequence[Receipt], claimed: Claimed) -> list[Done]:
    """What came of a claim; nothing that would be missed came of most."""
    done: list[Done] = []
    if receipts:
        done.append(("confirm", [receipt.id for receipt in receipts]))
    if claimed.deliveries:
        done.append(("claim", [delivery.receipt.id for delivery in claimed.deliveries]))
    return done
