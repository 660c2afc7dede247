"""Announcements and pulses, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dtimer.errors import BackendClosed
from dtimer.protocol.values import After, Announcement, EventData, Member, Message, NewEvent, Pulse, Wakeup
from dtimer.sim import SimBackend

SECOND_US = 1_000_000
ONE = Member("node-1", "first")
TWO = Member("node-2", "first")


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


def event(id: str, delay_us: int = SECOND_US) -> NewEvent:
    return NewEvent(EventData(id=id, payload=b""), After(delay_us))


class Ear:
    """A listening node: what it heard, and at which virtual time it had dealt with it."""

    def __init__(self, sim: SimBackend, num_turns: int = 0) -> None:
        self.heard: list[Message] = []
        self.at_us: list[int] = []
        self.error: BackendClosed | None = None
        self._sim = sim
        self._num_turns = num_turns

    async def listen(self, messages: AsyncIterator[Message]) -> None:
        try:
            async for message in messages:
                for _ in range(self._num_turns):
                    await asyncio.sleep(0)
                self.heard.append(message)
                self.at_us.append(self._sim.runtime.now_us())
        except BackendClosed as closed:
            self.error = closed


@asynccontextmanager
async def listening(sim: SimBackend, node: str, num_turns: int = 0) -> AsyncIterator[Ear]:
    ear = Ear(sim, num_turns)
    async with sim.wakeups(node, (await sim.open()).epoch) as messages:
        task = asyncio.create_task(ear.listen(messages))
        yield ear
        await sim.run_until_idle()
        task.cancel()


async def claim(sim: SimBackend, member: Member, *, pulse: bool = False) -> int:
    """How much the member was given."""
    applied = await sim.claim(member, room=8, confirm_timeout_us=SECOND_US, nonce="n", pulse=pulse)
    return len(applied.value.deliveries)


async def test_the_armed_node_hears_when_to_come(sim: SimBackend) -> None:
    """An absolute time on the store's scale, with the place in history that it belongs to."""
    async with listening(sim, "node-1") as ear:
        await sim.join(ONE)
        posted = await sim.post([event("a")])
        await sim.run_until_idle()

        due_us = posted.at_us + 1 + SECOND_US
        assert ear.heard == [Wakeup(due_us, posted.at_us, posted.seq)]
        assert posted.announced == (Announcement("node-1", due_us, True),)


async def test_a_node_that_does_not_listen_is_not_reached(sim: SimBackend) -> None:
    """The store passes it over, and the reply says so."""
    await sim.join(ONE)
    async with listening(sim, "node-2") as ear:
        await sim.join(TWO)
        posted = await sim.post([event("a")])
        await sim.run_until_idle()

        assert [(told.node, told.reached) for told in posted.announced] == [("node-1", False), ("node-2", True)]
        assert len(ear.heard) == 1


async def test_only_the_told_node_hears_an_announcement(sim: SimBackend) -> None:
    """Two nodes, one event: one of them is enough."""
    async with listening(sim, "node-1") as one, listening(sim, "node-2") as two:
        await sim.join(ONE)
        await sim.join(TWO)
        await sim.post([event("a")])
        await sim.run_until_idle()

        assert (len(one.heard), len(two.heard)) == (1, 0)


async def test_two_nodes_take_turns(sim: SimBackend) -> None:
    """The arm goes on to the next one when the first has taken something."""
    async with listening(sim, "node-1") as one, listening(sim, "node-2") as two:
        await sim.join(ONE)
        await sim.join(TWO)
        await sim.post([event("a")])
        await sim.advance(1000)
        assert await claim(sim, ONE) == 1
        await sim.post([event("b")])
        await sim.advance(1000)

        assert (len(one.heard), len(two.heard)) == (1, 1)
        assert await claim(sim, ONE) == 0
        assert await claim(sim, TWO) == 1


