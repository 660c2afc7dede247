"""Where a task hangs, in words: the chain of its awaits, for the message of :class:`dtimer.sim.SimStuck`."""

from __future__ import annotations

from dtimer.sim.loop.chains import await_chain, place
from dtimer.sim.work import Hold


def whereabouts(hold: Hold) -> str:
    """The name of a piece of work and its place: the outermost frame first, the one that waits last."""
    task = hold.task
    if task is None:
        return f"{hold.name}: not in a task"
    if task.done():
        return f"{hold.name}: its task {task.get_name()!r} has ended without saying so"
    frames = await_chain(task)
    return "\n".join((f"{hold.name}, in task {task.get_name()!r}:", *(f"    {place(frame)}" for frame in frames)))
