"""Counts of what one timer has done and met, for metrics."""

from __future__ import annotations

from attrs import asdict, define, frozen


@define
class RunningCounters:
    """The running counts, since the timer was made. A count never goes down."""

    delivered: int = 0
    """Events that a handler or an iterator got."""
    retried: int = 0
    """Delivered events that had counted deliveries before."""
    confirmed: int = 0
    confirmed_too_late: int = 0
    """Confirms that came after the deadline and ended nothing, since another delivery or a dead letter was there."""
    exhausted: int = 0
    """Events that were reported to this node as exhausted (rule E5)."""
    expired: int = 0
    """Events that were reported to this node as expired (rule P7)."""
    handler_errors: int = 0
    refused_payloads: int = 0
    unreadable: int = 0
    malformed_wakeups: int = 0
    pulses_heard: int = 0
    claims: int = 0
    failed_claims: int = 0
    failed_subscriptions: int = 0
    rejoins: int = 0
    """Joins that the node made by itself, because the store did not know it any more."""
    reconnects: int = 0
    """Outages of the store that are over."""
    loop_blocks: int = 0
    """Times the event loop was found not to have gone round for half a second or more."""
    lost_writes: int = 0
    """Times the store went back in its own history (rule O1)."""
    store_restarts: int = 0
    """Times another server answered than before, without a known loss (rule O2)."""
    clock_steps: int = 0
    """Times the clock of the store's host was set back (rule T2)."""
    clock_leaps: int = 0
    """Times the store's time went ahead of this process's by a second or more (rule T2)."""

    def snapshot(self) -> Counters:
        return Counters(**asdict(self))


# attrs can freeze a subclass, whatever dataclasses do.
@frozen  # pyright: ignore[reportGeneralTypeIssues]
class Counters(RunningCounters):
    """The counts at one instant."""
