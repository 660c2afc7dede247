"""The record of a run: one flat dictionary for everything that happens, one line of JSON for each, one digest for all.

Two runs are the same run if their digests are equal; so a record holds nothing that could differ between two machines.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, TextIO, TypeAlias, cast

from typing_extensions import override

from dtimer.errors import BackendError
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import Applied, Branch, Claimed, Message, Pulse, Wakeup
from dtimer.sim.faulty.observer import Field, Observer

Record: TypeAlias = "dict[str, Field]"
"""``t`` (microseconds since the start), ``who`` (a process, ``store`` or ``world``), ``what``, then its own fields."""

KEPT_DEFAULT: Final = 100_000
"""Records kept in memory: some hundred bytes each."""
_CHUNK: Final = 256
"""Records written and digested at once."""

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, check_circular=False).encode


class Trace(Observer):
    """Makes a record of everything that it sees."""

    def __init__(self, now_us: Callable[[], int], *, keep: int = KEPT_DEFAULT, file: TextIO | None = None) -> None:
        """
        Args:
            now_us: the time of a record.
            keep: how many records stay in memory, the newest.
            file: gets every line as well.
        """
        self._now_us = now_us
        self._kept: deque[Record] = deque(maxlen=keep)
        self._file = file
        self._pending: list[Record] = []
        self._hash = hashlib.sha256()

    @property
    def records(self) -> tuple[Record, ...]:
        """The newest ones, oldest first."""
        self._flush()
        return tuple(self._kept)

    @property
    def digest(self) -> str:
        """The sha256 of all lines, in hex: the identity of the run so far."""
        self._flush()
        return self._hash.hexdigest()

    def add(self, who: str, what: str, **fields: Field) -> None:
        """One more record."""
        self.on_note(who, what, fields)

    # --- what is observed ----------------------------------------------------------------------------------

    @override
    def on_note(self, who: str, what: str, fields: Mapping[str, Field]) -> None:
        self._pending.append({"t": self._now_us(), "who": who, "what": what, **fields})
        if len(self._pending) >= _CHUNK:
            self._flush()

    @override
    def on_call(self, host: str, number: int, operation: Operation[Any]) -> None:
        self.add(host, "call", n=number, method=operation.method, ids=list(operation.about()))

    @override
    def on_lost(self, host: str, number: int, method: str, part: str) -> None:
        if number:
            self.on_note("store", f"{part}_lost", {"n": number, "method": method, "from": host})

    @override
    def on_applied(
        self, host: str, number: int, namespace: str, operation: Operation[Any], applied: Applied[Any]
    ) -> None:
        fields: Record = {
            "n": number,
            "method": operation.method,
            "from": host,
            "seq": applied.seq,
            "at": applied.at_us,
            "ids": list(operation.about()),
            "outcome": outcome_of(applied.value),
        }
        if isinstance(operation, op.Claim) and isinstance(applied.value, Claimed):
            fields.update(taken_by(operation, applied.value))
        self.on_note("store", "applied", fields)

    @override
    def on_reply(self, host: str, number: int, method: str) -> None:
        self.add(host, "reply", n=number, method=method)

    @override
    def on_failure(self, host: str, number: int, method: str, error: BackendError) -> None:
        self.add(host, "call_failed", n=number, method=method, error=type(error).__name__, problem=error.problem)

    @override
    def on_announced(self, node: str, message: Message, fate: str) -> None:
        told: Record = {"due": message.due_us, "seq": message.seq} if isinstance(message, Wakeup) else {}
        self.add("store", "announce", to=node, **told, fate=fate)

    @override
    def on_pulse(self, pulse: Pulse, lost: Sequence[str]) -> None:
        self.on_note("store", "pulse", {"from": pulse.node, "seq": pulse.seq, "lost": lost})

    @override
    def on_fault(self, kind: str, node: str, parameters: Mapping[str, Field]) -> None:
        self.add("world", "fault", fault=kind, node=node, **parameters)

    @override
    def on_fault_end(self, kind: str, node: str) -> None:
        self.add("world", "fault_end", fault=kind, node=node)

    def _flush(self) -> None:
        if not self._pending:
            return
        text = "".join([f"{_encode(record)}\n" for record in self._pending])
        self._hash.update(text.encode("ascii"))
        self._kept.extend(self._pending)
        self._pending.clear()
        if self._file is not None:
            self._file.write(text)


class Counts(Observer):
    """Counts what it sees, by what it is.

    Attributes:
        counts: the counts.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._holders: dict[str, str] = {}

    @override
    def on_call(self, host: str, number: int, operation: Operation[Any]) -> None:
        self.counts["calls"] += 1

    @override
    def on_lost(self, host: str, number: int, method: str, part: str) -> None:
        self.counts[f"{part}_lost"] += 1

    @override
    def on_applied(
        self, host: str, number: int, namespace: str, operation: Operation[Any], applied: Applied[Any]
    ) -> None:
        """Of deliveries also the retries, and of them those by which one node took over from another."""
        counts, holders = self.counts, self._holders
        counts["applied"] += 1
        claimed = applied.value
        if not isinstance(claimed, Claimed):
            return
        counts["claims"] += 1
        for delivery in claimed.deliveries:
            counts["delivered"] += 1
            if delivery.deadline_us is None:
                continue
            id = delivery.receipt.id
            if delivery.num_retries:
                counts["retries"] += 1
                if holders.get(id, host) != host:
                    counts["takeovers"] += 1
            holders[id] = host
        for ended in claimed.ended:
            counts["ended"] += 1
            holders.pop(ended.event.id, None)

    @override
    def on_refused(self, host: str, number: int, method: str) -> None:
        self.counts["refused"] += 1

    @override
    def on_failure(self, host: str, number: int, method: str, error: BackendError) -> None:
        self.counts["calls_failed"] += 1

    @override
    def on_announced(self, node: str, message: Message, fate: str) -> None:
        self.counts[f"announcements_{fate}"] += 1

    @override
    def on_pulse(self, pulse: Pulse, lost: Sequence[str]) -> None:
        self.counts["pulses"] += 1

    @override
    def on_fault(self, kind: str, node: str, parameters: Mapping[str, Field]) -> None:
        self.counts["faults"] += 1
        self.counts[f"fault_{kind}"] += 1


