"""What is done to the nodes, the network and the server, and when: drawn from the seed before anything begins."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen

MEAN_GAP_S: Final = 2.0
SECONDS: Final[Mapping[str, tuple[float, float]]] = {
    "kill a node": (0.5, 3),
    "stop a node": (1, 6),
    "kill all nodes but one": (0.5, 2),
    "leave": (0.5, 2),
    "cut connections": (0, 0),
    "cut subscriptions": (0, 0),
    "stall a node": (2, 8),
    "lose replies": (0, 0),
    "forget scripts": (0, 0),
    "forge wake-ups": (0, 0),
    "full": (0.3, 1.5),
    "pause the server": (0.3, 2.5),
    "read only": (0.3, 1.5),
    "kill the server": (0.1, 1.5),
    "cut the log": (0.1, 1.0),
    "fail over": (0.05, 0.4),
    "clock ahead": (0.2, 1.5),
}
"""Each kind, and how long it lasts: from, to."""
WEIGHTS: Final[Mapping[str, int]] = {
    "kill a node": 6,
    "stop a node": 4,
    "kill the server": 1,
    "pause the server": 1,
}
"""How often, where it is not 2: outages are rare, so that the rest is judged in between."""


@frozen
class Planned:
    """A fault of the schedule; `pick` chooses whom it meets among those who are there."""

    after_s: float
    name: str
    lasts_s: float
    pick: int


def schedule(seed: int, kinds: tuple[str, ...] = tuple(SECONDS)) -> Iterator[Planned]:
    """Without end; the same for the same seed. Each is counted from the end of the one before."""
    chance = random.Random(f"faults {seed}")
    weights = [WEIGHTS.get(kind, 2) for kind in kinds]
    while True:
        (name,) = chance.choices(kinds, weights)
        shortest, longest = SECONDS[name]
        yield Planned(
            chance.expovariate(1 / MEAN_GAP_S), name, chance.uniform(shortest, longest), chance.getrandbits(16)
        )
