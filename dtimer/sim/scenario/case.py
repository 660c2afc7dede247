"""A run spelled out: everything that is asked for and everything that goes wrong, in lists that can be cut."""

from __future__ import annotations

import json
from typing import Final, Self

from attrs import evolve, field, frozen

from dtimer.errors import InvalidArgument
from dtimer.sim.faulty.fault_schedule import Faults, what_is_wrong
from dtimer.sim.faulty.faults import Fault
from dtimer.sim.scenario.options import Options
from dtimer.sim.scenario.steps import Step, draw_steps, steps_from_json

FORMAT: Final = 2


@frozen(kw_only=True)
class Case:
    """What is run.

    Attributes:
        seed: of everything that is not spelled out: latencies, ids, what handlers do, who is first.
        options: the faults among them are those of the run: rates while a seed is tried, a script to replay it.
        steps: the calls of the clients.
    """

    seed: int
    options: Options
    steps: tuple[Step, ...] = field(repr=False)

    @classmethod
    def of(cls, options: Options, seed: int) -> Self:
        """The case of a seed."""
        faults = options.faults
        if faults.until_s is None:
            faults = evolve(faults, until_s=options.hours * 3_600)
        return cls(seed=seed, options=evolve(options, faults=faults), steps=tuple(draw_steps(options, seed)))

    def spelled_out(self, script: tuple[tuple[float, Fault], ...]) -> Self:
        """The same with the faults that really were, each by itself."""
        return evolve(self, options=evolve(self.options, faults=Faults(script=script)))

    def to_json(self) -> str:
        """The form that :meth:`from_json` reads."""
        parts = {
            "dtimer_case": FORMAT,
            "seed": self.seed,
            "options": self.options.to_json(),
            "steps": [step.to_json() for step in self.steps],
        }
        return json.dumps(parts, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a case.

        Raises:
            InvalidArgument: it is none.
        """
        try:
            parts = json.loads(text)
            if parts["dtimer_case"] != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            return cls(
                seed=int(parts["seed"]),
                options=Options.from_json(parts["options"]),
                steps=steps_from_json(parts["steps"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise InvalidArgument("text", f"is not what Case.to_json writes: {what_is_wrong(error)}") from error
