"""How a simulated cluster is observed: all that happens in it is told to its observers, and to nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from dtimer.errors import BackendError
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import Applied, Message, Pulse

Field: TypeAlias = "int | str | bool | Sequence[Field] | None"
"""What a record may hold. No floats: no one format of their text is promised."""


class Observer:
    """Sees what happens in a run, while it happens: override the methods for what you want to see.

    Each may be called between any two steps of the nodes. A host's calls are numbered from 1; 0 is a connection.
    """

    def on_call(self, host: str, number: int, operation: Operation[Any]) -> None:
        """A process sends a call."""

    def on_lost(self, host: str, number: int, method: str, part: str) -> None:
        """The `request` or the `reply` of a call is lost."""

    def on_applied(
        self, host: str, number: int, namespace: str, operation: Operation[Any], applied: Applied[Any]
    ) -> None:
        """The store has applied a call."""

    def on_refused(self, host: str, number: int, method: str) -> None:
        """The store answers a call with an error, and has applied nothing."""

    def on_reply(self, host: str, number: int, method: str) -> None:
        """A process receives the reply to its call."""

    def on_failure(self, host: str, number: int, method: str, error: BackendError) -> None:
        """A call raises in the process that made it."""

    def on_announced(self, node: str, message: Message, fate: str) -> None:
        """The store sends a message to a node; `fate` says what becomes of it."""

    def on_pulse(self, pulse: Pulse, lost: Sequence[str]) -> None:
        """The store sends a pulse to all nodes; to those in `lost` it does not come."""

    def on_fault(self, kind: str, node: str, parameters: Mapping[str, Field]) -> None:
        """A fault begins, at a node or at the ``store``."""

    def on_fault_end(self, kind: str, node: str) -> None:
        """A fault that lasted ends."""

    def on_rolled_back(self, until_us: int | None) -> None:
        """The store has lost what it applied after `until_us` of the run, or everything (None)."""

    def on_note(self, who: str, what: str, fields: Mapping[str, Field]) -> None:
        """What else is worth a record: processes that start and end, handlers, log messages, notes of programs."""
