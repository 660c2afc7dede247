"""Several handlers of one event settle it together, once (rule N2)."""

from __future__ import annotations

from typing import Any

import pytest

from dtimer import DTimer, DTimerError, Event, Retry, SimBackend
from support.eager import task_factory

__all__ = ["task_factory"]


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


@pytest.mark.parametrize("first", ["the failing one", "the other one"])
async def test_an_event_fails_if_one_of_its_handlers_does(sim: SimBackend, first: str) -> None:
    """The handler that is not concerned leaves its block first; without a vote that confirmed for both."""
    timer = DTimer(sim)
    tries: list[int] = []
    settled: list[bool] = []

    async def concerned(event: Event) -> None:
        async with event:
            await sim.sleep(10)
            tries.append(event.num_retries)
            if len(tries) < 3:
                raise ZeroDivisionError

    async def unconcerned(event: Event) -> None:
        async with event:
            pass
        settled.append(event.settled)

    handlers = [concerned, unconcerned] if first == "the failing one" else [unconcerned, concerned]
    for handler in handlers:
        timer.on("event", handler)
    async with timer:
        await timer.post("p", 0, id="x", max_retries=5, retry=Retry(100))
        await sim.advance(2_000)
        assert await timer.peek("x") is None

    assert tries == [0, 1, 2]
    assert settled == [False] * 3
    assert (timer.counters.confirmed, timer.counters.handler_errors) == (1, 2)


async def test_leaving_a_block_does_not_wait_for_the_other_handlers(sim: SimBackend) -> None:
    timer = DTimer(sim)
    log: list[str] = []

    @timer.on("event")
    async def quick(event: Event) -> None:
        async with event:
            pass
        log.append("quick")

    @timer.on("event")
    async def slow(event: Event) -> None:
        async with event:
            await sim.sleep(1_000)
            log.append("slow")

    async with timer:
        await timer.post("p", 0, id="x", max_retries=1)
        await sim.advance(500)
        assert (log, timer.counters.confirmed) == (["quick"], 0)
        await sim.advance(1_000)

    assert (log, timer.counters.confirmed) == (["quick", "slow"], 1)


@pytest.mark.parametrize("how", ["confirm", "release", "bury"])
async def test_an_explicit_call_settles_at_once_for_all(sim: SimBackend, how: str) -> None:
    timer = DTimer(sim)
    outcomes: list[Any] = []

    @timer.on("event")
    async def explicit(event: Event) -> None:
        calls: dict[str, Any] = {
            "confirm": event.confirm,
            "release": lambda: event.release(60_000),
            "bury": lambda: event.bury("410"),
        }
        outcomes.append(await calls[how]())

    @timer.on("event")
    async def fails_later(event: Event) -> None:
        async with event:
            await sim.sleep(100)
            outcomes.append(event.settled)
            raise ZeroDivisionError

    async with timer:
        await timer.post("p", 0, id="x", max_retries=3, retry=Retry(10))
        await sim.advance(5_000)
        pending = await timer.peek("x")

    assert outcomes[1] is True
    assert bool(outcomes[0])
    assert (pending is not None) == (how == "release")
    assert timer.counters.delivered == 1


async def test_plain_handlers_have_a_say_by_what_they_raise(sim: SimBackend) -> None:
    timer = DTimer(sim)
    seen: list[int] = []

    @timer.on("event")
    async def votes(event: Event) -> None:
        async with event:
            pass

    @timer.on("event")
    def raises(event: Event) -> None:
        seen.append(event.num_retries)
        if not event.num_retries:
            raise ZeroDivisionError

    async with timer:
        await timer.post("p", 0, id="x", max_retries=3, retry=Retry(10))
        await sim.advance(5_000)

    assert seen == [0, 1]
    assert timer.counters.confirmed == 1


async def test_a_handler_that_returns_without_settling_is_told_what_to_do_once(
    sim: SimBackend, caplog: pytest.LogCaptureFixture
) -> None:
    timer = DTimer(sim)
    errors: list[DTimerError] = []
    timer.on("error", errors.append)
    timer.on("event", lambda event: None)
    async with timer:
        await timer.post("untracked", 0)
        await sim.advance(10)
        assert not caplog.records
        await timer.post("p", 0, id="x", max_retries=2, confirm_timeout=1)
        await sim.advance(10_000)

    told = [record.getMessage() for record in caplog.records if "async with event" in record.getMessage()]
    assert len(told) == 1
    assert "'x'" in told[0]
    assert not errors


@pytest.mark.parametrize("policy", [None, Retry(100)])
async def test_a_handler_that_raised_is_not_told_so(
    sim: SimBackend, caplog: pytest.LogCaptureFixture, policy: Retry | None
) -> None:
    timer = DTimer(sim)
    timer.on("error", lambda error: None)
    timer.on("event", lambda event: 1 / 0)
    async with timer:
        await timer.post("p", 0, max_retries=1, retry=policy)
        await sim.advance(10)

    assert not [record for record in caplog.records if "settling" in record.getMessage()]
