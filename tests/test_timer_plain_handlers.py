"""Handlers that are plain functions: on the loop, which they may block, or in threads."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from contextvars import ContextVar
from typing import Any, cast

import pytest

from dtimer import (
    DTimer,
    DTimerError,
    Event,
    HandlerFailed,
    InvalidArgument,
    LoopBlocked,
    Post,
    RedisBackend,
    Retry,
    SimBackend,
)
from support.inside import dispatcher_of
from support.servers import Server
from support.waiting import until

pytestmark = pytest.mark.any_server


async def test_a_handler_that_blocks_the_loop_is_named_and_the_subscription_is_not_blamed(server: Server) -> None:
    """It was: what its node had not read yet was taken for not having been said."""
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend)
        errors: list[DTimerError] = []
        timer.on("error", errors.append)

        def blocks(event: Event) -> None:
            time.sleep(1.2)

        timer.on("event", blocks)
        async with timer:
            await timer.post_many(Post(payload=n, delay=0) for n in range(3))
            await until(lambda: timer.counters.delivered == 3)
            claims = timer.counters.claims
            await until(lambda: timer.counters.claims > claims)

        (error,) = errors
        assert isinstance(error, LoopBlocked)
        assert 1.2 <= error.blocked_s < 10
        assert "blocks of event" in str(error)
        assert timer.counters.loop_blocks == 3
        assert timer.counters.failed_subscriptions == 0


async def test_a_pulse_that_a_blocked_loop_has_not_read_yet_was_heard(server: Server) -> None:
    """Each event falls due while the one before blocks, so that a fallback claim brings it; its pulse comes with it,
    and is read only after the handler has blocked once more, when the next fallback claim is due (rule W1)."""
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend)
        errors: list[DTimerError] = []
        timer.on("error", errors.append)
        timer.on("event", lambda event: time.sleep(1.0))
        async with timer:
            await timer.post_many(Post(payload=n, delay=500 * n) for n in range(3))
            await until(lambda: timer.counters.delivered == 3)
            claims = timer.counters.claims
            await until(lambda: timer.counters.claims > claims)

        assert {type(error) for error in errors} == {LoopBlocked}
        assert timer.counters.failed_subscriptions == 0


async def test_a_loop_that_was_blocked_is_counted_once(server: Server) -> None:
    """By the handler that blocked it, not by the alarm as well that rang late because of it."""
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend, max_events=100)
        errors: list[DTimerError] = []
        timer.on("error", errors.append)
        # More than are handed out within the claim's own turn: the node has set its alarm when they are.
        timer.on("event", lambda event: time.sleep(1.6 if event.payload == 0 else 0))
        async with timer:
            await timer.post_many(Post(payload=n, delay=0) for n in range(40))
            await until(lambda: timer.counters.delivered == 40)
            claims = timer.counters.claims
            await until(lambda: timer.counters.claims > claims)

        assert "of event" in str(errors[0])
        assert timer.counters.loop_blocks == 1


async def test_a_coroutine_that_blocks_the_loop_is_noticed(server: Server) -> None:
    """By the lateness of the node's own alarm: not by name, and not to the full length."""
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend)
        errors: list[DTimerError] = []
        timer.on("error", errors.append)
        timer.on("event", print)
        async with timer:
            await until(lambda: timer.counters.pulses_heard)
            time.sleep(1.6)  # noqa: ASYNC251 - that is what blocks
            await until(lambda: errors)

        (error,) = errors
        assert isinstance(error, LoopBlocked)
        assert "or more" in str(error)
        assert timer.counters.failed_subscriptions == 0


async def test_plain_handlers_run_in_threads_if_that_is_asked_for(server: Server) -> None:
    """As many as there is room for; each with a context of its own; what one raises is its event's failure."""
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend, plain_handlers="thread", max_events=3)
        errors: list[DTimerError] = []
        timer.on("error", errors.append)
        user: ContextVar[Any] = ContextVar("user", default=None)
        together = threading.Barrier(3)
        seen: list[Any] = []
        threads: set[int] = set()

        def handle(event: Event) -> None:
            threads.add(threading.get_ident())
            together.wait(10)
            seen.append(user.get())
            user.set(event.payload)
            if event.payload == 4 and not event.num_retries:
                raise StopIteration
            if event.payload == 5 and not event.num_retries:
                raise asyncio.CancelledError
            event.confirm()

        async def coroutine(event: Event) -> None:
            threads.discard(threading.get_ident())

        timer.on("event", handle)
        timer.on("event", coroutine)
        async with timer:
            await timer.post_many(Post(payload=n, delay=0, max_retries=3, retry=Retry(10)) for n in range(7))
            await until(lambda: timer.counters.confirmed == 7)
            await until(lambda: dispatcher_of(timer).room() == 3)

        assert seen == [None] * 9
        assert threading.get_ident() not in threads
        assert {type(error) for error in errors} == {HandlerFailed}
        assert len(errors) == 2
        await until(lambda: not [thread for thread in threading.enumerate() if "dtimer handler" in thread.name])


async def test_a_thread_cannot_be_cancelled_and_leave_says_so(server: Server) -> None:
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend, plain_handlers="thread")
        errors: list[DTimerError] = []
        timer.on("error", errors.append)
        go_on = threading.Event()
        begun = threading.Event()

        def handle(event: Event) -> None:
            begun.set()
            go_on.wait(20)

        timer.on("event", handle)
        await timer.join()
        await timer.post(1, 0)
        await until(begun.is_set)
        await timer.leave(timeout=0.05)

        assert "runs on" in str(errors[-1])
        assert dispatcher_of(timer).room() == 7
        go_on.set()
        await until(lambda: dispatcher_of(timer).room() == 8)


async def test_a_thread_that_leaves_by_the_loop_is_not_waited_for(server: Server) -> None:
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend, plain_handlers="thread")
        errors: list[DTimerError] = []
        timer.on("error", errors.append)
        loop = asyncio.get_running_loop()
        left = threading.Event()

        def handle(event: Event) -> None:
            asyncio.run_coroutine_threadsafe(timer.leave(timeout=20), loop).result(30)
            left.set()

        timer.on("event", handle)
        await timer.join()
        await timer.post(1, 0)
        await until(left.is_set)

        assert (timer.joined, errors) == (False, [])


async def test_in_a_simulator_threads_are_none(sim: SimBackend) -> None:
    """So a test of such a handler is the same in every run."""
    timer = DTimer(sim, plain_handlers="thread")
    here: list[bool] = []

    def handle(event: Event) -> object:
        here.append(threading.current_thread() is threading.main_thread())
        event.confirm()
        return functools.partial(later, event)() if event.payload else None

    async def later(event: Event) -> None:
        here.append(True)

    timer.on("event", handle)
    async with timer:
        await timer.post_many(Post(payload=n, delay=10, max_retries=1) for n in range(2))
        await sim.advance(1_000)

    assert here == [True] * 3
    assert timer.counters.confirmed == 2


async def test_any_other_place_is_refused(sim: SimBackend) -> None:
    with pytest.raises(InvalidArgument, match="plain_handlers"):
        DTimer(sim, plain_handlers=cast("Any", "process"))
