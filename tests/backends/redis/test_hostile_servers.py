"""What listens at the address may be anything: no reply takes memory or time without bound, or ends a command oddly."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.sentinel import Sentinel

from dtimer import OutcomeUnknown, StoreRefused, StoreUnreachable
from dtimer.backends.redis import RedisBackend
from dtimer.cli import main
from dtimer.limits import REPLY_MAX_BYTES
from dtimer.protocol.values import (
    After,
    EventData,
    Extension,
    IfExists,
    LetterName,
    Member,
    NewEvent,
    Receipt,
    Release,
    Window,
)
from support.hostile import Hostile, answering, endless
from support.tls import make_certificates
from support.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.once

WELCOME = b"+PONG\r\n-NOPERM\r\n-NOPERM\r\n"
"""To PING, and to INFO twice: what a connection asks first."""
TITLE = b"\x1b]0;owned\x07\x1b[2J"
PLACE = b"*2\r\n$30\r\n0123456789abcdef 1 1000000 0 ?\r\n$-1\r\n"
"""What `open` is answered."""

ENDLESS: dict[str, Callable[[], Iterator[bytes]]] = {
    "bulk": lambda: endless(b"$9999999999\r\n", b"x"),
    "bulk of the largest size": lambda: endless(b"$%d\r\n" % (REPLY_MAX_BYTES + 1), b"x"),
    "many parts": lambda: endless(b"*1000000000\r\n", b":1\r\n"),
    "parts that are large": lambda: endless(b"*10000\r\n", b"$60000\r\n" + bytes(60_000) + b"\r\n"),
    "line": lambda: endless(b"+", b"x"),
    "error": lambda: endless(b"-ERR ", b"x"),
    "nesting": lambda: endless(b"", b"*1\r\n"),
    "replies": lambda: endless(b"", b"+OK\r\n"),
}
SENT_MAX_BYTES = REPLY_MAX_BYTES + (16 << 20)
"""Until the connection is closed; the rest is in buffers of the host."""

# --- replies without an end ----------------------------------------------------------------------------------------


@asynccontextmanager
async def using(server: Hostile, kind: str = "server") -> AsyncIterator[RedisBackend]:
    """A backend that talks to this server, or asks it for the one to talk to; not opened."""
    client: Redis | RedisCluster
    if kind == "cluster":
        client = RedisCluster(startup_nodes=[ClusterNode(server.host, server.port)])
    elif kind == "sentinel":
        client = Sentinel([(server.host, server.port)]).master_for("m")
    else:
        client = Redis.from_url(server.url)
    # A busy host reads much for longer than the usual limit of a request, which must not be what ends it.
    backend = RedisBackend(client, request_timeout=2 * TIMEOUT_S)
    try:
        yield backend
    finally:
        await backend.close()
        await client.aclose()


@pytest.mark.parametrize("reply", ENDLESS.values(), ids=ENDLESS)
async def test_an_endless_reply_to_a_request_ends_its_connection(reply: Callable[[], Iterator[bytes]]) -> None:
    """Long before the time limit, and with the reason."""
    async with answering(WELCOME, reply()) as server, using(server) as backend:
        async with asyncio.timeout(TIMEOUT_S):
            with pytest.raises(OutcomeUnknown, match=r"of more than|parts|levels|line|not dtimer's"):
                await backend.peek("x")

        assert server.num_bytes < SENT_MAX_BYTES


@pytest.mark.parametrize("reply", ENDLESS.values(), ids=ENDLESS)
async def test_an_endless_reply_while_connecting_ends_the_attempt(reply: Callable[[], Iterator[bytes]]) -> None:
    """redis-py connects; what it is answered is bounded, too."""
    async with answering(reply()) as server, using(server) as backend:
        async with asyncio.timeout(TIMEOUT_S):
            with pytest.raises(StoreUnreachable):
                await backend.peek("x")

        assert server.num_bytes < SENT_MAX_BYTES


@pytest.mark.parametrize("kind", sorted(ENDLESS.keys() - {"replies"}))
async def test_an_endless_reply_on_a_subscription_ends_it(kind: str) -> None:
    """It has no time limit, since silence is usual there. Messages without an end are read, and not kept."""
    subscribed = b"".join(
        b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:%d\r\n" % (len(name), name, number)
        for number, name in enumerate((b"{dt}:e:n:node", b"{dt}:e:p"), 1)
    )
    async with answering(WELCOME, chain([subscribed], ENDLESS[kind]())) as server, using(server) as backend:
        with pytest.raises(StoreUnreachable):
            await heard_until_it_ends(backend)

        assert server.num_bytes < SENT_MAX_BYTES


async def heard_until_it_ends(backend: RedisBackend) -> None:
    async with asyncio.timeout(TIMEOUT_S), backend.wakeups("node", "e") as messages:
        async for _ in messages:
            pass


async def test_what_comes_unasked_for_on_an_idle_connection_ends_it() -> None:
    """Nobody reads there, so nobody would ever hold it back."""
    async with answering(WELCOME, chain([PLACE], endless(b"", b"+OK\r\n"))) as server, using(server) as backend:
        await backend.open()
        await until(lambda: server.ended)

        assert server.num_bytes < SENT_MAX_BYTES


@pytest.mark.parametrize("reply", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
async def test_an_endless_reply_to_the_question_for_the_server_ends_the_attempt(
    reply: Callable[[], Iterator[bytes]], kind: str
) -> None:
    async with answering(WELCOME, reply()) as server, using(server, kind) as backend:
        async with asyncio.timeout(TIMEOUT_S):
            with pytest.raises(StoreUnreachable):
                await backend.peek("x")

        assert server.num_bytes < SENT_MAX_BYTES


# --- replies that are whole, and strange -----------------------------------------------------------------------------

STRANGE: dict[str, bytes] = {
    "OK": b"+OK\r\n",
    "nothing": b"$-1\r\n",
    "a number": b":5\r\n",
    "no parts": b"*0\r\n",
    "one part": b"*1\r\n:1\r\n",
    "a place that is a number": b"*2\r\n:1\r\n:2\r\n",
    "a place of too few words": b"*2\r\n$3\r\na b\r\n$-1\r\n",
    "a place of too many words": b"*2\r\n$11\r\ne 1 2 3 ? 5\r\n$-1\r\n",
    "a place outside ASCII": b"*2\r\n$9\r\n\xff 1 2 3 ?\r\n$-1\r\n",
    "a value that is none": b"*2\r\n$9\r\ne 1 2 3 ?\r\n*2\r\n*1\r\n:1\r\n:99\r\n",
    "a number without an outcome": b"*2\r\n$9\r\ne 1 2 3 ?\r\n:99\r\n",
    "digits that are no outcomes": b"*2\r\n$9\r\ne 1 2 3 ?\r\n$2\r\nzz\r\n",
    "a negative length": b"*-5\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "RESP3": b"%1\r\n+a\r\n:1\r\n",
    "a redirection to nowhere": b"-MOVED\r\n",
    "a redirection to no port": b"-MOVED 1 a:b\r\n",
    "deep parts": b"*2\r\n$9\r\ne 1 2 3 ?\r\n" + b"*1\r\n" * 7 + b":1\r\n",
}


RECEIPT = Receipt("x", 1, "n")
MEMBER = Member("node", "1", 1_000_000)
CALLS: dict[str, Callable[[RedisBackend], Awaitable[object]]] = {
    "open": lambda backend: backend.open(),
    "post": lambda backend: backend.post([NewEvent(EventData("x", b"1"), After(1))]),
    "cancel": lambda backend: backend.cancel(["x"]),
    "change_delay": lambda backend: backend.change_delay("x", delay_us=1),
    "claim": lambda backend: backend.claim(MEMBER, room=1, confirm_timeout_us=1, nonce="n"),
    "confirm": lambda backend: backend.confirm([RECEIPT]),
    "confirm_newest": lambda backend: backend.confirm_newest("x"),
    "release": lambda backend: backend.release(RECEIPT, how=Release.COUNTED, delay_us=1),
    "extend": lambda backend: backend.extend([Extension(RECEIPT, 1)]),
    "bury": lambda backend: backend.bury(RECEIPT, detail=""),
    "peek": lambda backend: backend.peek("x"),
    "upcoming": lambda backend: backend.upcoming(Window(), limit=1),
    "join": lambda backend: backend.join(MEMBER),
    "leave": lambda backend: backend.leave(MEMBER),
    "dead_letters": lambda backend: backend.dead_letters(None, limit=1),
    "resend": lambda backend: backend.resend(LetterName("x"), due=After(1), if_exists=IfExists.KEEP),
    "discard": lambda backend: backend.discard([LetterName("x")]),
    "inspect": lambda backend: backend.inspect(),
    "branches": lambda backend: backend.branches(),
    "examine": lambda backend: backend.examine(),
}
SAY_NOTHING = {"open", "join", "leave", "examine"}
"""Whatever value comes with the place in history, they take it."""


@pytest.mark.parametrize("reply", STRANGE.values(), ids=STRANGE)
async def test_a_strange_reply_is_an_error_of_the_store(reply: bytes) -> None:
    """Whatever the call; as far as anybody knows it may have been applied."""
    accepted: set[str] = set()
    refused: set[str] = set()
    async with answering(WELCOME, then=reply) as server, using(server) as backend:
        for name, call in CALLS.items():
            try:
                await call(backend)
                accepted.add(name)
            except StoreRefused:
                refused.add(name)
            except OutcomeUnknown:
                pass

        assert not refused or reply.startswith(b"-")
        assert accepted <= SAY_NOTHING


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
@pytest.mark.parametrize(
    "reply",
    [
        *STRANGE.values(),
        b"*4\r\n$5\r\nflags\r\n$6\r\nmaster\r\n$2\r\nip\r\n$1\r\nx\r\n",
        b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$2\r\n\xff\xff\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$4\r\na\x1b[m\r\n:99999\r\n",
        b"*1\r\n*2\r\n:0\r\n:16383\r\n",
        b"*8\r\n$5\r\nflags\r\n$6\r\nmaster\r\n$2\r\nip\r\n$3\r\n\x1b[m\r\n$4\r\nport\r\n$1\r\n1\r\n"
        b"$19\r\nnum-other-sentinels\r\n$1\r\n1\r\n",
    ],
)
async def test_a_strange_answer_to_the_question_for_the_server_is_an_error_of_the_store(
    kind: str, reply: bytes
) -> None:
    async with answering(WELCOME, then=reply) as server, using(server, kind) as backend:
        with pytest.raises(StoreUnreachable) as caught:
            await backend.peek("x")

        assert str(caught.value).isprintable()


# --- the command line ----------------------------------------------------------------------------------------------


def info(policy: bytes) -> bytes:
    text = b"maxmemory_policy:" + policy + b"\r\naof_enabled:0\r\n"
    return b"$%d\r\n%b\r\n" % (len(text), text)


SERVERS: dict[str, list[bytes | Iterator[bytes]]] = {
    "OK to all": [b"+OK\r\n"] * 9,
    "*-5 to all": [b"*-5\r\n"] * 9,
    "a strange place": [WELCOME, b"*2\r\n$3\r\nabc\r\n$-1\r\n"],
    "HTTP": [b"HTTP/1.1 400 Bad Request\r\n\r\n<html>" + TITLE],
    "an endless bulk": [WELCOME, endless(b"$9999999999\r\n", b"x")],
    "an endless greeting": [endless(b"$9999999999\r\n", b"x")],
    "an error that writes the title": [WELCOME, b"-ERR " + TITLE + b"\r\n"],
    "an error at once": [b"-ERR " + TITLE + b"\r\n"],
    "a code that writes the title": [WELCOME, b"-" + TITLE + b"\r\n"],
    "a denial that writes the title": [WELCOME, b"-NOPERM " + TITLE + b"\r\n"],
    "strange settings": [WELCOME, PLACE, b"+" + TITLE + b"\r\n"],
    "settings that are an error": [WELCOME, PLACE, b"-ERR " + TITLE + b"\r\n"],
    "settings that write the title": [WELCOME, PLACE, info(b"allkeys-" + TITLE), b"*2\r\n$4\r\nsave\r\n$1\r\nx\r\n"],
    "a redirection that writes the title": [WELCOME, b"-MOVED 1 " + TITLE + b":1\r\n"],
    "a binary": [bytes(range(256))],
    "nothing at all": [b""],
}


async def command(*arguments: str) -> int:
    """What its exit status would be; the loop goes on with the servers meanwhile."""
    return await asyncio.to_thread(main, arguments)


async def shown_in_one_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The output of a command that cannot do its work."""
    status = await command(*arguments)
    captured = capsys.readouterr()
    (line,) = (captured.out + captured.err).splitlines()
    assert line.isprintable()
    assert len(line) < 1_000
    assert status == (1 if line.startswith("eviction") else 2)
    return line


