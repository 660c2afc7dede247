"""What a handler raises for the test reaches it, wherever the test is; what else it raises fails its event."""

from __future__ import annotations

import asyncio
import unittest
from collections.abc import Callable
from typing import Any

import pytest

from dtimer import DTimer, DTimerError, Ended, Event, HandlerFailed, JsonCodec, JsonValue, SimBackend
from dtimer.sim import SimStuck, Simulation, World
from dtimer.sim.faulty.host import Host
from dtimer.sim.untold import take_any
from support.waiting import until

OUTCOMES: dict[str, Callable[[], object]] = {
    "fail": lambda: pytest.fail("for the test"),
    "skip": lambda: pytest.skip("for the test"),
    "xfail": lambda: pytest.xfail("for the test"),
    "unittest's skip": lambda: raise_(unittest.SkipTest("for the test")),
    "assert": lambda: raise_(AssertionError("for the test")),
    "a group": lambda: raise_(ExceptionGroup("for the test", [ValueError(), AssertionError("one")])),
}
RAISED = (pytest.fail.Exception, pytest.skip.Exception, pytest.xfail.Exception, unittest.SkipTest, AssertionError)
each_outcome = pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)


def raise_(error: BaseException) -> None:
    raise error


class Raised:
    """A block that must raise what is for the test."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
        assert isinstance(error, (*RAISED, BaseExceptionGroup)), repr(error)
        assert "for the test" in str(error)
        return True


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend(hang_after=0.3)


def handler_of(kind: str, outcome: Callable[[], object]) -> Callable[[Event[JsonValue]], object]:
    async def coroutine(event: Event[JsonValue]) -> None:
        async with event:
            outcome()

    async def swallowing_task(event: Event[JsonValue]) -> None:
        await asyncio.sleep(0)
        outcome()

    handlers: dict[str, Callable[[Event[JsonValue]], object]] = {
        "plain": lambda event: outcome(),
        "block": coroutine,
        "coroutine": swallowing_task,
    }
    return handlers[kind]


@each_outcome
@pytest.mark.parametrize("kind", ["plain", "block", "coroutine"])
@pytest.mark.parametrize("way", ["advance", "run_until_idle", "autojump", "sleep in autojump"])
async def test_it_is_raised_by_the_call_that_moves_the_clock(
    sim: SimBackend, outcome: Callable[[], object], kind: str, way: str
) -> None:
    """Some of it is no Exception, and a node that it ended was a test that hung, or one that was green."""
    timer = DTimer(sim)
    timer.on("event", handler_of(kind, outcome))
    await timer.join()
    await timer.post(1, 0 if way == "run_until_idle" else 10)

    with Raised():
        if way == "advance":
            await sim.advance(1_000)
        elif way == "run_until_idle":
            await sim.run_until_idle()
        else:
            async with sim.autojump():
                if way == "sleep in autojump":
                    await sim.sleep(3_600_000)
                else:
                    await asyncio.Event().wait()

    # It has been told, and nothing else is the matter with the node.
    assert timer.counters.handler_errors == 1
    await sim.advance(1_000)
    await timer.leave()
    await sim.close()


@each_outcome
@pytest.mark.parametrize("way", ["timer", "leave", "sim", "close", "autojump"])
async def test_it_is_raised_at_the_end_of_a_block_if_no_call_moved_the_clock(
    sim: SimBackend, outcome: Callable[[], object], way: str
) -> None:
    ran = asyncio.Event()

    async def handle(event: Event[JsonValue]) -> None:
        ran.set()
        outcome()

    timer = DTimer(sim)
    timer.on("event", handle)
    with Raised():
        if way == "timer":
            async with timer:
                await timer.post(1, 0)
                await ran.wait()
        elif way == "autojump":
            async with sim.autojump():
                await timer.join()
                await timer.post(1, 0)
                await ran.wait()
        else:
            await timer.join()
            await timer.post(1, 0)
            await ran.wait()
            if way == "leave":
                await timer.leave()
            elif way == "close":
                await sim.close()
            else:
                async with sim:
                    pass


@each_outcome
@pytest.mark.parametrize("news", ["error", "ended", "ready"])
@pytest.mark.parametrize("is_coroutine", [False, True])
async def test_handlers_of_other_news_are_heard_as_well(
    sim: SimBackend, outcome: Callable[[], object], news: Any, is_coroutine: bool
) -> None:
    async def coroutine(*_: Any) -> None:
        await asyncio.sleep(0)
        outcome()

    def plain(*_: Any) -> None:
        outcome()

    timer = DTimer(sim)
    timer.on("event", lambda event: raise_(ZeroDivisionError()))
    handler = coroutine if is_coroutine else plain
    timer.on(news, handler)
    with Raised():
        await timer.join()
        await timer.post(1, 0, dead_letter=True, confirm_timeout=1)
        await sim.advance(10_000)
    # The end of the loop is news as well.
    timer.off(news, handler)


@each_outcome
async def test_a_codec_is_heard_as_well(sim: SimBackend, outcome: Callable[[], object]) -> None:
    class Picky(JsonCodec):
        def decode(self, data: bytes) -> JsonValue:
            outcome()
            return None

    timer: DTimer[JsonValue] = DTimer(sim, codec=Picky())
    timer.on("event", print)
    await timer.join()
    await timer.post(1, 0)

    with Raised():
        await sim.advance(10)


async def test_a_codec_is_heard_when_an_event_has_ended(sim: SimBackend) -> None:
    """Its payload is decoded for the handlers of `ended`, which are told None if it cannot be."""
    ended: list[Ended[JsonValue]] = []

    class Picky(JsonCodec):
        strict = False

        def decode(self, data: bytes) -> JsonValue:
            assert not self.strict, "for the test"
            return super().decode(data)

    codec = Picky()
    timer: DTimer[JsonValue] = DTimer(sim, codec=codec)
    timer.on("event", lambda event: None)
    timer.on("ended", ended.append)
    await timer.join()
    await timer.post(1, 0, dead_letter=True, confirm_timeout=1)
    await sim.advance(500)
    codec.strict = True

    with Raised():
        await sim.advance(10_000)
    assert [one.payload for one in ended] == [None]


async def test_asserts_merely_fail_their_event_where_that_is_asked_for() -> None:
    """As in production, where a test is about just that. Outcomes of pytest are for the test even then."""
    sim = SimBackend(raise_asserts=False)
    errors: list[DTimerError] = []
    async with DTimer(sim) as timer:
        timer.on("error", errors.append)
        timer.on("event", lambda event: OUTCOMES[str(event.payload)]())
        await timer.post("assert", 0)
        await timer.post("a group", 0)
        await sim.advance(10)
        await timer.post("fail", 0)
        with Raised():
            await sim.advance(10)
    assert [type(error) for error in errors] == [HandlerFailed] * 3


async def test_other_exceptions_fail_their_event_as_in_production(sim: SimBackend) -> None:
    errors: list[DTimerError] = []
    async with sim, DTimer(sim) as timer:
        timer.on("error", errors.append)
        timer.on("event", lambda event: raise_(ConnectionError("the mail server is down")))
        await timer.post(1, 0)
        await sim.advance(10)
    assert [type(error) for error in errors] == [HandlerFailed]


async def test_the_error_of_a_block_is_not_hidden_and_nothing_is_told_twice(sim: SimBackend) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  # the block is the point
        async with sim, DTimer(sim) as timer:
            timer.on("event", lambda event: pytest.fail(f"for the test {event.payload}"))
            await timer.post(1, 0)
            await timer.post(2, 0)
            with pytest.raises(pytest.fail.Exception, match="for the test 1") as caught:
                await sim.advance(10)
            assert "Handlers raised 1 more: for the test 2" in "".join(caught.value.__notes__)
            await sim.run_until_idle()
            await timer.post(3, 0)
            await until(lambda: timer.counters.handler_errors == 3)
            raise ZeroDivisionError
    untold = take_any()
    assert str(untold) == "for the test 3"
    assert take_any() is None


async def test_a_handler_that_leaves_is_not_told_what_another_one_raised(sim: SimBackend) -> None:
    left: list[bool] = []
    timer, other = DTimer(sim), DTimer(sim)

    async def handle(event: Event[JsonValue]) -> None:
        if event.payload == 1:
            pytest.fail("for the test")
        await other.leave()
        left.append(True)

    timer.on("event", handle)
    await timer.join()
    await timer.post_many([])
    await timer.post(1, 0)
    await timer.post(2, 0)
    with Raised():
        await sim.advance(10)
    assert left == [True]


@each_outcome
def test_in_a_simulation_it_ends_the_run(outcome: Callable[[], object]) -> None:
    simulation = Simulation(nodes=1)

    @simulation.node
    async def program(host: Host) -> None:
        timer = DTimer(host.backend())
        timer.on("event", lambda event: outcome())
        async with timer:
            await host.forever()

    async def scenario(world: World) -> None:
        await DTimer(world.backend()).post(1, 100)
        await asyncio.sleep(60)

    with Raised():
        simulation.run(scenario)
    run = simulation.attempt(scenario)
    assert run.error is not None
    assert "raised by a handler of 'n1'" in "".join(run.error.__notes__)


@each_outcome
def test_in_a_simulation_a_program_may_raise_it_as_well(outcome: Callable[[], object]) -> None:
    simulation = Simulation(nodes=1)

    @simulation.node
    async def program(host: Host) -> None:
        outcome()

    with Raised():
        simulation.run(lambda world: asyncio.sleep(60))


def test_in_a_simulation_asserts_may_merely_fail_their_event() -> None:
    simulation = Simulation(nodes=1, raise_asserts=False)

    @simulation.node
    async def program(host: Host) -> None:
        timer = DTimer(host.backend())
        timer.on("event", lambda event: OUTCOMES["assert"]())
        async with timer:
            await host.forever()

    async def scenario(world: World) -> None:
        await DTimer(world.backend()).post(1, 100)
        await asyncio.sleep(60)

    simulation.run(scenario)


async def test_leaving_a_timer_whose_handler_cannot_end_says_so(sim: SimBackend) -> None:
    """It waited for virtual time that nothing moved, without a word and without an end."""

    async def wait_for_ever(event: Event[JsonValue]) -> None:
        await asyncio.Event().wait()

    expected = r"leave\(\) waits for what does not end(.|\n)*wait_for_ever"
    timer = DTimer(sim)
    with pytest.raises(SimStuck, match=expected):  # noqa: PT012  # the block is the point
        async with timer:
            timer.on("event", wait_for_ever)
            await timer.post(1, 0)
            await until(lambda: timer.counters.delivered)
    await timer.leave(drain=False)


@pytest.mark.parametrize("how", ["advance", "autojump", "leave"])
async def test_extensions_are_no_progress(how: str) -> None:
    """Those of the handler that cannot end, and those of one beside it that sleeps."""
    sim = SimBackend(hang_after=0.3)
    timer = DTimer(sim, confirm_timeout=0.03)

    async def handle(event: Event[JsonValue]) -> None:
        if event.id == "sleeps":
            await sim.sleep(1e6)
        else:
            await asyncio.Event().wait()

    timer.on("event", handle)
    await timer.join()
    for id in ("stuck", "sleeps"):
        await timer.post(1, 0, id=id, max_retries=3)
    await until(lambda: timer.counters.delivered == 2)
    with pytest.raises(SimStuck, match="event stuck"):  # noqa: PT012  # a block that would never end
        async with asyncio.timeout(5):
            if how == "advance":
                await sim.advance(60_000)
            elif how == "leave":
                await timer.leave()
            else:
                async with sim.autojump():
                    await sim.sleep(60_000)
    await timer.leave(drain=False)


async def test_leaving_a_timer_whose_handler_sleeps_says_so(sim: SimBackend) -> None:
    async def doze(event: Event[JsonValue]) -> None:
        await sim.sleep(10_000)

    timer = DTimer(sim)
    timer.on("event", doze)
    await timer.join()
    await timer.post(1, 0)
    await sim.advance(1_000)
    with pytest.raises(SimStuck, match=r"leave\(\) waits(.|\n)*doze"):
        await timer.leave()


async def test_leaving_may_wait_while_another_task_moves_the_clock(sim: SimBackend) -> None:
    """And as long as anything happens, whatever that is."""
    done: list[bool] = []

    async def doze(event: Event[JsonValue]) -> None:
        await sim.sleep(10_000)
        done.append(True)

    timer = DTimer(sim)
    timer.on("event", doze)
    await timer.join()
    await timer.post(1, 0)
    await sim.advance(1_000)
    leaving = asyncio.create_task(timer.leave())
    for _ in range(8):
        await asyncio.sleep(0.1)
        await sim.advance(1)
    assert not leaving.done()
    await sim.advance(10_000)
    await leaving
    assert done == [True]


async def test_leaving_in_an_autojump_block_may_wait(sim: SimBackend) -> None:
    done: list[bool] = []

    async def doze(event: Event[JsonValue]) -> None:
        await sim.sleep(10_000)
        done.append(True)

    async with sim.autojump(), DTimer(sim) as timer:
        timer.on("event", doze)
        await timer.post(1, 0)
        await sim.sleep(10)
    assert done == [True]
