"""All checkers of one run. The first violation ends it: what comes after a mistake is its consequence, mostly."""

from __future__ import annotations

from dtimer.sim.checks.ledger import Ledger
from dtimer.sim.checks.promptness import Promptness
from dtimer.sim.checks.violation import Violation
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
        self._checked = checked
        self._world: World | None = None
        self._ledger: Ledger | None = None
        self._promptness: Promptness | None = None

    def open(self, world: World) -> None:
        """Begin to watch."""
        self._world = world
        if not self._checked:
            return
        self._ledger = Ledger(lambda: world.now_us, self._complain)
        self._promptness = Promptness(world, self._complain)
        self._ledger.on_delivery = self._promptness.delivered
        world.watch(self._ledger)
        world.watch(self._promptness)

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

    def close(self) -> None:
        """Everything is over: nothing is left in the book that the store has lost."""
        assert self._world is not None, "open() comes first"
        seen = self._world.inspect()
        if self._ledger is not None:
            self._ledger.compare(0 if seen is None else seen.live)
        self._judge()

    def _complain(self, rules: str, who: str, id: str, what: str) -> None:
        assert self._world is not None, "open() comes first"
        violation = Violation(rules, self._world.now_us, who, id, what)
        self.violations += (violation,)
        self._world.note("violation", rules=rules, at=who, id=id, text=what)

    def _judge(self) -> None:
        if self.violations:
            raise Condemned(str(self.violations[0]))
