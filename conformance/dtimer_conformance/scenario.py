"""Scenarios, and the register of all: one claim each, named after the rule that it is about."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

from attrs import frozen

from dtimer_conformance.environment import Environment
from dtimer_conformance.features import Feature
from dtimer_conformance.rules import RULES

LIMIT_S: Final = 20.0
"""A scenario that has not ended by then hangs. The slowest takes some seconds, also on a busy host."""

Body: TypeAlias = Callable[[Environment], Awaitable[None]]

SCENARIOS: Final[dict[str, Scenario]] = {}
"""All scenarios by the names of their tests, in the order of their making."""


@frozen
class Bench:
    """Where a scenario is carried out.

    Attributes:
        run: takes a body through a fresh world, in a loop of its own, and judges it.
    """

    run: Callable[[Body], None]


@frozen(kw_only=True)
class Scenario:
    """One claim about every backend.

    Attributes:
        rules: what it is about; the first one names it.
        name: of its test.
        text: its docstring.
        needs: features without which it cannot be made.
        own_clock: it is about the store's own clock, or has nodes, whose clock cannot be handed in.
        limit_s: when it is taken to hang; of an experiment, each world of it.
        carry_out: raises :class:`dtimer_conformance.assertions.RuleBroken`, or something else, unless the claim holds.
    """

    rules: tuple[str, ...]
    name: str
    text: str
    needs: frozenset[Feature]
    own_clock: bool
    limit_s: float
    carry_out: Callable[[Bench], None]

    @property
    def rule(self) -> str:
        return self.rules[0]

    @property
    def claim(self) -> str:
        """The first paragraph of its docstring."""
        return re.sub(r"\s+", " ", self.text.split("\n\n")[0]).strip()

    @property
    def hint(self) -> str:
        """Where to look when it fails."""
        return re.sub(r"\s+", " ", self.text.partition("Troubleshooting:")[2]).strip()


def scenario(
    *rules: str,
    needs: Feature | Iterable[Feature] = (),
    own_clock: bool = False,
    limit_s: float = LIMIT_S,
) -> Callable[[Body], Body]:
    """Register a scenario that takes one world."""

    def register(body: Body) -> Body:
        _register(body, lambda bench: bench.run(body), rules=rules, needs=needs, own_clock=own_clock, limit_s=limit_s)
        return body

    return register


def with_nodes(
    *rules: str, needs: Feature | Iterable[Feature] = (), limit_s: float = LIMIT_S
) -> Callable[[Body], Body]:
    """Register a scenario whose nodes are real timers."""
    return scenario(*rules, needs=needs, own_clock=True, limit_s=limit_s)


def experiment(
    *rules: str,
    needs: Feature | Iterable[Feature] = (),
    own_clock: bool = False,
    limit_s: float = LIMIT_S,
) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Register a scenario that takes many worlds, one after the other."""

    def register(body: Callable[[Bench], None]) -> Callable[[Bench], None]:
        _register(body, body, rules=rules, needs=needs, own_clock=own_clock, limit_s=limit_s)
        return body

    return register


def _register(
    named: Callable[..., object],
    carry_out: Callable[[Bench], None],
    *,
    rules: tuple[str, ...],
    needs: Feature | Iterable[Feature],
    own_clock: bool,
    limit_s: float,
) -> None:
    unknown = [rule for rule in rules if rule not in RULES]
    assert rules, "a scenario is about a rule"
    assert not unknown, f"a scenario is about rules that exist, not {unknown}"
    name = f"test_{rules[0].lower()}_{named.__name__}"
    assert name not in SCENARIOS, f"two scenarios are named {name}"
    SCENARIOS[name] = Scenario(
        rules=rules,
        name=name,
        text=inspect.getdoc(named) or "",
        needs=frozenset([needs] if isinstance(needs, Feature) else needs),
        own_clock=own_clock,
        limit_s=limit_s,
        carry_out=carry_out,
    )
