"""Two minutes of faults on real processes; ``make soak`` runs as long as you like, by any seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.faults import SECONDS, schedule
from soak.run import report, soak
from support.servers import server_binaries

MINUTES = 2.0
SEED = 32


def test_the_schedule_is_drawn_from_the_seed_and_leaves_nothing_out() -> None:
    def first(seed: int) -> list[object]:
        plan = schedule(seed)
        return [next(plan) for _ in range(300)]

    assert first(1) == first(1) != first(2)
    assert {planned.name for planned in first(1)} == set(SECONDS)  # type: ignore[attr-defined]


@pytest.mark.timeout(400)
@pytest.mark.once
async def test_nothing_is_lost_early_late_or_delivered_too_often(tmp_path: Path) -> None:
    outcome = await soak(minutes=MINUTES, seed=SEED, folder=tmp_path, binary=server_binaries()[0], progress=print)

    print(report(outcome))
    assert outcome.violations == []
    # A run in which nothing went wrong shows nothing.
    assert len(outcome.summary.faults) >= 5
    assert outcome.summary.retries
    assert outcome.summary.cancelled
    assert outcome.summary.dead
    assert outcome.summary.faults["cut the log"] + outcome.summary.faults["fail over"]
    assert outcome.summary.told["StoreLostWrites"]