def outcome_of(value: object) -> list[Field]:
    """What came of each of these; of a claim only the outcomes of its confirms."""
    if isinstance(value, tuple):
        parts = cast("tuple[Enum | Branch, ...]", value)
        return [part.server if isinstance(part, Branch) else str(part.value) for part in parts]
    if isinstance(value, Enum):
        return [str(value.value)]
    if isinstance(value, bool):
        return [value]
    if isinstance(value, Claimed):
        return [str(outcome.value) for outcome in value.confirmed]
    return []


def taken_by(claim: op.Claim, claimed: Claimed) -> Record:
    """The fields that the record of a claim has besides: ``got`` holds id, number and retries of each delivery."""
    fields: Record = {
        "status": claimed.status.value,
        "got": [
            [delivery.receipt.id, delivery.receipt.delivery_number, delivery.num_retries]
            for delivery in claimed.deliveries
        ],
    }
    if claimed.extended:
        outcomes = zip(claim.extending, claimed.extended, strict=True)
        fields["extended"] = [[extension.receipt.id, outcome.value] for extension, outcome in outcomes]
    if claimed.ended:
        fields["ended"] = [[ended.event.id, ended.reason.value] for ended in claimed.ended]
    if claimed.unreadable:
        fields["unreadable"] = [unreadable.id for unreadable in claimed.unreadable]
    fields["more"] = claimed.more
    fields["come"] = claimed.come_at_us
    return fields
