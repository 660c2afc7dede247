"""Every argument a user passes, checked before any I/O and turned into the units of the boundary.

What is refused raises :class:`dtimer.InvalidArgument` with the argument's name; nothing has been done then.
The checks take any object: callers without a type checker are why they exist.
What passes is plain: of a subclass, an enum for one, only what `int`, `str`, `float` or `timedelta` says is used.
Delays are milliseconds when they are numbers, as in the original dtimer; timeouts are seconds, as there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias, TypeVar

from attrs import frozen
from typing_extensions import override

from dtimer.errors import InvalidArgument
from dtimer.limits import (
    DAY_US,
    DELAY_MAX_US,
    EVENT_MAX_BYTES,
    EXPIRES_AFTER_MAX_US,
    ID_MAX_BYTES,
    INSTANT_MAX_US,
    MILLISECOND_US,
    NAME_PATTERN,
    PARTITIONS_MAX,
    REPLICAS_MAX,
    RETRIES_MAX,
    SECOND_US,
)
from dtimer.protocol.values import After, At, Due, Durability, IfExists, RetryPolicy
from dtimer.safe_repr import name_of, safe_repr, safe_str
from dtimer.user_code import ends_the_program, is_generator_function

Delay: TypeAlias = float | timedelta
"""A number of milliseconds, or a timedelta."""
Timeout: TypeAlias = float | timedelta
"""A number of seconds, or a timedelta."""
IfExistsName: TypeAlias = Literal["replace", "keep", "error"]
PlainHandlers: TypeAlias = Literal["loop", "thread"]
EventName: TypeAlias = Literal["event", "ended", "error", "ready"]

T = TypeVar("T")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INT_MAX: Final = 2**63 - 1
"""Of every number: what a store, a file of JSON and a message can hold."""
_MICROSECOND: Final = timedelta(microseconds=1)
_EVENT_NAMES: Final[tuple[EventName, ...]] = ("event", "ended", "error", "ready")
_IF_EXISTS: Final[dict[str, IfExists]] = {choice.value: choice for choice in IfExists}


def _bounded(value: int, argument: str) -> int:
    """Neither more nor less than 64 bits hold."""
    number = int.__index__(value)
    if not -_INT_MAX <= number <= _INT_MAX:
        raise InvalidArgument(argument, f"must fit into 64 bits, unlike {safe_repr(value)}")
    return number


def whole(value: object, argument: str, *, least: int | None = None, most: int = _INT_MAX) -> int:
    """A whole number between two others; without `least`, any from -`most` on."""
    lowest = -most if least is None else least
    number = int.__index__(value) if isinstance(value, int) and not isinstance(value, bool) else None
    if number is None or not lowest <= number <= most:
        if least is None:
            expected = "an int" if type(value) is not int else "an int of 64 bits at most"
        elif most < _INT_MAX:
            expected = f"an int from {least} to {most}"
        else:
            expected = f"an int of at least {least}, and of 64 bits at most"
        raise InvalidArgument(argument, f"must be {expected}, not {safe_repr(value)}")
    return number


def finite(value: object, argument: str) -> float:
    """A number that is neither infinite nor too large for a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidArgument(argument, f"must be a number, not {safe_repr(value)}")
    number = float(_bounded(value, argument)) if isinstance(value, int) else float.__float__(value)
    if not math.isfinite(number):
        raise InvalidArgument(argument, f"must be finite, not {safe_repr(value)}")
    return number


def seed(value: object) -> int:
    """What chance in a simulation begins with."""
    return whole(value, "seed")


def _duration_us(value: object, unit_us: int, unit: str, argument: str) -> int:
    """A number of units or a timedelta, rounded half up to 1 us, exactly: no float multiplication is in it."""
    if type(value) is int and -_INT_MAX <= value <= _INT_MAX:  # as mostly
        return value * unit_us
    if isinstance(value, timedelta):
        return timedelta.__floordiv__(value, _MICROSECOND)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidArgument(argument, f"must be a number of {unit} or a timedelta, not {safe_repr(value)}")
    if isinstance(value, int):
        return _bounded(value, argument) * unit_us
    number = float.__float__(value)
    if not math.isfinite(number):
        raise InvalidArgument(argument, f"must be finite, not {safe_repr(value)}")
    numerator, denominator = number.as_integer_ratio()
    return (2 * numerator * unit_us + denominator) // (2 * denominator)


