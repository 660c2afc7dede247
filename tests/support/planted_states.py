"""Bugs that the small worlds find, planted in the machine or its clock: where, and by how many moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from attrs import frozen

from dtimer_conformance.state_space.explorer import MakeClock, MakeMachine
from support.breaking import broken_clock, broken_machine
from support.mutants import MUTANTS, Kind, Mutant


@frozen
class Planted:
    """
    Attributes:
        moves: how many the shortest path has.
    """

    alphabet: str
    moves: int
    mutant: Mutant

    def parts(self) -> dict[str, Any]:
        """The machine or the clock with the bug in it, as :func:`dtimer_conformance.state_space.explore` takes them."""
        if Path(self.mutant.file).stem == "clock":
            clock: MakeClock = broken_clock(self.mutant)
            return {"clock": clock}
        machine: MakeMachine = broken_machine(self.mutant)
        return {"machine": machine}


def _known(name: str) -> Mutant:
    (mutant,) = [each for each in MUTANTS if each.name == name and each.kind is Kind.MACHINE]
    return mutant


def _own(rule: str, name: str, sound: str, broken: str, *, file: str = "machine") -> Mutant:
    return Mutant(name, rule, Kind.MACHINE, f"semantics/{file}.py", sound, broken)


_COUNTERS: Final = _own(
    "T2",
    "the sum of two times is checked, and not each",
    "        self.last_us = max(self.last_us + 1, self._at_us)\n",
    "        self.last_us = max(self.last_us + 1, self._at_us)\n"
    "        if self.last_us + self._skew_us > 2**53:\n"
    "            raise ValueError('StoreCorrupt')\n",
)
_FEW_REFUSALS: Final = _own(
    "F4",
    "the second refusal buries",
    "if self._at_us - entry.refusals.since_us >= operation.refused_for_us:",
    "if entry.refusals.number > 1:",
)
_OLD_RECEIPT: Final = _own(
    "E4",
    "a release of an older delivery gives back the one that is out",
    '        return self.nonce != "" and (self.number, self.nonce) == (receipt.delivery_number, receipt.nonce)',
    '        return self.nonce != ""',
)
_SHRINKING: Final = _own(
    "T2",
    "the skew is forgotten when the host's clock is right again",
    "        return max(now_us, last_us)",
    "        if host_us > last_us:\n            self.skew_us, now_us = 0, host_us\n        return max(now_us, last_us)",
    file="clock",
)
_AGELESS: Final = _own(
    "E5",
    "a letter that is too old still goes by its id",
    "return letter if letter is not None and _exists(letter, at_us) else None",
    "return letter",
    file="dead_letters",
)
_NEIGHBOUR: Final = _own(
    "E5",
    "the letter of the last burial is another one's",
    "self._letters.get(name)\n",
    "self._letters.get(name)\n        letter = letter or next(iter(self._letters.values()), None)\n",
    file="dead_letters",
)

PLANTED: Final = (
    Planted("retries", 2, _known("everybody takes everything")),
    Planted("retries", 3, _known("the head's announcement is forgotten")),
    Planted("retries", 4, _known("deliver early")),
    Planted("retries", 5, _known("forget to count")),
    Planted("retries", 5, _OLD_RECEIPT),
    Planted("refusals", 1, _known("arm a full node")),
    Planted("refusals", 3, _known("a refusal is followed by a wait at once")),
    Planted("refusals", 5, _FEW_REFUSALS),
    Planted("lost calls", 2, _known("a repeated join fences the later one")),
    Planted("lost calls", 2, _known("a repeated join does not say that it has fenced another")),
    Planted("ring", 3, _known("believe in the dead")),
    Planted("ring", 5, _known("wait for the hung without end")),
    Planted("ring", 4, _known("a join is said to fence the dead")),
    Planted("clock", 2, _known("a time of day knows no skew")),
    Planted("clock", 4, _SHRINKING),
    Planted("clock", 4, _COUNTERS),
    Planted("clock", 4, _known("an old connection begins a branch once more")),
    Planted("expiry", 3, _known("exhausted events vanish")),
    Planted("expiry", 5, _AGELESS),
    Planted("expiry", 4, _NEIGHBOUR),
    Planted("expiry", 6, _known("a second burial replaces the first")),
    Planted("expiry", 6, _known("keep the expiry of what is moved after a delivery")),
)
