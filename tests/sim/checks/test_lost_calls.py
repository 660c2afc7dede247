"""A timer that is not told of a loss, or told of one that is none, is heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import pytest

from dtimer import DTimer, DTimerError, StoreLostWrites
from dtimer.limits import BRANCHES_MAX
from dtimer.protocol.values import AcknowledgedCall
from dtimer.sim import RestartStore, Simulation, World
from dtimer.sim.checks.lost_calls import LostCalls

Tell = Callable[[LostCalls, StoreLostWrites], None]


def complaints(tell: Tell, *, lose_s: float | Literal["all"]) -> list[str]:
    """About a timer that posts twice; in between the store loses its last seconds, and `tell` says what it was told."""
    heard: list[str] = []

    def hear(checker: LostCalls, error: DTimerError) -> None:
        if isinstance(error, StoreLostWrites):
            tell(checker, error)

    async def scenario(world: World) -> None:
        checker = LostCalls(lambda: world.now_us, lambda rules, host, about, _: heard.append(f"{rules} {host} {about}"))
        world.observe(checker)
        timer = DTimer(checker.backend(world.client))
        timer.on("error", partial(hear, checker))
        await timer.post(1, 10**6, id="lost")
        await asyncio.sleep(0.1)
        world.inject(RestartStore(lose_s=lose_s, down_s=0.1))
        await asyncio.sleep(0.2)
        await timer.post(2, 10**6, id="there", repeat_within=5)
        if not lose_s:
            tell(checker, StoreLostWrites("dt", (AcknowledgedCall("post", ("lost",), 1),)))
        await asyncio.sleep(1)
        checker.close()

    Simulation(nodes=0).run(scenario)
    return heard


def as_it_is(checker: LostCalls, report: StoreLostWrites) -> None:
    checker.told("client", report)


def of_calls(change: Callable[[tuple[AcknowledgedCall, ...]], Sequence[AcknowledgedCall]]) -> Tell:
    return lambda checker, report: checker.told("client", StoreLostWrites("dt", tuple(change(report.calls))))


@pytest.mark.parametrize("lose_s", [1, "all"])
@pytest.mark.parametrize(
    ("tell", "expected"),
    [
        (as_it_is, []),
        (lambda checker, report: None, ["O2 client lost"]),
        (of_calls(lambda calls: ()), ["O2 client lost"]),
        (of_calls(lambda calls: calls + calls), ["O2 client lost"]),
        (of_calls(lambda calls: [*calls, AcknowledgedCall("post", ("there",), 1)]), ["O2 client there"]),
        (
            of_calls(lambda calls: [AcknowledgedCall("cancel", each.ids, each.seq) for each in calls]),
            ["O2 client lost"] * 2,
        ),
    ],
    ids=["the truth", "nothing", "no call", "twice", "too much", "another operation"],
)
def test_what_is_lost_is_told(tell: Tell, expected: list[str], lose_s: float | Literal["all"]) -> None:
    assert complaints(tell, lose_s=lose_s) == expected


def test_what_is_not_lost_is_not_told() -> None:
    assert complaints(as_it_is, lose_s=0) == ["O1 client ", "O2 client lost"]


def test_what_the_store_has_forgotten_may_be_told_to_be_lost() -> None:
    """The store keeps the last 32 branches of its history; calls of earlier ones may be told to be lost (rule O2)."""
    heard: list[str] = []
    told: list[StoreLostWrites] = []

    async def scenario(world: World) -> None:
        checker = LostCalls(lambda: world.now_us, lambda rules, host, about, _: heard.append(f"{rules} {host} {about}"))
        world.observe(checker)
        timer, other = DTimer(checker.backend(world.client)), DTimer(world.client.backend())

        @timer.on("error")
        def tell(error: DTimerError) -> None:
            assert isinstance(error, StoreLostWrites)
            told.append(error)
            checker.told("client", error)

        await timer.post(1, 10**6, id="there")
        for number in range(BRANCHES_MAX + 1):
            world.inject(RestartStore(lose_s=0, down_s=0.1))
            await asyncio.sleep(0.2)
            await other.post(number, 10**6, id="other", repeat_within=5)
        # A loss of something else, so that a report is to be expected at all.
        await other.post(0, 10**6, id="lost")
        await asyncio.sleep(0.1)
        world.inject(RestartStore(lose_s=0.15, down_s=0.1))
        await asyncio.sleep(0.2)
        await timer.post(2, 10**6, id="later", repeat_within=5)
        await asyncio.sleep(1)
        checker.close()

    Simulation(nodes=0).run(scenario)
    assert [call.ids for report in told for call in report.calls] == [("there",)]
    assert not heard
