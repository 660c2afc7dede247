"""The servers that a namespace's history was made on (rule O2). Pure: a server's name comes in with each operation."""

from __future__ import annotations

from attrs import define, evolve

from dtimer.limits import BRANCHES_MAX
from dtimer.protocol.values import Branch


@define
class Branches:
    """The branches of one namespace, the newest last.

    A server that has lost writes has lost them here, too: so what is in this history can be told by its branches.
    """

    kept: tuple[Branch, ...] = ()

    def of(self, server: str, seq: int) -> tuple[Branch, ...]:
        """The branches with the one in which an operation is, given the server's name and the number before it.

        A connection may have been made before its server got a new name; under the old one it begins nothing.
        """
        if not is_a_name(server) or any(branch.server == server for branch in self.kept):
            return self.kept
        return (*self.kept, Branch(server, seq))[-BRANCHES_MAX:]

    def shown(self, server: str) -> str:
        """What the reply of an operation says."""
        if not is_a_name(server):
            return server or self._newest
        return self._newest if any(branch.server == server for branch in self.kept) else server

    def begin(self, server: str, seq: int) -> None:
        """An operation other than a read has come."""
        self.kept = self.of(server, seq)

    def copy(self) -> Branches:
        return evolve(self)

    @property
    def _newest(self) -> str:
        return self.kept[-1].server if self.kept else ""


def is_a_name(server: str) -> bool:
    """Whether the server has told its name; what stands for another one begins with a question mark."""
    return server != "" and not server.startswith("?")
