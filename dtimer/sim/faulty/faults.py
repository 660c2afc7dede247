"""Every fault: a value that says what goes wrong, and what it does to a cluster.

Durations are seconds, rounded to the microsecond.
What lasts ends by itself after ``for_s``; with None it lasts until it is ended, or the world is healed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias, get_args

import attrs
from attrs import field, frozen
from typing_extensions import override

from dtimer import _validation
from dtimer.errors import InvalidArgument
from dtimer.limits import SECOND_US
from dtimer.protocol.values import Malformed, Message, Pulse, Wakeup
from dtimer.safe_repr import safe_repr
from dtimer.sim.faulty.cluster import STORE, Cluster
from dtimer.sim.faulty.connection import CLOSED, Subscription
from dtimer.sim.faulty.host import Host
from dtimer.sim.faulty.link import Direction, Loss, Moment, Part, Spoil, Spoiler
from dtimer.sim.faulty.store import LOSE_MAX_US, Refusal

Seconds: TypeAlias = float | timedelta
Lie: TypeAlias = Literal["announcement", "pulse", "garbage"]
Undo: TypeAlias = Callable[[], None]

DIRECTIONS: Final[tuple[Direction, ...]] = get_args(Direction)
MOMENTS: Final[tuple[Moment, ...]] = get_args(Moment)
LOSSES: Final[tuple[Loss, ...]] = get_args(Loss)
REFUSALS: Final[tuple[Refusal, ...]] = get_args(Refusal)
SPOILS: Final[tuple[Spoil, ...]] = get_args(Spoil)
PARTS: Final[tuple[Part, ...]] = get_args(Part)
LIES: Final[tuple[Lie, ...]] = get_args(Lie)
ALL: Final = "all"

Choices: TypeAlias = "tuple[float, float] | tuple[str, ...]"
"""Of a drawn parameter: from the one number to the other, or one of several words."""
DrawFraction: TypeAlias = Callable[[str], float]
"""A random number from 0 up to 1 for the parameter of this name."""


def to_us(seconds: float) -> int:
    return round(seconds * SECOND_US)


def seconds(value: Seconds) -> float:
    """The converter of all times of faults. Other values are left to the validator, which knows the argument."""
    number: Any = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return number  # type: ignore[no-any-return]
    return round(number * SECOND_US) / SECOND_US


def optional_seconds(value: Seconds | None) -> float | None:
    return None if value is None else seconds(value)


def _lost_seconds(value: Seconds | Literal["all"]) -> float | Literal["all"]:
    return ALL if value == ALL else seconds(value)


def _finite(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    _validation.finite(value, attribute.name)


def not_negative(_: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and _validation.finite(value, attribute.name) < 0:
        raise InvalidArgument(attribute.name, f"must not be negative, not {safe_repr(value)}")


def _one_of(words: Sequence[str]) -> Callable[[object, attrs.Attribute[Any], str], None]:
    def check(_: object, attribute: attrs.Attribute[Any], value: str) -> None:
        if value not in words:
            raise InvalidArgument(attribute.name, f"must be one of {', '.join(words)}, not {safe_repr(value)}")

    return check


def _positive(_: object, attribute: attrs.Attribute[Any], value: int) -> None:
    _validation.whole(value, attribute.name, least=1)


def _share(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 < _validation.finite(value, attribute.name) <= 1:
        raise InvalidArgument(attribute.name, f"must be above 0 and at most 1, not {safe_repr(value)}")


def _losable(_: object, attribute: attrs.Attribute[Any], value: float | Literal["all"]) -> None:
    if value != ALL and not 0 <= _validation.finite(value, attribute.name) <= LOSE_MAX_US / SECOND_US:
        raise InvalidArgument(
            attribute.name, f"must be 'all', or 0 to {LOSE_MAX_US // SECOND_US} s, not {safe_repr(value)}"
        )


_WHOLE: Final = frozenset({"count", "ahead"})
_DRAWN_GRAIN: Final = 1_000
"""Drawn seconds are rounded to the millisecond, so that a script is short."""


def _drawn(fraction: float, choice: Choices, *, whole: bool) -> object:
    low, high = choice[0], choice[-1]
    if isinstance(low, str) or isinstance(high, str):
        return choice[int(fraction * len(choice))]
    # Short ones are as likely as long ones where zero is far away.
    value = low * (high / low) ** fraction if low > 0 else low + (high - low) * fraction
    return int(value) if whole else max(round(value * _DRAWN_GRAIN), 1 if low > 0 else -math.inf) / _DRAWN_GRAIN


@frozen
class Fault:
    """Something that goes wrong.

    Attributes:
        kind: its name in scripts, rates and traces.
        choices: what a drawn one may be like.
        weight: its share among faults of all kinds: in how many ways it goes wrong.
    """

    kind: ClassVar[str]
    choices: ClassVar[Mapping[str, Choices]] = {}
    weight: ClassVar[int] = 1

    def applies(self, cluster: Cluster) -> bool:
        """Whether it changes anything; the crash of what is down does not."""
        return True

    def apply(self, cluster: Cluster) -> Undo | None:
        """Let it happen; what ends it is returned, or None if there is nothing to end."""
        raise NotImplementedError

    @property
    def target(self) -> str:
        """The node that it is about, or ``store``."""
        return STORE

    @property
    def duration_s(self) -> float | None:
        """The seconds after which it ends by itself."""
        return getattr(self, "for_s", None)

    def to_json(self) -> dict[str, object]:
        """Its parameters, those that are not the default."""
        parameters: dict[str, object] = {"fault": self.kind}
        for attribute in attrs.fields(type(self)):
            value = getattr(self, attribute.name)
            if value != attribute.default:
                parameters[attribute.name] = value
        return parameters

    @classmethod
    def drawn(cls, draw: DrawFraction, choices: Mapping[str, Choices], **given: str) -> Self:
        """One with parameters that are drawn from their ranges."""
        parameters: dict[str, object] = dict(given)
        for name, choice in {**cls.choices, **choices}.items():
            parameters[name] = _drawn(draw(name), choice, whole=name in _WHOLE)
        return cls(**parameters)


@frozen
class NodeFault(Fault):
    """Something that goes wrong with one node, or between it and the store."""

    node: str

    @property
    @override
    def target(self) -> str:
        return self.node

    def host(self, cluster: Cluster) -> Host:
        """The host that it is about."""
        return cluster.hosts[self.node]

    def subscriptions(self, cluster: Cluster) -> list[Subscription]:
        """Those of the node that stand, as far as both ends know."""
        return [
            subscription
            for end in self.host(cluster).link.ends
            for subscription in end.subscriptions
            if subscription.connection.generation == cluster.store.generation
        ]


# --- nodes ------------------------------------------------------------------------------------------


@frozen
class Crash(NodeFault):
    """The node's process dies at once, as by SIGKILL; at the end of the fault it is started again.

    Attributes:
        at: when: `now`; or before its `count`-th next `step` (a callback or a task's turn), so also between two awaits
            at one instant; or at its `count`-th next `call`: before that is sent (`call`), right after (`sent`),
            or when its `reply` is there but has not been looked at; or when the `count`-th next handler has been
            `handled`, and nothing was sent since.
        down_s: until it is started again; None leaves that to others.
    """

    kind = "crash"
    choices: ClassVar[Mapping[str, Choices]] = {"down_s": (0.01, 30.0), "at": MOMENTS, "count": (1.0, 40.0)}
    down_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)
    at: Moment = field(default="now", validator=_one_of(MOMENTS))
    count: int = field(default=1, validator=_positive)

    @override
    def applies(self, cluster: Cluster) -> bool:
        return self.host(cluster).up

    @override
    def apply(self, cluster: Cluster) -> Undo:
        host = self.host(cluster)
        incarnation = host.incarnation

        def strike() -> None:
            host.crash()
            cluster.start_later(host, self.down_s)

        def undo() -> None:
            escape()
            if host.incarnation == incarnation:
                cluster.start(host)

        escape = host.doom(self.at, self.count, strike)
        return undo


@frozen
class Stop(NodeFault):
    """The node is asked to end, as by SIGTERM: `Host.forever` returns. At the end of the fault it is started again."""

    kind = "stop"
    choices: ClassVar[Mapping[str, Choices]] = {"down_s": (0.01, 30.0)}
    down_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)

    @override
    def applies(self, cluster: Cluster) -> bool:
        host = self.host(cluster)
        return host.up and not host.stopping

    @override
    def apply(self, cluster: Cluster) -> Undo:
        host = self.host(cluster)
        incarnation = host.incarnation
        cluster.stopping[host.name] = self.down_s
        host.stop()

        def undo() -> None:
            if host.incarnation == incarnation:
                if host.up:  # it has yet to end
                    cluster.stopping[host.name] = 0.0
                cluster.start(host)

        return undo


@frozen
class Restart(NodeFault):
    """The node is started again, after a crash if it runs."""

    kind = "restart"

    @override
    def apply(self, cluster: Cluster) -> None:
        host = self.host(cluster)
        if host.up:
            host.crash()
        host.start()


@frozen
class Pause(NodeFault):
    """The node's process stands still, as by SIGSTOP."""

    kind = "pause"
    choices: ClassVar[Mapping[str, Choices]] = {"for_s": (0.02, 25.0)}
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)

    @override
    def applies(self, cluster: Cluster) -> bool:
        return self.host(cluster).up

    @override
    def apply(self, cluster: Cluster) -> Undo:
        host = self.host(cluster)
        incarnation = host.incarnation
        host.pause(1)

        def undo() -> None:
            if host.up and host.incarnation == incarnation:
                host.pause(-1)

        return undo


