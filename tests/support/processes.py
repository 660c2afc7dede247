"""Node processes for tests, to be listened to, frozen and killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from attrs import define, field

from dtimer import LoopBlocked
from support.waiting import until

PROGRAM: Final = Path(__file__).with_name("node_process.py")
START_TIMEOUT_S: Final = 30.0

Said: TypeAlias = dict[str, Any]


@define(eq=False)
class NodeProcess:
    """A running ``node_process.py``.

    Attributes:
        id: its node's, or its nodes' with commas between them.
        said: all that it has said.
    """

    id: str
    process: asyncio.subprocess.Process
    said: list[Said] = field(factory=list)

    @property
    def got(self) -> list[Said]:
        return self.said_of("got")

    @property
    def ready(self) -> bool:
        """All of its nodes have joined."""
        return {line["node"] for line in self.said_of("ready")} == set(self.id.split(","))

    @property
    def errors(self) -> list[str]:
        """The kinds, but for blocks of the event loop, which a busy host causes at any time."""
        return [kind for line in self.said_of("error") if (kind := line["kind"]) != LoopBlocked.__name__]

    def lateness_ms(self, delivery: Said) -> float:
        """Of a delivery that waited for this node to start, counted from when it was ready."""
        late_ms: float = min(delivery["lateness_ms"], 1_000 * (delivery["at"] - self.said_of("ready")[0]["clock"]))
        return late_ms

    def said_of(self, what: str) -> list[Said]:
        return [line for line in self.said if line["what"] == what]

    def go(self) -> None:
        """Let its handlers end."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    async def kill(self) -> None:
        """End it without warning (SIGKILL)."""
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        """Ask it to leave, as an orchestrator does (SIGTERM), and wait for it; its exit status."""
        self.process.terminate()
        return await self.process.wait()

    def freeze(self) -> None:
        """Its connections stand, and it does nothing (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def node_process(
    url: str, namespace: str, node: str, *options: object, environment: Mapping[str, str] | None = None
) -> AsyncIterator[NodeProcess]:
    """One that has been started, though it need not be ready; killed at the end if it is there still."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", str(PROGRAM), url, namespace, node, *map(str, options)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})},
    )
    running = NodeProcess(node, process)
    listening = asyncio.create_task(_listen(running))
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


@asynccontextmanager
async def node_processes(
    url: str, namespace: str, nodes: list[str], *options: object
) -> AsyncIterator[list[NodeProcess]]:
    """Several, that have joined; in the ring in any order."""
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(node_process(url, namespace, node, *options)) for node in nodes]
        await until(lambda: all(node.ready for node in running), timeout_s=START_TIMEOUT_S)
        yield running


async def _listen(node: NodeProcess) -> None:
    assert node.process.stdout is not None
    async for line in node.process.stdout:
        node.said.append(json.loads(line))
