"""The store of a faulty world: the machine of the rules, on a host that is not to be trusted.

It can be down or loading, refuse what a server would refuse, have its clock stepped,
and come back without what it was told last.
For the latter each namespace keeps a journal of its last seconds:
copies of its machine at some moments, and the operations since.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Literal, TypeAlias

from attrs import define

from dtimer.errors import BackendError, StoreBusy, StoreFull, StoreReadOnly
from dtimer.limits import SECOND_US
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation, ReplyT_co
from dtimer.protocol.values import Applied
from dtimer.semantics import Machine, StoreClock
from dtimer.semantics.clock import CLOCK_BEYOND

LOSE_MAX_US: Final = 10 * SECOND_US
"""The journal goes back so far at least. Servers that write to disk once a second lose about one."""
CHECKPOINT_MIN_OPERATIONS: Final = 100
"""Between two copies of a machine there are at least so many operations, and as many as it has live events."""

Refusal: TypeAlias = Literal["read_only", "out_of_memory", "loading", "busy"]
"""Why a server that is up answers with an error."""

Reach: TypeAlias = Callable[[str, str], bool]
"""Whether anybody listens, given an epoch and a node."""


_Entry: TypeAlias = tuple[int, int, Operation[object], tuple[bool, ...], str]
"""What was applied: when, by nobody's clock; what the host's clock showed; the operation; who heard its announcements;
the name of the server.
A tuple, because one is made for every operation, and hardly ever looked at."""


@define
class _Checkpoint:
    """A machine as it stood at `made_us`, and what was applied to it from then to the next checkpoint."""

    made_us: int
    machine: Machine
    skew_us: int
    entries: list[_Entry]


class _Heard:
    """Answers as the announcements of an operation were answered when it was applied first."""

    def __init__(self, answers: tuple[bool, ...]) -> None:
        self._answers = iter(answers)

    def __call__(self, _: str) -> bool:
        return next(self._answers)


class Namespace:
    """One namespace: its machine and its journal.

    Attributes:
        machine: the state of now.
    """

    def __init__(self, epoch: str, now_us: int, reach: Reach) -> None:
        self.machine = Machine(epoch)
        self._reach = partial(reach, epoch)
        self._clock = StoreClock()
        self._born_us = now_us
        self._checkpoints = deque([_Checkpoint(now_us, Machine(epoch), 0, [])])

    def accepts(self, host_us: int) -> bool:
        """Whether the host's clock can be right (T2)."""
        return self._clock.accepts(host_us)

    def apply(self, operation: Operation[ReplyT_co], *, now_us: int, host_us: int, server: str) -> Applied[ReplyT_co]:
        """Apply an operation at `now_us`, when the host's clock shows `host_us`, on the server of this name (O2)."""
        machine = self.machine
        if isinstance(operation, op.Read):
            # A read persists nothing, so the skew that it sees is forgotten again.
            clock = StoreClock(self._clock.skew_us)
            at_us = clock.read(host_us, machine.last_us)
            return machine.apply(operation, at_us=at_us, reach=self._reach, skew_us=clock.skew_us, server=server)
        at_us = self._clock.read(host_us, machine.last_us)
        skew_us = self._clock.skew_us
        applied = machine.apply(operation, at_us=at_us, reach=self._reach, skew_us=skew_us, server=server)
        answers = tuple([told.reached for told in applied.announced]) if applied.announced else ()
        entries = self._checkpoints[-1].entries
        entries.append((now_us, host_us, operation, answers, server))
        if len(entries) >= CHECKPOINT_MIN_OPERATIONS and len(entries) >= machine.num_live:
            self._checkpoint(now_us)
        return applied

    def rolled_back(self, until_us: int) -> bool:
        """Forget what was applied after `until_us`; False if the namespace did not even exist then."""
        if until_us < self._born_us:
            return False
        while self._checkpoints[-1].made_us > until_us and len(self._checkpoints) > 1:
            self._checkpoints.pop()
        last = self._checkpoints[-1]
        last.entries = [entry for entry in last.entries if entry[0] <= until_us]
        self.machine, self._clock = last.machine.copy(), StoreClock(last.skew_us)
        for _, host_us, operation, answers, server in last.entries:
            at_us = self._clock.read(host_us, self.machine.last_us)
            self.machine.apply(
                operation, at_us=at_us, reach=_Heard(answers), skew_us=self._clock.skew_us, server=server
            )
        return True

    def _checkpoint(self, now_us: int) -> None:
        self._checkpoints.append(_Checkpoint(now_us, self.machine.copy(), self._clock.skew_us, []))
        while len(self._checkpoints) > 1 and self._checkpoints[1].made_us <= now_us - LOSE_MAX_US:
            self._checkpoints.popleft()


