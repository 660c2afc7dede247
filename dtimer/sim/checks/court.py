"""All checkers of one run. The first violation ends it: what comes after a mistake is its consequence, mostly."""

from __future__ import annotations

from dtimer.errors import BackendError, DTimerError, EventExists, Known
from dtimer.posts import PostedId
from dtimer.protocol.outcomes import ConfirmOutcome, PostOutcome
from dtimer.protocol.values import Receipt
from dtimer.sim.checks.honesty import Honesty, Watch
from dtimer.sim.checks.ledger import Ledger
from dtimer.sim.checks.lost_calls import LostCalls
from dtimer.sim.checks.promptness import Promptness
from dtimer.sim.checks.violation import Violation
from dtimer.sim.faulty.backend import LinkedBackend
from dtimer.sim.faulty.host import Host
from dtimer.sim.faulty.world import World


class Condemned(Exception):
    """The run has shown a violation, and is over."""


class Court:
    """To be opened when the world is there, before anything happens in it.

    Attributes:
        violations: what was seen.
    """

    def __init__(self, *, checked: bool = True) -> None:
        self.violations: tuple[Violation, ...] = ()
        self._world: World | None = None
        self._ledger: Ledger | None = None
        self._promptness: Promptness | None = None
        self._honesty: Honesty | None = None
        # Nodes have begun before it is opened.
        self._lost_calls = LostCalls(self._now_us, self._complain) if checked else None

    def open(self, world: World) -> None:
        """Begin to watch."""
        self._world = world
        if self._lost_calls is None:
            return
        self._ledger = Ledger(lambda: world.now_us, self._complain)
        self._promptness = Promptness(world, self._complain)
        self._ledger.on_delivery = self._promptness.delivered
        self._honesty = Honesty(lambda: world.now_us, self._complain)
        world.observe(self._ledger)
        world.observe(self._honesty)
        world.observe(self._lost_calls)
        world.observe(self._promptness)

    def look(self) -> None:
        """See who is well; to be called every so often."""
        if self._promptness is not None:
            self._promptness.look()
        self._judge()

    def members(self) -> None:
        """Peace was made long enough ago: all nodes are back."""
        if self._promptness is not None:
            self._promptness.members()
        self._judge()

    def watch(self, host: str, max_events: int) -> Watch:
        """For a program that has just been started."""
        return Watch(host, max_events, self._complain)

    def backend(self, host: Host) -> LinkedBackend:
        """A backend for the only timer of a process; its `error` handlers say :meth:`told`."""
        return host.backend() if self._lost_calls is None else self._lost_calls.backend(host)

    def told(self, host: Host, report: DTimerError) -> None:
        """What the timer of a process was told."""
        if self._lost_calls is not None:
            self._lost_calls.told(host.name, report)

    def told_posted(self, id: str, payload: bytes, told: PostedId | EventExists | BackendError) -> None:
        """What the client was told of one post; no other has the payload."""
        if self._honesty is None or self._ledger is None:
            return
        if isinstance(told, BackendError):
            if told.known is Known.NOT_APPLIED:
                self._honesty.told_not_posted(id, payload, f"{type(told).__name__}")
        elif isinstance(told, EventExists):
            # If it was applied, and another event replaced it before the repetition, that one is in the way indeed.
            entry = self._ledger.live.get(id)
            if entry is not None and entry.data.payload == payload:
                self._honesty.told_not_posted(id, payload, "that another event exists")
        elif told.outcome is not PostOutcome.KEPT:
            self._honesty.told_posted(id, payload)

    def told_confirmed(self, host: str, receipt: Receipt, outcome: ConfirmOutcome) -> None:
        """What a handler was told of its confirm."""
        if self._honesty is not None and outcome is ConfirmOutcome.CONFIRMED:
            self._honesty.told_confirmed(host, receipt)

    def close(self) -> None:
        """Everything is over: nothing is left in the book that the store has lost."""
        assert self._world is not None, "open() comes first"
        seen = self._world.inspect()
        if self._ledger is not None:
            self._ledger.compare(0 if seen is None else seen.live)
        if self._lost_calls is not None:
            self._lost_calls.close()
        self._judge()

    def _now_us(self) -> int:
        assert self._world is not None, "open() comes first"
        return self._world.now_us

    def _complain(self, rules: str, who: str, id: str, what: str) -> None:
        assert self._world is not None, "open() comes first"
        violation = Violation(rules, self._world.now_us, who, id, what)
        self.violations += (violation,)
        self._world.note("violation", rules=rules, at=who, id=id, text=what)

    def _judge(self) -> None:
        if self.violations:
            raise Condemned(str(self.violations[0]))
