"""When a payload that a node could not decode is offered again (rule F4)."""

from __future__ import annotations

from attrs import frozen

from dtimer.limits import REFUSAL_ROUNDS, REFUSAL_WAIT_MAX_US, REFUSAL_WAIT_MIN_US


@frozen
class Refusals:
    """What the store remembers of an event's refusals.

    Attributes:
        number: how many there were since a member last joined.
        since_us: when the first of all was.
        joins: how often members had joined by the last one.
    """

    number: int
    since_us: int
    joins: int


def one_more(before: Refusals | None, at_us: int, joins: int) -> Refusals:
    """What is remembered after another refusal. A member that has joined since the last one may be able to read it."""
    if before is None:
        return Refusals(1, at_us, joins)
    return Refusals(before.number + 1 if before.joins == joins else 1, before.since_us, joins)


def wait_after(number: int, members: int) -> int:
    """The wait in us after so many refusals: none, so that the ring goes round, but a growing one after each round.

    When several rounds were in vain, one member is asked at a time.
    """
    rounds, rest = divmod(number, max(members, 1))
    if rounds < REFUSAL_ROUNDS and rest:
        return 0
    return min(REFUSAL_WAIT_MIN_US << min(rounds - 1, REFUSAL_ROUNDS), REFUSAL_WAIT_MAX_US)
