"""Many timers due at one instant, and what it takes until the last of them is done with."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Final

from attrs import frozen

from benchmarks.bench import NAMESPACE, Bench, best_how, post
from benchmarks.catalogue import Peer
from benchmarks.measures.firing import checked, wait_for
from benchmarks.process import PeerProcess, TooSlow, number
from benchmarks.server import Work

SETTLING_MS: Final = 300
PROBE_NUM: Final = 500
FAR_FIRST: Final = 1_000_000_000
ROOM: Final = (1.5, 5.0)
"""How much longer posting may take than expected; the second is for a second try."""


@frozen
class Drained:
    """A drain in which every timer fired once and none early.

    Attributes:
        seconds: from the due time until the last was confirmed, or, where a handler does not learn of that, started.
        shares: how many each process had.
        posted: what the server did for the posts, `fired` for the rest.
    """

    num: int
    post_s: float
    seconds: float
    first_ms: float
    shares: tuple[int, ...]
    posted: Work
    fired: Work

    @property
    def rate(self) -> float:
        return self.num / self.seconds


def drain(
    bench: Bench,
    peer: Peer,
    num: int,
    *,
    workers: int = 1,
    namespace: str = NAMESPACE,
    flush: bool = True,
    expected_s: float | None = None,
    batch: int = 500,
) -> Drained:
    """Post timers that are due at the same millisecond, have processes take them, and check every one.

    Args:
        flush: begin with an empty server.
        expected_s: how long posting will take; found out first, with some timers that stay pending, if not given.

    Raises:
        Broken: one was lost, early, or fired twice.
        TooSlow: it could not post them before they were due.
    """
    # When the last confirm was answered, nobody but an onlooker knows, with handlers that wait for none.
    peer = peer.told(watch=1)
    for room in ROOM:
        if flush:
            bench.server.flush()
        with ExitStack() as stack:
            poster = stack.enter_context(bench.process(peer, namespace))
            if expected_s is None:
                reply = post(poster, best_how(peer), PROBE_NUM, first=FAR_FIRST)
                posting_s = number(reply, "seconds") * num / PROBE_NUM
            else:
                posting_s = expected_s
            # Started by now, so that only their joining lies between the posts and the due time.
            nodes = [stack.enter_context(bench.process(peer, namespace)) for _ in range(workers)]
            due_ms = int((time.time() + room * (posting_s + bench.sizes.lead_s)) * 1000)
            start = bench.server.work()
            reply = post(poster, best_how(peer), num, due_ms=due_ms, spread_ms=0, batch=batch)
            posted = bench.server.work() - start
            for node in nodes:
                node.ask("work", workers=1)
            if time.time() * 1000 < due_ms - SETTLING_MS:
                return _fire(bench, nodes, due_ms, num, number(reply, "seconds"), posted)
        if not flush:
            break  # what else is on the server must stay there
    raise TooSlow(f"{num} were not posted before they were due")


def _fire(  # noqa: PLR0917
    bench: Bench, nodes: list[PeerProcess], due_ms: int, num: int, post_s: float, posted: Work
) -> Drained:
    before = bench.server.work()
    time.sleep(max(0.0, due_ms / 1000 - time.time()))
    wait_for(nodes, num)
    fired = bench.server.work() - before
    replies = [node.ask("fires") for node in nodes]
    for node in nodes:
        node.ask("rest")
    late_us = checked([reply["fires"] for reply in replies], range(num))
    shares = tuple(len(fires) for reply in replies if isinstance(fires := reply["fires"], list))
    last_us = max(number(reply, "last_us") for reply in replies)
    return Drained(num, post_s, (last_us - due_ms * 1000) / 1e6, late_us[0] / 1000, shares, posted, fired)
