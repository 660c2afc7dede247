"""Processes that are asked to leave (SIGTERM) with events in their hands, and those that cannot say so (N1, W4)."""

from __future__ import annotations

from collections import Counter

import pytest

from dtimer import DTimer, NodeDisturbed, Post
from support.bounds import LATE_MS
from support.figures import Figure
from support.members import beside
from support.processes import START_TIMEOUT_S, node_process, node_processes
from support.proxy import Proxy
from support.servers import Server
from support.waiting import until
from support.worlds import NAMESPACE

NUM_EVENTS = 120


@pytest.mark.once
async def test_processes_that_leave_one_after_the_other_lose_nothing_and_repeat_nothing(
    one_server: Server, figure: Figure
) -> None:
    """Rule N1, a rolling restart: running handlers end and confirm, what was just claimed goes back uncounted, the arm
    is handed on; so every event, also one that requires no confirm, is delivered just once, and none of them late."""
    async with (
        node_processes(one_server.url, NAMESPACE, ["a0", "b0", "c0"], 8, 10) as first,
        beside(one_server) as other,
    ):
        await DTimer(other).post_many(
            Post(payload={"sleep": 0.1}, delay=25 * n, id=str(n), max_retries=n % 2) for n in range(NUM_EVENTS)
        )
        every = [*first]
        async with (
            node_process(one_server.url, NAMESPACE, "a1", 8, 10) as a,
            node_process(one_server.url, NAMESPACE, "b1", 8, 10) as b,
            node_process(one_server.url, NAMESPACE, "c1", 8, 10) as c,
        ):
            for old, new in zip(first, (a, b, c), strict=True):
                every.append(new)
                await until(lambda new=new: new.ready, timeout_s=START_TIMEOUT_S)  # type: ignore[misc]
                assert await old.terminate() == 0
            await until(lambda: sum(len(node.got) for node in every) >= NUM_EVENTS)
            for node in (a, b, c):
                assert await node.terminate() == 0
            await until(lambda: all(node.said_of("left") for node in every))
        got = [said for node in every for said in node.got]
        figure(worst_lateness_ms=max(said["lateness_ms"] for said in got))

        assert Counter(said["id"] for said in got) == Counter(map(str, range(NUM_EVENTS)))
        assert not any(said["num_retries"] for said in got)
        assert sum(len(node.said_of("confirmed")) for node in every) == NUM_EVENTS // 2
        assert max(said["lateness_ms"] for said in got) < LATE_MS
        assert min(said["lateness_ms"] for said in got) >= 0
        assert not [error for node in every for error in node.errors]
        shown = (await other.inspect()).value
        assert not shown.live
        assert not shown.ring


@pytest.mark.once
async def test_a_process_that_cannot_tell_its_store_leaves_all_the_same(one_server: Server) -> None:
    """Rule N1: it says so and ends in a bounded time; what it held comes to the others at its deadline, counted."""
    async with (
        Proxy(one_server.port) as proxy,
        beside(one_server) as other,
        node_process(f"redis://{proxy.host}:{proxy.port}", NAMESPACE, "a", 8, 1) as leaving,
    ):
        await until(lambda: leaving.ready, timeout_s=START_TIMEOUT_S)
        await DTimer(other).post({"sleep": 0.5}, 0, id="e", max_retries=3)
        await until(lambda: leaving.got)
        proxy.refusing = True
        proxy.cut()
        async with node_process(one_server.url, NAMESPACE, "b", 8, 1) as staying:
            assert await leaving.terminate() == 0
            await until(lambda: staying.ready, timeout_s=START_TIMEOUT_S)
            await until(lambda: leaving.said_of("left") and staying.said_of("confirmed"))

        assert NodeDisturbed.__name__ in leaving.errors
        assert [(said["id"], said["num_retries"]) for said in staying.got] == [("e", 1)]
        assert staying.lateness_ms(staying.got[0]) < LATE_MS
