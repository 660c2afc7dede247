"""Scenarios are run in a thread of their own, so that one that hangs can be told, and left behind.

Also when it blocks its event loop, where no timeout of asyncio would ever strike.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Final

from dtimer.sim.loop.chains import await_chain, place

LIMITS_MAX: Final = 10
"""The number of limits after which work counts as hanging though it goes on."""
GRACE_S: Final = 1.0
"""For a scenario that was cancelled to end."""
FRAMES_MAX: Final = 12
TASKS_MAX: Final = 6


class Hung(Exception):
    """It did not end in time. The message says where it is."""


class _Abandoned(BaseException):
    """Raised in a thread whose work nobody waits for any more."""


class Watched:
    """A piece of work in a thread.

    Attributes:
        loop: the event loop it runs at the moment.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None

    def run(self, work: Callable[[], None], *, limit_s: float, progress: Callable[[], int]) -> None:
        """Return when it has ended; what it raises is raised.

        Args:
            progress: how many steps of it have begun. Each may take the limit: a busy host makes many steps slow.

        Raises:
            Hung: it neither ended nor went on within the limit.
        """
        thread = threading.Thread(target=self._work, args=(work,), name="conformance: scenario", daemon=True)
        thread.start()
        for _ in range(LIMITS_MAX):
            begun = progress()
            thread.join(limit_s)
            if not thread.is_alive() or progress() == begun:
                break
        if thread.is_alive():
            whereabouts = self._stack_of(thread)
            self._abandon(thread)
            raise Hung(whereabouts)
        if self._error is not None:
            raise self._error

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            # Told to whoever waits, whatever it is: nobody else would hear of it.
            self._error = error

    def _stack_of(self, thread: threading.Thread) -> str:
        # Documented, and the only way to see another thread, whatever its underscore says.
        frame = sys._current_frames().get(thread.ident or 0)  # pyright: ignore[reportPrivateUsage]
        stack = traceback.extract_stack(frame)
        if not any(entry.filename.endswith("selectors.py") for entry in stack[-2:]):
            places = [f"  {entry.filename}:{entry.lineno} in {entry.name}" for entry in stack[-FRAMES_MAX:]]
            return "\n".join(["the event loop is blocked; its thread is at", *places])
        lines = ["the event loop waits; its tasks are at"]
        for task in self._tasks()[:TASKS_MAX]:
            lines += [f"  task {task.get_name()!r}:", *(f"    {place(frame)}" for frame in await_chain(task))]
        return "\n".join(lines)

    def _tasks(self) -> list[asyncio.Task[Any]]:
        loop = self.loop
        if loop is None:
            return []
        tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
        # The scenario's own task, which was first, says most.
        return sorted(tasks, key=lambda task: (task.get_name() != "conformance: scenario", task.get_name()))

    def _abandon(self, thread: threading.Thread) -> None:
        """Ask it to end; a thread cannot be made to."""
        loop = self.loop
        if loop is not None and not loop.is_closed():
            for task in self._tasks():
                loop.call_soon_threadsafe(task.cancel)
            thread.join(GRACE_S)
        if thread.is_alive() and thread.ident is not None:
            # Ends what runs Python code for ever; what waits in C does not notice, but needs no processor either.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_Abandoned))
            thread.join(GRACE_S)
