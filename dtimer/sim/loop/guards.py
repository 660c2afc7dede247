"""What is replaced in Python's own modules while a simulation runs, and put back after it.

Only for code on a simulated loop: other threads, and other loops, go through to the originals.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from dtimer.sim.errors import LEAVES, SimMisuse
from dtimer.sim.loop.refusals import SOCKETS, SUBPROCESSES, THREADS

if TYPE_CHECKING:
    from dtimer.sim.loop.loop import SimLoop

_lock: Final = threading.Lock()
_missing: Final = object()
_replaced: Final[list[tuple[Any, str, object, object]]] = []
"""Owner, name, what stood there, and what stands there now."""
_users = 0


@contextmanager
def guarded() -> Iterator[None]:
    """While this is entered, anywhere, the replacements stand."""
    global _users  # noqa: PLW0603 - how many loops run in all threads together
    with _lock:
        if not _users:
            _replace()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _put_back()


def _running() -> SimLoop | None:
    from dtimer.sim.loop.loop import SimLoop

    loop = asyncio._get_running_loop()
    return loop if isinstance(loop, SimLoop) else None


def _refuse(owner: Any, name: str, call: str, instead: str) -> tuple[Any, str, object]:
    original: Callable[..., object] = getattr(owner, name)

    def refuse(*args: Any, **options: Any) -> object:
        if _running() is not None:
            raise SimMisuse(call, LEAVES, instead)
        return original(*args, **options)

    return owner, name, refuse


def _all_tasks(original: Callable[..., set[asyncio.Task[Any]]]) -> Callable[..., set[asyncio.Task[Any]]]:
    def all_tasks(loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[Any]]:
        """The tasks of one process: who cancels all before it ends means its own."""
        running = _running()
        if running is None or loop not in {None, running}:
            return original(loop)
        return set(running.current.tasks)

    return all_tasks


def _ordered_set(items: Iterable[Any] = ()) -> Any:
    """In place of `set` in `asyncio.as_completed`, which would start coroutines in the order of their addresses."""
    items = list(items)
    if _running() is not None and any(asyncio.iscoroutine(item) for item in items):
        return dict.fromkeys(items)
    return set(items)


def _replacements() -> Iterator[tuple[Any, str, object]]:
    yield _refuse(time, "sleep", "time.sleep()", "real time does not pass; await asyncio.sleep()")
    yield _refuse(threading.Thread, "start", "threading.Thread.start()", THREADS)
    yield _refuse(subprocess.Popen, "__init__", "subprocess.Popen()", SUBPROCESSES)
    yield _refuse(socket.socket, "__init__", "socket.socket()", SOCKETS)
    all_tasks = _all_tasks(asyncio.all_tasks)
    yield asyncio, "all_tasks", all_tasks
    yield asyncio.tasks, "all_tasks", all_tasks
    yield asyncio.tasks, "set", _ordered_set


def _replace() -> None:
    for owner, name, replacement in _replacements():
        _replaced.append((owner, name, _own(owner, name), replacement))
        setattr(owner, name, replacement)


def _own(owner: Any, name: str) -> object:
    """What a module or class has by itself, not from a base class or from the built-in names."""
    return cast("dict[str, object]", vars(owner)).get(name, _missing)


def _put_back() -> None:
    while _replaced:
        owner, name, original, replacement = _replaced.pop()
        # Somebody else may have replaced it meanwhile, and is to put back what was found: that lets all through.
        if _own(owner, name) is not replacement:
            continue
        if original is _missing:
            delattr(owner, name)
        else:
            setattr(owner, name, original)