def delay_us(value: object, argument: str = "delay") -> int:
    """A delay in us; 0 for what is due at once (rule T5)."""
    result = _duration_us(value, MILLISECOND_US, "milliseconds", argument)
    if result > DELAY_MAX_US:
        raise InvalidArgument(argument, f"must be at most 100 years, not {safe_repr(value)}")
    return result if result > 0 else 0


def is_negative(value: Delay) -> bool:
    """Whether a duration lies before 0, however little."""
    return value < timedelta() if isinstance(value, timedelta) else value < 0


def timeout_us(value: object, argument: str) -> int:
    """A positive time limit in us."""
    result = _duration_us(value, SECOND_US, "seconds", argument)
    if not 0 < result <= DELAY_MAX_US:
        raise InvalidArgument(argument, f"must be positive and at most 100 years, not {safe_repr(value)}")
    return result


def repeat_within_us(value: object) -> int | None:
    """For how long a call is repeated inside, in us (rule F1); None leaves it to the backend, 0 is one try."""
    if value is None:
        return None
    result = _duration_us(value, SECOND_US, "seconds", "repeat_within")
    if not 0 <= result <= DELAY_MAX_US:
        raise InvalidArgument("repeat_within", f"must be from 0 to 100 years, not {safe_repr(value)}")
    return result


def expires_after_us(value: object) -> int | None:
    """How long after its due time an event may still be delivered, in us (rule P7)."""
    if value is None:
        return None
    result = _duration_us(value, MILLISECOND_US, "milliseconds", "expires_after")
    if not 0 < result <= EXPIRES_AFTER_MAX_US:
        raise InvalidArgument("expires_after", f"must be positive and at most 50 years, not {safe_repr(value)}")
    return result


def due(delay: object, at: object) -> Due:
    """When an event is due: exactly one of the two is given (rules T5 and T6)."""
    if at is None:
        if delay is None:
            raise InvalidArgument("delay", "is missing: give it, or at")
        return After(delay_us(delay))
    if delay is not None:
        raise InvalidArgument("at", "and delay exclude each other: give one of them")
    return At(instant_us(at))


def since_epoch_us(at: object, argument: str) -> int:
    """An aware datetime in us since 1970."""
    if not isinstance(at, datetime):
        raise InvalidArgument(argument, f"must be a datetime, not {safe_repr(at)}")
    try:
        # UTC itself, as mostly, need not be asked.
        aware = at.tzinfo is UTC or datetime.utcoffset(at) is not None
        since: timedelta | None = datetime.__sub__(at, EPOCH) if aware else None
    except BaseException as error:
        if ends_the_program(error):
            raise
        raise InvalidArgument(argument, f"has a time zone that does not say what it is: {safe_str(error)}") from error
    if since is None:
        raise InvalidArgument(argument, f"must have a time zone; {safe_repr(at)} has none")
    # As `since // timedelta(microseconds=1)`, in a third of the time.
    return since.days * DAY_US + since.seconds * SECOND_US + since.microseconds


def instant_us(at: object) -> int:
    """A time of day in us since 1970; 0 for any earlier one, which is past all the same (rule T6)."""
    result = since_epoch_us(at, "at")
    if result >= INSTANT_MAX_US:
        raise InvalidArgument("at", f"must be before the year 2200, not {safe_repr(at)}")
    return result if result > 0 else 0


def from_instant(time_us: int) -> datetime:
    """A time of day of the store as an aware datetime."""
    return EPOCH + timedelta(microseconds=time_us)


