"""Node processes that are killed or frozen at chosen moments, or at any (rules D1, D2, D7, E1, F2, N3, W5)."""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from dtimer import DTimer, Post
from dtimer.backends.redis import RedisBackend
from support.bounds import LATE_MS
from support.figures import Figure
from support.members import beside
from support.processes import START_TIMEOUT_S, NodeProcess, Said, node_process, node_processes
from support.servers import Server, StartServer
from support.waiting import TIMEOUT_S, until
from support.worlds import NAMESPACE

CONFIRM_TIMEOUT_S: Final = 1.0
MANY: Final = 50
MOMENTS: Final = {
    "after the claim, before the handler": "decoding",
    "in the handler": "handling",
    "in the handler's last line": "handled",
    "after the confirm": "confirmed",
}


def got(nodes: list[NodeProcess]) -> list[Said]:
    """What the nodes were given, in the order of the store's clock."""
    return sorted((said for node in nodes for said in node.got), key=lambda said: said["at"])


def strike(moment: str, number: signal.Signals, folder: Path) -> dict[str, Any]:
    """A payload that strikes whoever is given it first."""
    return {"strike": {"at": moment, "signal": number, "once": str(folder / "once")}}


async def empty(backend: RedisBackend) -> None:
    """Return when nothing is left to be done."""
    while (await backend.inspect()).value.live:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)


# --- at chosen moments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
async def test_a_node_killed_at_any_moment_loses_nothing_that_requires_a_confirm(
    one_server: Server, tmp_path: Path, moment: str, figure: Figure
) -> None:
    """Rules D1, D2 and D7: what was not confirmed comes again at its deadline, counted, to another node; what was
    confirmed does not. What the same claim brought beside it shares its fate; what is at most once is gone (F2)."""
    async with (
        node_processes(one_server.url, NAMESPACE, ["a", "b"], 8, CONFIRM_TIMEOUT_S) as nodes,
        beside(one_server) as other,
    ):
        timer = DTimer(other)
        await timer.post(strike(moment, signal.SIGKILL, tmp_path), 100, id="struck", max_retries=2)
        await until(lambda: any(node.said_of("struck") for node in nodes))
        victim, survivor = sorted(nodes, key=lambda node: not node.said_of("struck"))
        await victim.process.wait()
        if moment != "confirmed":
            await until(lambda: survivor.said_of("confirmed"))
        await asyncio.wait_for(empty(other), TIMEOUT_S)
        again = [said for said in survivor.got if said["id"] == "struck"]

        assert victim.process.returncode == -signal.SIGKILL
        assert [said["num_retries"] for said in again] == ([] if moment == "confirmed" else [1])
        for said in again:
            figure(lateness_ms=said["lateness_ms"])
            assert 0 <= said["lateness_ms"] < LATE_MS


@pytest.mark.once
async def test_a_node_killed_while_its_claim_is_under_way_loses_only_what_is_at_most_once(
    one_private_server: StartServer, figure: Figure
) -> None:
    """Rule F2: the server executes the claim of a dead process. What requires a confirm comes again at its deadline."""
    server = one_private_server()
    async with (
        node_processes(server.url, NAMESPACE, ["a"], 8, CONFIRM_TIMEOUT_S) as (victim,),
        beside(server) as other,
    ):
        await DTimer(other).post_many(
            [Post(payload={}, delay=300, id="tracked", max_retries=2), Post(payload={}, delay=300, id="once")]
        )
        server.pause()
        # Due meanwhile: the node asks, and the question waits in the server's socket.
        await asyncio.sleep(1.2)
        await victim.kill()
        server.resume()
        async with node_process(server.url, NAMESPACE, "b", 8, CONFIRM_TIMEOUT_S) as survivor:
            await until(lambda: survivor.ready, timeout_s=START_TIMEOUT_S)
            await until(lambda: survivor.said_of("confirmed"))
            (again,) = survivor.got
            await asyncio.wait_for(empty(other), TIMEOUT_S)

    figure(lateness_ms=again["lateness_ms"])
    assert not victim.got
    assert (again["id"], again["num_retries"]) == ("tracked", 1)
    assert again["lateness_ms"] >= 0
    assert survivor.lateness_ms(again) < LATE_MS


@pytest.mark.once
@pytest.mark.parametrize("moment", ["decoding", "handling", "handled"])
async def test_a_frozen_node_loses_its_delivery_and_cannot_end_the_retry(
    one_server: Server, tmp_path: Path, moment: str
) -> None:
    """Rules D1 and E1: past the deadline another node gets the event; thawed, the first one goes on with its handler,
    and its confirm changes nothing. Whoever is last told of the event confirms it."""
    async with (
        node_processes(one_server.url, NAMESPACE, ["a", "b"], 8, CONFIRM_TIMEOUT_S) as nodes,
        beside(one_server) as other,
    ):
        payload = {"sleep": 0.5, **strike(moment, signal.SIGSTOP, tmp_path)}
        await DTimer(other).post(payload, 0, id="e", max_retries=2, confirm_timeout=1.5)
        await until(lambda: any(node.said_of("struck") for node in nodes))
        frozen, other_node = sorted(nodes, key=lambda node: not node.said_of("struck"))
        await until(lambda: other_node.got)
        frozen.thaw()
        await until(lambda: frozen.said_of("refused") and other_node.said_of("confirmed"))

        assert sorted((said["number"], said["num_retries"]) for said in got(nodes)) == [(1, 0), (2, 1)]
        assert next(said["outcome"] for said in frozen.said_of("refused")) in {"stale", "not_found"}
        assert not frozen.said_of("confirmed")


