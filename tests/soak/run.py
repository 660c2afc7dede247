"""``python -m soak --minutes 2 --seed 7``: a run, from the first node to the verdicts."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import redis
from attrs import frozen

from dtimer import DTimer, JsonValue
from dtimer.backends.redis import RedisBackend
from soak.faults import Planned, schedule
from soak.history import NAMESPACE, Drained, Fault, LeftOver, Pen, now_us, read
from soak.judge import Summary, Violation, judge
from soak.node import writing_down
from soak.producers import Producer
from support.host_clock import HostClock, clock_can_be_set, host_clock
from support.proxy import Proxy
from support.servers import Binary, Server, running, server_binaries

NODES: Final = ("n1", "n2", "n3", "n4")
NUM_PRODUCERS: Final = 2
RATE_PER_S: Final = 25.0
DRAIN_S: Final = 90.0
STALL_US: Final = 500_000
CUT_MIN_BYTES: Final = 500
CUT_MAX_BYTES: Final = 20_000
"""Some hundred bytes are a call."""
AHEAD_MIN_S: Final = 5
AHEAD_MAX_S: Final = 3_600
POLL_S: Final = 0.1
START_S: Final = 30.0


@frozen
class Outcome:
    """What a run was, and what came of it."""

    seed: int
    minutes: float
    server: str
    history: Path
    summary: Summary
    violations: list[Violation]


class NodeRunner:
    """One node's process, started again whenever it ends, and its own way to the server."""

    def __init__(self, name: str, proxy: Proxy, seed: int, history: Path) -> None:
        self.name = name
        self.proxy = proxy
        self._command = (
            *(sys.executable, "-P", "-m", "soak.node", f"redis://{proxy.host}:{proxy.port}/0"),
            *(name, str(seed), str(history)),
        )
        self._log = history.with_suffix(".log")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            )

    async def ready(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            if not await self._process.stdout.readline():
                raise RuntimeError(f"node {self.name} ended before it had joined; see {self._log}")

    def check(self) -> None:
        """After one has ended by itself, the next fault may leave no live node; nothing is promised for that."""
        if self._process is None or self._process.returncode is not None:
            raise RuntimeError(f"node {self.name} has ended by itself; see {self._log}")

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def end(self, number: signal.Signals) -> None:
        self.send(number)
        if self._process is not None:
            await self._process.wait()


class Soak:
    """The world of one run."""

    def __init__(
        self,
        pair: tuple[Server, Server],
        clock: HostClock | None,
        nodes: Mapping[str, NodeRunner],
        ways: Sequence[Proxy],
        pen: Pen,
    ) -> None:
        """
        Args:
            pair: the master and its replica.
            clock: theirs; None if it cannot be set.
            ways: all that clients come by, the nodes' own among them.
        """
        self._server, self._replica = pair
        self._clock = clock
        self._nodes = nodes
        self._ways = ways
        self._pen = pen

    async def suffer(self, fault: Planned) -> None:
        """Do it, and write down what it was and when."""
        for node in self._nodes.values():
            node.check()
        names = list(self._nodes)
        random.Random(fault.pick).shuffle(names)
        chosen = self._nodes[names[0]]
        begin_us, outage, leap, lossy = now_us(), False, False, False
        ended: Sequence[str] = ()
        match fault.name:
            case "kill a node":
                ended = names[:1]
                await chosen.end(signal.SIGKILL)
                await asyncio.sleep(fault.lasts_s)
                await chosen.start()
            case "kill all nodes but one":
                ended = names[1:]
                for name in names[1:]:
                    await self._nodes[name].end(signal.SIGKILL)
                await asyncio.sleep(fault.lasts_s)
                for name in names[1:]:
                    await self._nodes[name].start()
                for name in names[1:]:
                    await self._nodes[name].ready()
            case "leave":
                ended = names[:1]
                await chosen.end(signal.SIGTERM)
                await asyncio.sleep(fault.lasts_s)
                await chosen.start()
            case "stop a node":
                chosen.send(signal.SIGSTOP)
                await asyncio.sleep(fault.lasts_s)
                chosen.send(signal.SIGCONT)
            case "cut connections":
                self._tell("CLIENT", "KILL", "TYPE", "normal")
            case "cut subscriptions":
                self._tell("CLIENT", "KILL", "TYPE", "pubsub")
            case "stall a node":
                chosen.proxy.stall()
                await asyncio.sleep(fault.lasts_s)
                chosen.proxy.cut()
                chosen.proxy.pass_on()
            case "lose replies":
                for _ in range(3):
                    chosen.proxy.drop_reply_and_cut(lambda sent: b"EVALSHA" in sent)
            case "forget scripts":
                self._tell("SCRIPT", "FLUSH")
            case "forge wake-ups":
                self._forge()
            case "full":
                self._tell("CONFIG", "SET", "maxmemory", "1")
                await asyncio.sleep(fault.lasts_s)
                self._tell("CONFIG", "SET", "maxmemory", "0")
            case "read only":
                outage = True
                # It follows nobody: the address is that of no server.
                self._tell("REPLICAOF", "127.0.0.1", "1")
                await asyncio.sleep(fault.lasts_s)
                self._tell("REPLICAOF", "NO", "ONE")
            case "pause the server":
                outage = True
                self._server.pause()
                await asyncio.sleep(fault.lasts_s)
                self._server.resume()
            case "kill the server":
                outage = True
                await asyncio.to_thread(self._server.kill)
                await asyncio.sleep(fault.lasts_s)
                await asyncio.to_thread(self._server.start)
                await asyncio.to_thread(self._loaded)
            case "cut the log":
                outage = lossy = True
                await asyncio.to_thread(self._server.kill)
                _cut_log(self._server, CUT_MIN_BYTES + fault.pick % CUT_MAX_BYTES)
                await asyncio.sleep(fault.lasts_s)
                await asyncio.to_thread(self._server.start)
                await asyncio.to_thread(self._loaded)
            case "fail over":
                outage = lossy = True
                await self._fail_over(fault.lasts_s)
            case "clock ahead":
                if self._clock is None:
                    return
                outage = leap = True
                self._clock.set(AHEAD_MIN_S + fault.pick % AHEAD_MAX_S)
                await asyncio.sleep(fault.lasts_s)
                self._clock.set(0)
            case _:
                raise AssertionError(f"nobody knows how to {fault.name}")
        self._pen.write(Fault(fault.name, begin_us, now_us(), outage, leap, lossy, tuple(ended)))

    async def watch(self) -> None:
        """Write down when the server answers late although nothing is done to it: a busy disk stops it, and no node."""
        while True:
            await asyncio.sleep(POLL_S)
            begin_us = now_us()
            with contextlib.suppress(redis.RedisError, OSError):
                await asyncio.to_thread(self._tell, "PING")
            if now_us() - begin_us > STALL_US:
                self._pen.write(Fault("the host stalled", begin_us, now_us(), outage=True))

    async def _fail_over(self, lasts_s: float) -> None:
        """The replica takes over while the old master still answers, so what that acknowledges meanwhile is lost."""
        old, new = self._server, self._replica
        await asyncio.to_thread(_follows, new)
        self._tell("REPLICAOF", "NO", "ONE", to=new)
        await asyncio.sleep(lasts_s)
        await asyncio.to_thread(old.kill)
        self._server, self._replica = new, old
        for way in self._ways:
            way.lead_to(new.port)
        old.configure(replicaof=f"{new.host} {new.port}")
        new.configure(replicaof="no one")
        await asyncio.to_thread(old.start)

    def _loaded(self) -> None:
        """Return when the server has read its log, of which there is more and more."""
        with self._server.client() as admin:
            while admin.info("persistence")["loading"]:
                time.sleep(POLL_S)

    def _tell(self, *command: str, to: Server | None = None) -> None:
        with (to or self._server).client() as admin:
            admin.execute_command(*command)

    def _forge(self) -> None:
        with self._server.client() as admin:
            for channel in admin.pubsub_channels(f"*{NAMESPACE}*"):
                for words in (b"", b"1 0 0 0", b"1 n1 0 0", b"\xff" * 100, b"1 9999999999999999 1 1"):
                    admin.publish(channel, words)


def _follows(replica: Server) -> None:
    """Return when it has a whole copy, and hears of each change."""
    until_s = time.monotonic() + START_S
    with replica.client() as admin:
        while admin.info("replication")["master_link_status"] != "up":
            if time.monotonic() > until_s:
                raise RuntimeError(f"the replica does not follow; its log:\n{replica.log()}")
            time.sleep(POLL_S)


def _cut_log(server: Server, num_bytes: int) -> None:
    """What a host loses when it fails, of a log that is written to disk later. A half transaction goes as a whole."""
    logs = sorted(server.folder.glob("appendonlydir/*.incr.aof")) or [server.folder / "appendonly.aof"]
    size = logs[-1].stat().st_size
    os.truncate(logs[-1], max(0, size - num_bytes))


async def soak(
    *,
    minutes: float,
    seed: int,
    folder: Path,
    binary: Binary,
    progress: Callable[[str], None] = lambda line: None,
    faults: bool = True,
) -> Outcome:
    """Run for so long, drain, and judge; the history stays in `folder`."""
    history = folder / "history.jsonl"
    pen = Pen(history)
    stop = asyncio.Event()
    with ExitStack() as servers:
        clock = servers.enter_context(host_clock(folder)) if clock_can_be_set() else None
        kept = {"appendonly": "yes", "appendfsync": "always", "repl_diskless_sync_delay": "0"}
        environment = {} if clock is None else clock.environment
        server = servers.enter_context(running(binary, environment, **kept))
        replica = servers.enter_context(running(binary, environment, **kept, replicaof=f"{server.host} {server.port}"))
        async with AsyncExitStack() as stack:
            nodes = {name: await stack.enter_async_context(_node(name, server.port, seed, history)) for name in NODES}
            for node in nodes.values():
                await node.ready()
            way = await stack.enter_async_context(Proxy(server.port))
            backend = RedisBackend.from_url(f"redis://{way.host}:{way.port}/0", NAMESPACE)
            stack.push_async_callback(backend.close)
            timer = DTimer(backend)
            timer.on("error", writing_down("producers", pen))
            async with asyncio.TaskGroup() as producing:
                for number in range(NUM_PRODUCERS):
                    producer = Producer(f"p{number}", timer, seed, pen, rate_per_s=RATE_PER_S)
                    producing.create_task(producer.run(stop))
                ways = [way, *(node.proxy for node in nodes.values())]
                world = Soak((server, replica), clock, nodes, ways, pen)
                watching = producing.create_task(world.watch())
                until_s = time.monotonic() + minutes * 60
                for planned in schedule(seed):
                    left_s = until_s - time.monotonic()
                    if not faults or planned.after_s + planned.lasts_s > left_s:
                        await asyncio.sleep(left_s)
                        break
                    await asyncio.sleep(planned.after_s)
                    progress(f"{(until_s - time.monotonic()) / 60:5.1f} min left: {planned.name}")
                    await world.suffer(planned)
                stop.set()
                watching.cancel()
            progress("draining")
            for node in nodes.values():
                node.send(signal.SIGUSR1)
            pen.write(await _drained(timer))
            pen.write(Drained(now_us()))
            for node in nodes.values():
                await node.end(signal.SIGTERM)
    summary, violations = judge(read(history))
    return Outcome(seed, minutes, binary.name, history, summary, violations)


async def _drained(timer: DTimer[JsonValue]) -> LeftOver:
    """What is left when nothing is live any more, or when that takes too long."""
    until_s = time.monotonic() + DRAIN_S
    while (live := await timer.upcoming()) and time.monotonic() < until_s:  # noqa: ASYNC110 - others empty it
        await asyncio.sleep(POLL_S)
    dead = await timer.dead_letters()
    return LeftOver(tuple(event.id for event in live), tuple(letter.id for letter in dead))


@asynccontextmanager
async def _node(name: str, port: int, seed: int, history: Path) -> AsyncGenerator[NodeRunner]:
    async with Proxy(port) as proxy:
        node = NodeRunner(name, proxy, seed, history)
        await node.start()
        try:
            yield node
        finally:
            node.send(signal.SIGCONT)
            await node.end(signal.SIGKILL)


def report(outcome: Outcome) -> str:
    """The run in a table, and every violation by name."""
    summary = outcome.summary
    posts = ", ".join(f"{count:,} {reply.value}" for reply, count in summary.posts.most_common())
    faults = ", ".join(f"{name} {count}" for name, count in summary.faults.most_common())
    late = " / ".join(f"{summary.percentile_ms(percent):.1f}" for percent in (50, 99, 99.9, 100))
    rows = {
        "seed": f"{outcome.seed}, {outcome.minutes:g} min on {outcome.server}, {len(NODES)} nodes",
        "posts": posts,
        "deliveries": f"{summary.deliveries:,}, {summary.retries:,} of them retries",
        "ended": f"{summary.confirmed:,} confirmed, {summary.cancelled:,} cancelled, {summary.dead:,} dead letters",
        "at most once": f"{summary.unlucky:,} taken along by a fault",
        "lateness, ms": f"p50 / p99 / p99.9 / max {late}, outages left out",
        "faults": faults or "none",
        "lost": f"{summary.lost_told:,} events whose loss was told, {summary.undone_told:,} calls undone and told",
        "reports": ", ".join(f"{name} {count}" for name, count in summary.told.most_common()) or "none",
        "violations": str(len(outcome.violations)),
    }
    lines = [f"{name:14}{value}" for name, value in rows.items()]
    lines += [f"  {each.verdict.value}: {each.id}: {each.detail}" for each in outcome.violations[:50]]
    lines.append(f"history: {outcome.history}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults; draining comes after (default: 2)")
    parser.add_argument("--seed", type=int, help="of the faults and of the handlers' deeds; drawn if not given")
    parser.add_argument("--folder", type=Path, help="where the history is kept (default: a new temporary directory)")
    given = parser.parse_args()
    binaries = server_binaries()
    if not binaries:
        print("no server found", file=sys.stderr)
        return 2
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    folder: Path = given.folder or Path(tempfile.mkdtemp(prefix="dtimer-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(KeyboardInterrupt):
        outcome = asyncio.run(soak(minutes=given.minutes, seed=seed, folder=folder, binary=binaries[0], progress=_say))
        print(report(outcome))
        return 1 if outcome.violations else 0
    return 130


def _say(line: str) -> None:
    print(line, flush=True)
