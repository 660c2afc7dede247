"""Whether the store's replies belong to one history (rules O1 and T2). Pure."""

from __future__ import annotations

from typing import TypeVar

from dtimer.epochs import epoch_after_reset
from dtimer.frozen import frozen
from dtimer.values import Applied

T = TypeVar("T")


@frozen
class Mark:
    """What was known when a request was sent: its reply must not show less."""

    seq: int
    breaks: int


@frozen
class Finding:
    """What a reply showed.

    Attributes:
        lost_writes: the store has gone back, or is another one.
        clock_reset: an operator has put its clock right; nothing is lost.
        step_us: its host's clock was set back by this since the last reply.
    """

    lost_writes: bool = False
    clock_reset: bool = False
    step_us: int = 0


_NOTHING = Finding()


class History:
    """The place of the newest reply seen.

    Attributes:
        epoch: the namespace's; None before the first reply.
        breaks: how often the history was broken.
        skew_us: by how much the store's time is ahead of its host's clock (rule T2).
    """

    def __init__(self) -> None:
        self.epoch: str | None = None
        self.breaks = 0
        self._seq = 0
        self.skew_us = 0

    def mark(self) -> Mark:
        """Before a request is sent."""
        return Mark(self._seq, self.breaks)

    def saw(self, applied: Applied[T], mark: Mark) -> Finding:
        """A reply is here. Replies may overtake each other, so it is judged by what was known when it was asked for."""
        if self.epoch is None:
            self._begin(applied)
            return _NOTHING
        if applied.epoch != self.epoch and applied.epoch == epoch_after_reset(self.epoch):
            self.breaks += 1
            self._begin(applied)
            return Finding(clock_reset=True)
        if applied.epoch != self.epoch or applied.seq < mark.seq:
            if mark.breaks != self.breaks:
                # Sent before the break and answered from the old history: it says nothing about the new one.
                return _NOTHING
            self.breaks += 1
            self._begin(applied)
            return Finding(lost_writes=True)
        self._seq = max(self._seq, applied.seq)
        if applied.skew_us > self.skew_us:
            step_us, self.skew_us = applied.skew_us - self.skew_us, applied.skew_us
            return Finding(step_us=step_us)
        return _NOTHING

    def _begin(self, applied: Applied[T]) -> None:
        self.epoch, self._seq, self.skew_us = applied.epoch, applied.seq, applied.skew_us
