"""What not every store can do. A backend's author declares what theirs can; without one, the tests of it are skipped.

What is declared is checked: a feature that stands for a protocol must be there, and work.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import Final, Protocol, runtime_checkable

from dtimer.protocol.backend import (
    SupportsClockReset,
    SupportsDeadLetters,
    SupportsInspection,
    SupportsPurge,
)


@runtime_checkable
class SupportsAdvance(Protocol):
    """A store in virtual time, nodes included, as the simulator is."""

    async def advance(self, duration: timedelta) -> None:
        """Let time pass, and return when everything that happens in it has happened."""
        ...


@runtime_checkable
class SupportsStep(Protocol):
    """A store whose host's clock a test can set, as an operator or a broken time server might."""

    async def step_clock(self, by: timedelta) -> None:
        """Set it forward or back by so much; no time passes."""
        ...


@runtime_checkable
class SupportsForeignRecords(Protocol):
    """Writing an event past dtimer into the store, as another program might. For tests only."""

    async def write_record(self, id: str, raw: bytes, due_us: int) -> None:
        """Put a live event into the queue whose record is these bytes, which dtimer cannot read (rule F4)."""
        ...


@runtime_checkable
class SupportsForeignSchema(Protocol):
    """Writing a schema number past dtimer into the store, as another version might. For tests only."""

    async def write_schema(self, number: int) -> None:
        """Give the namespace, which exists, this schema number (rule F7)."""
        ...


@runtime_checkable
class SupportsServerNames(Protocol):
    """A backend, a :class:`dtimer.SupportsBranches`, of which a test can say on which server it is."""

    server_for_tests: str | None
    """The name of the server that answers from now on (O2); None leaves it to the server."""


class Feature(Enum):
    """What a backend may declare in the `features` of its test class."""

    DEAD_LETTERS = "dead letters"
    """It is a :class:`dtimer.SupportsDeadLetters`: what was to be kept can be listed, resent and discarded (E5)."""
    INSPECTION = "inspection"
    """It is a :class:`dtimer.SupportsInspection`: the counts, the arm and the ring can be seen."""
    CLOCK_RESET = "clock reset"
    """It is a :class:`dtimer.SupportsClockReset`: what a leap of its host's clock left is taken out (T2)."""
    PURGE = "purge"
    """It is a :class:`dtimer.SupportsPurge`: a namespace can be removed, and begins anew under another epoch.
    The suite then leaves nothing behind either."""
    CLOCK = "clock"
    """It takes its time from the function that `backend` is handed: microseconds since 1970, as the host's clock."""
    BRANCHES = "branches"
    """It is a :class:`SupportsServerNames`: a server that has lost writes can be told from what it was before (O2)."""
    ADVANCE = "advance"
    """It is a :class:`SupportsAdvance`: time is virtual, for nodes too, and moved by its method `advance`."""
    STEP = "step"
    """It is a :class:`SupportsStep`: its host's clock is set by its method `step_clock`. For those without CLOCK."""
    REACH = "reach"
    """It can tell whether an announcement reached anybody: `reached` is false when nobody listens (N3).
    A store without it says true, and a node that is gone is found out when it does not come (W5)."""
    FOREIGN_RECORDS = "foreign records"
    """It is a :class:`SupportsForeignRecords`: the suite can write events that dtimer never would."""
    FOREIGN_SCHEMA = "foreign schema"
    """It is a :class:`SupportsForeignSchema`: the suite can make a namespace look like another version's."""
    LONG_TIMES = "long times"
    """Days can pass in a test. Not to be declared: whatever has CLOCK or ADVANCE has it."""
    CLOCK_LEAPS = "clock leaps"
    """The host's clock can be set in a test. Not to be declared: whatever has CLOCK or STEP has it."""


PROTOCOLS: Final[dict[Feature, type]] = {
    Feature.DEAD_LETTERS: SupportsDeadLetters,
    Feature.INSPECTION: SupportsInspection,
    Feature.CLOCK_RESET: SupportsClockReset,
    Feature.PURGE: SupportsPurge,
    Feature.BRANCHES: SupportsServerNames,
    Feature.ADVANCE: SupportsAdvance,
    Feature.STEP: SupportsStep,
    Feature.FOREIGN_RECORDS: SupportsForeignRecords,
    Feature.FOREIGN_SCHEMA: SupportsForeignSchema,
}
"""Features that can be seen at a backend."""

_WITHOUT: Final[dict[Feature, str]] = {
    Feature.LONG_TIMES: "its time cannot be moved: it has neither Feature.CLOCK nor Feature.ADVANCE",
    Feature.CLOCK_LEAPS: "its clock cannot be set: it has neither Feature.CLOCK nor Feature.STEP",
}


def with_implied(features: frozenset[Feature]) -> frozenset[Feature]:
    """All that a backend can do, given what it declares."""
    found = set(features - _WITHOUT.keys())
    if features & {Feature.CLOCK, Feature.ADVANCE}:
        found.add(Feature.LONG_TIMES)
    if features & {Feature.CLOCK, Feature.STEP}:
        found.add(Feature.CLOCK_LEAPS)
    return frozenset(found)


def lacking(features: frozenset[Feature], needs: frozenset[Feature]) -> str | None:
    """Why a test cannot be made on a backend with these features, in the words of its skip; None if it can."""
    missing = sorted(needs - with_implied(features), key=lambda feature: feature.name)
    if not missing:
        return None
    return "; ".join(_WITHOUT.get(feature, f"this backend has not Feature.{feature.name}") for feature in missing)
