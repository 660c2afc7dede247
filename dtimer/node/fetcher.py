"""The claim loop of one member: one claim in flight at a time; pending confirms are sent with it.

It alone decides when the store is called, since each reply tells when the next call is due.
"""

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
"""For a time in us, enough for two thousand years; for a place in the store's history, as far as a double counts."""
READING_TURNS: Final = 4
"""Turns of the loop: the socket is read in one, its reader wakes up in the next; and twice that."""
INCARNATION_BYTES: Final = 8
NONCE_BYTES: Final = 8
"""The nonce of a claim is that of its receipts."""


class FetcherOwner(Protocol):
    """What the fetchers of one node share, one for each partition; it is notified of their joins and ends."""

    @property
    def context(self) -> TimerContext: ...

    @property
    def settings(self) -> NodeSettings: ...

    @property
    def dispatcher(self) -> Dispatcher[Any]: ...

    @property
    def prefetch(self) -> Prefetch: ...

    def ready(self) -> None:
        """A fetcher has joined."""
        ...

    def fenced(self, fetcher: Fetcher) -> None:
        """This fetcher has ended because it was fenced or dismissed."""
        ...

    def stopped(self, error: BaseException | None) -> None:
        """A fetcher has ended by itself; `error` says why."""
        ...


class Fetcher:
    """Claims for one member, from its join until it leaves or is fenced.

    Attributes:
        member: as the store knows it.
        fenced: another process has joined under its node id.
        dismissed: it was fenced in another partition, so this fetcher has ended or is about to.
        took_over: its join fenced a member under its node id that was alive, as far as the store knew.
        joined: it claims, and the store knew it at the last reply.
        known: the store may know it as a member, whether or not it claims.
    """

    def __init__(self, node: str, partition: Partition, health: ConnectionHealth, owner: FetcherOwner) -> None:
        """
        Args:
            node: the id of the node.
            health: shared by all fetchers of one join.
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
        self._schedule = FetchSchedule(self._runtime.draw, lambda: session.backend.pace)
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
        """Set when the backend was closed, which ends the fetcher."""
        self._unwelcome = 0
        self._rejoin = False
        self._signal = self._runtime.signal(f"node {node}")
        self._unwatch = [session.losses.add(self._lost_writes)]
        if self._runtime.simulator is not None:
            self._unwatch.append(self._runtime.simulator.on_overdue(self._look))
        self._task: asyncio.Task[None] | None = None
        self._alarm_us: int | None = None
        """When the alarm rings; None while none is set."""

    @property
    def at_work(self) -> bool:
        """Whether it claims, and will go on."""
        return self._task is not None and not (self._task.done() or self._leaving or self._out)

    @property
    def _out(self) -> bool:
        return self.fenced or self.dismissed

    @property
    def begun(self) -> bool:
        """Whether its loop was started."""
        return self._task is not None

    # --- from outside --------------------------------------------------------------------------------------

    async def open(self) -> str:
        """Open the store, and make an incarnation that is later than those of earlier joins. Raises a BackendError."""
        opened = await self._session.call(self._session.backend.open)
        # The store's time orders incarnations; its history orders those of one instant, as in virtual time.
        place = self._session.history.mark().seq
        return f"{opened.at_us:0{HEX_DIGITS}x}-{place:0{HEX_DIGITS}x}-{self._runtime.token(INCARNATION_BYTES)}"

    async def start(self, incarnation: str) -> None:
        """Subscribe, join, and begin to claim (rule N1), after :meth:`open`.

        Raises:
            BackendError: the join failed.
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
        """Have the loop look again, since something has changed."""
        self._signal.set()

    def _lost_writes(self) -> None:
        """The store may not know this member any more."""
        self._rejoin = True
        self._signal.set()

    def _look(self) -> None:
        """A simulator says that an event waits in vain, or that this member was fenced."""
        self._schedule.look()
        self._signal.set()

    def dismiss(self) -> None:
        """End the loop when the call in flight has been answered, since the node was fenced in another partition."""
        self.dismissed, self.joined = True, False
        self._signal.set()

    def stop_claiming(self) -> None:
        """Send no claim after the one in flight, and give back what that brings."""
        self._leaving, self.joined = True, False
        self._signal.set()

    async def stop(self) -> None:
        """Stop claiming, and return when the call in flight has been answered."""
        self.stop_claiming()
        if self._task is not None:
            await asyncio.wait([self._task])
        await self.close()

    async def tell_store(self) -> None:
        """Tell the store that the member has left."""
        await self._session.call(lambda: self._session.backend.leave(self.member), did("leave"))
        self.known = False

    async def close(self) -> None:
        """Release everything: the loop is not started, or has ended."""
        await self._subscriber.stop()
        self._end()

    def _end(self) -> None:
        for end in self._unwatch:
            end()
        self._signal.close()

    # --- the loop ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while not self._leaving and not self._out:
                try:
                    await self._step()
                except BaseException as error:
                    # Nothing leaves a node without a next claim (rule N4), not even a bug of a backend.
                    if ends_the_task(error) or isinstance(error, BackendClosed):
                        raise
                    self._failed(error)
        except BaseException as error:
            # Reported before the next turn, in which a program that ends may leave.
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
        """The loop has ended; if it was not asked to, that is reported, once."""
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
            # A loop that was blocked has not read yet what arrived meanwhile.
            for _ in range(READING_TURNS):
                await asyncio.sleep(0)
            claim = self._schedule.next_claim(now_us, self._prefetch.of(self))
        if isinstance(claim, ClaimNow):
            if claim.subscription_lost:
                self._subscription_lost(
                    StoreUnreachable("wakeups", "the subscription is dead: its own pulse was not heard")
                )
                # Not awaited: claims go on without the subscription, which causes the next one when it stands.
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
        # A claim whose room is filled is followed by the next one at once.
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
                # It has joined just now: pause, longer each time, until the store knows it.
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
        """A join was answered. A later join of another process fences it, also if this was a repetition."""
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

    # --- what is received ---------------------------------------------------------------------------------------

    def _received(self, message: Message) -> None:
        if isinstance(message, Pulse):
            self._counters.pulses_heard += 1
            if self._schedule.received_pulse(self._runtime.now_us()):
                self._signal.set()
            # No reason to look again now, nor at the end of the silence if that was waited for.
            elif self._alarm_us is not None and (at_us := self._schedule.due_us()) > self._alarm_us:
                self._alarm.cancel()
                self._set_alarm(at_us)
            return
        if isinstance(message, Wakeup):
            due_us = self._session.clock.local_us(message.due_us)
            # Before the first reply of a new store its time is unknown; to claim at once is harmless.
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
    """The calls that a claim's reply acknowledges; for most claims there are none."""
    done: list[Done] = []
    if receipts:
        done.append(("confirm", [receipt.id for receipt in receipts]))
    if claimed.deliveries:
        done.append(("claim", [delivery.receipt.id for delivery in claimed.deliveries]))
    return done
