"""One `max_events` for the claims of all partitions (rules N2 and D8). Pure.

A claim reserves the room that it asks for until it is answered, so that all together never bring too much.
What it may ask for:

* With one partition: all room there is; there is one claim at a time.
* Else two, or its part of `max_events` if that is more, so that a claim which hangs holds up little of the others;
  twice as much after each claim that was filled, so that a backlog is taken in few claims.
* None after a claim that failed, until one has been answered: what asks in vain must keep nobody waiting.
* Those whose last claim was filled go first, the one that has waited longest before the others:
  so much of the room is theirs, and no backlog keeps another partition from its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from dtimer.limits import BATCH_MAX_ITEMS, CLAIM_PORTION_MIN

SHARE_MIN: Final = 2
"""With one only, every single event would fill its claim, and a second one would have to follow."""


class Requester(Protocol):
    """The claims of one partition."""

    def ring(self) -> None:
        """There may be room now."""
        ...


class Prefetch:
    """Whose room it is."""

    def __init__(self, num_partitions: int, free: Callable[[], int], max_events: Callable[[], int]) -> None:
        """
        Args:
            free: `max_events` less the unfinished deliveries.
        """
        self._alone = num_partitions == 1
        self._num_partitions = num_partitions
        self._free = free
        self._max_events = max_events
        self._reserved: dict[Requester, int] = {}
        self._filled: dict[Requester, None] = {}
        self._shares: dict[Requester, int] = {}
        self._failed: set[Requester] = set()
        self._without: dict[Requester, None] = {}

    def of(self, requester: Requester) -> int:
        """How many events its next claim may bring."""
        if self._alone:
            return self._free()
        room = 0 if requester in self._failed else min(self._share(requester), self._left_to(requester))
        if room > 0:
            self._without.pop(requester, None)
            return room
        self._without[requester] = None
        return 0

    def reserve(self, requester: Requester) -> int:
        """The same, and a claim for it is on its way."""
        room = min(self.of(requester), BATCH_MAX_ITEMS)
        if self._alone:
            # With much room only half of it, so that handlers run while the next claim is away.
            room = min(room, max(self._max_events() // 2, CLAIM_PORTION_MIN))
        else:
            self._reserved[requester] = room
        return room

    def answered(self, requester: Requester, num_taken: int) -> None:
        """It brought so many, which are about to be unfinished deliveries."""
        if self._alone:
            return
        room = self._reserved.pop(requester)
        self._failed.discard(requester)
        self._filled.pop(requester, None)
        if num_taken < room:
            self._shares.pop(requester, None)
        else:
            self._filled[requester] = None
            self._shares[requester] = min(2 * max(room, self._share(requester)), BATCH_MAX_ITEMS)

    def failed(self, requester: Requester) -> None:
        """It was not answered."""
        if not self._alone:
            self.gone(requester)
            self._failed.add(requester)

    def gone(self, requester: Requester) -> None:
        """It claims no more, for now at least."""
        for known in (self._reserved, self._filled, self._shares, self._without):
            known.pop(requester, None)
        self._failed.discard(requester)

    def changed(self) -> None:
        """There may be more: those that had none look again."""
        for requester in tuple(self._without):
            requester.ring()

    def _share(self, requester: Requester) -> int:
        return max(self._shares.get(requester, 0), SHARE_MIN, self._max_events() // self._num_partitions)

    def _left_to(self, requester: Requester) -> int:
        left = self._free() - sum(self._reserved.values())
        for other in self._filled:
            if other is requester:
                break
            if other not in self._reserved:
                left -= 1
        return max(left, 0)
