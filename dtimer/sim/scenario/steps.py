"""What clients ask for in a run: flat values, so that any part of a list of them can be run again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from types import UnionType
from typing import Any, ClassVar, Final, Literal, get_args, get_origin, get_type_hints

from attrs import asdict, field, frozen

from dtimer._validation import IfExistsName
from dtimer.errors import InvalidArgument
from dtimer.safe_repr import safe_repr
from dtimer.sim.rng import Rng
from dtimer.sim.scenario.options import HOUR_S, Options

POOL: Final = 40
"""Ids that come again, so that posts meet live events of their id; the others are used once."""
DELAY_MAX_MS: Final = 120_000
BURST_MAX: Final = 60


@frozen
class Step:
    """One call of a client.

    Attributes:
        at_s: when, from the start of the run.
    """

    kind: ClassVar[str]
    at_s: float

    def to_json(self) -> dict[str, Any]:
        return {"call": self.kind, **asdict(self)}


@frozen
class PostStep(Step):
    """
    Attributes:
        count: so many at once; the second and those after it have the id with their number.
        number: makes the payload unlike that of any other post.
    """

    kind = "post"
    id: str
    number: int
    delay_ms: int = 0
    count: int = 1
    max_retries: int = 0
    dead_letter: bool = False
    if_exists: IfExistsName = "replace"
    expires_after_ms: int | None = None
    confirm_timeout_s: float | None = None
    retry_ms: int | None = None


@frozen
class CancelStep(Step):
    kind = "cancel"
    id: str


@frozen
class ChangeDelayStep(Step):
    kind = "change_delay"
    id: str
    delay_ms: int


@frozen
class ConfirmStep(Step):
    """The operator's form: by id."""

    kind = "confirm"
    id: str


@frozen
class PeekStep(Step):
    kind = "peek"
    id: str


@frozen
class UpcomingStep(Step):
    kind = "upcoming"
    limit: int = field(default=50)


@frozen
class ResendStep(Step):
    """Of the oldest dead letter, if there is one."""

    kind = "resend"


@frozen
class LoseReplyStep(Step):
    """No call, but bad luck: the next reply to the client is lost, and its connection with it."""

    kind = "lose_reply"


KINDS: Final[Mapping[str, type[Step]]] = {
    step.kind: step
    for step in (PostStep, CancelStep, ChangeDelayStep, ConfirmStep, PeekStep, UpcomingStep, ResendStep, LoseReplyStep)
}


def steps_from_json(steps: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Raises InvalidArgument if they are none."""
    try:
        return tuple(_from_json(**step) for step in steps)
    except (KeyError, TypeError) as error:
        raise InvalidArgument("steps", f"are not what Step.to_json writes: {safe_repr(error)}") from error


def _from_json(call: str, **parts: object) -> Step:
    kind = KINDS[call]
    hints = get_type_hints(kind)
    for name, value in parts.items():
        if not _fits(value, hints[name]):
            raise InvalidArgument("steps", f"have a {call} whose {name} is {safe_repr(value)}")
    return kind(**parts)  # type: ignore[arg-type]  # just looked at


def _fits(value: object, hint: Any) -> bool:
    """Whether what JSON gave is of this type, of those that steps have."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is UnionType:
        return any(_fits(value, part) for part in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return isinstance(value, hint) and isinstance(value, bool) == (hint is bool)


def draw_steps(options: Options, seed: int) -> Iterator[Step]:
    """The calls of a seed, in the order of their times."""
    rng = Rng(seed, "steps")
    at_s, number = 0.0, 0
    if not options.rate:
        return
    mean_us = round(HOUR_S * 1_000_000 / options.rate)
    while True:
        at_s = round(at_s + rng.exponential(mean_us) / 1_000_000, 6)
        if at_s >= options.hours * HOUR_S:
            return
        number += 1
        yield _one(at_s, number, Rng(seed, "step", number))


def _one(at_s: float, number: int, rng: Rng) -> Step:
    known = f"e{rng.below(POOL)}"
    kind = rng.below(100)
    if kind < 70:
        return _post(at_s, number, known if rng.happens(0.4) else f"once-{number}", rng)
    if kind < 78:
        return CancelStep(at_s, known)
    if kind < 86:
        return ChangeDelayStep(at_s, known, rng.below(DELAY_MAX_MS))
    if kind < 89:
        return ConfirmStep(at_s, known)
    if kind < 94:
        return PeekStep(at_s, known)
    if kind < 96:
        return UpcomingStep(at_s, rng.pick((1, 50)))
    if kind < 98:
        return LoseReplyStep(at_s)
    return ResendStep(at_s)


def _post(at_s: float, number: int, id: str, rng: Rng) -> PostStep:
    max_retries = rng.pick((0, 0, 1, 3, 3, 10))
    return PostStep(
        at_s,
        id,
        number,
        delay_ms=rng.pick((0, rng.below(100), rng.below(5_000), rng.below(DELAY_MAX_MS))),
        count=rng.between(2, BURST_MAX) if rng.happens(0.04) else 1,
        max_retries=max_retries,
        dead_letter=rng.happens(0.5),
        if_exists=rng.pick(("replace", "replace", "keep", "error")),
        expires_after_ms=rng.below(60_000) if rng.happens(0.1) else None,
        confirm_timeout_s=rng.between(1, 20) / 2 if rng.happens(0.2) else None,
        retry_ms=rng.between(1, 10_000) if rng.happens(0.3) else None,
    )