# --- between a node and the store -----------------------------------------------------------------------


@frozen
class Partition(NodeFault):
    """What the node sends (`to_store`) or is sent (`from_store`) is lost."""

    kind = "partition"
    choices: ClassVar[Mapping[str, Choices]] = {"direction": DIRECTIONS, "for_s": (0.02, 40.0)}
    direction: Direction = field(default="both", validator=_one_of(DIRECTIONS))
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)

    @override
    def apply(self, cluster: Cluster) -> Undo:
        lose = self.host(cluster).link.lose
        lose(self.direction, 1)
        return partial(lose, self.direction, -1)


@frozen
class Hold(NodeFault):
    """What the node sends or is sent waits on its way until the fault ends; then it arrives, however old it is."""

    kind = "hold"
    choices: ClassVar[Mapping[str, Choices]] = {"direction": DIRECTIONS, "for_s": (0.02, 20.0)}
    direction: Direction = field(default="both", validator=_one_of(DIRECTIONS))
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)

    @override
    def apply(self, cluster: Cluster) -> Undo:
        hold = self.host(cluster).link.hold
        hold(self.direction, 1)
        return partial(hold, self.direction, -1)


@frozen
class Latency(NodeFault):
    """Each way between the node and the store takes from `min_s` to `max_s`."""

    kind = "latency"
    choices: ClassVar[Mapping[str, Choices]] = {"min_s": (0.001, 0.5), "max_s": (0.5, 6.0), "for_s": (0.1, 30.0)}
    min_s: float = field(converter=seconds, validator=_finite)
    max_s: float = field(converter=seconds, validator=_finite)
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)

    def __attrs_post_init__(self) -> None:
        if not 0 < self.min_s <= self.max_s:
            raise InvalidArgument("min_s", f"must be above 0 and not above max_s, not {safe_repr(self.min_s)}")

    @override
    def apply(self, cluster: Cluster) -> Undo:
        ways, latencies = (to_us(self.min_s), to_us(self.max_s)), self.host(cluster).link.latencies
        latencies.append(ways)
        return partial(latencies.remove, ways)