async def test_a_pulse_is_heard_by_all_its_sender_included(sim: SimBackend) -> None:
    """The sender learns from it that its own ear works."""
    async with listening(sim, "node-1") as one, listening(sim, "node-2") as two:
        await sim.join(ONE)
        reply = await sim.claim(ONE, room=8, confirm_timeout_us=SECOND_US, nonce="n", pulse=True)
        await sim.run_until_idle()

        pulse = Pulse("node-1", reply.at_us, reply.seq)
        assert one.heard == [pulse]
        assert two.heard == [pulse]


async def test_a_claim_says_nothing_unless_it_is_told_to(sim: SimBackend) -> None:
    """Only fallback claims pulse."""
    async with listening(sim, "node-1") as ear:
        await sim.join(ONE)
        await claim(sim, ONE)
        await sim.run_until_idle()

        assert not ear.heard


async def test_messages_come_in_the_order_in_which_they_were_said(sim: SimBackend) -> None:
    """Also to a slow listener, who misses none."""
    async with listening(sim, "node-1", num_turns=20) as ear:
        await sim.join(ONE)
        posts = [await sim.post([event(str(delay), delay * SECOND_US)]) for delay in (9, 8, 7)]
        await sim.run_until_idle()

        assert [message.seq for message in ear.heard if isinstance(message, Wakeup)] == [post.seq for post in posts]


async def test_no_time_passes_until_a_message_is_dealt_with(sim: SimBackend) -> None:
    """A wake-up for a microsecond from now must be answered before that."""
    async with listening(sim, "node-1", num_turns=500) as ear:
        await sim.join(ONE)
        posted = await sim.post([event("a")])
        await sim.advance(60_000)

        assert ear.at_us == [posted.at_us + 1]


async def test_a_listener_who_has_not_begun_to_listen_does_not_stop_the_clock(sim: SimBackend) -> None:
    """A node subscribes before it joins, and the join may have to wait for its next attempt."""
    async with sim.wakeups("node-1", (await sim.open()).epoch):
        await sim.advance(1000)


async def test_what_is_said_to_nobody_is_lost(sim: SimBackend) -> None:
    """As with pubsub; the next join or claim makes up for it."""
    await sim.join(ONE)
    await claim(sim, ONE, pulse=True)

    async with listening(sim, "node-1") as ear:
        await sim.run_until_idle()

        assert not ear.heard


async def test_a_node_that_has_left_its_channel_is_not_reached(sim: SimBackend) -> None:
    """And whoever still holds the iterator gets an error, not an endless wait."""
    async with sim.wakeups("node-1", (await sim.open()).epoch) as messages:
        await sim.join(ONE)

    posted = await sim.post([event("a")])
    assert [told.reached for told in posted.announced] == [False]
    with pytest.raises(BackendClosed, match="was left"):
        await anext(messages)


async def test_two_listeners_of_one_node_both_hear(sim: SimBackend) -> None:
    """As with pubsub; it happens while a node subscribes anew."""
    async with listening(sim, "node-1") as one, listening(sim, "node-1") as other:
        await sim.join(ONE)
        await sim.post([event("a")])
        await sim.run_until_idle()

        assert len(one.heard) == len(other.heard) == 1


async def test_channels_of_an_emptied_namespace_are_silent(sim: SimBackend) -> None:
    """Their names carry the epoch; who listens to the old one must not believe that it is served."""
    async with listening(sim, "node-1") as ear:
        await sim.purge()
        await sim.join(ONE)
        posted = await sim.post([event("a")])
        await claim(sim, ONE, pulse=True)
        await sim.run_until_idle()

        assert [told.reached for told in posted.announced] == [False]
        assert not ear.heard


async def test_closing_the_backend_ends_the_wait_of_every_listener(sim: SimBackend) -> None:
    """It never waits for ever on a connection that is gone."""
    async with listening(sim, "node-1") as ear:
        await sim.run_until_idle()
        await sim.close()
        await sim.advance(1000)

        assert ear.error is not None
        assert ear.error.operation == "wakeups"
