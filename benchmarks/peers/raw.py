"""The server's own limits: pipelined commands over a plain socket, and redis-py without a library above it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import hiredis
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

DEPTHS = (1, 100, 1_000)
PAYLOAD = json.dumps({"n": 123_456, "due_ms": 1_800_000_000_000, "text": "x" * 155})
SCRIPT = "redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2]) redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])"
CALLERS = 64
DEPTH_ONE_MAX_NUM = 5_000


def pipelined(sock: socket.socket, make: Callable[[int], bytes], replies: int, depth: int, num: int) -> float:
    """Timers a second, `depth` of them sent at once. `replies` come for each."""
    num = min(num, DEPTH_ONE_MAX_NUM) if depth == 1 else num
    parts = [b"".join(make(n) for n in range(first, min(first + depth, num))) for first in range(0, num, depth)]
    reader = hiredis.Reader()
    start_s = time.perf_counter()
    for part in parts:
        sock.sendall(part)
        left = replies * depth
        while left:
            reader.feed(sock.recv(1 << 20))
            while left and (reply := reader.gets()) is not False:
                if isinstance(reply, Exception):
                    raise reply
                left -= 1
    return num / (time.perf_counter() - start_s)


def _commands(depth: int, n: int) -> bytes:
    id = f"{n:016d}"
    added: bytes = hiredis.pack_command(("ZADD", f"a{depth}", n, id))
    stored: bytes = hiredis.pack_command(("HSET", f"b{depth}", id, PAYLOAD))
    return added + stored


def _script(sha: str, depth: int, n: int) -> bytes:
    packed: bytes = hiredis.pack_command(("EVALSHA", sha, 2, f"g{depth}", f"h{depth}", n, f"{n:016d}", PAYLOAD))
    return packed


async def through_redis_py(url: str, num: int) -> dict[str, float]:
    found: dict[str, float] = {}
    client = AsyncRedis.from_url(url, max_connections=1000)
    num = min(num, DEPTH_ONE_MAX_NUM)
    start_s = time.perf_counter()
    for n in range(num):
        await client.zadd("c", {str(n): n})
    found["redis_py.one"] = num / (time.perf_counter() - start_s)

    numbers = iter(range(num))

    async def caller() -> None:
        for n in numbers:
            await client.zadd("d", {str(n): n})

    start_s = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    found["redis_py.callers"] = num / (time.perf_counter() - start_s)
    start_s = time.perf_counter()
    for first in range(0, num, 100):
        pipeline = client.pipeline(transaction=False)
        for n in range(first, first + 100):
            pipeline.zadd("e", {str(n): n})
            pipeline.hset("f", str(n), PAYLOAD)
        await pipeline.execute()
    found["redis_py.pipeline"] = num / (time.perf_counter() - start_s)
    await client.aclose()
    return found


def limits(url: str, num: int) -> dict[str, float]:
    found: dict[str, float] = {}
    with Redis.from_url(url) as client:
        sha = client.script_load(SCRIPT)
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    with socket.create_connection((parts.hostname, parts.port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for depth in DEPTHS:
            found[f"commands.{depth}"] = pipelined(sock, partial(_commands, depth), 2, depth, num)
            found[f"script.{depth}"] = pipelined(sock, partial(_script, sha, depth), 1, depth, num)
    return {**found, **asyncio.run(through_redis_py(url, num))}


def main() -> None:
    replies = os.dup(1)
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        reply = limits(order["url"], order["num"]) if order["do"] == "limits" else {}
        os.write(replies, json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    main()
