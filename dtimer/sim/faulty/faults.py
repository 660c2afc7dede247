"""Every fault as a value.

Durations are seconds, rounded to the microsecond.
What lasts (``for_s``) ends by itself; with None it lasts until it is undone, or the world is healed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias, get_args

import attrs
from attrs import field, frozen

from dtimer import _validation
from dtimer.errors import InvalidArgument
from dtimer.limits import SECOND_US
from dtimer.safe_repr import safe_repr
from dtimer.sim.faulty.store import LOSE_MAX_US, Refusal

Seconds: TypeAlias = float | timedelta
Direction: TypeAlias = Literal["both", "to_store", "from_store"]
Moment: TypeAlias = Literal["now", "step", "call", "sent", "reply", "handled"]
Loss: TypeAlias = Literal["silence", "disconnect"]

DIRECTIONS: Final[tuple[Direction, ...]] = get_args(Direction)
MOMENTS: Final[tuple[Moment, ...]] = get_args(Moment)
LOSSES: Final[tuple[Loss, ...]] = get_args(Loss)
REFUSALS: Final[tuple[Refusal, ...]] = get_args(Refusal)
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
    """

    kind: ClassVar[str]
    choices: ClassVar[Mapping[str, Choices]] = {}

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
    """Something that goes wrong with one node, or on its way to the store."""

    node: str


@frozen
class StoreFault(Fault):
    """Something that goes wrong with the store."""


# --- nodes ------------------------------------------------------------------------------------------


@frozen
class Crash(NodeFault):
    """The node's process dies at once, as by SIGKILL.

    Attributes:
        at: when: `now`; or before its `count`-th next `step` (a callback or a task's turn), so also between two awaits
            at one instant; or at its `count`-th next `call`: before that is sent (`call`), right after (`sent`),
            or when its `reply` is there but has not been looked at; or when the `count`-th next handler has been
            `handled`, but nobody knows yet.
        down_s: until it is started again; None leaves that to others.
    """

    kind = "crash"
    choices: ClassVar[Mapping[str, Choices]] = {"down_s": (0.01, 30.0), "at": MOMENTS, "count": (1.0, 40.0)}
    down_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)
    at: Moment = field(default="now", validator=_one_of(MOMENTS))
    count: int = field(default=1, validator=_positive)


@frozen
class Stop(NodeFault):
    """The node is asked to end, as by SIGTERM: `Host.forever` returns."""

    kind = "stop"
    choices: ClassVar[Mapping[str, Choices]] = {"down_s": (0.01, 30.0)}
    down_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)


@frozen
class Restart(NodeFault):
    """The node is started anew, after a crash if it runs."""

    kind = "restart"


@frozen
class Pause(NodeFault):
    """The node's process stands still, as by SIGSTOP."""

    kind = "pause"
    choices: ClassVar[Mapping[str, Choices]] = {"for_s": (0.02, 25.0)}
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)


@frozen
class Resume(NodeFault):
    """The end of a pause."""

    kind = "resume"


@frozen
class SetWallClock(NodeFault):
    """The node's time of day is wrong by so much."""

    kind = "set_wall_clock"
    choices: ClassVar[Mapping[str, Choices]] = {"offset_s": (-100_000.0, 100_000.0)}
    offset_s: float = field(default=0.0, converter=seconds, validator=_finite)


# --- the way to the store -----------------------------------------------------------------------------


@frozen
class Partition(NodeFault):
    """What the node sends (`to_store`) or is sent (`from_store`) is lost, until repaired."""

    kind = "partition"
    choices: ClassVar[Mapping[str, Choices]] = {"direction": DIRECTIONS, "for_s": (0.02, 40.0)}
    direction: Direction = field(default="both", validator=_one_of(DIRECTIONS))
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)


@frozen
class Repair(NodeFault):
    """The end of all partitions of a node."""

    kind = "repair"


@frozen
class Hold(NodeFault):
    """What the node sends or is sent waits on its way, until released; then it arrives, however old it is."""

    kind = "hold"
    choices: ClassVar[Mapping[str, Choices]] = {"direction": DIRECTIONS, "for_s": (0.02, 20.0)}
    direction: Direction = field(default="both", validator=_one_of(DIRECTIONS))
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)


@frozen
class Release(NodeFault):
    """The end of all holds of a node."""

    kind = "release"


@frozen
class Slow(NodeFault):
    """Each way between the node and the store takes from `min_s` to `max_s`."""

    kind = "slow"
    choices: ClassVar[Mapping[str, Choices]] = {"min_s": (0.001, 0.5), "max_s": (0.5, 6.0), "for_s": (0.1, 30.0)}
    min_s: float = field(converter=seconds, validator=_finite)
    max_s: float = field(converter=seconds, validator=_finite)
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)

    def __attrs_post_init__(self) -> None:
        if not 0 < self.min_s <= self.max_s:
            raise InvalidArgument("min_s", f"must be above 0 and not above max_s, not {safe_repr(self.min_s)}")


@frozen
class LoseRequests(NodeFault):
    """The node's next calls are lost on their way to the store."""

    kind = "lose_requests"
    choices: ClassVar[Mapping[str, Choices]] = {"count": (1.0, 4.0), "how": LOSSES}
    count: int = field(default=1, validator=_positive)
    how: Loss = field(default="silence", validator=_one_of(LOSSES))


@frozen
class LoseReplies(NodeFault):
    """The node's next calls are applied, and their replies are lost: silently, or with their connection."""

    kind = "lose_replies"
    choices: ClassVar[Mapping[str, Choices]] = {"count": (1.0, 4.0), "how": LOSSES}
    count: int = field(default=1, validator=_positive)
    how: Loss = field(default="silence", validator=_one_of(LOSSES))


