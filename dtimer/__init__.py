"""Distributed timers: events that are due once, taken by one of many nodes.

``RedisBackend`` and ``SimBackend`` are imported when they are first used, so that tests need no redis
and production no simulator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtimer._validation import Delay, Durable, Retry, Timeout
from dtimer.codecs.codec import Codec, JsonValue
from dtimer.codecs.json import JsonCodec
from dtimer.codecs.orjson import OrjsonCodec
from dtimer.errors import (
    BackendClosed,
    BackendError,
    ConfirmedTooLate,
    ConfirmNotRequired,
    ConsumerConflict,
    DTimerError,
    EventExists,
    HandlerFailed,
    InvalidArgument,
    Known,
    LoopBlocked,
    MalformedWakeup,
    NodeDisturbed,
    NodeFenced,
    NodeIdDisputed,
    NodeStopped,
    NotDurable,
    OutcomeUnknown,
    PartitionsMismatch,
    PayloadNotDecodable,
    PayloadNotEncodable,
    PayloadRefused,
    PayloadTooLarge,
    RecordUnreadable,
    Report,
    SchemaMismatch,
    StoreBusy,
    StoreClockLeapt,
    StoreClockStepped,
    StoreCorrupt,
    StoreDenied,
    StoreFull,
    StoreLostWrites,
    StoreNotWritable,
    StoreReadOnly,
    StoreRefused,
    StoreRestarted,
    StoreUnreachable,
    Unsupported,
    WrongProcessOrLoop,
)
from dtimer.event import Confirming, Ended, Event
from dtimer.event_iterator import Events
from dtimer.metrics import Counters
from dtimer.posts import Post, PostedId, PostOptions
from dtimer.protocol.backend import (
    SupportsBranches,
    SupportsClockReset,
    SupportsDeadLetters,
    SupportsDurability,
    SupportsExamination,
    SupportsInspection,
    SupportsPartitions,
    SupportsPurge,
    SupportsRepeatWithin,
    TimerBackend,
)
from dtimer.protocol.outcomes import (
    BuryOutcome,
    CancelOutcome,
    ChangeOutcome,
    ConfirmOutcome,
    DiscardOutcome,
    ExtendOutcome,
    PostOutcome,
    ReleaseOutcome,
    ResendOutcome,
)
from dtimer.protocol.values import AcknowledgedCall, EndReason, EventState, Failure, Finding, LastError, Risk
from dtimer.queries.results import DeadEvent, Upcoming
from dtimer.timer import DTimer

if TYPE_CHECKING:
    from dtimer.backends.redis import RedisBackend
    from dtimer.sim import SimBackend


def __getattr__(name: str) -> object:
    """The backends, on first use (PEP 562)."""
    if name == "RedisBackend":
        from dtimer.backends.redis import RedisBackend

        return RedisBackend
    if name == "SimBackend":
        from dtimer.sim import SimBackend

        return SimBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AcknowledgedCall",
    "BackendClosed",
    "BackendError",
    "BuryOutcome",
    "CancelOutcome",
    "ChangeOutcome",
    "Codec",
    "ConfirmNotRequired",
    "ConfirmOutcome",
    "ConfirmedTooLate",
    "Confirming",
    "ConsumerConflict",
    "Counters",
    "DTimer",
    "DTimerError",
    "DeadEvent",
    "Delay",
    "DiscardOutcome",
    "Durable",
    "EndReason",
    "Ended",
    "Event",
    "EventExists",
    "EventState",
    "Events",
    "ExtendOutcome",
    "Failure",
    "Finding",
    "HandlerFailed",
    "InvalidArgument",
    "JsonCodec",
    "JsonValue",
    "Known",
    "LastError",
    "LoopBlocked",
    "MalformedWakeup",
    "NodeDisturbed",
    "NodeFenced",
    "NodeIdDisputed",
    "NodeStopped",
    "NotDurable",
    "OrjsonCodec",
    "OutcomeUnknown",
    "PartitionsMismatch",
    "PayloadNotDecodable",
    "PayloadNotEncodable",
    "PayloadRefused",
    "PayloadTooLarge",
    "Post",
    "PostOptions",
    "PostOutcome",
    "PostedId",
    "RecordUnreadable",
    "RedisBackend",
    "ReleaseOutcome",
    "Report",
    "ResendOutcome",
    "Retry",
    "Risk",
    "SchemaMismatch",
    "SimBackend",
    "StoreBusy",
    "StoreClockLeapt",
    "StoreClockStepped",
    "StoreCorrupt",
    "StoreDenied",
    "StoreFull",
    "StoreLostWrites",
    "StoreNotWritable",
    "StoreReadOnly",
    "StoreRefused",
    "StoreRestarted",
    "StoreUnreachable",
    "SupportsBranches",
    "SupportsClockReset",
    "SupportsDeadLetters",
    "SupportsDurability",
    "SupportsExamination",
    "SupportsInspection",
    "SupportsPartitions",
    "SupportsPurge",
    "SupportsRepeatWithin",
    "Timeout",
    "TimerBackend",
    "Unsupported",
    "Upcoming",
    "WrongProcessOrLoop",
]
