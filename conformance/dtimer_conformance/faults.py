"""What can go wrong between a node and its store, for one client at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import Any, Final, TypeAlias

from attrs import define, field

from dtimer.errors import BackendError, OutcomeUnknown, StoreUnreachable
from dtimer.protocol.backend import Runtime
from dtimer.protocol.values import Applied, Message

FOR_GOOD_US: Final = 3_600_000_000
"""Longer than any scenario lasts, in virtual time too."""

Filter: TypeAlias = Callable[[Message], Iterable[Message]]
"""What is heard of a message that was said: nothing, itself, itself twice, something else."""


class LinkState(Enum):
    """The state of a client's way to the store."""

    OPEN = "open"
    CUT = "cut"
    """Nothing gets through, as if the process had died or its network had."""
    FROZEN = "frozen"
    """Nothing is answered, and what is heard is not taken: the process hangs, but its connections stand."""


@define
class Faults:
    """Of one client; none at first.

    Attributes:
        hears: what it hears of what is said to it; None is all.
        late_us: how much later.
        loses: which replies are lost, of those that are to be.
    """

    link: LinkState = LinkState.OPEN
    hears: Filter | None = None
    late_us: int = 0
    loses: Callable[[Applied[Any]], bool] = lambda _: True
    _lost: Counter[str] = field(factory=Counter)
    _meanwhile: dict[str, Callable[[], Awaitable[object]]] = field(factory=dict)
    _refused: dict[str, list[BackendError]] = field(factory=dict)

    def lose(self, method: str, times: int = 1, *, meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
        """The next calls of this method are applied, and their replies lost.

        Args:
            meanwhile: what others do before the caller of the first one hears of that.
        """
        self._lost[method] += times
        if meanwhile is not None:
            self._meanwhile[method] = meanwhile

    def refuse(self, error: BackendError, times: int = 1) -> None:
        """The next calls of the method that the error names fail with it, and are not applied."""
        self._refused.setdefault(error.operation, []).extend([error] * times)

    async def before(self, method: str, runtime: Runtime) -> None:
        """The way to the store."""
        await self.passing(method, runtime)
        refused = self._refused.get(method)
        if refused:
            error = refused.pop()
            raise type(error)(error.operation, error.problem)

    async def after(self, method: str, reply: Applied[Any], runtime: Runtime) -> None:
        """The way back."""
        await self.passing(method, runtime, sent=True)
        if self._lost[method] > 0 and self.loses(reply):
            self._lost[method] -= 1
            meanwhile = self._meanwhile.pop(method, None)
            if meanwhile is not None:
                await meanwhile()
            raise OutcomeUnknown(method, "the suite has lost the reply")

    async def passing(self, method: str, runtime: Runtime, *, sent: bool = False) -> None:
        """One direction of the way."""
        # Blocks until the caller's own time limit ends it, like a hung connection.
        while self.link is LinkState.FROZEN:
            await runtime.sleep(FOR_GOOD_US)
        if self.link is LinkState.CUT:
            raise (OutcomeUnknown if sent else StoreUnreachable)(method, "the suite has cut the way")
