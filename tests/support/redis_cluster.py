"""A Redis Cluster of three masters and three replicas: real processes, whose slots really move."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.crc import key_slot
from typing_extensions import override

from dtimer.backends.redis import RedisBackend
from support.sentinel import link_is_up, wait_until
from support.servers import HOST, Binary, Server, server_binaries
from support.waiting import until

NUM_MASTERS: Final = 3
NUM_SLOTS: Final = 16_384
NODE_TIMEOUT_MS: Final = 1_500


def binaries_for_clusters() -> list[Binary]:
    """The first program found that has sharded pubsub, and the oldest such: each takes six processes."""
    found = [binary for binary in server_binaries() if not binary.name.startswith("redis-6")]
    oldest = sorted(found, key=lambda binary: (binary.name.startswith("valkey"), binary.name))
    return list(dict.fromkeys([*found[:1], *oldest[:1]]))


class ClusterServer(Server):
    """One of them."""

    def __init__(self, binary: Binary, **config: str) -> None:
        super().__init__(
            binary,
            cluster_enabled="yes",
            cluster_node_timeout=str(NODE_TIMEOUT_MS),
            # Who has the rest of the slots goes on meanwhile.
            cluster_require_full_coverage="no",
            repl_diskless_sync="yes",
            repl_diskless_sync_delay="0",
            **config,
        )
        self.bus_port = 0

    @override
    def _command(self) -> list[str]:
        # The usual one, 10,000 above the other, need not exist.
        if not self.bus_port:
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                self.bus_port = probe.getsockname()[1]
        return [*super()._command(), "--cluster-port", str(self.bus_port)]

    def call(self, command: str, subcommand: str, *words: str | int) -> Any:
        with self.client() as client:
            # Two blanks: redis-py has an opinion on how replies of known commands should look.
            return client.execute_command(f"{command}  {subcommand}", *words)

    @property
    def id(self) -> str:
        return bytes(self.call("CLUSTER", "MYID")).decode()

    def info(self) -> dict[str, str]:
        lines = bytes(self.call("CLUSTER", "INFO")).decode().split()
        return dict(line.split(":", 1) for line in lines)


class Six:
    """The six servers."""

    def __init__(self, servers: list[ClusterServer]) -> None:
        self.servers = servers

    def backend(self, namespace: str = "dt", **options: Any) -> RedisBackend:
        """As an application makes one."""
        nodes = [ClusterNode(HOST, server.port) for server in self.servers[:2]]
        return RedisBackend(RedisCluster(startup_nodes=nodes), namespace, **options)

    @property
    def alive(self) -> list[ClusterServer]:
        return [server for server in self.servers if server.alive]

    def owner(self, key: str) -> ClusterServer:
        """Who has the slot of this key, as more than half of those that are up have it."""
        slot = key_slot(key.encode())
        ports = sorted(self._port_of(server, slot) for server in self.alive)
        return self._by_port(ports[len(ports) // 2])

    async def replica_of(self, master: ClusterServer) -> ClusterServer:
        """One that its master does not suspect, as it does for a moment after the host has stood still."""
        found: list[ClusterServer] = []

        def look() -> bool:
            id = master.id
            lines = bytes(master.call("CLUSTER", "NODES")).decode().splitlines()
            addresses = [line.split()[1] for line in lines if f" {id} " in line and "fail" not in line.split()[2]]
            found.extend(self._by_port(int(address.partition("@")[0].rpartition(":")[2])) for address in addresses)
            return bool(found)

        await until(look)
        return found[0]

    def another_master(self, than: ClusterServer) -> ClusterServer:
        return next(server for server in self.alive if server is not than and self._is_master(server))

    def begin_to_move(self, slot: int, source: ClusterServer, target: ClusterServer) -> None:
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    def move_keys(self, slot: int, source: ClusterServer, target: ClusterServer) -> None:
        while keys := source.call("CLUSTER", "GETKEYSINSLOT", slot, 100):
            with source.client() as client:
                client.execute_command("MIGRATE", HOST, target.port, "", 0, 10_000, "KEYS", *keys)

    def end_of_move(self, slot: int, target: ClusterServer) -> None:
        id = target.id
        for server in (target, *(server for server in self.alive if server is not target)):
            if self._is_master(server):
                server.call("CLUSTER", "SETSLOT", slot, "NODE", id)

    def move(self, slot: int, source: ClusterServer, target: ClusterServer) -> None:
        """As operators and their tools do it, under whatever load there is."""
        self.begin_to_move(slot, source, target)
        self.move_keys(slot, source, target)
        self.end_of_move(slot, target)

    def flush(self) -> None:
        for server in self.alive:
            if self._is_master(server):
                server.flush()

    def heal(self) -> None:
        """All are up, agree, and every master has a replica in step."""
        for server in self.servers:
            if not server.alive:
                server.start()
        wait_until(self._in_step, "the cluster in step")

    def _in_step(self) -> bool:
        masters = [server for server in self.servers if self._is_master(server)]
        agreed = {str(server.call("CLUSTER", "SLOTS")) for server in masters}
        return (
            len(masters) == NUM_MASTERS
            and len(agreed) == 1
            and all(server.info()["cluster_state"] == "ok" for server in self.servers)
            and all(server.info()["cluster_slots_ok"] == str(NUM_SLOTS) for server in self.servers)
            and all(self._has_replica(server) for server in masters)
            # A master may not know yet that its replica has to be synchronised again.
            and all(link_is_up(server) for server in self.servers if server not in masters)
        )

    @staticmethod
    def _has_replica(master: ClusterServer) -> bool:
        with master.client() as client:
            info = client.info("replication")
        return [v["state"] for k, v in info.items() if k.startswith("slave") and isinstance(v, dict)] == ["online"]

    @staticmethod
    def _is_master(server: ClusterServer) -> bool:
        with server.client() as client:
            return bool(client.info("replication")["role"] == "master")

    @staticmethod
    def _port_of(server: ClusterServer, slot: int) -> int:
        return next(
            (int(main[1]) for first, last, main, *_ in server.call("CLUSTER", "SLOTS") if first <= slot <= last), 0
        )

    def _by_port(self, port: int) -> ClusterServer:
        return next(server for server in self.servers if server.port == port)


@contextmanager
def running_cluster(binary: Binary) -> Generator[Six]:
    """From entry to exit, and in step at entry."""
    with ExitStack() as stack:
        servers = [ClusterServer(binary) for _ in range(2 * NUM_MASTERS)]
        for server in servers:
            stack.callback(server.discard)
            server.start()
        masters, replicas = servers[:NUM_MASTERS], servers[NUM_MASTERS:]
        bounds = [NUM_SLOTS * number // NUM_MASTERS for number in range(NUM_MASTERS + 1)]
        for number, master in enumerate(masters):
            master.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            master.call("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        first = servers[0]
        for server in servers[1:]:
            first.call("CLUSTER", "MEET", HOST, server.port, server.bus_port)
        everybody = str(len(servers))
        wait_until(
            lambda: all(server.info()["cluster_known_nodes"] == everybody for server in servers),
            "all to know each other",
        )
        for master, replica in zip(masters, replicas, strict=True):
            wait_until(partial(_replicates, replica, master.id), "a replica")
        six = Six(servers)
        six.heal()
        yield six


def _replicates(replica: ClusterServer, id: str) -> bool:
    replica.call("CLUSTER", "REPLICATE", id)
    return True
