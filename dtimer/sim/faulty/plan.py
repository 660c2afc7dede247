"""What goes wrong in a run: faults at their moments, and faults that are drawn; and the form of both in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

from dtimer._validation import finite, many
from dtimer.errors import InvalidArgument
from dtimer.safe_repr import safe_repr
from dtimer.sim.faulty.faults import (
    KINDS,
    USUAL,
    Choices,
    Fault,
    NodeFault,
    Seconds,
    not_negative,
    optional_seconds,
    seconds,
)


@frozen
class Rate:
    """How often something goes wrong.

    Attributes:
        per_hour: how often an hour of simulated time, on average; for each node, if it is about a node.
        choices: ranges of parameters, where the usual ones are not wanted.
    """

    per_hour: float = field(validator=not_negative)
    choices: Mapping[str, Choices] = field(factory=dict[str, Choices])


def _rates(rates: Mapping[str, float | Rate]) -> Mapping[str, Rate]:
    if not isinstance(rates, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # for who has no type checker
        raise InvalidArgument("rates", f"must map kinds of faults to rates, not {safe_repr(rates)}")
    unknown = [kind for kind in rates if kind not in KINDS]
    if unknown:
        raise InvalidArgument("rates", f"knows no fault {safe_repr(unknown[0])}; there are {', '.join(KINDS)}")
    return {kind: rate if isinstance(rate, Rate) else Rate(rate) for kind, rate in rates.items()}


def _moment(moment: Any) -> tuple[float, Fault]:
    try:
        at, fault = moment
        if isinstance(fault, Fault):
            return finite(seconds(at), "script"), fault
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
    raise InvalidArgument("script", f"must be pairs of a moment and a fault, not {safe_repr(moment)}")


def _script(script: Iterable[tuple[Seconds, Fault]]) -> tuple[tuple[float, Fault], ...]:
    moments = [_moment(moment) for moment in many(script, "script")]
    if any(at < 0 for at, _ in moments):
        raise InvalidArgument("script", "must not begin before the run")
    return tuple(moments)


@frozen
class Faults:
    """What goes wrong in a run.

    Attributes:
        script: faults at their moments, in seconds from the start.
        rates: faults that are drawn, by kind: so many an hour.
        until_s: none is drawn later.
        swarm: each seed draws which kinds occur at all, and how often.
    """

    script: tuple[tuple[float, Fault], ...] = field(default=(), converter=_script)
    rates: Mapping[str, Rate] = field(factory=dict[str, Rate], converter=_rates)
    until_s: float | None = field(default=None, converter=optional_seconds, validator=not_negative)
    swarm: bool = False

    @classmethod
    def everything(cls, per_hour: float, *, until_s: Seconds | None = None, swarm: bool = True) -> Faults:
        """Faults of all kinds that are drawn by default, `per_hour` altogether for each node and for the store."""
        node = [kind for kind in USUAL if issubclass(KINDS[kind], NodeFault)]
        rates = {kind: per_hour / (len(node) if kind in node else len(USUAL) - len(node)) for kind in USUAL}
        return cls(rates=rates, until_s=until_s, swarm=swarm)

    def to_json(self) -> str:
        """As :meth:`from_json` reads it."""
        parts: dict[str, object] = {}
        if self.script:
            parts["script"] = script_to_json(self.script)
        if self.rates:
            parts["rates"] = {
                kind: {"per_hour": rate.per_hour, **{name: list(choice) for name, choice in rate.choices.items()}}
                for kind, rate in self.rates.items()
            }
        if self.until_s is not None:
            parts["until_s"] = self.until_s
        if self.swarm:
            parts["swarm"] = True
        return json.dumps(parts, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Faults:
        """Read what :meth:`to_json` wrote; a rate may also be a bare number.

        Raises:
            InvalidArgument: it is not that.
        """
        try:
            parts = json.loads(text)
            rates = {kind: _rate_from_json(rate) for kind, rate in parts.pop("rates", {}).items()}
            script = script_from_json(parts.pop("script", []))
            return cls(script=script, rates=rates, **parts)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise InvalidArgument("text", f"is not what Faults.to_json writes: {what_is_wrong(error)}") from error


def what_is_wrong(error: Exception) -> str:
    """With JSON, for people: one of our own errors says it best."""
    return str(error) if isinstance(error, InvalidArgument) else safe_repr(error)


def script_to_json(script: Iterable[tuple[float, Fault]]) -> list[dict[str, object]]:
    """A script as plain data."""
    return [{"at_s": at_s, **fault.to_json()} for at_s, fault in script]


def script_from_json(script: Iterable[Mapping[str, Any]]) -> list[tuple[float, Fault]]:
    """Raises InvalidArgument, TypeError or KeyError if it is none."""
    faults: list[tuple[float, Fault]] = []
    for moment in script:
        parameters = dict(moment)
        at_s, kind = parameters.pop("at_s"), parameters.pop("fault")
        if kind not in KINDS:
            raise InvalidArgument("script", f"must have faults of {', '.join(KINDS)}, not {safe_repr(kind)}")
        faults.append((finite(seconds(at_s), "script"), KINDS[kind](**parameters)))
    return faults


def _rate_from_json(rate: Any) -> Rate:
    if isinstance(rate, int | float):
        return Rate(rate)
    choices: dict[str, Choices] = {name: tuple(choice) for name, choice in rate.items() if name != "per_hour"}
    return Rate(rate["per_hour"], choices)