@frozen
class LoseCalls(NodeFault):
    """The `request` of the node's next calls is lost, or their `reply`: silently, or with their connection.

    A call whose reply is lost has been applied.
    """

    kind = "lose_calls"
    weight = 2
    choices: ClassVar[Mapping[str, Choices]] = {"part": PARTS, "count": (1.0, 4.0), "how": LOSSES}
    part: Part = field(default="reply", validator=_one_of(PARTS))
    count: int = field(default=1, validator=_positive)
    how: Loss = field(default="silence", validator=_one_of(LOSSES))

    @override
    def apply(self, cluster: Cluster) -> Undo:
        link = self.host(cluster).link
        link.lose_next(self.part, self.count, self.how)
        return partial(link.lose_no_more, self.part)


@frozen
class Disconnect(NodeFault):
    """All connections of the node are cut, the subscription too; what is under way is lost."""

    kind = "disconnect"

    @override
    def applies(self, cluster: Cluster) -> bool:
        return self.host(cluster).up

    @override
    def apply(self, cluster: Cluster) -> None:
        host = self.host(cluster)
        for end in host.link.ends:
            end.cut()
            for subscription in end.subscriptions:
                cluster.server.channels.remove(subscription)
        host.link.disconnect(CLOSED)


# --- announcements --------------------------------------------------------------------------------------