class FaultyStore:
    """One server with its namespaces.

    Attributes:
        generation: of the server's process; connections belong to one.
        up: it is running; while it is not, connections are refused.
        clock_offset_us: by how much its host's clock is off.
    """

    def __init__(self, *, start_us: int, epochs: Iterator[str], reach: Reach) -> None:
        """
        Args:
            start_us: what its host's clock shows at the start, in microseconds since 1970.
            epochs: the random names of namespaces, in the order in which they are made.
            reach: asked for each announcement.
        """
        self.generation = 0
        self.up = True
        self.clock_offset_us = start_us
        self._epochs = epochs
        self._reach = reach
        self._refusals: dict[Refusal, int] = {}
        self._spaces: dict[str, Namespace] = {}

    def machine(self, namespace: str) -> Machine | None:
        """The state of a namespace, for looking at; None if there is none."""
        space = self._spaces.get(namespace)
        return None if space is None else space.machine

    def refusal(self, method: str, operation: Operation[object] | None, exists: bool = True) -> BackendError | None:
        """The error with which the server answers, if it does; it has applied nothing then.

        Args:
            operation: None to connect or to subscribe.
            exists: the namespace does; a read of one that does not would have to make it.
        """
        if "loading" in self._refusals:
            return StoreBusy(method, "LOADING the server is loading its data")
        if not self._refusals or operation is None:
            return None
        if "busy" in self._refusals:
            return StoreBusy(method, "BUSY the server is busy running a script")
        writes = not (exists and isinstance(operation, op.Read))
        if "read_only" in self._refusals and writes:
            return StoreReadOnly(method, "READONLY the server is a replica")
        # Whatever ends or takes events is still done (F5).
        adds = isinstance(operation, op.Post | op.Resend) or (writes and isinstance(operation, op.Read))
        if "out_of_memory" in self._refusals and adds:
            return StoreFull(method, "OOM the server has no memory left")
        return None

    def apply(self, namespace: str, operation: Operation[ReplyT_co], now_us: int) -> Applied[ReplyT_co]:
        """Apply an operation at once.

        Raises:
            StoreRefused: nothing was applied.
        """
        space = self._spaces.get(namespace)
        if self._refusals:
            error = self.refusal(operation.method, operation, space is not None)
            if error is not None:
                raise error
        if space is None:
            space = self._spaces[namespace] = Namespace(next(self._epochs), now_us, self._reach)
        host_us = now_us + self.clock_offset_us
        if not space.accepts(host_us):
            raise StoreBusy(operation.method, CLOCK_BEYOND)
        # Its process has a name of its own, as a real server's has (O2).
        return space.apply(operation, now_us=now_us, host_us=host_us, server=f"s{self.generation}")

    @property
    def sound(self) -> bool:
        """It is up and does what it is asked."""
        return self.up and not self._refusals

    def refuse(self, how: Refusal) -> None:
        """From now on; as often as this must :meth:`accept` follow."""
        self._refusals[how] = self._refusals.get(how, 0) + 1

    def accept(self, how: Refusal) -> None:
        self._refusals[how] -= 1
        if not self._refusals[how]:
            del self._refusals[how]

    def lose(self, since_us: int) -> None:
        """Forget what was applied after this."""
        for name, space in tuple(self._spaces.items()):
            if not space.rolled_back(since_us):
                del self._spaces[name]

    def lose_all(self) -> None:
        """Forget everything."""
        self._spaces.clear()