@pytest.mark.once
async def test_a_frozen_node_that_thaws_in_time_still_ends_its_event(one_server: Server, tmp_path: Path) -> None:
    """Rule E1: also past its deadline, as long as nobody has claimed it again; nobody else is here."""
    async with (
        node_processes(one_server.url, NAMESPACE, ["a"], 8, CONFIRM_TIMEOUT_S) as (node,),
        beside(one_server) as other,
    ):
        await DTimer(other).post(strike("handled", signal.SIGSTOP, tmp_path), 0, id="e", max_retries=1)
        await until(lambda: node.said_of("struck"))
        deadline = node.got[0]["at"] + CONFIRM_TIMEOUT_S
        while (await other.open()).at_us < (deadline + 0.2) * 1e6:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)
        node.thaw()
        await until(lambda: node.said_of("confirmed") or len(node.got) > 1)

        assert len(node.got) == 1
        assert node.said_of("confirmed")


# --- many at once --------------------------------------------------------------------------------------------------


async def crowd(stack: AsyncExitStack, url: str, groups: list[str]) -> list[NodeProcess]:
    """Processes with several nodes each, all joined."""
    processes = [
        await stack.enter_async_context(node_process(url, NAMESPACE, group, 8, CONFIRM_TIMEOUT_S)) for group in groups
    ]
    await until(lambda: all(process.ready for process in processes), timeout_s=START_TIMEOUT_S)
    return processes


async def killed(process: NodeProcess) -> None:
    await process.kill()


async def frozen(process: NodeProcess) -> None:
    process.freeze()


@pytest.mark.once
@pytest.mark.parametrize("struck", [killed, frozen])
async def test_with_49_of_50_nodes_gone_at_once_no_event_waits_longer(
    one_server: Server, struck: Callable[[NodeProcess], Awaitable[None]], figure: Figure
) -> None:
    """Rules D7, W1 and W5: the bound of a second depends neither on how many there were nor on which of them was armed,
    for first deliveries and for retries. A frozen node, whose connection still counts as a listener, costs one event
    that; so here each may."""
    names = [f"n{number}" for number in range(MANY)]
    groups = [",".join(names[first : first + 13]) for first in range(1, MANY, 13)]
    async with AsyncExitStack() as stack, beside(one_server) as other:
        *doomed, survivor = await crowd(stack, one_server.url, [*groups, names[0]])
        later: list[Post] = [Post(payload={}, delay=4_000 + 150 * n, id=f"later{n}", max_retries=5) for n in range(20)]
        # Nobody confirms the first delivery, so all of these come again.
        retried: list[Post] = [Post(payload={"forget": 1}, delay=0, id=f"retried{n}", max_retries=5) for n in range(40)]
        await DTimer(other).post_many([*later, *retried])
        await until(lambda: len(got([*doomed, survivor])) >= len(retried))
        await asyncio.gather(*map(struck, doomed))
        before = len(survivor.got)
        await asyncio.wait_for(empty(other), TIMEOUT_S)
        late = [said["lateness_ms"] for said in survivor.got[before:]]
        figure(worst_lateness_ms=max(late), median_lateness_ms=statistics.median(late), events=len(late))

        await left([survivor])
        assert sorted(confirmed_by([*doomed, survivor])) == sorted(str(post.id) for post in [*later, *retried])
        assert len(late) > len(retried)
        assert min(late) >= 0
        assert max(late) < LATE_MS


@pytest.mark.once
async def test_nodes_killed_at_random_lose_nothing_and_delay_nothing_beyond_the_bound(
    one_server: Server, figure: Figure
) -> None:
    """Rules D1, D2, D7 and N3: thirty nodes in six processes, one of which is killed or frozen as soon as the last such
    is replaced. Each event ends by one confirm, no attempt is made twice, none is early, none is late."""
    chance = random.Random(7)
    num_events = 300
    async with AsyncExitStack() as stack, beside(one_server) as other:
        groups = [",".join(f"p{number}n{node}" for node in range(5)) for number in range(6)]
        alive = await crowd(stack, one_server.url, groups)
        every = [*alive]
        timer = DTimer(other)
        await timer.post_many(
            Post(payload={"sleep": 0.15}, delay=chance.uniform(0, 4_000), id=str(n), max_retries=50)
            for n in range(num_events)
        )
        for number in range(8):
            victim = alive.pop(chance.randrange(len(alive)))
            await (killed if chance.random() < 0.7 else frozen)(victim)
            group = ",".join(f"q{number}n{node}" for node in range(5))
            alive.append(await stack.enter_async_context(node_process(one_server.url, NAMESPACE, group, 8, 1.0)))
            every.append(alive[-1])
            await until(lambda: alive[-1].ready, timeout_s=START_TIMEOUT_S)
        await asyncio.wait_for(empty(other), TIMEOUT_S)
        await left(alive)
        deliveries = got(every)
        late = [said["lateness_ms"] for said in deliveries]
        figure(
            worst_lateness_ms=max(late),
            median_lateness_ms=statistics.median(late),
            deliveries=len(late),
            events=num_events,
        )

        assert {said["id"] for said in deliveries} == {str(n) for n in range(num_events)}
        assert max(Counter((said["id"], said["num_retries"]) for said in deliveries).values()) == 1
        assert max(Counter(confirmed_by(every)).values()) == 1
        assert min(late) >= 0
        assert max(late) < LATE_MS


async def left(processes: list[NodeProcess]) -> None:
    """They have said all they had to say. Who is still starting does not know yet how to leave."""
    await until(lambda: all(process.ready for process in processes), timeout_s=START_TIMEOUT_S)
    await asyncio.gather(*(process.terminate() for process in processes))
    await until(lambda: all(process.said_of("left") for process in processes))


def confirmed_by(processes: list[NodeProcess]) -> list[str]:
    return [said["id"] for process in processes for said in process.said_of("confirmed")]
