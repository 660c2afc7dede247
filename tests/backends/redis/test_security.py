"""TLS, passwords and permissions, with a whole timer at work."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from dtimer import DTimer, StoreDenied, StoreUnreachable
from dtimer.backends.redis import RedisBackend
from dtimer.protocol.values import Member
from support.guide import rights_of_the_guide
from support.servers import HOST, Binary, Server, StartServer
from support.tls import Certificates, make_certificates, tls_in_front_of
from support.waiting import TIMEOUT_S

PASSWORD: Final = "p4ssword"


async def _round_trip(backend: RedisBackend) -> None:
    """Join, take an event, be refused once, take it again, confirm it, leave: everything that a node does."""
    async with backend, DTimer(backend, node_id="n") as timer:
        await timer.post("late", 1_000_000, id="late")
        await timer.post("x", 0, id="x", max_retries=2)
        events = timer.events()
        async with asyncio.timeout(TIMEOUT_S):
            event = await anext(events)
            await event.release(0, counted=True)
            async with await anext(events) as event:
                assert (event.id, event.num_retries) == ("x", 1)
        assert await timer.peek("x") is None
        assert await timer.cancel("late")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def with_password(server: Server) -> Server:
    """The server, on which the default user may do nothing that the user ``shop`` may."""
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "shop", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        admin.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval", "-subscribe")
    return server


def client(port: int, certificates: Certificates, *, with_certificate: bool = True) -> Redis:
    own = str(certificates.client) if with_certificate else None
    return Redis(
        host=HOST,
        port=port,
        username="shop",
        password=PASSWORD,
        ssl=True,
        ssl_ca_certs=str(certificates.authority),
        ssl_certfile=own,
        ssl_keyfile=own,
    )


async def test_commands_and_wake_ups_go_over_tls_with_a_password(
    private_server: StartServer, certificates: Certificates
) -> None:
    server = with_password(private_server())
    async with tls_in_front_of(server.port, certificates) as port:
        await _round_trip(RedisBackend(client(port, certificates)))


async def test_a_server_with_tls_of_its_own(
    server_program: Binary, private_server: StartServer, certificates: Certificates
) -> None:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    try:
        server = private_server(
            tls_port=str(port),
            tls_cert_file=str(certificates.server),
            tls_key_file=str(certificates.server),
            tls_ca_cert_file=str(certificates.authority),
        )
    except AssertionError:
        pytest.skip(f"{server_program.name} was built without TLS")
    with_password(server)
    await _round_trip(RedisBackend(client(port, certificates)))


async def test_a_server_with_a_foreign_certificate_is_not_spoken_to(
    private_server: StartServer, certificates: Certificates, tmp_path: Path
) -> None:
    server = with_password(private_server())
    async with tls_in_front_of(server.port, make_certificates(tmp_path)) as port:
        backend = RedisBackend(client(port, certificates, with_certificate=False))
        with pytest.raises(StoreUnreachable, match=r"(?i)certificate"):
            await backend.open()
        await backend.close()
    assert server.num_calls("auth") == 0


async def test_a_wrong_password_is_denied(private_server: StartServer) -> None:
    server = with_password(private_server())
    backend = RedisBackend.from_url(f"redis://shop:wrong@{HOST}:{server.port}/0")
    with pytest.raises(StoreDenied):
        await backend.open()
    await backend.close()


# --- permissions -----------------------------------------------------------------------------------------------


@pytest.fixture
def restricted(server: Server) -> Iterator[str]:
    """The URL of a user with exactly the rights that the how-to guide gives it, for the namespace ``shop``."""
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "shop", *rights_of_the_guide())
        yield f"redis://shop:password@{server.host}:{server.port}/0"
        admin.execute_command("ACL", "DELUSER", "shop")


async def test_a_node_with_the_rights_of_the_guide_does_everything(restricted: str) -> None:
    await _round_trip(RedisBackend.from_url(restricted, namespace="shop"))


@pytest.mark.parametrize("namespace", ["other", "shop2", "sho", "dt"])
async def test_it_can_touch_no_other_namespace(server: Server, restricted: str, namespace: str) -> None:
    async with RedisBackend.from_url(server.url, namespace=namespace) as theirs:
        await DTimer(theirs).post("secret", 1_000_000, id="x")
        epoch = (await theirs.open()).epoch

        ours = RedisBackend.from_url(restricted, namespace=namespace)
        with pytest.raises(StoreDenied):
            await ours.open()
        with pytest.raises(StoreDenied):
            await ours.join(Member("n", "1"))
        with pytest.raises(StoreDenied):
            await ours.cancel(["x"])
        with pytest.raises(StoreDenied):
            await ours.peek("x")
        with pytest.raises(StoreDenied):
            await ours.wakeups("n", epoch).__aenter__()
        await ours.close()

        assert await DTimer(theirs).peek("x") is not None


@pytest.mark.parametrize(
    "command",
    [("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("GET", "{shop}:meta"), ("DEL", "{shop}:meta"), ("INFO",)],
    ids=" ".join,
)
async def test_it_may_do_nothing_else(restricted: str, command: tuple[str, ...]) -> None:
    async with Redis.from_url(restricted) as user:
        with pytest.raises(Exception, match=r"(?i)permission"):
            await user.execute_command(*command)
