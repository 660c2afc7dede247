"""``dtimer demo``: the main promises, shown on a real server with real processes and real delays, and checked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Final

from attrs import define, field

from dtimer import CancelOutcome, ChangeOutcome, DTimer, DTimerError, JsonValue
from dtimer.backends.redis import EmbeddedServer, RedisBackend
from dtimer.cli.display import Display, Said, open_display

NODES: Final = ("ann", "bob", "cat")
PATIENCE_S: Final = 12.0
"""The longest that one scene may take; all five together stay under 40 s."""


@define
class Seen:
    """What the nodes have said so far."""

    ready: set[str] = field(factory=set)
    got: list[Said] = field(factory=list)
    confirmed: Counter[str] = field(factory=Counter)
    news: asyncio.Event = field(factory=asyncio.Event)
    started_s: float = field(factory=time.monotonic)

    def takers(self, prefix: str) -> list[str]:
        return [event.node for event in self.got if event.id.startswith(prefix)]

    def retries(self, id: str) -> list[int]:
        return [event.num_retries for event in self.got if event.id == id]

    async def until(self, condition: Callable[[], bool]) -> bool:
        """Wait until it holds; False if it does not within the patience of a scene."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while not condition():
                    self.news.clear()
                    await self.news.wait()
        return condition()


@define
class Demo:
    """The scenes, one after the other."""

    timer: DTimer[JsonValue]
    nodes: dict[str, asyncio.subprocess.Process]
    seen: Seen
    display: Display
    failures: list[str] = field(factory=list)

    async def play(self) -> None:
        await self.round_robin()
        await self.comes_back()
        await self.cancel_and_change()
        await self.kill_a_node()

    async def round_robin(self) -> None:
        self.display.scene("Round robin: 12 events, one at a time")
        for number in range(12):
            await self.timer.post({}, 300 + 200 * number, id=f"round-{number}")
        await self.seen.until(lambda: len(self.seen.takers("round-")) >= 12)
        takers = self.seen.takers("round-")
        in_turn = all(takers[place] == takers[place + 3] for place in range(len(takers) - 3))
        all_three = len(takers) == 12 and len(set(takers)) == 3
        self.check(all_three and in_turn, f"each node in its turn: {' '.join(takers)}")

    async def comes_back(self) -> None:
        self.display.scene("Not confirmed: the event comes back after its confirm timeout of 1 s")
        await self.timer.post({"forget": True}, 200, id="forgotten", max_retries=2, confirm_timeout=1)
        await self.seen.until(lambda: self.seen.confirmed["forgotten"] > 0)
        self.check(
            self.seen.retries("forgotten") == [0, 1] and self.seen.confirmed["forgotten"] == 1,
            f"delivered with num_retries {self.seen.retries('forgotten')}, then confirmed",
        )

    async def cancel_and_change(self) -> None:
        self.display.scene("Cancel one, bring another forward")
        await self.timer.post({}, 600, id="cancelled")
        await self.timer.post({}, 60_000, id="brought-forward")
        cancelled = await self.timer.cancel("cancelled")
        changed = await self.timer.change_delay("brought-forward", 800)
        await self.seen.until(lambda: bool(self.seen.retries("brought-forward")))
        self.check(
            cancelled is CancelOutcome.CANCELLED and not self.seen.retries("cancelled"),
            "the cancelled event never came, though its time is past",
        )
        self.check(
            changed is ChangeOutcome.MOVED and self.seen.retries("brought-forward") == [0],
            "the event of one minute came after 0.8 s",
        )

    async def kill_a_node(self) -> None:
        victim = NODES[0]
        self.display.scene(f"kill -9 {victim}, with work in hand")
        ids = [f"survivor-{number}" for number in range(9)]
        for number, id in enumerate(ids):
            await self.timer.post({"work_ms": 600}, 200 + 250 * number, id=id, max_retries=2, confirm_timeout=2)
        await self.seen.until(lambda: victim in self.seen.takers("survivor-"))
        self.nodes[victim].kill()
        await self.nodes[victim].wait()
        self.display.note(f"{victim} is dead")
        await self.seen.until(lambda: all(self.seen.confirmed[id] for id in ids))
        again = sum(self.seen.retries(id)[-1:] == [1] for id in ids)
        self.check(
            all(self.seen.confirmed[id] == 1 for id in ids) and again > 0,
            f"all {len(ids)} events were confirmed, each once; {again} of them had died with {victim} and came again",
        )

    def check(self, holds: bool, what: str) -> None:
        self.display.verdict(holds, what)
        if not holds:
            self.failures.append(what)

    def summary(self) -> None:
        lateness_ms = sorted(event.lateness_ms for event in self.seen.got)
        if not lateness_ms:
            return
        p99 = lateness_ms[int(len(lateness_ms) * 0.99)]
        by_node = Counter(event.node for event in self.seen.got)
        self.display.summary(
            {
                "deliveries": f"{len(lateness_ms)} ({', '.join(f'{node} {by_node[node]}' for node in NODES)})",
                "of them again": str(sum(event.num_retries > 0 for event in self.seen.got)),
                "confirmed": str(sum(self.seen.confirmed.values())),
                "lateness p50": f"{statistics.median(lateness_ms):.1f} ms",
                "lateness p99": f"{p99:.1f} ms",
                "lateness max": f"{lateness_ms[-1]:.1f} ms",
                "wrong": str(len(self.failures)),
            }
        )


def run_demo(redis_url: str | None) -> int:
    """Run it; 0 if everything came out as promised."""
    with open_display() as display:
        try:
            return asyncio.run(_run(redis_url, display))
        except KeyboardInterrupt:
            return 130
        except DTimerError as error:
            print(f"dtimer demo: {error}", file=sys.stderr)
            return 2


async def _run(redis_url: str | None, display: Display) -> int:
    namespace = f"demo-{secrets.token_hex(4)}"
    async with contextlib.AsyncExitStack() as stack:
        if redis_url is None:
            server = await stack.enter_async_context(EmbeddedServer(stack.enter_context(tempfile.TemporaryDirectory())))
            redis_url = server.url
            display.note(f"an embedded Valkey listens at {redis_url}")
        backend = await stack.enter_async_context(RedisBackend.from_url(redis_url, namespace))
        stack.push_async_callback(backend.purge)
        seen = Seen()
        nodes: dict[str, asyncio.subprocess.Process] = {}
        for node in NODES:
            nodes[node] = await stack.enter_async_context(_node(redis_url, namespace, node, seen, display))
            # One after the other, so that the ring is in the order of the names.
            await seen.until(lambda: len(seen.ready) == len(nodes))
        demo = Demo(DTimer(backend), nodes, seen, display)
        demo.check(seen.ready == set(NODES), "three node processes have joined")
        if not demo.failures:
            await demo.play()
        demo.summary()
    return 1 if demo.failures else 0


@contextlib.asynccontextmanager
async def _node(
    url: str, namespace: str, name: str, seen: Seen, display: Display
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A node process, listened to; it leaves and is waited for at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "dtimer.cli.demo_node", url, namespace, name, stdout=asyncio.subprocess.PIPE
    )
    listening = asyncio.create_task(_listen(process, seen, display))
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await listening


async def _listen(process: asyncio.subprocess.Process, seen: Seen, display: Display) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        said = json.loads(line)
        if said["what"] == "ready":
            seen.ready.add(said["node"])
        else:
            event = Said(at_s=time.monotonic() - seen.started_s, **said)
            if event.what == "got":
                seen.got.append(event)
            elif event.what == "confirmed":
                seen.confirmed[event.id] += 1
            display.event(event)
        seen.news.set()
