"""How deep posts descend from each other: a handler's post leads to a handler that posts, and so on.

At one instant of virtual time that has an end, or the clock never moves on.
The usual cause is ``at=`` of a real clock, which lies years in the past of a simulated one:
each event is due at once, and so is the one that its handler posts for "tomorrow".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, TypeAlias

from attrs import define

from dtimer.limits import SECOND_US
from dtimer.protocol.values import At, EventData, NewEvent
from dtimer.safe_repr import safe_repr
from dtimer.sim.errors import SimStuck

DEPTH_MAX: Final = 1_000
"""A job that works through a backlog posts itself some hundred times; nothing that ends goes deeper."""
LONG_PAST_US: Final = 3_600 * SECOND_US
"""An `at` that lies further back is no time of this simulation; how long the handler took does not matter then."""
REMEMBERED_MAX: Final = 10_000
_SHOWN_MAX: Final = 4


Caught: TypeAlias = Callable[[BaseException], None]


@define(eq=False)
class _Link:
    """An event of a chain.

    Attributes:
        instant: of its post at first, then of its delivery.
        long_past: it was posted for a time that had passed long before.
    """

    id: str
    depth: int
    parent: _Link | None
    instant: int
    long_past: bool = False
    delivered: bool = False


_in_hand: ContextVar[_Link | None] = ContextVar("dtimer_sim_in_hand", default=None)
"""The event whose handler the running code is part of."""


class Descent:
    """The chains of one simulator."""

    def __init__(self, instant: Callable[[], int], now_us: Callable[[], int]) -> None:
        """
        Args:
            instant: changes whenever virtual time moves to something that was waited for.
            now_us: the time of day in the simulation.
        """
        self._instant = instant
        self._now_us = now_us
        self._links: OrderedDict[str, _Link] = OrderedDict()

    def handing(self, event: EventData, caught: Caught) -> None:
        """The running context is about to handle this.

        Args:
            caught: called with what is raised, for a handler may catch it.

        Raises:
            SimStuck: it has come again and again, without any time in between.
        """
        instant = self._instant()
        link = self._links.get(event.id)
        if link is None or (link.instant != instant and not link.long_past):
            link = _Link(event.id, 0, None, instant)
        elif link.delivered:
            # It was given back, say.
            link = _descended(link, event.id, instant, caught)
        link.instant, link.delivered = instant, True
        self._remember(link)
        _in_hand.set(link)

    def posting(self, new: NewEvent, caught: Caught) -> None:
        """The running context posts this.

        Args:
            caught: as above.

        Raises:
            SimStuck: it descends from too many others.
        """
        # What was known of the id is about another event.
        self._links.pop(new.event.id, None)
        parent = _in_hand.get()
        if parent is None:
            return
        instant = self._instant()
        long_past = isinstance(new.due, At) and new.due.due_us < self._now_us() - LONG_PAST_US
        if parent.instant == instant or long_past:
            link = _descended(parent, new.event.id, instant, caught)
            link.long_past = long_past
            self._remember(link)

    def _remember(self, link: _Link) -> None:
        self._links[link.id] = link
        self._links.move_to_end(link.id)
        if len(self._links) > REMEMBERED_MAX:
            self._links.popitem(last=False)


def _descended(parent: _Link, id: str, instant: int, caught: Caught) -> _Link:
    link = _Link(id, parent.depth + 1, parent, instant)
    if link.depth > DEPTH_MAX:
        stuck = SimStuck(
            f"virtual time stands still: events follow from each other, more than {DEPTH_MAX:,} deep at one instant: "
            f"{_chain(link)}. Does a handler use a real clock for at=? That lies years in the past of a simulated one. "
            "Use sim.now (in a Simulation host.wall_clock()), or a block of sim.frozen_time()."
        )
        caught(stuck)
        raise stuck
    return link


def _chain(link: _Link) -> str:
    """Its ids, from the first to the last."""
    ids: list[str] = []
    one: _Link | None = link
    while one is not None:
        ids.append(safe_repr(one.id))
        one = one.parent
    ids.reverse()
    return " → ".join([*ids[:_SHOWN_MAX], "…", *ids[-_SHOWN_MAX:]])