@frozen
class SpoilAnnouncements(NodeFault):
    """A share of what is announced to the node, pulses too, is spoiled.

    Attributes:
        how: it is lost (`lose`), comes late by up to `by_s` and out of order (`delay`), or comes again up to `by_s`
            later (`repeat`).
    """

    kind = "spoil_announcements"
    weight = 3
    choices: ClassVar[Mapping[str, Choices]] = {
        "how": SPOILS,
        "share": (0.1, 1.0),
        "by_s": (0.001, 30.0),
        "for_s": (0.1, 60.0),
    }
    how: Spoil = field(default="lose", validator=_one_of(SPOILS))
    by_s: float = field(default=1.0, converter=seconds, validator=not_negative)
    share: float = field(default=1.0, validator=_share)
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)

    @override
    def apply(self, cluster: Cluster) -> Undo:
        spoiler = Spoiler(self.how, self.share, to_us(self.by_s))
        spoilers = self.host(cluster).link.spoilers
        spoilers.append(spoiler)
        return partial(spoilers.remove, spoiler)


@frozen
class FalseAnnouncement(NodeFault):
    """The node is told what is not so.

    Attributes:
        told: an `announcement`, to come `due_s` from now, under a number that is `ahead` of the newest; a `pulse` after
            a claim that was not made; or `garbage`, which dtimer cannot read.
    """

    kind = "false_announcement"
    weight = 3
    choices: ClassVar[Mapping[str, Choices]] = {"told": LIES, "due_s": (-10.0, 100.0), "ahead": (-5.0, 1_000_000.0)}
    told: Lie = field(default="announcement", validator=_one_of(LIES))
    due_s: float = field(default=0.0, converter=seconds, validator=_finite)
    ahead: int = 1

    @override
    def applies(self, cluster: Cluster) -> bool:
        return bool(self.subscriptions(cluster))

    @override
    def apply(self, cluster: Cluster) -> None:
        now_us = cluster.loop.now_us + cluster.store.clock_offset_us
        for subscription in self.subscriptions(cluster):
            machine = cluster.store.machine(subscription.namespace)
            seq = machine.seq if machine is not None else 0
            message: Message = Malformed(b"nonsense")
            if self.told == "pulse":
                message = Pulse("nobody", now_us, seq)
            elif self.told == "announcement":
                message = Wakeup(now_us + to_us(self.due_s), now_us, max(seq + self.ahead, 0))
            cluster.server.say(subscription, message, "forged")


@frozen
class BreakSubscription(NodeFault):
    """The node's subscription breaks: it learns that (`disconnect`), or neither side does (`silence`).

    In silence it receives nothing until it subscribes again.
    """

    kind = "break_subscription"
    weight = 2
    choices: ClassVar[Mapping[str, Choices]] = {"how": LOSSES}
    how: Loss = field(default="disconnect", validator=_one_of(LOSSES))

    @override
    def applies(self, cluster: Cluster) -> bool:
        return any(not subscription.deaf or self.how != "silence" for subscription in self.subscriptions(cluster))

    @override
    def apply(self, cluster: Cluster) -> None:
        for subscription in self.subscriptions(cluster):
            if self.how == "silence":
                subscription.deaf = True
                continue
            cluster.server.channels.remove(subscription)
            process = subscription.process
            cluster.loop.set_timer(process, cluster.loop.now_us + 1, subscription.break_, (CLOSED,))