def backend(value: object) -> None:
    """A namespace on a store. None of a text is told: it may be a URL with a password."""
    if isinstance(value, type) or not hasattr(value, "runtime") or not callable(getattr(value, "claim", None)):
        what = f"the class {name_of(value)}" if isinstance(value, type) else f"a {name_of(type(value), whole=True)}"
        raise InvalidArgument("backend", f"must be a RedisBackend, a SimBackend or another backend, not {what}")


def codec(value: object) -> None:
    """Something with the two methods of one."""
    if not (callable(getattr(value, "encode", None)) and callable(getattr(value, "decode", None))):
        raise InvalidArgument("codec", f"must have the methods encode and decode, unlike {safe_repr(value)}")


def event_id(value: object) -> str:
    """An event's id (rule P2)."""
    if not isinstance(value, str):
        raise InvalidArgument("id", f"must be a str, not {safe_repr(value)}")
    text = str.__str__(value)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidArgument("id", f"must be encodable as UTF-8, which {safe_repr(value)} is not") from None
    if not 1 <= size <= ID_MAX_BYTES:
        raise InvalidArgument("id", f"must be 1 to {ID_MAX_BYTES} bytes of UTF-8, not {size}")
    return text


def name(value: object, argument: str) -> str:
    """A namespace or a node id (rule P2)."""
    text = str.__str__(value) if isinstance(value, str) else ""
    if NAME_PATTERN.fullmatch(text) is None:
        raise InvalidArgument(argument, f"must match {NAME_PATTERN.pattern}, which {safe_repr(value)} does not")
    return text


def many(values: Iterable[T], argument: str) -> list[T]:
    """What can be gone through; a text is one thing, and not its characters."""
    try:
        iterator = None if isinstance(values, (str, bytes)) else iter(values)
    except TypeError:
        iterator = None
    if iterator is None:
        raise InvalidArgument(argument, f"must be a list, or another iterable, not {safe_repr(values)}")
    return list(iterator)


def max_retries(value: object) -> int:
    """Counted deliveries after the first (rule D2)."""
    return whole(value, "max_retries", least=0, most=RETRIES_MAX)


def max_events(value: object) -> int:
    """A positive number of deliveries that may be unfinished at once (rule N2)."""
    return whole(value, "max_events", least=1)


def partitions(value: object) -> int:
    """In how many partitions a namespace is kept."""
    return whole(value, "partitions", least=1, most=PARTITIONS_MAX)


def max_events_or_less(value: object) -> int:
    """As the property takes it: 0 or less stands for the constructor's value (rule N2)."""
    return whole(value, "max_events")


def payload_max_bytes(value: object) -> int:
    """A limit on encoded payloads (rule P6)."""
    return whole(value, "payload_max_bytes", least=1, most=EVENT_MAX_BYTES)


@frozen(init=False)
class Durable:
    """How far a post must have got before it returns: on so many replicas, on disk, or both.

    Attributes:
        durability: the same in the units of the boundary.
    """

    durability: Durability

    def __init__(self, *, replicas: int = 0, disk: bool = False, within: Timeout = 1.0) -> None:
        """
        Args:
            replicas: so many must have it (``WAIT``); with `disk`, on their disks.
            disk: it must be in the server's append-only file, on disk (``WAITAOF``, from Redis 7.2 and Valkey on).
            within: seconds, or a timedelta, to wait for that.

        Raises:
            InvalidArgument: one of them, or nothing is asked for.
        """
        whole(replicas, "replicas", least=0, most=REPLICAS_MAX)
        # Looked at first, whatever else is asked for.
        if not flag(disk, "disk") and not replicas:
            raise InvalidArgument("replicas", "must be 1 or more, unless disk is set: nothing is asked for otherwise")
        # attrs makes this method, which pyright does not know.
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
            Durability(replicas=replicas, disk=disk, within_us=timeout_us(within, "within"))
        )


def durability(value: object) -> Durability | None:
    """What a caller gave; None leaves it to the backend."""
    if value is None:
        return None
    if not isinstance(value, Durable):
        raise InvalidArgument("durability", f"must be a Durable, not {safe_repr(value)}")
    return value.durability


