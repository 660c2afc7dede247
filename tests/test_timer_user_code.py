"""Handlers and codecs may raise anything: it costs no neighbour, no room, no node (rules F3, F4, N4)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from typing import Any, cast

import pytest

from dtimer import (
    DTimer,
    DTimerError,
    Ended,
    Event,
    HandlerFailed,
    InvalidArgument,
    JsonCodec,
    JsonValue,
    NodeStopped,
    PayloadRefused,
    Post,
    Retry,
    SimBackend,
)
from dtimer.limits import HOOK_CALLS_MAX
from dtimer.protocol.values import After, EventData, IfExists, NewEvent
from support.eager import task_factory
from support.inside import dispatcher_of, node_of
from support.waiting import TIMEOUT_S

__all__ = ["task_factory"]


class Panic(BaseException):
    """As an extension in Rust raises it."""


class Unprintable(Exception):
    """As objects with lazy attributes raise it."""

    def __repr__(self) -> str:
        raise Panic

    __str__ = __repr__


class Closed(Exception):
    """Nothing of it can be had, as of a proxy whose object is gone."""

    def __getattribute__(self, name: str) -> Any:
        raise Panic


class Text(str):
    """A str that cannot be used as one."""

    __slots__ = ()

    def __len__(self) -> int:
        raise Panic

    def __format__(self, spec: str) -> str:
        raise Panic


class OddlyWritten(Exception):
    def __str__(self) -> str:
        return Text("x")

    __repr__ = __str__


class Anonymous(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in {"__qualname__", "__module__"}:
            raise Panic
        return super().__getattribute__(name)


class WithoutAName(Exception, metaclass=Anonymous):
    pass


class Divided(BaseExceptionGroup[BaseException]):
    @property
    def exceptions(self) -> Any:
        raise Panic


def raise_deep_group() -> None:
    group = ExceptionGroup[Exception]("deep", [ZeroDivisionError()])
    for _ in range(3_000):
        group = ExceptionGroup[Exception]("deeper", [group])
    raise group


def raise_divided() -> None:
    raise Divided("several", [ZeroDivisionError()])


def result_of_what_was_cancelled() -> object:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    return future.result()


def raising(kind: type[BaseException]) -> Callable[[], object]:
    def fails() -> None:
        raise kind

    return fails


def raise_group() -> None:
    raise BaseExceptionGroup("several", [Panic(), ZeroDivisionError()])


FAILURES: dict[str, Callable[[], object]] = {
    "an Exception": raising(ZeroDivisionError),
    "the result of what was cancelled": result_of_what_was_cancelled,
    "GeneratorExit": raising(GeneratorExit),
    "a panic": raising(Panic),
    "a group": raise_group,
    "an error without a text": raising(Unprintable),
    "an error without anything": raising(Closed),
    "an error with an odd text": raising(OddlyWritten),
    "an error without a name": raising(WithoutAName),
    "a group that hides its parts": raise_divided,
    "a deep group": raise_deep_group,
}


each_failure = pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES)


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


@pytest.fixture
def errors() -> list[DTimerError]:
    return []


@each_failure
@pytest.mark.parametrize("kind", ["plain", "coroutine", "awaitable", "block"])
async def test_whatever_a_handler_raises_is_its_events_failure(
    sim: SimBackend, errors: list[DTimerError], fail: Callable[[], object], kind: str
) -> None:
    """Rule F3: reported, counted, back by its policy; the others of its claim and all later ones go on."""
    timer = DTimer(sim, max_events=4)
    timer.on("error", errors.append)
    done: list[Any] = []

    def plain(event: Event) -> None:
        if event.payload == 1 and not event.num_retries:
            fail()
        done.append((event.payload, event.num_retries))
        event.confirm()

    async def coroutine(event: Event) -> None:
        await asyncio.sleep(0)
        plain(event)

    class Later(Awaitable[None]):
        def __init__(self, event: Event) -> None:
            self._event = event

        def __await__(self) -> Generator[Any, None, None]:
            plain(self._event)
            yield

    async def block(event: Event) -> None:
        async with event:
            plain(event)

    handlers: dict[str, Callable[[Event], object]] = {
        "plain": plain,
        "coroutine": coroutine,
        "awaitable": Later,
        "block": block,
    }
    timer.on("event", handlers[kind])
    async with timer:
        await timer.post_many(Post(payload=n, delay=100, max_retries=1, retry=Retry(500)) for n in (1, 2, 3))
        await sim.advance(300)
        assert sorted(done) == [(2, 0), (3, 0)]
        assert dispatcher_of(timer).room() == 4
        await timer.post(4, 0)
        await sim.advance(500)
        assert timer.joined

    assert sorted(done) == [(1, 1), (2, 0), (3, 0), (4, 0)]
    (error,) = errors
    assert isinstance(error, HandlerFailed)
    assert "raised" in str(error)
    assert (timer.counters.handler_errors, timer.counters.confirmed) == (1, 3)


@each_failure
async def test_whatever_a_codec_raises_is_a_refusal(
    sim: SimBackend, errors: list[DTimerError], fail: Callable[[], object]
) -> None:
    """Rule F4. In a poisoned event's way from node to node no node stops."""

    class Poisoned(JsonCodec):
        def decode(self, data: bytes) -> JsonValue:
            if data == b'"poison"':
                fail()
            return super().decode(data)

    done: list[Any] = []
    async with contextlib.AsyncExitStack() as stack:
        timers = [await stack.enter_async_context(DTimer(sim, codec=Poisoned(), refused_for=2)) for _ in range(3)]
        for timer in timers:
            timer.on("event", lambda event: done.append(event.payload))
            timer.on("error", errors.append)
        await timers[0].post("poison", 0, max_retries=10, id="poison")
        await timers[0].post("poison", 0, id="untracked")
        await sim.advance(10_000)
        for n in range(6):
            await timers[0].post(n, 10 * n)
        await sim.advance(1_000)
        assert all(timer.joined for timer in timers)
        assert [letter.id for letter in await timers[0].dead_letters()] == ["poison"]

    assert sorted(done) == list(range(6))
    assert {type(error) for error in errors} == {PayloadRefused}


