"""The settings of a timer's node: its identity, and how its events are handled."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from dtimer.loop_local import after_fork
from dtimer.protocol.backend import Runtime

NODE_ID_BYTES: Final = 8


class NodeIdentity:
    """The id by which the store knows a timer among the nodes, and the name by which people know its process."""

    def __init__(self, runtime: Runtime, node_id: str | None, node_name: str | None) -> None:
        self._runtime = runtime
        self._given_id = node_id
        self._given_name = node_name
        self._made_id: str | None = None
        after_fork(self, NodeIdentity._forked)

    @property
    def id(self) -> str | None:
        """The id that was given, or that was made at the first join in this process; None before that."""
        return self._made_id if self._given_id is None else self._given_id

    @property
    def name(self) -> str:
        """The name that was given, or else the host and id of the process. It is never compared."""
        return self._runtime.process_name() if self._given_name is None else self._given_name

    def id_to_join(self) -> str:
        """The id; made at the first join, so that processes forked before that do not share it."""
        if self._given_id is not None:
            return self._given_id
        if self._made_id is None:
            self._made_id = self._runtime.token(NODE_ID_BYTES)
        return self._made_id

    def _forked(self) -> None:
        self._made_id = None


@frozen(eq=False)
class NodeSettings:
    """The arguments of :class:`dtimer.DTimer` that its node works by; `max_events` and handlers can change, these not.

    Attributes:
        in_threads: handlers that are no coroutine functions run in threads.
    """

    identity: NodeIdentity
    confirm_timeout_us: int
    max_run_us: int
    refused_for_us: int
    in_threads: bool