def flag(value: object, argument: str) -> bool:
    """A yes or a no, and nothing that merely looks like one."""
    if not isinstance(value, bool):
        raise InvalidArgument(argument, f"must be True or False, not {safe_repr(value)}")
    return value


def function(value: object, argument: str) -> None:
    """Something that can be called."""
    if not callable(value):
        raise InvalidArgument(argument, f"must be a function, not {safe_repr(value)}")


def handler(value: object) -> None:
    """A function that runs when it is called, or when what it returns is awaited."""
    function(value, "handler")
    if is_generator_function(value):
        raise InvalidArgument("handler", f"must not have a yield in it, as {safe_repr(value)} has: it would never run")


def event_name(value: object) -> EventName:
    """What handlers are registered for."""
    for known in _EVENT_NAMES:
        if isinstance(value, str) and str.__str__(value) == known:
            return known
    raise InvalidArgument("name", f"must be 'event', 'ended', 'error' or 'ready', not {safe_repr(value)}")


def plain_handlers(value: object) -> PlainHandlers:
    """Where handlers run that are no coroutine functions."""
    text = str.__str__(value) if isinstance(value, str) else ""
    if text == "loop":
        return "loop"
    if text == "thread":
        return "thread"
    raise InvalidArgument("plain_handlers", f"must be 'loop' or 'thread', not {safe_repr(value)}")


def if_exists(value: object) -> IfExists:
    """What a post does when a live event has its id (rule P3)."""
    choice = _IF_EXISTS.get(str.__str__(value)) if isinstance(value, str) else None
    if choice is None:
        raise InvalidArgument("if_exists", f"must be 'replace', 'keep' or 'error', not {safe_repr(value)}")
    return choice


def window_us(value: object, argument: str) -> int | None:
    """A bound of `upcoming` in us; a negative one counts as not given, as in the original (rule R2)."""
    if value is None:
        return None
    result = _duration_us(value, MILLISECOND_US, "milliseconds", argument)
    if result < 0:
        return None
    if result > DELAY_MAX_US:
        raise InvalidArgument(argument, f"must be at most 100 years, not {safe_repr(value)}")
    return result


def limit(value: object) -> int | None:
    """How many entries to list; 0 or less counts as not given, as in the original (rule R2)."""
    if value is None:
        return None
    number = whole(value, "limit")
    return number if number > 0 else None


@frozen(init=False)
class Retry:
    """When an event whose handler failed comes again: after a fixed delay, or one that grows with each failure (D3).

    Without one, such an event comes again at its confirm deadline.

    Attributes:
        policy: the same in the units of the boundary.
    """

    policy: RetryPolicy

    def __init__(self, delay: Delay, *, factor: float = 1.0, max_delay: Delay | None = None) -> None:
        """
        Args:
            delay: milliseconds or a timedelta, after the first failure.
            factor: what each further failure multiplies the delay by; at least 1, which keeps it fixed.
            max_delay: the longest delay, in milliseconds or as a timedelta; 100 years unless given.
        """
        longest_us = DELAY_MAX_US if max_delay is None else delay_us(max_delay, "max_delay")
        # attrs makes this method, which pyright does not know.
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
            RetryPolicy(delay_us(delay), _factor(factor), longest_us)
        )

    @override
    def __hash__(self) -> int:
        """Posts are looked up by it, and that of all its parts takes five times as long."""
        return hash(self.policy.delay_us)


def _factor(value: object) -> float:
    number = finite(value, "factor")
    if number < 1:
        raise InvalidArgument("factor", f"must be at least 1, not {safe_repr(value)}")
    return number


def retry(value: object) -> RetryPolicy | None:
    """An event's retry policy (rule D3)."""
    if value is None:
        return None
    if not isinstance(value, Retry):
        raise InvalidArgument("retry", f"must be a Retry, not {safe_repr(value)}")
    return value.policy
