"""Redis Cluster: which server has a namespace's slot, and following it when it moves.

redis-py's cluster client does the same, but resends what may have been applied (rule F1), and hides a moved
subscription. Following a redirection resends nothing: by redirecting the server has said that nothing ran.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from typing_extensions import override

from dtimer.backends.redis.config import Address, ClusterSettings
from dtimer.backends.redis.connection import StoreConnection, ask
from dtimer.backends.redis.errors import Redirected, before_sending
from dtimer.backends.redis.pool import Pool, Then, Unnamed
from dtimer.backends.redis.wire.resp import Argument, Reply, as_int, as_list, pack
from dtimer.errors import (
    BackendClosed,
    BackendError,
    OutcomeUnknown,
    StoreBusy,
    StoreNotWritable,
    StoreReadOnly,
    StoreUnreachable,
)

ASK_TIMEOUT_S: Final = 1.0
"""For one server's view of the cluster: each answers from memory, and there are others."""
REDIRECTIONS_MAX: Final = 5
"""In one request; more mean that the servers do not agree at the moment."""


class Cluster:
    """What is known of a cluster, for one event loop: which server has the slots in question."""

    def __init__(self, settings: ClusterSettings, *, request_timeout_s: float, unnamed: Unnamed) -> None:
        self._settings = settings
        self._unnamed = unnamed
        self.request_timeout_s = request_timeout_s
        self._known: set[Address] = set(settings.seeds)
        self._servers: dict[Address, Pool] = {}
        self._routes: dict[int, ClusterRoute] = {}
        self._owners: dict[int, Address] = {}
        self._reading = asyncio.Lock()
        self._closed = False

    def route(self, prefix: str) -> ClusterRoute:
        """The way to the keys with this prefix, which has a hash tag."""
        slot = key_slot(prefix.encode())
        return self._routes.setdefault(slot, ClusterRoute(self, slot))

    def server(self, address: Address) -> Pool:
        if address not in self._servers:
            place = self._settings.server.at(*address)
            self._servers[address] = Pool(place, request_timeout_s=self.request_timeout_s, unnamed=self._unnamed)
        return self._servers[address]

    async def owner(self, slot: int) -> Address:
        """The server that has the slot; the servers are asked if it is not known.

        Raises:
            RedisConnectionError: none of them knows.
        """
        if slot not in self._owners:
            async with self._reading:
                if slot not in self._owners:
                    await self._read(slot)
        return self._owners[slot]

    def moved(self, slot: int, address: Address) -> None:
        """A server has answered which server has the slot."""
        self._known.add(address)
        self._owners[slot] = address
        if slot in self._routes:
            self._routes[slot].is_at(address)

    def doubt(self, address: Address) -> None:
        """This server may be gone, or a replica by now: for its slots the servers are asked again."""
        self._owners = {slot: owner for slot, owner in self._owners.items() if owner != address}

    async def close(self) -> None:
        """See :class:`Pool`."""
        self.refuse()
        await asyncio.gather(*(server.close() for server in self._servers.values()))

    def refuse(self) -> None:
        """See :class:`Pool`."""
        self._closed = True
        for server in tuple(self._servers.values()):
            server.refuse()

    def drop(self) -> None:
        """See :class:`Pool`."""
        for server in self._servers.values():
            server.drop()

    def abandon(self) -> None:
        """See :class:`Pool`."""
        for server in self._servers.values():
            server.abandon()

    def require_open(self, operation: str) -> None:
        if self._closed:
            raise BackendClosed(operation, "the backend was closed")

    async def _read(self, wanted: int) -> None:
        """Ask one server after the other, in any order, until one knows about the slot; learn about all others, too."""
        problems: list[str] = []
        known = list(self._known)
        random.shuffle(known)
        for address in known:
            settings = self._settings.server.at(*address)
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    self._learn(address, await ask(settings, b"CLUSTER", b"SLOTS"))
            except TimeoutError:
                problems.append(f"{settings} does not answer")
            except (RedisError, OSError, ValueError, LookupError) as error:  # the last two: a strange reply
                problems.append(f"{settings}: {error}")
            else:
                if wanted in self._owners:
                    return
                problems.append(f"{settings} knows nobody who has slot {wanted}")
        raise RedisConnectionError(f"no server of the cluster tells who has slot {wanted} ({'; '.join(problems)})")

    def _learn(self, asked: Address, reply: Reply) -> None:
        for entry in as_list(reply):
            first, last, *servers = as_list(entry)
            first, last = as_int(first), as_int(last)
            addresses = [self._address(asked, server) for server in servers]
            self._known.update(addresses)
            for slot in self._routes:
                if first <= slot <= last:
                    self.moved(slot, addresses[0])

    def _address(self, asked: Address, server: Reply) -> Address:
        host, port, *_ = as_list(server)
        # A server that does not know its own address is where it was asked.
        name = host.decode("ascii") if isinstance(host, bytes) and host not in {b"", b"?"} else asked[0]
        return self.remapped((name, as_int(port)))

    def remapped(self, address: Address) -> Address:
        remap = self._settings.remap
        return address if remap is None else remap(address)