# --- the store --------------------------------------------------------------------------------------------


@frozen
class RestartStore(Fault):
    """The store dies and comes back, or a replica takes over.

    Attributes:
        lose_s: what it was told in its last so many seconds is gone; or `all`.
        down_s: for so long it cannot be reached,
        loading_s: and then for so long it answers with an error only, while it loads its data.
        clock_by_s: so far is the clock of a replica's host ahead.
    """

    kind = "restart_store"
    weight = 2
    choices: ClassVar[Mapping[str, Choices]] = {
        "lose_s": (0.0, 2.0),
        "down_s": (0.001, 20.0),
        "loading_s": (0.0, 2.0),
        "clock_by_s": (-0.5, 0.5),
    }
    lose_s: float | Literal["all"] = field(default=0.0, converter=_lost_seconds, validator=_losable)
    down_s: float = field(default=0.1, converter=seconds, validator=not_negative)
    loading_s: float = field(default=0.0, converter=seconds, validator=not_negative)
    clock_by_s: float = field(default=0.0, converter=seconds, validator=_finite)

    @property
    @override
    def duration_s(self) -> float:
        return self.down_s + self.loading_s

    @override
    def applies(self, cluster: Cluster) -> bool:
        return cluster.store.up

    @override
    def apply(self, cluster: Cluster) -> Undo:
        store = cluster.store
        down, loading = True, False

        def up() -> None:
            nonlocal down
            down = False
            store.up = True
            store.clock_offset_us += to_us(self.clock_by_s)

        def load() -> None:
            nonlocal loading
            if down:
                up()
                loading = True
                store.refuse("loading")

        def undo() -> None:
            if down:
                up()
            if loading:
                store.accept("loading")

        cluster.take_store_down(self.lose_s)
        if self.loading_s:
            cluster.later(self.down_s, load)
        return undo


@frozen
class Refuse(Fault):
    """The store answers with an error to what it cannot do: all that writes, all that adds, or everything."""

    kind = "refuse"
    choices: ClassVar[Mapping[str, Choices]] = {"how": REFUSALS, "for_s": (0.01, 15.0)}
    how: Refusal = field(validator=_one_of(REFUSALS))
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)

    @override
    def apply(self, cluster: Cluster) -> Undo:
        cluster.store.refuse(self.how)
        return partial(cluster.store.accept, self.how)


@frozen
class StepClock(Fault):
    """The clock of a host is set by so much, forward or back: the store's, or the time of day of a node."""

    kind = "step_clock"
    choices: ClassVar[Mapping[str, Choices]] = {"by_s": (-5.0, 5.0)}
    by_s: float = field(converter=seconds, validator=_finite)
    node: str = STORE

    @property
    @override
    def target(self) -> str:
        return self.node

    @override
    def apply(self, cluster: Cluster) -> None:
        if self.node == STORE:
            cluster.store.clock_offset_us += to_us(self.by_s)
        else:
            cluster.hosts[self.node].wall_offset_us += to_us(self.by_s)


# --- all of them -----------------------------------------------------------------------------------------

KINDS: Final[Mapping[str, type[Fault]]] = {
    fault.kind: fault
    for fault in (
        Crash, Stop, Restart, Pause, Partition, Hold, Latency, LoseCalls, Disconnect, SpoilAnnouncements,
        FalseAnnouncement, BreakSubscription, RestartStore, Refuse, StepClock,
    )
}  # fmt: skip

USUAL: Final[tuple[str, ...]] = tuple(kind for kind in KINDS if kind != "restart")
"""The kinds that are drawn unless others are named; what ends is started again without a restart."""
