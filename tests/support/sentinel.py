"""A master, its replica, and three sentinels that watch over them: real processes, really failing over."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import redis
from redis.asyncio import Sentinel as AsyncSentinel
from typing_extensions import override

from dtimer.backends.redis import RedisBackend
from support.servers import HOST, Binary, Server

SERVICE: Final = "timers"
QUORUM: Final = 2
DOWN_AFTER_MS: Final = 1_500
"""A sentinel connects to a new master once a second only; with less it would take that one for dead at once."""
READY_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.02


def wait_until(condition: Callable[[], object], what: str) -> None:
    """As in :mod:`support.waiting`, for fixtures that have nothing else to do."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            if condition():
                return
        except redis.RedisError:
            pass  # one of them is down, or starts
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(POLL_S)


class SentinelServer(Server):
    """One sentinel."""

    def __init__(self, binary: Binary, master: Server) -> None:
        super().__init__(binary)
        self._master = master

    @override
    def _command(self) -> list[str]:
        conf = Path(self._folder.name) / "sentinel.conf"
        conf.write_text(
            f"port {self.port}\n"
            f"bind {HOST}\n"
            "dir .\n"
            f"sentinel monitor {SERVICE} {HOST} {self._master.port} {QUORUM}\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 4000\n"
        )
        return [str(self.binary.path), str(conf), "--sentinel"]


class Watched:
    """A master and a replica under sentinels.

    Attributes:
        servers: the two, whichever is the master now.
        sentinels: the three.
    """

    def __init__(self, servers: list[Server], sentinels: list[SentinelServer]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [(sentinel.host, sentinel.port) for sentinel in self.sentinels]

    def backend(self, namespace: str = "dt", **options: Any) -> RedisBackend:
        """As an application makes one."""
        return RedisBackend(AsyncSentinel(self.addresses).master_for(SERVICE), namespace, **options)

    def master_port(self) -> int:
        """As most of the sentinels have it."""
        ports = sorted(int(self._ask(sentinel, "MASTER", SERVICE)["port"]) for sentinel in self.sentinels)
        return ports[len(ports) // 2]

    @property
    def master(self) -> Server:
        return self._by_port(self.master_port())

    @property
    def replica(self) -> Server:
        port = self.master_port()
        return next(server for server in self.servers if server.port != port)

    def fail_over(self) -> None:
        """By command: the master becomes a replica, and lives on with the connections that it has."""
        old = self.master
        with self.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)
        wait_until(lambda: self.master_port() != old.port, "the failover")
        # Sentinels would do it within 10 s, and end its connections at the same time.
        self._follow(old)

    def heal(self) -> None:
        """Master and replica are up and in step, and every sentinel knows it."""
        master = self.master
        for server in self.servers:
            if not server.alive:
                server.configure(replicaof=f"{HOST} {master.port}")
                server.start()
        wait_until(self._in_step, "master, replica and sentinels in step")

    def _follow(self, server: Server) -> None:
        with server.client() as client:
            client.replicaof(HOST, self.master_port())

    def _in_step(self) -> bool:
        port = self.master_port()
        with self._by_port(port).client() as client:
            info = client.info("replication")
        links = [value for name, value in info.items() if name.startswith("slave") and isinstance(value, dict)]
        return (
            info["role"] == "master"
            and [link["state"] for link in links] == ["online"]
            # The master may not know yet that it has to be synchronised again.
            and link_is_up(self.replica)
            and all(self._content(sentinel, port) for sentinel in self.sentinels)
        )

    def _content(self, sentinel: SentinelServer, port: int) -> bool:
        master = self._ask(sentinel, "MASTER", SERVICE)
        (replica,) = self._replicas(sentinel)
        return (
            (master["port"], master["flags"], master["num-other-sentinels"]) == (str(port), "master", "2")
            # All else that it says of the replica may be 10 s old; the master knows better.
            and replica["flags"] == "slave"
        )

    def _by_port(self, port: int) -> Server:
        return next(server for server in self.servers if server.port == port)

    def _replicas(self, sentinel: SentinelServer) -> list[dict[str, str]]:
        return [_pairs(reply) for reply in self._said(sentinel, "REPLICAS", SERVICE)]

    def _ask(self, sentinel: SentinelServer, *words: str) -> dict[str, str]:
        return _pairs(self._said(sentinel, *words))

    def _said(self, sentinel: SentinelServer, command: str, *words: str) -> list[Any]:
        with sentinel.client() as client:
            # Two blanks: redis-py has an opinion on how the reply of the command with one should look.
            reply: list[Any] = client.execute_command(f"SENTINEL  {command}", *words) or []
            return reply


def _pairs(reply: list[bytes]) -> dict[str, str]:
    words = [word.decode() for word in reply]
    return dict(zip(words[::2], words[1::2], strict=True))


@contextmanager
def watched(binary: Binary) -> Generator[Watched]:
    """All five processes, from entry to exit, and in step at entry."""
    with ExitStack() as stack:

        def started(server: Server) -> Server:
            stack.callback(server.discard)
            server.start()
            return server

        quick = {"repl_diskless_sync": "yes", "repl_diskless_sync_delay": "0"}
        master = started(Server(binary, **quick))
        replica = started(Server(binary, replicaof=f"{HOST} {master.port}", **quick))
        sentinels = [SentinelServer(binary, master) for _ in range(3)]
        wait_until(lambda: link_is_up(replica), "the replica's first synchronisation")
        for sentinel in sentinels:
            started(sentinel)
        setup = Watched([master, replica], sentinels)
        setup.heal()
        yield setup


def link_is_up(replica: Server) -> bool:
    """Whether the replica has what its master had a moment ago, as it sees it itself."""
    with replica.client() as client:
        return bool(client.info("replication")["master_link_status"] == "up")
