"""Where calls come from: an event loop in a process, and what belongs to just one of them (rule F8).

Futures, tasks, locks and sockets of asyncio serve the loop that made them.
A forked process has copies of them, and of the loop's poll set even the very one that its parent waits on:
to close a connection in the child as usual would stop the parent from receiving.
So what a process inherits is neither used nor closed, but kept until the process ends.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from dtimer.errors import WrongProcessOrLoop

T = TypeVar("T")


_owners: Final[weakref.WeakKeyDictionary[object, Callable[[Any], None]]] = weakref.WeakKeyDictionary()
_inherited: Final[list[object]] = []


class _Process:
    """The running process, known by an object's identity: that costs less than asking the system for a process id."""

    current: object = object()


def after_fork(owner: T, reset: Callable[[T], None]) -> None:
    """Call this in a child, right after the fork, when no other thread runs yet, and no event loop.

    This does not keep the owner alive.
    """
    _owners[owner] = reset


def keep_alive(thing: object) -> None:
    """Keep an object of the parent process: collecting it here would close what it holds."""
    _inherited.append(thing)


def _forked() -> None:
    _Process.current = object()
    for owner, reset in tuple(_owners.items()):
        reset(owner)


if hasattr(os, "register_at_fork"):  # everywhere but on Windows
    os.register_at_fork(after_in_child=_forked)


def _no_loop() -> None:
    return None


class LoopRef:
    """One event loop in one process. It keeps no loop alive."""

    __slots__ = ("_loop", "_process")

    def __init__(self) -> None:
        """That of the caller. Raises a RuntimeError where no loop runs."""
        self._loop: Callable[[], asyncio.AbstractEventLoop | None] = weakref.ref(asyncio.get_running_loop())
        self._process = _Process.current

    @classmethod
    def nowhere(cls) -> LoopRef:
        """In this process, and in no loop yet."""
        home = cls.__new__(cls)
        home._loop, home._process = _no_loop, _Process.current
        return home

    def is_here(self) -> bool:
        """Whether the caller is in it; False where no loop runs."""
        try:
            return asyncio.get_running_loop() is self._loop() and self._process is _Process.current
        except RuntimeError:
            return False

    @property
    def inherited(self) -> bool:
        """It is in the process that this one was forked from."""
        return self._process is not _Process.current

    @property
    def lives(self) -> bool:
        """It is in this process, and its loop is not closed."""
        loop = self._loop()
        return not self.inherited and loop is not None and not loop.is_closed()

    @property
    def ended(self) -> bool:
        """It was in a loop that is closed or gone, of this process."""
        return self._loop is not _no_loop and not self.inherited and not self.lives

    @property
    def runs(self) -> bool:
        """Its loop is running, perhaps in another thread."""
        loop = self._loop()
        return not self.inherited and loop is not None and loop.is_running()

    def call_soon(self, callback: Callable[[], object]) -> bool:
        """Call back in its loop, from any thread; False if there is no such loop any more."""
        loop = self._loop()
        if loop is None or self.inherited:
            return False
        try:
            loop.call_soon_threadsafe(callback)
        except RuntimeError:  # it is closed
            return False
        return True


class LoopAffinity:
    """Where a thing is used that serves one event loop only; None as its `home` if it serves none yet."""

    def __init__(self, what: str) -> None:
        """
        Args:
            what: stands in errors.
        """
        self.home: LoopRef | None = None
        self._what = what
        self._over = False

    @property
    def lives(self) -> bool:
        return self.home is not None and self.home.lives

    def end(self) -> None:
        """It is used nowhere any more."""
        self._over = True

    def check(self) -> None:
        """Raises WrongProcessOrLoop anywhere else."""
        home = self.home
        if not self._over and (home is None or home.is_here()):
            return
        other = "process" if home is None or home.inherited else "event loop"
        raise WrongProcessOrLoop(f"{self._what} serves another {other}")


class LoopLocal(Generic[T]):
    """One thing for each event loop, made at its first use there. Any thread may ask."""

    def __init__(self, make: Callable[[], T], dispose: Callable[[T], None] | None = None) -> None:
        """
        Args:
            make: called in the loop.
            dispose: called from anywhere with the thing of a loop that was closed meanwhile.
        """
        self._make = make
        self._dispose = dispose
        self._reset()
        after_fork(self, lambda each: each._forked())

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._things: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[LoopRef, T]] = (
            weakref.WeakKeyDictionary()
        )
        # That of the last caller: most programs have one loop, and should not pay for more.
        self._last: tuple[weakref.ref[asyncio.AbstractEventLoop], T] | None = None

    def _forked(self) -> None:
        keep_alive((self._things, self._last))
        self._reset()

    def here(self) -> T:
        """That of the running loop."""
        loop = asyncio.get_running_loop()
        last = self._last
        if last is not None and last[0]() is loop:
            return last[1]
        with self._lock:
            found = self._things.get(loop)
            if found is None:
                self._dispose_closed()
                found = self._things[loop] = LoopRef(), self._make()
        self._last = weakref.ref(loop), found[1]
        return found[1]

    def all(self) -> list[tuple[LoopRef, T]]:
        """Those of the loops that are not closed."""
        with self._lock:
            self._dispose_closed()
            return list(self._things.values())

    def _dispose_closed(self) -> None:
        for loop in [loop for loop in self._things if loop.is_closed()]:
            _, thing = self._things.pop(loop)
            if self._dispose is not None:
                self._dispose(thing)
