"""The end of a killed process: its coroutines are closed, and nobody else notices.

A process that is killed does nothing any more, but Python has no way to drop a suspended coroutine without running its
`finally` blocks; at the latest, the garbage collector would run them, at a moment of its own. So they run now, in the
order in which the tasks were started, and with every effect on the loop made void.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from types import CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final

from dtimer.sim.loop.chains import GENERATOR_STEPS, links
from dtimer.sim.loop.handles import SimHandle, SimTimer

if TYPE_CHECKING:
    from dtimer.sim.loop.loop import SimLoop
    from dtimer.sim.loop.process import Process

TRIES_MAX: Final = 100
"""A coroutine that goes on waiting when it is to end is told so often."""

ENDED: Final = (CoroutineType, GeneratorType, *GENERATOR_STEPS)
"""A step of an asynchronous generator ends the generator. Until Python 3.13 closing it would not have."""


def bury(process: Process) -> None:
    """Close all that is suspended in a process."""
    with _without_effect(process.loop):
        process.context.copy().run(_close_all, process)
    process.buried = True


def _close_all(process: Process) -> None:
    for _ in range(TRIES_MAX):
        # What is closed may start more.
        tasks = process.take_tasks()
        if not tasks:
            break
        for task in tasks:
            task.never_ends()
            asyncio.tasks._unregister_task(task)
            _close_chain(task.get_coro())
    for generator in process.take_generators():
        # One that no task of its own waits for is dropped as it is, but what it waits for would be closed then.
        _close_chain(getattr(generator, "ag_await", None))


def _close_chain(outermost: object) -> None:
    """End a coroutine and all that it waits for, from the inside, as an error would come."""
    for link in reversed(links(outermost)):
        if isinstance(link, ENDED):
            _end(link)


def _end(suspended: Any) -> None:
    for _ in range(TRIES_MAX):
        try:
            suspended.throw(GeneratorExit)
        except KeyboardInterrupt:
            raise
        except BaseException:
            return
        # It went on to wait, in a `finally` most likely: so it is ended again at that place.
    _keep_for_ever(suspended)


def _keep_for_ever(suspended: object) -> None:
    """One that would not end must not be dropped either, not even by Python at its exit: it would go on for ever."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(suspended))


@contextmanager
def _without_effect(loop: SimLoop) -> Iterator[None]:
    """Calls of the loop, and of its tasks and futures, succeed and do nothing."""

    def call_soon(callback: Callable[..., object], *args: Any, context: Context | None = None) -> SimHandle:
        return SimHandle(callback, args, context or copy_context())

    def set_timer(_: object, callback: Callable[..., object], *args: Any, context: Context | None = None) -> SimTimer:
        return SimTimer(None, callback, args, context or copy_context(), loop.current, 0)

    void = {
        "call_soon": call_soon,
        "call_soon_threadsafe": call_soon,
        "call_later": set_timer,
        "call_at": set_timer,
        "call_at_us": set_timer,
        "call_exception_handler": bool,
        "stop": tuple,
    }
    unraisable = sys.unraisablehook
    vars(loop).update(void)
    loop.burying = True
    # Built in, and harmless with any one argument.
    sys.unraisablehook = bool
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = unraisable
        loop.burying = False
        for name in void:
            del vars(loop)[name]
