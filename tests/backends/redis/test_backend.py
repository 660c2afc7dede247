"""RedisBackend as an application makes it: from a client, from a URL, or with a server of its own."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from attrs import evolve
from redis.asyncio import ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import Connection

from dtimer import (
    BackendClosed,
    ConfirmOutcome,
    DTimer,
    Durable,
    InvalidArgument,
    NotDurable,
    SchemaMismatch,
    StoreUnreachable,
)
from dtimer.backends.redis import RedisBackend
from dtimer.limits import SECOND_US
from dtimer.protocol.values import After, EventData, Member, NewEvent, Release, Wakeup, Window
from support.servers import Server
from support.waiting import TIMEOUT_S

HOUR_US = 3_600 * SECOND_US


def event(id: str = "e", delay_us: int = HOUR_US) -> NewEvent:
    return NewEvent(EventData(id=id, payload=b"{}"), After(delay_us))


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "", "redis://localhost:port"])
def test_a_url_that_names_no_server_is_refused(url: str) -> None:
    """Before any I/O."""
    with pytest.raises(InvalidArgument, match="url"):
        RedisBackend.from_url(url)


@pytest.mark.parametrize("namespace", ["", "a b", "x" * 65, "{dt}", "a:b", "ä"])
def test_a_namespace_that_could_not_stand_in_a_key_is_refused(namespace: str) -> None:
    """P2."""
    with pytest.raises(InvalidArgument, match="namespace"):
        RedisBackend.from_url("redis://localhost", namespace)


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    """Nothing was applied, and the error says so."""
    async with asyncio.timeout(TIMEOUT_S):
        with pytest.raises(StoreUnreachable, match=r"post.*it was not applied; safe to repeat"):
            await RedisBackend.from_url("redis://127.0.0.1:1").post([event()])


async def test_the_applications_client_is_neither_used_nor_closed(server: Server) -> None:
    """Its pool is sized and its retries are set for other things."""
    async with Redis.from_url(server.url, client_name="application") as client:
        async with RedisBackend(client) as backend:
            await backend.post([event()])
        assert await client.ping()
        assert await client.zcard("{dt}:queue") == 1


async def test_after_closing_every_call_says_so(server: Server) -> None:
    backend = RedisBackend.from_url(server.url)
    await backend.open()
    await backend.close()
    await backend.close()

    with pytest.raises(BackendClosed):
        await backend.post([event()])


async def test_two_namespaces_of_one_server_know_nothing_of_each_other(server: Server) -> None:
    """F6."""
    async with RedisBackend.from_url(server.url, "one") as one, RedisBackend.from_url(server.url, "two") as two:
        await one.post([event()])

        assert (await two.peek("e")).value is None
        assert (await two.open()).epoch != (await one.open()).epoch


async def test_wakeups_of_one_database_are_not_heard_in_another(server: Server) -> None:
    """F6: a server's channels ignore the number of the database."""
    other_url = server.url.removesuffix("/0") + "/1"
    async with RedisBackend.from_url(server.url) as here, RedisBackend.from_url(other_url) as there:
        epochs = [(await backend.open()).epoch for backend in (here, there)]
        async with here.wakeups("a", epochs[0]) as heard_here, there.wakeups("a", epochs[1]) as heard_there:
            for backend in (here, there):
                await backend.join(Member("a", "1"))
            told_there = await there.post([event("there")])
            told_here = await here.post([event("here")])

            assert [told.reached for told in (*told_here.announced, *told_there.announced)] == [True, True]
            for heard, told in ((heard_here, told_here), (heard_there, told_there)):
                message = await anext(heard)
                assert isinstance(message, Wakeup)
                assert (message.due_us, message.at_us) == (told.announced[0].due_us, told.at_us)


async def test_a_namespace_of_another_major_schema_is_refused(server: Server) -> None:
    """F7: two incompatible versions must not work on one namespace."""
    with server.client() as client:
        client.hset("{dt}:meta", mapping={"schema": "1", "epoch": "e"})
    async with asyncio.timeout(TIMEOUT_S):
        backend = RedisBackend.from_url(server.url)
        with pytest.raises(SchemaMismatch, match="has schema 1, this is schema 2"):
            await backend.post([event()])
        with pytest.raises(SchemaMismatch):
            await DTimer(backend).join()
        await backend.close()


async def test_unknown_fields_of_a_record_are_kept_and_ignored(server: Server) -> None:
    """F7: a later minor version may add some."""
    async with RedisBackend.from_url(server.url) as backend:
        await backend.post([event()])
        with server.client() as client:
            client.hset("{dt}:records", "e", b"1 r2 zfuture h1\nHpayload")

        shown = (await backend.peek("e")).value

    assert shown is not None
    assert (shown.event.max_retries, shown.event.headers, shown.event.payload) == (2, b"H", b"payload")


async def test_an_operation_is_one_script_and_one_round_trip(server: Server) -> None:
    """After the first of its kind, which the server has to learn."""
    async with RedisBackend.from_url(server.url) as backend:
        await backend.post([event()])
        before = server.num_calls("evalsha")
        await backend.post([event(f"e{number}") for number in range(512)])
        await backend.upcoming(Window(), limit=256)

    assert server.num_calls("evalsha") == before + 2


