"""What goes wrong in a run: faults at their moments, faults that are drawn, and faults that are called for.

Each draw depends on the seed, the kind of the fault, its target and a counter, so a kind that is left out changes no
other. All that was injected from the script or a draw is noted with its moment, as a script that does the same again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Self

from attrs import field, frozen

from dtimer._validation import finite, many
from dtimer.errors import InvalidArgument
from dtimer.limits import SECOND_US
from dtimer.safe_repr import safe_repr
from dtimer.sim.faulty.cluster import BEGINS, STORE, Cluster
from dtimer.sim.faulty.faults import (
    KINDS,
    USUAL,
    Choices,
    Fault,
    NodeFault,
    Seconds,
    Undo,
    not_negative,
    optional_seconds,
    seconds,
    to_us,
)
from dtimer.sim.faulty.observer import Field
from dtimer.sim.rng import Rng

SWARM: Final = (0.0, 0.3, 1.0, 3.0)
"""By one of these is the rate of a kind multiplied where the seed draws which kinds occur."""
_HOUR_US: Final = 3_600 * SECOND_US


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
        rates: the number of drawn faults in an hour, by kind.
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
        total: Counter[bool] = Counter()
        for kind in USUAL:
            total[issubclass(KINDS[kind], NodeFault)] += KINDS[kind].weight
        rates = {kind: per_hour * KINDS[kind].weight / total[issubclass(KINDS[kind], NodeFault)] for kind in USUAL}
        return cls(rates=rates, until_s=until_s, swarm=swarm)

    def to_json(self) -> str:
        """The form that :meth:`from_json` reads."""
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


class Injected:
    """A fault that was injected: it ends when its time is over, by :meth:`end`, or where its ``with`` block is left.

    It counts as true if it changed anything: the crash of what is down does not.

    Attributes:
        fault: what was injected.
    """

    def __init__(self, fault: Fault, end: Callable[[Injected], None], *, changed: bool) -> None:
        self.fault = fault
        self._end = end
        self._changed = changed

    def __bool__(self) -> bool:
        return self._changed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End it now; what is over, or has no end, stays as it is."""
        self._end(self)


class Injector:
    """Makes things go wrong in one run.

    Attributes:
        script: what was injected from the script or a draw, with its moment in seconds.
    """

    def __init__(self, faults: Faults, cluster: Cluster, nodes: Sequence[str], rng: Rng) -> None:
        """
        Args:
            nodes: those about which faults are drawn.
        """
        self.script: list[tuple[float, Fault]] = []
        self._faults = faults
        self._cluster = cluster
        self._loop = cluster.loop
        self._rng = rng
        self._lasting: dict[Injected, Undo] = {}
        self._healed = False
        for index, (at_s, fault) in enumerate(faults.script):
            self._check(fault, "faults")
            cluster.plan((to_us(at_s), BEGINS, 1 + index, ""), partial(self._inject_scripted, fault))
        for kind, usual in faults.rates.items():
            swarm = rng.of("swarm", kind).pick(SWARM) if faults.swarm else 1.0
            rate = Rate(usual.per_hour * swarm, usual.choices)
            if rate.per_hour > 0:
                for target in nodes if issubclass(KINDS[kind], NodeFault) else (STORE,):
                    self._plan_drawn(kind, target, rate)
        if faults.script or faults.rates:
            cluster.server.fault()

    def inject(self, fault: Fault) -> Injected:
        """Let it happen now.

        Raises:
            InvalidArgument: the simulation has no node of that name.
        """
        self._check(fault, "fault")
        if not fault.applies(self._cluster):
            return Injected(fault, self._end, changed=False)
        self._cluster.server.fault()
        for observer in self._cluster.server.observers:
            observer.on_fault(fault.kind, fault.target, _parameters(fault))
        injected = Injected(fault, self._end, changed=True)
        undo = fault.apply(self._cluster)
        if undo is not None:
            self._lasting[injected] = undo
            if fault.duration_s is not None:
                self._cluster.later(fault.duration_s, injected.end)
        return injected

    def heal(self) -> None:
        """No more faults; whatever lasts ends now, and every program that ended is started again."""
        self._healed = True
        self._cluster.forget_plans()
        for undo in self._lasting.values():
            undo()
        self._lasting.clear()
        for observer in self._cluster.server.observers:
            observer.on_note("world", "healed", {})
        for host in self._cluster.hosts.values():
            self._cluster.start(host)

    def _end(self, injected: Injected) -> None:
        undo = self._lasting.pop(injected, None)
        if undo is not None:
            undo()
            for observer in self._cluster.server.observers:
                observer.on_fault_end(injected.fault.kind, injected.fault.target)

    def _inject_scripted(self, fault: Fault) -> None:
        if self.inject(fault):
            self.script.append((self._loop.now_us / SECOND_US, fault))

    def _plan_drawn(self, kind: str, target: str, rate: Rate, *, number: int = 0, after_us: int = 0) -> None:
        rng = self._rng.of(kind, target, number)
        when_us = after_us + 1 + rng.exponential(round(_HOUR_US / rate.per_hour))
        if self._faults.until_s is not None and when_us > to_us(self._faults.until_s):
            return

        def happen() -> None:
            fault = KINDS[kind]
            given = {"node": target} if issubclass(fault, NodeFault) else {}
            self._inject_scripted(fault.drawn(lambda name: rng.of(name).fraction(), rate.choices, **given))
            if not self._healed:
                self._plan_drawn(kind, target, rate, number=number + 1, after_us=when_us)

        self._cluster.plan((when_us, BEGINS, 0, f"{kind} {target}"), happen)

    def _check(self, fault: Fault, argument: str) -> None:
        targets = (*self._cluster.hosts, *(() if isinstance(fault, NodeFault) else (STORE,)))
        if fault.target not in targets:
            raise InvalidArgument(argument, f"must be about one of {', '.join(targets)}, not {safe_repr(fault.target)}")


def _parameters(fault: Fault) -> dict[str, Field]:
    """As observers are told of them: seconds as microseconds, a share in thousandths, since a trace holds no floats."""
    parameters: dict[str, Field] = {}
    for name, given in fault.to_json().items():
        if name in {"fault", "node"}:
            continue
        in_seconds = name.endswith("_s")
        value = round(given * (SECOND_US if in_seconds else 1_000)) if isinstance(given, float) else given
        assert isinstance(value, int | str) or value is None, "a parameter is a number or a word"
        parameters[f"{name[:-2]}_us" if in_seconds else name] = value
    return parameters


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