@frozen
class Disconnect(NodeFault):
    """All connections of the node are cut, the subscription too; what is under way is lost."""

    kind = "disconnect"


# --- announcements --------------------------------------------------------------------------------------


@frozen
class LoseAnnouncements(NodeFault):
    """A share of what is announced to the node, pulses too, is lost."""

    kind = "lose_announcements"
    choices: ClassVar[Mapping[str, Choices]] = {"share": (0.1, 1.0), "for_s": (0.1, 60.0)}
    share: float = field(default=1.0, validator=_share)
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)


@frozen
class DelayAnnouncements(NodeFault):
    """A share of what is announced to the node comes late by up to `by_s`, and out of order."""

    kind = "delay_announcements"
    choices: ClassVar[Mapping[str, Choices]] = {"share": (0.1, 1.0), "by_s": (0.001, 30.0), "for_s": (0.1, 60.0)}
    by_s: float = field(converter=seconds, validator=not_negative)
    share: float = field(default=1.0, validator=_share)
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)


@frozen
class RepeatAnnouncements(NodeFault):
    """A share of what is announced to the node comes again, up to `by_s` later."""

    kind = "repeat_announcements"
    choices: ClassVar[Mapping[str, Choices]] = {"share": (0.1, 1.0), "by_s": (0.001, 30.0), "for_s": (0.1, 60.0)}
    by_s: float = field(default=1.0, converter=seconds, validator=not_negative)
    share: float = field(default=1.0, validator=_share)
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)


@frozen
class ForgeAnnouncement(NodeFault):
    """The node is told to come `due_s` from now, by nobody, under a number that is `ahead` of the newest."""

    kind = "forge_announcement"
    choices: ClassVar[Mapping[str, Choices]] = {"due_s": (-10.0, 100.0), "ahead": (-5.0, 1_000_000.0)}
    due_s: float = field(default=0.0, converter=seconds, validator=_finite)
    ahead: int = 1


@frozen
class ForgePulse(NodeFault):
    """The node hears that somebody looked, and nobody did."""

    kind = "forge_pulse"


@frozen
class Garble(NodeFault):
    """The node hears something that is no message of dtimer."""

    kind = "garble"
    text: str = "nonsense"


@frozen
class Deafen(NodeFault):
    """The node's subscription is dead, and neither side knows: nothing is heard until it subscribes anew."""

    kind = "deafen"


@frozen
class BreakSubscription(NodeFault):
    """The node's subscription breaks, and it learns that."""

    kind = "break_subscription"


# --- the store --------------------------------------------------------------------------------------------


@frozen
class RestartStore(StoreFault):
    """The store dies and comes back.

    Attributes:
        lose_s: what it was told in its last so many seconds is gone; or `all`.
        down_s: for so long nobody answers,
        loading_s: and then for so long only with an error, while it loads its data.
    """

    kind = "restart_store"
    choices: ClassVar[Mapping[str, Choices]] = {"lose_s": (0.0, 2.0), "down_s": (0.001, 20.0), "loading_s": (0.0, 2.0)}
    lose_s: float | Literal["all"] = field(default=0.0, converter=_lost_seconds, validator=_losable)
    down_s: float = field(default=0.1, converter=seconds, validator=not_negative)
    loading_s: float = field(default=0.0, converter=seconds, validator=not_negative)


@frozen
class Failover(StoreFault):
    """A replica takes over, without what had not reached it, and with a clock of its own."""

    kind = "failover"
    choices: ClassVar[Mapping[str, Choices]] = {
        "lose_s": (0.0, 2.0),
        "down_s": (0.001, 20.0),
        "clock_by_s": (-0.5, 0.5),
    }
    lose_s: float | Literal["all"] = field(default=0.0, converter=_lost_seconds, validator=_losable)
    down_s: float = field(default=1.0, converter=seconds, validator=not_negative)
    clock_by_s: float = field(default=0.0, converter=seconds, validator=_finite)


@frozen
class Refuse(StoreFault):
    """The store answers with an error to what it cannot do: all that writes, all that adds, or everything."""

    kind = "refuse"
    choices: ClassVar[Mapping[str, Choices]] = {"how": REFUSALS, "for_s": (0.01, 15.0)}
    how: Refusal = field(validator=_one_of(REFUSALS))
    for_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)


@frozen
class Accept(StoreFault):
    """The end of all refusals."""

    kind = "accept"


@frozen
class StepClock(StoreFault):
    """The clock of the store's host is set by so much, forward or back."""

    kind = "step_clock"
    choices: ClassVar[Mapping[str, Choices]] = {"by_s": (-5.0, 5.0)}
    by_s: float = field(converter=seconds, validator=_finite)


# --- all of them -----------------------------------------------------------------------------------------

KINDS: Final[Mapping[str, type[Fault]]] = {
    fault.kind: fault
    for fault in (
        Crash, Stop, Restart, Pause, Resume, SetWallClock, Partition, Repair, Hold, Release, Slow, LoseRequests,
        LoseReplies, Disconnect, LoseAnnouncements, DelayAnnouncements, RepeatAnnouncements, ForgeAnnouncement,
        ForgePulse, Garble, Deafen, BreakSubscription, RestartStore, Failover, Refuse, Accept, StepClock,
    )
}  # fmt: skip

USUAL: Final[tuple[str, ...]] = tuple(
    kind
    for kind, fault in KINDS.items()
    if fault.choices or kind in {"disconnect", "deafen", "break_subscription", "forge_pulse", "garble"}
)
"""The kinds that are drawn unless others are named: all that are not the end of another."""