@each_failure
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("name", ["error", "ended", "ready"])
async def test_whatever_a_handler_of_other_news_raises_is_logged(
    sim: SimBackend, caplog: pytest.LogCaptureFixture, fail: Callable[[], object], name: Any, kind: str
) -> None:
    timer = DTimer(sim)
    done: list[Any] = []

    def plain(*_: object) -> None:
        fail()

    async def coroutine(*_: object) -> None:
        fail()

    timer.on(name, plain if kind == "plain" else coroutine)
    timer.on("event", lambda event: done.append(1 / cast("int", event.payload)))
    async with timer:
        await timer.post_many(
            [
                Post(payload=0, delay=0),
                Post(payload=1, delay=0, max_retries=0, dead_letter=True),
                Post(payload=2, delay=0),
            ]
        )
        await sim.advance(60_000)
        await timer.post(4, 0)
        await sim.advance(0)
        assert timer.joined

    assert done == [1, 0.5, 0.25]
    assert any(f"handler of '{name}'" in record.getMessage() for record in caplog.records)


async def test_the_reason_of_an_error_without_a_text_says_so(sim: SimBackend, errors: list[DTimerError]) -> None:
    timer = DTimer(sim)
    timer.on("error", errors.append)
    timer.on("event", lambda event: FAILURES["an error without a text"]())
    async with timer:
        await timer.post(1, 0)
        await sim.advance(0)

    assert "Unprintable" in str(errors[0])


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["handler", "codec", "ended"])
def test_what_ends_the_program_does_and_the_node_leaves_loudly(
    kind: type[BaseException], place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As in asyncio. The delivery is left to its deadline, counted; the others of its claim are handled."""
    sim = SimBackend()
    done: list[Any] = []

    class Codec(JsonCodec):
        def decode(self, data: bytes) -> JsonValue:
            if place == "codec" and data == b"0":
                raise kind
            return super().decode(data)

    timer = DTimer(sim, codec=Codec())

    def handle(event: Event) -> None:
        if place == "handler" and event.payload == 0:
            raise kind
        done.append(event.payload)

    def ended(event: Ended) -> None:
        raise kind

    timer.on("event", handle)
    timer.on("ended", ended)

    async def main() -> None:
        async with timer:
            if place == "ended":
                await timer.post("x", 0, dead_letter=True)
                await sim.advance(1_000)
                del done[:]
            await timer.post_many(Post(payload=n, delay=10_000, id=str(n), max_retries=2 * (n == 0)) for n in range(3))
            await sim.advance(60_000)
            raise AssertionError("the program goes on")

    with pytest.raises(kind):
        asyncio.run(main())

    assert done == ([] if place == "ended" else [1, 2])
    assert not timer.joined
    assert dispatcher_of(timer).room() == timer.max_events
    assert any(isinstance(record.exc_info and record.exc_info[1], NodeStopped) for record in caplog.records)

    async def look() -> None:
        pending = (await sim.peek("0")).value
        assert pending is not None
        assert pending.num_retries == 0
        assert pending.state.value == ("scheduled" if place == "ended" else "unconfirmed")
        assert not (await sim.inspect()).value.ring

    asyncio.run(look())


class EndsTheProgram(JsonCodec):
    """It raises SystemExit once, at a payload that asks for it."""

    done = False

    def decode(self, data: bytes) -> JsonValue:
        if data == b'"codec"' and not self.done:
            self.done = True
            raise SystemExit
        return super().decode(data)


@pytest.mark.parametrize("place", ["plain", "coroutine", "block", "codec"])
def test_what_ended_the_program_is_left_to_its_deadline_and_counted(place: str) -> None:
    """Whatever its retry policy says, and although the loop goes on, as a program has it that cleans up."""
    sim = SimBackend()
    timer, other = DTimer(sim, codec=EndsTheProgram()), DTimer(sim)
    again: list[int] = []

    def plain(event: Event) -> None:
        raise SystemExit

    async def coroutine(event: Event) -> None:
        await asyncio.sleep(0)
        raise SystemExit

    async def block(event: Event) -> None:
        async with event:
            await coroutine(event)

    handlers: dict[str, Callable[[Event], object]] = {"plain": plain, "coroutine": coroutine, "block": block}
    timer.on("event", handlers.get(place, print))

    async def begin() -> None:
        await timer.join()
        await timer.post(place, 0, id="x", max_retries=3, retry=Retry(0), confirm_timeout=10)

    async def go_on() -> None:
        await timer.leave()
        other.on("event", lambda event: again.append(event.num_retries))
        async with other:
            await sim.advance(9_900)
            pending = await other.peek("x")
            assert pending is not None
            assert (pending.state.value, pending.num_retries, again) == ("unconfirmed", 0, [])
            await sim.advance(200)

    ended_and_went_on(begin, go_on)

    assert again == [1]


@pytest.mark.parametrize("place", ["handler", "ended"])
def test_the_others_of_a_claim_are_handled_although_one_ends_the_program(place: str) -> None:
    """They need no confirm, so the store has forgotten them; and more than are handed out in one turn of the loop."""
    sim = SimBackend()
    timer, other = DTimer(sim, max_events=100), DTimer(sim)
    done: list[Any] = []

    def handle(event: Event) -> None:
        if place == "handler" and event.payload == 0:
            raise SystemExit
        done.append(event.payload)

    def ended(event: Ended) -> None:
        raise SystemExit

    timer.on("event", handle)
    timer.on("ended", ended)
    other.on("event", print)

    async def begin() -> None:
        if place == "ended":
            async with other:
                await other.post("x", 0, dead_letter=True, confirm_timeout=1)
                await sim.advance(0)
            await sim.advance(2_000)
        await timer.post_many(Post(payload=n, delay=0) for n in range(50))
        await timer.join()

    async def go_on() -> None:
        await turns()

    ended_and_went_on(begin, go_on)

    assert done == [*range(place == "handler", 50)]


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def ended_and_went_on(begin: Callable[[], Awaitable[None]], go_on: Callable[[], Awaitable[None]]) -> None:
    """What begins ends the program; the loop goes on, as that of a program which cleans up."""

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await begin()
            await asyncio.Event().wait()

    async def afterwards() -> None:
        await turns()
        await go_on()

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(SystemExit):
            loop.run_until_complete(main())
        loop.run_until_complete(afterwards())
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_handler_that_is_a_generator_is_refused(sim: SimBackend, kind: str) -> None:
    """Calling it runs none of it."""
    timer = DTimer(sim)

    def plain(*_: object) -> Generator[None]:
        yield

    async def coroutine(*_: object) -> Any:
        yield

    class Yielding:
        def __call__(self, event: Event) -> Generator[None]:
            yield

    for name in ("event", "error", "ended", "ready"):
        for handler in (plain if kind == "plain" else coroutine, functools.partial(plain, 1), Yielding()):
            with pytest.raises(InvalidArgument, match="yield"):
                cast("Any", timer).on(name, handler)


async def test_a_handler_that_returns_a_generator_has_failed(sim: SimBackend, errors: list[DTimerError]) -> None:
    timer = DTimer(sim)
    timer.on("error", errors.append)
    timer.on("event", lambda event: (n for n in range(3)))
    async with timer:
        await timer.post(1, 0)
        await sim.advance(0)

    assert "must not yield" in str(errors[0])


async def test_every_kind_of_callable_may_be_a_handler(sim: SimBackend, errors: list[DTimerError]) -> None:
    done: list[str] = []

    async def work(name: str, event: Event) -> None:
        await asyncio.sleep(0)
        done.append(name)

    class Object:
        async def __call__(self, event: Event) -> None:
            await work("object", event)

    handlers: dict[str, Any] = {
        "partial": functools.partial(work, "partial"),
        "lambda": lambda event: work("lambda", event),
        "task": lambda event: asyncio.ensure_future(work("task", event)),
        "object": Object(),
    }
    for handler in handlers.values():
        timer = DTimer(sim)
        timer.on("error", errors.append)
        timer.on("event", handler)
        async with timer:
            await timer.post(1, 0)
            await sim.advance(0)

    assert (done, errors) == (list(handlers), [])


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_what_one_call_sets_in_its_context_no_other_sees(sim: SimBackend, kind: str) -> None:
    user: ContextVar[Any] = ContextVar("user", default=None)
    seen: list[Any] = []

    def plain(event: Event) -> None:
        seen.append(user.get())
        user.set(event.payload)

    async def coroutine(event: Event) -> None:
        plain(event)

    timer = DTimer(sim)
    for _ in range(2):
        timer.on("event", plain if kind == "plain" else coroutine)
    async with timer:
        await timer.post_many(Post(payload=n, delay=0) for n in range(3))
        await sim.advance(0)
        await timer.post(3, 0)
        await sim.advance(0)

    assert seen == [None] * 8


async def test_an_error_handler_that_never_returns_does_not_pile_up_calls(
    sim: SimBackend, caplog: pytest.LogCaptureFixture
) -> None:
    timer = DTimer(sim)
    begun = 0

    @timer.on("error")
    async def never_returns(error: DTimerError) -> None:
        nonlocal begun
        begun += 1
        await sim.sleep(1e9)

    timer.on("event", lambda event: 1 / 0)
    await timer.join()
    await timer.post_many(Post(payload=n, delay=0) for n in range(300))
    await sim.advance(10)
    assert begun == HOOK_CALLS_MAX
    assert len(node_of(timer)._background.tasks) == HOOK_CALLS_MAX
    dropped = [record for record in caplog.records if "do not end" in record.getMessage()]
    assert len(dropped) == 300 - HOOK_CALLS_MAX
    assert "ZeroDivisionError" in dropped[0].getMessage()

    leaving = asyncio.create_task(timer.leave(timeout=2))
    await sim.advance(5_000)
    await leaving


@pytest.mark.parametrize("retries", [0, 5])
async def test_deeply_nested_headers_of_another_client_cost_no_neighbour(sim: SimBackend, retries: int) -> None:
    """They count as none, in a handler and in the report of the event's end."""
    timer = DTimer(sim)
    done: list[Any] = []
    ended: list[Ended] = []
    timer.on("event", lambda event: done.append((event.payload, dict(event.headers))))
    timer.on("ended", ended.append)
    foreign = EventData(id="x", payload=b"1", headers=b"[" * 200_000, max_retries=retries, dead_letter=True)
    await sim.post([NewEvent(foreign, After(0), IfExists.REPLACE)])
    async with timer:
        await sim.advance(5_000)
        assert done == [(1, {})]
        await timer.post_many(Post(payload=n, delay=5_500) for n in range(3))
        await sim.advance(5_500)

    assert [payload for payload, _ in done if payload != 1 or retries == 0][-3:] == [0, 1, 2] or retries
    assert {0, 1, 2} <= {payload for payload, _ in done}
    if not retries:
        assert [(event.id, event.headers) for event in ended] == [("x", {})]


@pytest.mark.parametrize("end", ["return", "raise"])
async def test_an_eager_or_usual_task_makes_one_report_for_one_failure(
    sim: SimBackend, errors: list[DTimerError], end: str
) -> None:
    timer = DTimer(sim, max_events=2)
    timer.on("error", errors.append)
    running = most = 0

    @timer.on("event")
    async def handle(event: Event) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        async with event:
            try:
                if cast("int", event.payload) % 2:
                    await sim.sleep(10)
                if end == "raise":
                    raise ZeroDivisionError
            finally:
                # What merely waits for its confirm takes up no room (rule N2).
                running -= 1

    async with timer:
        await timer.post_many(Post(payload=n, delay=0, max_retries=1, retry=Retry(1_000)) for n in range(40))
        await sim.advance(900)
        assert dispatcher_of(timer).room() == 2

    assert most == 2
    assert (timer.counters.confirmed, len(errors)) == ((40, 0) if end == "return" else (0, 40))


async def test_posts_of_one_turn_travel_together_with_any_task_factory(sim: SimBackend) -> None:
    """Rule P5."""
    timer = DTimer(sim)
    before = (await sim.inspect()).seq
    async with asyncio.TaskGroup() as group:
        for n in range(10):
            group.create_task(timer.post(n, 1_000))

    calls = (await sim.inspect()).seq - before
    assert calls == 1


async def test_two_error_handlers_that_leave_do_not_wait_for_each_other(sim: SimBackend) -> None:
    timer = DTimer(sim)
    timer.on("event", lambda event: 1 / 0)
    left: list[float] = []

    @timer.on("error")
    async def leaves(error: DTimerError) -> None:
        await timer.leave(timeout=4)
        left.append((sim.now - start).total_seconds())

    await timer.join()
    await timer.post_many(Post(payload=n, delay=0) for n in range(3))
    start = sim.now
    await sim.advance(10_000)

    assert len(left) == 3
    assert max(left) < 1


async def test_a_panic_in_a_block_of_an_iterator_is_a_failure(sim: SimBackend) -> None:
    timer = DTimer(sim)
    await timer.join()
    await timer.post(1, 0, max_retries=1, retry=Retry(100))
    got: list[int] = []

    async def take() -> None:
        async with timer.events() as events:
            async for event in events:
                got.append(event.num_retries)
                try:
                    async with event:
                        if not event.num_retries:
                            raise Panic
                except Panic:
                    continue

    taking = asyncio.create_task(take())
    await sim.advance(1_000)
    await timer.leave()
    await taking

    assert got == [0, 1]


async def test_log_lines_of_the_kind_do_not_raise(sim: SimBackend, caplog: pytest.LogCaptureFixture) -> None:
    """Without an error handler, too."""
    timer = DTimer(sim)
    timer.on("event", lambda event: FAILURES["an error without a text"]())
    with caplog.at_level(logging.DEBUG):
        async with timer:
            await timer.post(1, 0)
            await sim.advance(0)

    assert any("raised" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("broken", ["filter", "handler"])
async def test_a_log_that_cannot_be_written_costs_nothing(
    sim: SimBackend, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Filters and handlers of the log are the application's; what they refuse goes to the standard error output."""
    dtimers = logging.getLogger("dtimer")

    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise Panic

    def refuses(record: logging.LogRecord) -> bool:
        raise Panic

    raising = Raising()
    (dtimers.addFilter if broken == "filter" else dtimers.addHandler)(
        cast("Any", refuses if broken == "filter" else raising)
    )
    done: list[Any] = []
    timer = DTimer(sim)

    @timer.on("event")
    def handle(event: Event) -> None:
        if event.payload == 0 and not event.num_retries:
            raise ZeroDivisionError
        done.append(event.payload)
        event.confirm()

    try:
        async with timer:
            await timer.post_many(Post(payload=n, delay=0, max_retries=1, retry=Retry(500)) for n in range(3))
            await sim.advance(1_000)
            assert timer.joined
    finally:
        dtimers.removeFilter(cast("Any", refuses))
        dtimers.removeHandler(raising)

    assert done == [1, 2, 0]
    assert "ZeroDivisionError" in capsys.readouterr().err
