"""When a node claims. Pure: it neither waits nor reads a clock, and random numbers are an argument.

Theory of operation
-------------------
A node claims at once after it joined, after every reconnection (N4), when a claim said that there is more,
and when there is room after a claim that left none: until then the store passes the node over (D8).
Otherwise it waits for the earliest of

* the time at which it is to claim, by its last claim's reply (W4) or by a wake-up that is newer than that reply;
* the fallback: no pulse has arrived for a while, so the node claims, if it has room, and sends a pulse to all (W1);
* the lease: a claim in time keeps the node a member.

The lease is always set, so a node always has a next claim.
A claim that comes too early finds nothing, and its reply says when to claim next; so a node in doubt claims.
After a failure the node pauses, longer each time, and then claims at once.

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
        pulse: it is a fallback, of which the store sends a pulse to all nodes.
        subscription_lost: the pulse of the last fallback was not received, so the node must subscribe again.
    """

    pulse: bool = False
    subscription_lost: bool = False


@frozen
class WaitUntil:
    """No claim is due before `at_us`, unless a wake-up arrives or room becomes free."""

    at_us: int


class Backoff:
    """Pauses between attempts: they double up to a cap, each drawn from its upper half, so that nodes differ."""

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
    """Decides when one node claims."""

    def __init__(self, draw: Draw, read_pace: Callable[[], Pace]) -> None:
        self._draw = draw
        self._read_pace = read_pace
        self._pace = read_pace()
        self._backoff = Backoff(draw)
        self._subscribed = False
        self.joined(0)

    # --- what happens --------------------------------------------------------------------------------

    def joined(self, now_us: int) -> None:
        """The node has joined, perhaps a namespace with another history: what it knew is void."""
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
        """Wake-ups are received from now on. Earlier ones are lost, so claim (N4)."""
        self._subscribed = self._wanted = True
        self._restart_fallback(now_us)

    def unsubscribed(self) -> None:
        """Wake-ups are not received any more."""
        self._subscribed = self._expect_pulse = False

    def notified(self, due_us: int, seq: int) -> None:
        """A wake-up was received. One that is older than the last claim's reply was answered by that claim."""
        if seq <= self._seq:
            return
        # Of two the earlier counts: to claim too early is harmless, too late is not (W3).
        self._notified_us = due_us if self._notified_us is None else min(self._notified_us, due_us)
        self._notified_seq = max(self._notified_seq, seq)

    def look(self) -> None:
        """The store is known to have something for nodes that were not told."""
        self._wanted = True

    def received_pulse(self, now_us: int) -> bool:
        """A node has claimed as a fallback, perhaps this one. Returns whether the pace is another one than before."""
        self._expect_pulse = False
        before = self._pace
        self._restart_fallback(now_us)
        return self._pace != before

    def claiming(self, now_us: int, claim: ClaimNow) -> None:
        """A claim is sent."""
        self._wanted = False
        if self._notified_us is not None and now_us >= self._notified_us:
            # This claim answers it, even if its sequence number was forged.
            self._answered_seq = self._notified_seq
        if claim.pulse:
            self._expect_pulse = self._subscribed
            self._restart_fallback(now_us)

    def claimed(self, now_us: int, *, seq: int, room_left: int, more: bool, come_at_us: int | None) -> None:
        """A claim was answered.

        Args:
            room_left: the room of the claim, less the events that it brought.
            more: the store stopped at a limit.
            come_at_us: when the node is to claim again; None if another node is to.
        """
        self._seq = seq
        if self._expect_pulse:
            # The silence is counted from the reply: over a slow connection the pulse would have no time to arrive.
            self._restart_fallback(now_us)
        self._backoff.reset()
        self._retry_at_us = None
        self._lease_at_us = now_us + self._pace.poll_us
        self._without_room = room_left <= 0
        # A reason to claim that came after this claim was sent still stands.
        self._wanted = self._wanted or (more and room_left > 0)
        self._next_claim_at_us = come_at_us
        if self._notified_seq <= max(seq, self._answered_seq):
            self._notified_us = None
            self._notified_seq = -1
        self._answered_seq = -1

    def failed(self, now_us: int) -> None:
        """A call failed: pause, then claim at once (N4)."""
        self._wanted = True
        # Whether the pulse was sent is not known, so its absence says nothing about the subscription.
        self._expect_pulse = False
        self._retry_at_us = now_us + self._backoff.next_us()

    # --- what follows ----------------------------------------------------------------------------------

    def may_call(self, now_us: int) -> bool:
        """Whether no pause after a failure is under way."""
        return self._retry_at_us is None or now_us >= self._retry_at_us

    def next_claim(self, now_us: int, room: int) -> ClaimNow | WaitUntil:
        """What to do at `now_us` with this room. Changes nothing."""
        if self._retry_at_us is not None and now_us < self._retry_at_us:
            return WaitUntil(self._retry_at_us)
        # Without room a claim brings nothing, and its pulse would keep nodes with room from claiming (D7, W1).
        if room > 0 and now_us >= self._fallback_at_us:
            return ClaimNow(pulse=True, subscription_lost=self._expect_pulse)
        due_us = self.due_us(with_room=room > 0)
        if self._wanted or now_us >= due_us or (self._without_room and room > 0):
            return ClaimNow()
        return WaitUntil(due_us)

    def due_us(self, *, with_room: bool = True) -> int:
        """The end of the pause, or else the earliest time to claim. The fallback only counts while there is room."""
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
        pace = self._pace = self._read_pace()
        self._fallback_at_us = now_us + pace.pulse_silence_us + self._draw(pace.pulse_jitter_us)