@pytest.mark.parametrize("kind", SERVERS)
async def test_the_doctor_says_in_a_line_what_is_no_redis(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback, and no control characters of the server's on the terminal."""
    finite = [answer if isinstance(answer, bytes) else endless(b"$9999999999\r\n", b"x") for answer in SERVERS[kind]]
    async with answering(*finite) as server:
        await shown_in_one_line(capsys, "doctor", server.url)


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("option", [(), ("--cluster",), ("--sentinel", "m")], ids=["server", "cluster", "sentinel"])
async def test_an_operators_commands_say_in_a_line_what_is_no_redis(
    kind: str, option: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "nothing at all":
        return
    for name, *arguments in (["migrate-partitions", "--to", "2"], ["purge", "--yes"], ["upgrade", "--yes"]):
        finite = [
            answer if isinstance(answer, bytes) else endless(b"$9999999999\r\n", b"x") for answer in SERVERS[kind]
        ]
        async with answering(*finite) as server:
            await shown_in_one_line(capsys, name, server.url, *arguments, *option)


async def test_the_doctor_expects_no_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(make_certificates(tmp_path).server)
    async with answering(WELCOME, tls=context) as server:
        await shown_in_one_line(capsys, "doctor", server.url)


async def test_the_doctor_expects_tls(capsys: pytest.CaptureFixture[str]) -> None:
    async with answering(WELCOME) as server:
        await shown_in_one_line(capsys, "doctor", server.url.replace("redis:", "rediss:"))
