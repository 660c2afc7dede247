"""The scenarios, one module a subject. Importing this package registers all."""

from dtimer_conformance.scenario import SCENARIOS
from dtimer_conformance.scenarios import (
    changing,
    claiming,
    confirming,
    dead_letters,
    expiry,
    histories,
    limits,
    nodes,
    posting,
    reading,
    ring,
    store,
    time,
    unreadable,
    wakeups,
)

__all__ = [
    "SCENARIOS",
    "changing",
    "claiming",
    "confirming",
    "dead_letters",
    "expiry",
    "histories",
    "limits",
    "nodes",
    "posting",
    "reading",
    "ring",
    "store",
    "time",
    "unreadable",
    "wakeups",
]
