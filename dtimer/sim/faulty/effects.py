"""What each fault does to a world: how it begins and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

from dtimer.protocol.values import Malformed, Message, Pulse, Wakeup
from dtimer.sim.faulty import faults as f
from dtimer.sim.faulty.channels import Subscription
from dtimer.sim.faulty.exchange import CLOSED
from dtimer.sim.faulty.faults import Fault, to_us
from dtimer.sim.faulty.host import Host
from dtimer.sim.faulty.server import Server

Effect: TypeAlias = "tuple[Callable[[], None], Callable[[], None] | None, float | None] | None"
"""How it begins, how it ends, and after how many seconds it does so by itself; None if it would change nothing."""

NOBODY: Final = "nobody"


class Agenda(Protocol):
    """What is to happen later.

    Attributes:
        healed: no more faults.
        stopped: the programs that were asked to end, and for how many seconds.
    """

    healed: bool
    stopped: dict[str, float | None]

    def start_later(self, host: Host, down_s: float | None) -> None:
        """Start a program again, unless somebody else does before; None leaves it to them."""
        ...

    def lasts(self, fault: Fault, undo: Callable[[], None], for_s: float | None) -> None:
        """It has begun, and ends so much later, or when it is ended or healed."""
        ...

    def end_all(self, kind: type[Fault], node: str | None) -> Effect:
        """The end of all faults of a kind."""
        ...


class Effects:
    """Of faults on one world."""

    def __init__(self, server: Server, hosts: Mapping[str, Host], agenda: Agenda) -> None:
        self._server = server
        self._loop = server.loop
        self._hosts = hosts
        self._agenda = agenda
        self._of: dict[type[Fault], Callable[[Any], Effect]] = {
            f.Crash: self._crash,
            f.Stop: self._stop,
            f.Restart: self._restart,
            f.Pause: self._pause,
            f.Resume: lambda fault: self._agenda.end_all(f.Pause, fault.node),
            f.SetWallClock: self._set_wall_clock,
            f.Partition: self._partition,
            f.Repair: lambda fault: self._agenda.end_all(f.Partition, fault.node),
            f.Hold: self._hold,
            f.Release: lambda fault: self._agenda.end_all(f.Hold, fault.node),
            f.Slow: self._slow,
            f.LoseRequests: self._lose_requests,
            f.LoseReplies: self._lose_replies,
            f.Disconnect: self._disconnect,
            f.LoseAnnouncements: self._spoil,
            f.DelayAnnouncements: self._spoil,
            f.RepeatAnnouncements: self._spoil,
            f.ForgeAnnouncement: self._forge,
            f.ForgePulse: self._forge_pulse,
            f.Garble: self._garble,
            f.Deafen: self._deafen,
            f.BreakSubscription: self._break,
            f.RestartStore: self._restart_store,
            f.Failover: self._failover,
            f.Refuse: self._refuse,
            f.Accept: lambda fault: self._agenda.end_all(f.Refuse, None),
            f.StepClock: self._step_clock,
        }

    def of(self, fault: Fault) -> Effect:
        return self._of[type(fault)](fault)

    def _subscriptions(self, node: str) -> list[Subscription]:
        """Those that stand, as far as both ends know."""
        return [
            subscription
            for backend in self._hosts[node].backends
            for subscription in backend.subscriptions
            if subscription.connection.generation == self._server.store.generation
        ]

    def _crash(self, fault: f.Crash) -> Effect:
        host = self._hosts[fault.node]
        if not host.up:
            return None

        def strike() -> None:
            host.crash()
            self._agenda.start_later(host, fault.down_s)

        if fault.at == "now":
            return strike, None, None
        return partial(host.doom, fault.at, fault.count, strike), None, None

    def _stop(self, fault: f.Stop) -> Effect:
        host = self._hosts[fault.node]
        if not host.up or host.stopping:
            return None

        def stop() -> None:
            self._agenda.stopped[host.name] = fault.down_s
            host.stop()

        return stop, None, None

    def _restart(self, fault: f.Restart) -> Effect:
        host = self._hosts[fault.node]

        def restart() -> None:
            if host.up:
                host.crash()
            host.start()

        return restart, None, None

    def _pause(self, fault: f.Pause) -> Effect:
        host = self._hosts[fault.node]
        if not host.up:
            return None
        incarnation = host.incarnation

        def resume() -> None:
            if host.up and host.incarnation == incarnation:
                host.pause(-1)

        return partial(host.pause, 1), resume, fault.for_s

    def _set_wall_clock(self, fault: f.SetWallClock) -> Effect:
        host = self._hosts[fault.node]

        def set_clock() -> None:
            host.wall_offset_us = to_us(fault.offset_s)

        return set_clock, None, None

    def _partition(self, fault: f.Partition) -> Effect:
        link = self._hosts[fault.node].link
        return partial(link.lose, fault.direction, 1), partial(link.lose, fault.direction, -1), fault.for_s

    def _hold(self, fault: f.Hold) -> Effect:
        link = self._hosts[fault.node].link
        return partial(link.hold, fault.direction, 1), partial(link.hold, fault.direction, -1), fault.for_s

    def _slow(self, fault: f.Slow) -> Effect:
        slow = self._hosts[fault.node].link.slow
        ways = (to_us(fault.min_s), to_us(fault.max_s))
        return partial(slow.append, ways), partial(slow.remove, ways), fault.for_s

    def _lose_requests(self, fault: f.LoseRequests) -> Effect:
        return partial(self._hosts[fault.node].link.lose_next_requests, fault.count, fault.how), None, None

    def _lose_replies(self, fault: f.LoseReplies) -> Effect:
        return partial(self._hosts[fault.node].link.lose_next_replies, fault.count, fault.how), None, None

    def _disconnect(self, fault: f.Disconnect) -> Effect:
        host = self._hosts[fault.node]
        if not host.up:
            return None

        def disconnect() -> None:
            for backend in host.backends:
                backend.cut()
                for subscription in backend.subscriptions:
                    self._server.channels.remove(subscription)
            host.link.disconnect(CLOSED)

        return disconnect, None, None

    def _spoil(self, fault: f.LoseAnnouncements | f.DelayAnnouncements | f.RepeatAnnouncements) -> Effect:
        spoilers = self._hosts[fault.node].link.spoilers
        return partial(spoilers.append, fault), partial(spoilers.remove, fault), fault.for_s

    def _say(self, node: str, message: Callable[[int, int], Message]) -> Effect:
        """A message that nobody sent; it needs the store's time and the newest number."""
        subscriptions = self._subscriptions(node)
        if not subscriptions:
            return None

        def say() -> None:
            for subscription in subscriptions:
                machine = self._server.store.machine(subscription.backend.namespace)
                seq = machine.seq if machine is not None else 0
                now_us = self._loop.now_us + self._server.store.clock_offset_us
                self._server.say(subscription, message(now_us, seq), "forged")

        return say, None, None

    def _forge(self, fault: f.ForgeAnnouncement) -> Effect:
        return self._say(
            fault.node, lambda now_us, seq: Wakeup(now_us + to_us(fault.due_s), now_us, max(seq + fault.ahead, 0))
        )

    def _forge_pulse(self, fault: f.ForgePulse) -> Effect:
        return self._say(fault.node, partial(Pulse, NOBODY))

    def _garble(self, fault: f.Garble) -> Effect:
        return self._say(fault.node, lambda now_us, seq: Malformed(fault.text.encode()))

    def _deafen(self, fault: f.Deafen) -> Effect:
        subscriptions = [subscription for subscription in self._subscriptions(fault.node) if not subscription.deaf]

        def deafen() -> None:
            for subscription in subscriptions:
                subscription.deaf = True

        return (deafen, None, None) if subscriptions else None

    def _break(self, fault: f.BreakSubscription) -> Effect:
        subscriptions = self._subscriptions(fault.node)

        def break_() -> None:
            for subscription in subscriptions:
                self._server.channels.remove(subscription)
                process = subscription.backend.process
                self._loop.set_timer(process, self._loop.now_us + 1, subscription.break_, (CLOSED,))

        return (break_, None, None) if subscriptions else None

    def _restart_store(self, fault: f.RestartStore) -> Effect:
        return self._store_down(fault, fault.lose_s, loading_s=fault.loading_s, clock_by_s=0.0)

    def _failover(self, fault: f.Failover) -> Effect:
        return self._store_down(fault, fault.lose_s, loading_s=0.0, clock_by_s=fault.clock_by_s)

    def _store_down(
        self, fault: f.RestartStore | f.Failover, lose_s: float | str, *, loading_s: float, clock_by_s: float
    ) -> Effect:
        server, store = self._server, self._server.store
        if not store.up:
            return None

        def down() -> None:
            store.up = False
            for host in self._hosts.values():
                host.link.disconnect(CLOSED)
            store.generation += 1
            server.channels.clear()
            until_us = None if isinstance(lose_s, str) else self._loop.now_us - to_us(lose_s)
            if until_us is None:
                store.lose_all()
            elif until_us < self._loop.now_us:
                store.lose(until_us)
            for observer in server.observers:
                observer.on_rolled_back(until_us)

        def back() -> None:
            store.up = True
            store.clock_offset_us += to_us(clock_by_s)
            if loading_s and not self._agenda.healed:
                store.refuse("loading")
                self._agenda.lasts(fault, partial(store.accept, "loading"), loading_s)

        return down, back, fault.down_s

    def _refuse(self, fault: f.Refuse) -> Effect:
        store = self._server.store
        return partial(store.refuse, fault.how), partial(store.accept, fault.how), fault.for_s

    def _step_clock(self, fault: f.StepClock) -> Effect:
        def step() -> None:
            self._server.store.clock_offset_us += to_us(fault.by_s)

        return step, None, None
