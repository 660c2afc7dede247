"""Calls of a timer that were cancelled, and tasks of a node that ended (rules N1 and N4)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from dtimer import DTimer, DTimerError, Event, NodeDisturbed, NodeStopped, SimBackend, StoreRefused
from node.watched import Watched
from support.eager import task_factory

__all__ = ["task_factory"]


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


@pytest.fixture
def watched(sim: SimBackend) -> Watched:
    return Watched(sim)


def handling(timer: DTimer) -> tuple[list[Any], list[DTimerError]]:
    done: list[Any] = []
    errors: list[DTimerError] = []
    timer.on("event", lambda event: done.append(event.payload))
    timer.on("error", errors.append)
    return done, errors


async def turns(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("operation", ["claim", "leave"])
async def test_a_leave_that_was_cancelled_leaves_a_timer_that_can_join(
    sim: SimBackend, watched: Watched, operation: str
) -> None:
    timer = DTimer(watched)
    done, errors = handling(timer)
    await timer.join()
    await turns()
    release = watched.hold(operation)
    if operation == "claim":
        await timer.post("due", 0)
        await turns()
    leaving = asyncio.create_task(timer.leave())
    await turns()
    leaving.cancel()
    await turns()
    assert (leaving.cancelled(), timer.joined) == (True, False)
    release.set()

    await timer.join()
    await timer.post("later", 0)
    await sim.advance(100)

    assert done[-1] == "later"
    await timer.leave()
    assert not (await sim.inspect()).value.ring
    assert errors == []


async def test_a_timer_all_of_whose_tasks_were_cancelled_says_so_and_can_join(
    sim: SimBackend, watched: Watched
) -> None:
    timer = DTimer(watched)
    done, errors = handling(timer)
    await timer.join()
    await turns()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await turns()
    assert not timer.joined
    assert [type(error) for error in errors] == [NodeStopped]
    assert "cancelled" in str(errors[0])

    await timer.join()
    await timer.post("later", 0)
    await sim.advance(100)

    assert done == ["later"]
    await timer.leave()
    assert not (await sim.inspect()).value.ring


@pytest.mark.parametrize("then", ["leave", "join", "join again"])
async def test_a_join_that_was_cancelled_after_it_was_applied_leaves_no_ghost(
    sim: SimBackend, watched: Watched, then: str
) -> None:
    timer = DTimer(watched)
    done, _ = handling(timer)
    release = watched.hold("join")
    joining = asyncio.create_task(timer.join())
    await turns()
    assert len((await sim.inspect()).value.ring) == 1
    joining.cancel()
    await turns()
    assert (joining.cancelled(), timer.joined) == (True, False)
    release.set()

    if then != "leave":
        await timer.join()
        await timer.post("later", 0)
        await sim.advance(100)
        assert done == ["later"]
    await timer.leave()

    assert not (await sim.inspect()).value.ring


async def test_a_join_that_was_refused_leaves_nothing_to_tell(sim: SimBackend, watched: Watched) -> None:
    timer = DTimer(watched)
    watched.fail("join", StoreRefused)
    with pytest.raises(StoreRefused):
        await timer.join()
    await timer.leave()

    assert not watched.count("leave")


@pytest.mark.parametrize("error", [asyncio.CancelledError, ZeroDivisionError, BaseException])
async def test_whatever_a_backend_raises_the_node_claims_on(
    sim: SimBackend, watched: Watched, error: type[BaseException]
) -> None:
    """Rule N4: also a CancelledError that was not meant for the node's task."""
    timer = DTimer(watched)
    done, errors = handling(timer)
    await timer.join()
    await turns()
    watched.fail("claim", cast("Any", lambda operation, problem: error()))
    await timer.post("due", 0)
    await sim.advance(1_000)

    assert done == ["due"]
    assert timer.joined
    assert [type(error) for error in errors] == [NodeDisturbed]
    await timer.leave()


async def test_a_closed_backend_ends_the_node(sim: SimBackend) -> None:
    """It is closed for good, so nothing is to be tried again."""
    timer = DTimer(sim)
    _, errors = handling(timer)
    ended: list[str] = []
    await timer.join()
    await sim.advance(10)
    await sim.close()
    await sim.advance(10)

    assert not timer.joined
    assert isinstance(errors[-1], NodeStopped)
    assert "closed" in str(errors[-1])
    assert [task for task in asyncio.all_tasks() if "node" in task.get_name()] == []
    await timer.leave()
    assert not ended


async def test_a_closed_backend_ends_the_subscription_of_a_node_that_has_stopped_before(sim: SimBackend) -> None:
    """Its claiming was cancelled, so that it does not hear that all is over; its subscription would ask on and on."""
    timer = DTimer(sim)
    handling(timer)
    await timer.join()
    await turns()
    (claiming,) = [task for task in asyncio.all_tasks() if task.get_name() == f"dtimer: node {timer.node_id}"]
    claiming.cancel()
    await turns()
    assert not timer.joined

    await sim.close()
    await sim.advance(10_000)

    assert [task.get_name() for task in asyncio.all_tasks() if "node" in task.get_name()] == []


async def test_iterators_of_a_node_whose_backend_was_closed_come_to_their_end(sim: SimBackend) -> None:
    timer = DTimer(sim)
    await timer.join()
    got: list[Event] = []

    async def take() -> None:
        async for event in timer.events():
            got.append(event)

    taking = asyncio.create_task(take())
    await sim.advance(10)
    await sim.close()
    await sim.advance(10)
    await taking

    assert got == []
