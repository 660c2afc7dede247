"""Code that is not ours: handlers, codecs, what handlers return to be awaited. It may raise anything (rule F3).

Each call of it stands in a `try` with ``except BaseException``, which asks :func:`ends_the_program` or, where
something was awaited, :func:`ends_the_task` first. What neither of them names is a failure of the called code alone.

The raised object is foreign, too. Its type identifies it: `isinstance` would ask it for its ``__class__``.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeGuard, cast

from dtimer.safe_repr import name_of


def ends_the_program(error: BaseException) -> TypeGuard[KeyboardInterrupt | SystemExit]:
    """Whether asyncio itself lets it through everything, so that the program ends.

    A plain function cannot be cancelled: a CancelledError out of one comes from something that it looked at.
    """
    return issubclass(type(error), (KeyboardInterrupt, SystemExit))


def ends_the_task(error: BaseException, task: asyncio.Task[Any] | None = None) -> bool:
    """Whether it ends the program, or says that the running task is being cancelled or its coroutine closed.

    Args:
        task: the task that awaits. Only with it a GeneratorExit of the called code is distinguished from its own.
    """
    if issubclass(type(error), asyncio.CancelledError):
        running = _running_task()
        return running is not None and running.cancelling() > 0
    if issubclass(type(error), GeneratorExit):
        return task is None or _running_task() is not task
    return ends_the_program(error)


def is_outcome(error: BaseException) -> bool:
    """Whether a test runner has a meaning for it: of pytest's fail, skip, xfail and exit, or unittest's skip.

    By the name of the module: neither is imported for this.
    """
    names = [name_of(kind, whole=True) for kind in type.__getattribute__(type(error), "__mro__")]
    return any(name.startswith("_pytest.outcomes.") or name == "unittest.case.SkipTest" for name in names)


def _running_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # the loop is gone, and what was left in it is being closed
        return None


def is_coroutine_function(function: object) -> bool:
    """Whether calling it runs nothing yet: a coroutine function, or an object whose ``__call__`` is one."""
    return _is(inspect.iscoroutinefunction, function)


def is_generator_function(function: object) -> bool:
    """Whether calling it runs nothing, ever: it has a ``yield`` in it."""
    return _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function)


def _is(kind: Any, function: object) -> bool:
    while isinstance(function, partial):
        function = cast("object", function.func)
    return bool(kind(function) or kind(getattr(type(function), "__call__", None)))  # noqa: B004  # not whether it has one


def to_await(result: object) -> Coroutine[Any, Any, object] | None:
    """What a handler returned, if that must be awaited.

    Raises:
        TypeError: it is a generator, so that no line of the handler has run.
    """
    if result is None:  # as every plain function returns
        return None
    if inspect.iscoroutine(result):
        return result
    if inspect.isawaitable(result):
        return _awaiting(result)
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError("a handler must not yield: it returned a generator, and none of its code has run")
    return None


async def _awaiting(awaitable: Any) -> object:
    return await awaitable