class ClusterRoute:
    """The way to one slot: a :class:`dtimer.backends.redis.pool.Route`."""

    def __init__(self, cluster: Cluster, slot: int) -> None:
        self._cluster = cluster
        self._slot = slot
        self._listening: dict[StoreConnection, Address] = {}

    @override
    def __str__(self) -> str:
        return f"the server with slot {self._slot}"

    async def request(self, operation: str, *arguments: Argument) -> Reply:
        """See :class:`Pool`."""
        return await self.call(operation, pack(arguments))

    async def call(
        self, operation: str, command: bytes, *, rest: Sequence[bytes] | None = None, then: Then | None = None
    ) -> Reply:
        """See :class:`Pool`; wherever the slot is, within one time limit."""
        self._cluster.require_open(operation)
        by_s = asyncio.get_running_loop().time() + self._cluster.request_timeout_s
        asking: Address | None = None
        for _ in range(REDIRECTIONS_MAX + 1):
            address = asking or await self._owner(operation, by_s)
            try:
                server = self._cluster.server(address)
                return await server.send(operation, command, rest=rest, by_s=by_s, asking=asking is not None, then=then)
            except Redirected as error:
                asking = self._follow(address, error)
            except (StoreUnreachable, OutcomeUnknown, StoreBusy, StoreReadOnly, StoreNotWritable):
                self._cluster.doubt(address)
                raise
        raise StoreBusy(
            operation, f"redirected {REDIRECTIONS_MAX} times and once more: slot {self._slot} is on the move"
        )

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[StoreConnection]:
        """See :class:`Pool`; dropped as soon as the slot is known to be elsewhere."""
        self._cluster.require_open("wakeups")
        address = await self._cluster.owner(self._slot)
        try:
            async with self._cluster.server(address).listening() as line:
                self._listening[line] = address
                try:
                    yield line
                finally:
                    del self._listening[line]
        except Redirected as error:
            self._follow(address, error)
            raise StoreUnreachable(error.operation, f"slot {self._slot} has moved: {error.problem}") from error
        except (BackendError, RedisError, OSError, TimeoutError):
            self._cluster.doubt(address)
            raise

    def is_at(self, address: Address) -> None:
        """End the subscriptions to other servers: they receive nothing any more, or what a replica receives."""
        for line, listened_at in self._listening.items():
            if listened_at != address:
                line.drop()

    async def _owner(self, operation: str, by_s: float) -> Address:
        try:
            async with asyncio.timeout_at(by_s):
                return await self._cluster.owner(self._slot)
        except TimeoutError as error:
            raise StoreUnreachable(
                operation, f"no server of the cluster told in time who has slot {self._slot}"
            ) from error
        except Exception as error:
            raise before_sending(operation, error) from error

    def _follow(self, from_: Address, error: Redirected) -> Address | None:
        """Where to ask next, if that is for once only."""
        host, port = error.address
        address = self._cluster.remapped((host or from_[0], port))
        if error.asking:
            return address
        self._cluster.moved(self._slot, address)
        return None
