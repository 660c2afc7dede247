"""Connections that are cut, refused, or stand and carry nothing: for commands, for wake-ups, for both (N4, W1, D7)."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from typing import Final

import pytest
from redis.asyncio import Redis

from dtimer import DTimer, NodeDisturbed, Post
from dtimer.backends.redis.pool import Pool, connection_settings
from dtimer.errors import OutcomeUnknown
from dtimer.limits import BACKOFF_MAX_US, BACKOFF_MIN_US, SECOND_US
from support.bounds import LATE_MS, RECONNECT_MS, SLACK_MS
from support.figures import Figure
from support.members import behind, beside, full_member, logged
from support.proxy import Proxy, Which, every
from support.servers import Server
from support.waiting import until
from support.worlds import Node, lateness_ms

SHORT_S: Final = 2.0
"""A request timeout that strikes, but not before it is to: a busy host stalls for a while."""
AWAY_S: Final = 5.0


def wakeups(sent: bytes) -> bool:
    return b"SUBSCRIBE" in sent


def commands(sent: bytes) -> bool:
    return b"SUBSCRIBE" not in sent


PARTS: Final[dict[str, Which]] = {"commands": commands, "wake-ups": wakeups, "both": every}
parts = pytest.mark.parametrize("which", PARTS.values(), ids=PARTS)


# --- an outage and its end -----------------------------------------------------------------------------------------


@parts
async def test_cut_connections_delay_an_event_by_a_moment(one_server: Server, which: Which, figure: Figure) -> None:
    """Rules N4 and D7: a connection that was cut is made again at once, and the node looks for what it missed."""
    async with Proxy(one_server.port) as proxy, behind(proxy) as node, beside(one_server) as other:
        await DTimer(other).post("p", 300)
        proxy.cut(which)
        await until(lambda: node.events)
        figure(lateness_ms=lateness_ms(node.events[0]))

        assert lateness_ms(node.events[0]) < LATE_MS
        await full_member(one_server, other, node)


@parts
async def test_after_an_outage_a_node_is_a_full_member_again(
    one_server: Server, which: Which, caplog: pytest.LogCaptureFixture, figure: Figure
) -> None:
    """Rule N4: within the longest pause between two attempts it is subscribed, in the ring and claiming; what fell due
    meanwhile is late by the outage; its going and its coming back are one line each in the log."""
    async with Proxy(one_server.port) as proxy, behind(proxy) as node, beside(one_server) as other:
        proxy.refusing = True
        proxy.cut(which)
        await DTimer(other).post("p", 500)
        await until(lambda: node.errors)
        await asyncio.sleep(2)
        proxy.pass_on()
        back_ms = 1_000 * await full_member(one_server, other, node)
        await until(lambda: node.events and node.timer.counters.reconnects)
        figure(back_ms=back_ms)

        assert back_ms < RECONNECT_MS + SLACK_MS
        assert node.error_types() == [NodeDisturbed]
        assert [record.levelno for record in logged(caplog)] == [logging.WARNING] * 2
        gone, back = [record.message for record in logged(caplog)]
        assert "tries again by itself" in gone
        assert "works again" in back


@pytest.mark.once
@parts
async def test_while_the_store_is_away_attempts_are_few_and_never_far_apart(
    one_server: Server, which: Which, figure: Figure
) -> None:
    """Rule N4: pauses double up to a cap, each shortened by chance; so there is no hot loop, and no node gives up."""
    async with Proxy(one_server.port) as proxy, behind(proxy) as node:
        before = proxy.num_accepted
        proxy.refusing = True
        proxy.cut(which)
        started = asyncio.get_running_loop().time()
        await asyncio.sleep(AWAY_S)
        tried_at = [started, *proxy.accepted_at[before:]]
        num_parts = 2 if which is every else 1
        gaps = [later - earlier for earlier, later in pairwise(tried_at)]
        figure(attempts=len(gaps), seconds=AWAY_S)

        assert 3 * num_parts <= len(gaps) <= most_attempts(AWAY_S) * num_parts
        assert max(gaps) <= BACKOFF_MAX_US / SECOND_US + SLACK_MS / 1_000
        assert node.error_types() == [NodeDisturbed]
        # A claim that failed says nothing about a subscription that stands.
        assert bool(node.timer.counters.failed_subscriptions) is (which is not commands)
        assert bool(node.timer.counters.failed_claims) is (which is not wakeups)


def most_attempts(duration_s: float) -> int:
    """If chance shortens each pause by half; one more for the claim that each new subscription asks for."""
    pause_s, spent_s, number = BACKOFF_MIN_US / SECOND_US, 0.0, 2
    while (spent_s := spent_s + min(pause_s, BACKOFF_MAX_US / SECOND_US) / 2) < duration_s:
        pause_s, number = 2 * pause_s, number + 1
    return number


@pytest.mark.once
async def test_nodes_do_not_come_back_all_at_once(one_server: Server) -> None:
    """Rule N4: their pauses are drawn, so that a server that comes back is not met by all in one moment."""
    async with Proxy(one_server.port) as a, Proxy(one_server.port) as b, behind(a, "a"), behind(b, "b"):
        for proxy in (a, b):
            proxy.refusing = True
            proxy.cut(wakeups)
            proxy.accepted_at.clear()
        await until(lambda: min(a.num_accepted, b.num_accepted) >= 5)

        assert max(abs(x - y) for x, y in zip(a.accepted_at[:5], b.accepted_at[:5], strict=True)) > 0.01


# --- half open -----------------------------------------------------------------------------------------------------


async def test_a_subscription_that_is_silently_dead_is_noticed_and_renewed(
    one_server: Server, caplog: pytest.LogCaptureFixture, figure: Figure
) -> None:
    """Rule W1: a node that does not hear its own pulse subscribes anew, counts that, and says so once."""
    async with Proxy(one_server.port) as proxy, behind(proxy) as node, beside(one_server) as other:
        await until(lambda: node.timer.counters.pulses_heard)
        heard = node.timer.counters.pulses_heard
        proxy.stall_present(wakeups)
        started = asyncio.get_running_loop().time()
        await DTimer(other).post("p", 100)
        await until(lambda: node.events)
        await until(lambda: node.timer.counters.pulses_heard > heard)
        figure(lateness_ms=lateness_ms(node.events[0]), deaf_ms=(asyncio.get_running_loop().time() - started) * 1_000)

        assert lateness_ms(node.events[0]) < LATE_MS
        assert node.timer.counters.failed_subscriptions == node.timer.counters.reconnects == 1
        assert node.error_types() == [NodeDisturbed]
        assert len(logged(caplog)) == 2


async def test_after_a_silent_connection_no_other_that_stood_beside_it_is_tried(one_server: Server) -> None:
    """Rule F1: each try on a connection that nothing comes through costs the time limit of a request. When one has
    shown itself dead, those that are no younger than it would cost it again, one after the other."""
    async with Proxy(one_server.port) as proxy:
        connections = Pool(connection_settings(Redis(host=proxy.host, port=proxy.port)), request_timeout_s=SHORT_S)
        await asyncio.gather(*(connections.request("open", b"PING") for _ in range(8)))
        proxy.stall_present()

        with pytest.raises(OutcomeUnknown, match="no reply within"):
            await connections.request("open", b"PING")
        assert await connections.request("open", b"PING") == b"PONG"

        await connections.close()


async def test_half_open_connections_cost_one_time_limit(one_server: Server, figure: Figure) -> None:
    """Rules N4 and F1: with all that stand gone silent, commands and wake-ups alike, an event is late by the time
    limit of one request and a moment; here with several connections, as an application has that posts at once."""
    async with Proxy(one_server.port) as proxy, behind(proxy, request_timeout=1) as node, beside(one_server) as other:
        await asyncio.gather(*(node.timer.peek("x") for _ in range(8)))
        await DTimer(other).post("p", 200)
        proxy.stall_present()
        await until(lambda: node.events)
        figure(lateness_ms=lateness_ms(node.events[0]), request_timeout_ms=1_000)

        assert lateness_ms(node.events[0]) < 1_000 + LATE_MS
        await full_member(one_server, other, node)


@pytest.mark.once
async def test_after_a_network_that_swallowed_everything_a_node_is_a_full_member_again(
    one_server: Server, figure: Figure
) -> None:
    """Rule N4: new connections stall too, so an attempt ends with its time limit and not at once."""
    async with Proxy(one_server.port) as proxy, behind(proxy, request_timeout=1) as node, beside(one_server) as other:
        # Tracked: a claim that was under way is executed when the network lets it through, and nobody hears of it (F2).
        await DTimer(other).post("p", 200, max_retries=5, confirm_timeout=1)
        proxy.stall()
        await until(lambda: node.errors)
        await asyncio.sleep(2)
        proxy.pass_on()
        back_ms = 1_000 * await full_member(one_server, other, node)
        await until(lambda: node.events)
        figure(back_ms=back_ms, request_timeout_ms=1_000)

        assert back_ms < 1_000 + RECONNECT_MS + SLACK_MS
        assert node.error_types() == [NodeDisturbed]


@pytest.mark.once
async def test_others_take_over_from_a_node_that_is_cut_off(one_server: Server, figure: Figure) -> None:
    """Rules D7 and W5: its partition is no outage for the rest; what it held comes again at its deadline, and its late
    confirm is refused once that was claimed (E1)."""
    async with Proxy(one_server.port) as proxy, behind(proxy, "cut", request_timeout=1) as cut:
        await cut.timer.post("held", 0, id="held", max_retries=3, confirm_timeout=1)
        await until(lambda: cut.events)
        proxy.stall()
        async with beside(one_server) as backend:
            alive = Node(DTimer(backend, node_id="alive"))
            alive.timer.on("event", alive.events.append)
            async with alive.timer:
                await alive.timer.post_many(Post(payload=n, delay=100 * n, id=str(n)) for n in range(5))
                await until(lambda: len(alive.events) == 6)
                proxy.pass_on()
                outcome = await cut.events[0].confirm()
                late = max(map(lateness_ms, alive.events))
                figure(lateness_ms=late)

                assert late < LATE_MS
                assert alive.attempts.count(("held", 1)) == 1
                assert outcome.name == "STALE"
                assert await alive.events[alive.ids.index("held")].confirm()


# --- slow ----------------------------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("one_way_ms", [100, 450])
async def test_a_slow_network_delays_by_its_round_trips(one_server: Server, one_way_ms: int, figure: Figure) -> None:
    """Rule D7: a node comes by the store's clock as it knows it, which is behind by an answer's way; its claim takes
    the way there. Nothing is early, nothing is given out twice, and slowness is not taken for deafness (W1)."""
    async with Proxy(one_server.port) as proxy, behind(proxy) as node, beside(one_server) as other:
        proxy.delay_s = one_way_ms / 1_000
        await DTimer(other).post_many(Post(payload=n, delay=500 + 300 * n, id=str(n)) for n in range(5))
        await until(lambda: len(node.events) == 5)
        late = [lateness_ms(event) for event in node.events]
        figure(lateness_ms=max(late), one_way_ms=one_way_ms)

        assert min(late) >= 0
        assert max(late) < 4 * one_way_ms + LATE_MS
        assert node.ids == [str(n) for n in range(5)]
        assert not node.errors
