"""When a node claims. Pure: it neither waits nor reads a clock; its dice are handed in.

Theory of operation
-------------------
A node claims at once after it joined, after every reconnection (N4), when a claim said that there is more,
and when room comes back after a claim that left none: the store passes it over until then (D8).
Otherwise it waits for the earliest of

* the time it was told to come, by its last claim's reply (W4) or by a wake-up that is newer than that reply;
* the fallback: nobody's pulse was heard for a while, so it looks itself, if it has room, and says so to all (W1);
* the sign of life, so that the store keeps it as a member.

The last is always set, so no path leaves a node without a next wake-up.
A claim that comes too early finds nothing, and its reply says when to come; so all doubts are settled by claiming.
After a failure everything waits for a growing pause, and then it claims at once.

All times are microseconds of the local monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from dtimer.frozen import frozen
from dtimer.limits import BACKOFF_MAX_US, BACKOFF_MIN_US
from dtimer.protocol.values import Pace

Draw: TypeAlias = Callable[[int], int]
"""A random integer from 0 up to, not including, the argument."""


@frozen
class ClaimNow:
    """Claim.

    Attributes:
        pulse: as a fallback, which is to be heard by all.
        subscription_lost: the last fallback's own pulse was not received: subscribe again.
    """

    pulse: bool = False
    subscription_lost: bool = False


@frozen
class WaitUntil:
    """Nothing is to be claimed before `at_us`, unless something is heard or room comes back."""

    at_us: int


class Backoff:
    """Pauses between attempts: doubling up to a cap, each drawn from its upper half so that nodes do not coincide."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self.failures = 0

    def next_us(self) -> int:
        """The pause after one more failure."""
        # Capped before the shift: the number of failures has no bound.
        pause_us = min(BACKOFF_MIN_US << min(self.failures, 16), BACKOFF_MAX_US)
        self.failures += 1
        return pause_us - self._draw(pause_us // 2)

    def reset(self) -> None:
        self.failures = 0


class FetchSchedule:
    """Decides about the claims of one node."""

    def __init__(self, draw: Draw, pace: Pace) -> None:
        self._draw = draw
        self._pace = pace
        self._backoff = Backoff(draw)
        self._subscribed = False
        self.joined(0)

    # --- what happens --------------------------------------------------------------------------------

    def joined(self, now_us: int) -> None:
        """The node is a member, perhaps of a namespace with another history: what it knew is void."""
        self._wanted = True
        self._without_room = False
        self._retry_at_us: int | None = None
        self._next_claim_at_us: int | None = None
        self._notified_us: int | None = None
        self._notified_seq = self._answered_seq = self._seq = -1
        self._lease_at_us = now_us + self._pace.poll_us
        self._expect_pulse = False
        self._restart_fallback(now_us)

    def subscribed(self, now_us: int) -> None:
        """Wake-ups are heard from now on; what was said before is lost, so claim (N4)."""
        self._subscribed = self._wanted = True
        self._restart_fallback(now_us)

    def unsubscribed(self) -> None:
        """Nothing is heard any more."""
        self._subscribed = self._expect_pulse = False

    def notified(self, due_us: int, seq: int) -> None:
        """A wake-up was heard. One that is older than the last claim's reply was answered by that claim."""
        if seq <= self._seq:
            return
        # The earlier of two is kept: too early is harmless, too late is not (W3).
        self._notified_us = due_us if self._notified_us is None else min(self._notified_us, due_us)
        self._notified_seq = max(self._notified_seq, seq)

    def received_pulse(self, now_us: int) -> None:
        """Somebody looked, perhaps this node itself."""
        self._expect_pulse = False
        self._restart_fallback(now_us)

    def claiming(self, now_us: int, claim: ClaimNow) -> None:
        """A claim is on its way."""
        self._wanted = False
        if self._notified_us is not None and now_us >= self._notified_us:
            # This claim answers it, whatever number a stranger may have given it.
            self._answered_seq = self._notified_seq
        if claim.pulse:
            self._expect_pulse = self._subscribed
            self._restart_fallback(now_us)

    def claimed(self, now_us: int, *, seq: int, room_left: int, more: bool, come_at_us: int | None) -> None:
        """A claim was answered.

        Args:
            room_left: the room that was asked for, less what was taken.
            more: the store stopped at a limit.
            come_at_us: when the node is to come again; None if another one is.
        """
        self._seq = seq
        if self._expect_pulse:
            # The silence counts from the answer: on a slow way the pulse would have no time to be heard.
            self._restart_fallback(now_us)
        self._backoff.reset()
        self._retry_at_us = None
        self._lease_at_us = now_us + self._pace.poll_us
        self._without_room = room_left <= 0
        # What was wanted since the claim was sent is wanted still.
        self._wanted = self._wanted or (more and room_left > 0)
        self._next_claim_at_us = come_at_us
        if self._notified_seq <= max(seq, self._answered_seq):
            self._notified_us = None
            self._notified_seq = -1
        self._answered_seq = -1

    def failed(self, now_us: int) -> None:
        """A call failed: pause, then claim at once (N4)."""
        self._wanted = True
        # Whether its pulse was sent at all is not known, so not to have heard it says nothing about the subscription.
        self._expect_pulse = False
        self._retry_at_us = now_us + self._backoff.next_us()

    # --- what follows ----------------------------------------------------------------------------------

    def may_call(self, now_us: int) -> bool:
        """It is not pausing after a failure."""
        return self._retry_at_us is None or now_us >= self._retry_at_us

    def next_claim(self, now_us: int, room: int) -> ClaimNow | WaitUntil:
        """What to do at `now_us` with so much room; changes nothing."""
        if self._retry_at_us is not None and now_us < self._retry_at_us:
            return WaitUntil(self._retry_at_us)
        # Without room it could take nothing, and its pulse would keep those from looking who could (D7, W1).
        if room > 0 and now_us >= self._fallback_at_us:
            return ClaimNow(pulse=True, subscription_lost=self._expect_pulse)
        due_us = self.due_us(with_room=room > 0)
        if self._wanted or now_us >= due_us or (self._without_room and room > 0):
            return ClaimNow()
        return WaitUntil(due_us)

    def due_us(self, *, with_room: bool = True) -> int:
        """The earliest of what is waited for, or the end of a pause; who has no room waits for no fallback."""
        if self._retry_at_us is not None:
            return self._retry_at_us
        due_us = self._lease_at_us
        if with_room and self._fallback_at_us < due_us:
            due_us = self._fallback_at_us
        if self._next_claim_at_us is not None and self._next_claim_at_us < due_us:
            due_us = self._next_claim_at_us
        if self._notified_us is not None and self._notified_us < due_us:
            due_us = self._notified_us
        return due_us

    def _restart_fallback(self, now_us: int) -> None:
        self._fallback_at_us = now_us + self._pace.pulse_silence_us + self._draw(self._pace.pulse_jitter_us)
