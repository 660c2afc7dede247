"""Looking at the events of a namespace, and what an operator does with dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Generic

from dtimer import _validation
from dtimer._validation import Delay, IfExistsName, Timeout
from dtimer.codecs.codec import Codec, PayloadT
from dtimer.errors import EventExists
from dtimer.loop_local import LoopLocal
from dtimer.node.partitions import Partitions
from dtimer.protocol.outcomes import DiscardOutcome, ResendOutcome
from dtimer.protocol.values import LetterName, Window
from dtimer.queries.paging import Pager
from dtimer.queries.results import DeadEvent, Upcoming


class Queries(Generic[PayloadT]):
    """The part of a timer that looks at the store."""

    def _init_queries(self, sides: LoopLocal[Partitions], codec: Codec[PayloadT]) -> None:
        self._sides = sides
        self._codec = codec
        self._pager = Pager(sides, codec)

    async def peek(self, id: str, *, repeat_within: Timeout | None = None) -> Upcoming[PayloadT] | None:
        """A live event as it stands; None if there is none (rule R1)."""
        id = _validation.event_id(id)
        within_us = _validation.repeat_within_us(repeat_within)
        session = self._sides.here().of(id).session
        answer = await session.call(lambda: session.backend.peek(id), repeat_within_us=within_us)
        if answer.value is None:
            return None
        return Upcoming(answer.value, answer.at_us, self._codec, answer.skew_us)

    async def upcoming(
        self,
        *,
        offset: Delay | None = None,
        duration: Delay | None = None,
        limit: int | None = None,
        repeat_within: Timeout | None = None,
    ) -> list[Upcoming[PayloadT]]:
        """Live events, scheduled and unconfirmed, in the order in which they can be claimed (rule R2).

        Args:
            offset: begin so many milliseconds, or a timedelta, from now; without it, with all that is overdue.
            duration: end so long after that, or after now if there is no offset; without it there is no end.
            limit: list so many at most.
            repeat_within: seconds, or a timedelta, for which the call for each page is repeated inside (rule F1).
        Negative ones, and a limit of 0, count as not given.
        """
        entries = self.iter_upcoming(offset=offset, duration=duration, limit=limit, repeat_within=repeat_within)
        return [entry async for entry in entries]

    def iter_upcoming(
        self,
        *,
        offset: Delay | None = None,
        duration: Delay | None = None,
        limit: int | None = None,
        repeat_within: Timeout | None = None,
    ) -> AsyncIterator[Upcoming[PayloadT]]:
        """The same, page by page: each page is of one instant, and a later one is of a later instant."""
        window = Window(_validation.window_us(offset, "offset"), _validation.window_us(duration, "duration"))
        return self._pager.upcoming(window, _validation.limit(limit), _validation.repeat_within_us(repeat_within))

    # --- dead letters ------------------------------------------------------------------------------------------

    async def dead_letters(
        self, *, limit: int | None = None, repeat_within: Timeout | None = None
    ) -> list[DeadEvent[PayloadT]]:
        """Events that ended unconfirmed and were kept, oldest first (rule E5).

        Raises:
            Unsupported: the backend keeps none.
        """
        letters = self._pager.dead_letters(_validation.limit(limit), _validation.repeat_within_us(repeat_within))
        return [letter async for letter in letters]

    async def resend(
        self,
        letter: DeadEvent[PayloadT] | str,
        delay: Delay | None = None,
        *,
        at: datetime | None = None,
        if_exists: IfExistsName = "replace",
        repeat_within: Timeout | None = None,
    ) -> ResendOutcome:
        """Post a dead letter again, as new; at once unless a delay or a time is given.

        Args:
            letter: one that was listed; an id means the letter of that id's last burial (rule E5).

        Raises as `post` and `dead_letters` do.
        """
        due = _validation.due(0 if delay is None and at is None else delay, at)
        within_us = _validation.repeat_within_us(repeat_within)
        name = _name_of(letter)
        outcome = await self._pager.resend(name, due, _validation.if_exists(if_exists), within_us)
        if outcome is ResendOutcome.CONFLICT:
            raise EventExists(name.id)
        return outcome

    async def discard(
        self, letter: DeadEvent[PayloadT] | str, *, repeat_within: Timeout | None = None
    ) -> DiscardOutcome:
        """Forget a dead letter: one that was listed, or that of an id's last burial. Raises as `dead_letters`."""
        return await self._pager.discard(_name_of(letter), _validation.repeat_within_us(repeat_within))


def _name_of(letter: DeadEvent[PayloadT] | str) -> LetterName:
    return letter.letter.name if isinstance(letter, DeadEvent) else LetterName(_validation.event_id(letter))
