"""Divides `max_events` between the claims of all partitions (rules N2 and D8). Pure.

A claim reserves its room until it is answered, so that all claims together never bring more than there is room for.
The room of a claim:

* With one partition: all that is free, since there is one claim at a time.
* With several: two events, or the part of `max_events` that falls to each if that is more. So a claim that hangs holds
  little room. It doubles with each claim that was filled, so that a backlog takes few claims.
* After a claim that failed: none, until one has been answered. A partition out of reach must not hold room.
* Partitions whose last claim was filled come first, the longest waiting before the others: for each of them room for
  one event is left, so that the backlog of one partition does not keep another from its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from dtimer.limits import BATCH_MAX_ITEMS, CLAIM_PORTION_MIN

SHARE_MIN: Final = 2
"""With 1, each single event would fill its claim, and a second claim would have to follow."""


class Requester(Protocol):
    """The claims of one partition."""

    def ring(self) -> None:
        """There may be room now."""
        ...


class Prefetch:
    """The room of one node, divided between its partitions."""

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
        """How many events the next claim of a partition may bring."""
        if self._alone:
            return self._free()
        room = 0 if requester in self._failed else min(self._share(requester), self._left_to(requester))
        if room > 0:
            self._without.pop(requester, None)
            return room
        self._without[requester] = None
        return 0

    def reserve(self, requester: Requester) -> int:
        """The room of a claim that is sent now; it is reserved until the claim is answered."""
        room = min(self.of(requester), BATCH_MAX_ITEMS)
        if self._alone:
            # Of much room only half, so that handlers run while the next claim is in flight.
            room = min(room, max(self._max_events() // 2, CLAIM_PORTION_MIN))
        else:
            self._reserved[requester] = room
        return room

    def answered(self, requester: Requester, num_taken: int) -> None:
        """The claim brought `num_taken` events, which are about to be unfinished deliveries."""
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
        """The claim was not answered."""
        if not self._alone:
            self.gone(requester)
            self._failed.add(requester)

    def gone(self, requester: Requester) -> None:
        """The partition does not claim any more, for now at least."""
        for known in (self._reserved, self._filled, self._shares, self._without):
            known.pop(requester, None)
        self._failed.discard(requester)

    def changed(self) -> None:
        """There may be more room: partitions that had none look again."""
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
