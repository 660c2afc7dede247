"""What a run is to be like, apart from its seed."""

from __future__ import annotations

import json
from typing import Any, Final, Self

from attrs import asdict, field, frozen

from dtimer.errors import InvalidArgument
from dtimer.safe_repr import safe_repr
from dtimer.sim.faulty.fault_schedule import Faults, what_is_wrong

HOUR_S: Final = 3_600.0
FAULTS_PER_HOUR: Final = 60.0
NODES_MAX: Final = 200
HOURS_MIN: Final = 0.001
HOURS_MAX: Final = 24 * 366.0
RATE_MAX: Final = 10_000_000.0


def _within(least: float, most: float) -> Any:
    def check(_: object, attribute: Any, value: float) -> None:
        if isinstance(value, bool) or not least <= value <= most:
            raise InvalidArgument(attribute.name, f"must be from {least:g} to {most:g}, not {safe_repr(value)}")

    return check


@frozen(kw_only=True)
class Options:
    """A kind of run.

    Attributes:
        nodes: how many there are.
        hours: of virtual time in which events are posted and things go wrong; draining comes after.
        rate: calls of clients an hour, most of them posts.
        faults: what goes wrong; by default everything, each seed with a mixture of its own.
    """

    nodes: int = field(default=3, validator=_within(1, NODES_MAX))
    hours: float = field(default=1.0, validator=_within(HOURS_MIN, HOURS_MAX))
    rate: float = field(default=600.0, validator=_within(0, RATE_MAX))
    faults: Faults = field(factory=lambda: Faults.everything(FAULTS_PER_HOUR))

    def to_json(self) -> dict[str, Any]:
        """The form that :meth:`from_json` reads."""
        return {
            **asdict(self, filter=lambda each, _: each.name != "faults"),
            "faults": json.loads(self.faults.to_json()),
        }

    @classmethod
    def from_json(cls, parts: dict[str, Any]) -> Self:
        """Raises InvalidArgument if :meth:`to_json` did not write it."""
        try:
            figures = {name: value for name, value in parts.items() if name != "faults"}
            return cls(**figures, faults=Faults.from_json(json.dumps(parts["faults"])))
        except (TypeError, KeyError, AttributeError, InvalidArgument) as error:
            raise InvalidArgument("parts", f"are not what Options.to_json writes: {what_is_wrong(error)}") from error