async def test_an_embedded_server_with_a_path_keeps_what_was_posted(tmp_path: Path) -> None:
    """The append-only file is on."""
    path = tmp_path / "data of mine"
    async with RedisBackend.embedded(path, namespace="kept") as backend:
        posted = await backend.post([event()])
    async with RedisBackend.embedded(path, namespace="kept") as backend:
        shown = await backend.peek("e")

    assert shown.value is not None
    assert (shown.epoch, shown.seq) == (posted.epoch, posted.seq)


async def test_an_embedded_server_starts_with_the_first_call_and_ends_with_close() -> None:
    backend = RedisBackend.embedded()
    await asyncio.gather(*(backend.post([event(str(number))]) for number in range(20)))
    url = backend.url
    assert url is not None
    other = RedisBackend.from_url(url)
    assert (await other.inspect()).value.live == 20
    await other.close()

    await backend.close()

    with pytest.raises(StoreUnreachable):
        await RedisBackend.from_url(url).open()


async def test_states_are_long_enough_for_a_hash_table(server: Server) -> None:
    """In a list, as servers keep short values, each look would take as long as there are events in hand."""
    member = Member("n", "1")
    with server.client() as client:
        async with RedisBackend.from_url(server.url) as backend:
            await backend.join(member)
            new = EventData(id="e", payload=b"{}", max_retries=3, expires_after_us=HOUR_US)
            await backend.post(
                [NewEvent(new, After(0)), NewEvent(evolve(new, id="f", expires_after_us=None), After(0))]
            )

            claimed = await backend.claim(member, room=2, confirm_timeout_us=HOUR_US, nonce="0")
            delivered = client.hvals("{dt}:states")
            for delivery in claimed.value.deliveries:
                await backend.release(delivery.receipt, how=Release.UNCOUNTED, delay_us=0)

            assert client.object("encoding", "{dt}:states") == b"hashtable"
            assert [len(state) > 64 for state in (*delivered, *client.hvals("{dt}:states"))] == [True] * 4
            again = await backend.claim(member, room=2, confirm_timeout_us=HOUR_US, nonce="1")
            outcomes = await backend.confirm([delivery.receipt for delivery in again.value.deliveries])
    assert outcomes.value == (ConfirmOutcome.CONFIRMED, ConfirmOutcome.CONFIRMED)


class InMemory(Connection):
    """A connection as fakeredis has them: redis-py's, which is connected to an object."""

    async def _connect(self) -> None:
        self._writer = object()  # type: ignore[assignment]


class Talkative(Connection):
    """Changes nothing about how it connects."""

    async def on_connect(self) -> None:
        await super().on_connect()


class FakeRedis(Redis):
    def __init__(self) -> None:
        super().__init__(connection_pool=ConnectionPool(connection_class=InMemory))


@pytest.mark.parametrize(
    ("client", "named"),
    [
        (FakeRedis(), "test_backend.InMemory"),
        (Redis(connection_pool=ConnectionPool(connection_class=type("Sub", (InMemory, SSLConnection), {}))), "Sub"),
        (create_autospec(Redis, instance=True), "None"),
        (object(), "builtins.object"),
        (None, "NoneType"),
    ],
)
def test_a_client_that_makes_no_sockets_is_refused_by_name(client: Any, named: str) -> None:
    """It was accepted, and each call failed after 4.5 s with an AttributeError in its text."""
    with pytest.raises(InvalidArgument, match=rf"^client .*{named}.*SimBackend.*RedisBackend\.embedded") as caught:
        RedisBackend(client)
    assert caught.value.argument == "client"


@pytest.mark.parametrize("kind", [Connection, SSLConnection, UnixDomainSocketConnection, Talkative])
def test_a_client_with_sockets_is_taken(kind: type[Connection]) -> None:
    RedisBackend(Redis(connection_pool=ConnectionPool(connection_class=kind)))


def test_every_way_of_making_a_backend_takes_all_that_the_constructor_takes() -> None:
    """What one of them lacks cannot be had by those who use it."""

    def options(make: Any) -> list[inspect.Parameter]:
        return [
            parameter
            for parameter in inspect.signature(make).parameters.values()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        ]

    wanted = options(RedisBackend.__init__)
    assert wanted
    assert options(RedisBackend.from_url) == wanted
    assert options(RedisBackend.embedded) == wanted


async def test_what_is_given_to_any_of_them_has_its_effect(server: Server) -> None:
    clock_us = 2_000_000_000_000_000
    options: dict[str, Any] = {
        "partitions": 2,
        "request_timeout": 0.25,
        "durability": Durable(replicas=1, within=0.01),
        "repeat_within": 0.5,
        "clock_for_tests": lambda: clock_us,
    }
    async with Redis.from_url(server.url) as client:
        made = [
            RedisBackend(client, "given", **options),
            RedisBackend.from_url(server.url, "given", **options),
            RedisBackend.embedded(**options),
        ]
        for backend in made:
            async with backend:
                assert len(backend.partitions) == 2
                assert backend._connector.request_timeout_s == 0.25
                assert {part.repeat_within_us for part in backend.partitions} == {500_000}
                part = backend.partitions[0]
                assert (await part.open()).at_us >= clock_us
                with pytest.raises(NotDurable):
                    await DTimer(backend).post("x", 60_000)
