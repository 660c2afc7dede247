"""The subscription to wake-ups and pulses: a connection of its own, which raises when it breaks, and is not renewed.

redis-py's PubSub reconnects without telling its user; messages published meanwhile are lost without a trace.
So this is a bare connection. When it fails, the iterator raises, and its user subscribes again and claims (rule N4).

Message texts, in ASCII, numbers in decimal and at most 17 digits:

* on a node's channel, a wake-up: ``1 <due_us> <at_us> <seq>``
* on the pulse channel, a pulse: ``1 <node> <at_us> <seq>``
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from attrs import frozen

from dtimer.backends.redis.connection import StoreConnection
from dtimer.backends.redis.errors import before_sending
from dtimer.backends.redis.pool import REQUEST_TIMEOUT_DEFAULT_S, Route
from dtimer.backends.redis.wire.resp import Reply, pack
from dtimer.errors import BackendError, StoreRefused, StoreUnreachable
from dtimer.protocol.values import Malformed, Message, Pulse, Wakeup

OPERATION: Final = "wakeups"
MALFORMED_KEPT_BYTES: Final = 256
"""How much of a message that is not dtimer's is kept; any client may publish one, of any size."""

_WAKEUP: Final = re.compile(rb"1 ([0-9]{1,17}) ([0-9]{1,17}) ([0-9]{1,17})")
_PULSE: Final = re.compile(rb"1 ([A-Za-z0-9_.-]{1,64}) ([0-9]{1,17}) ([0-9]{1,17})")


@frozen
class Channels:
    """The channels of one node.

    Attributes:
        node: where the node alone is told when to claim.
        pulse: where all nodes receive that one of them made a fallback claim.
    """

    node: str
    pulse: str


@frozen
class _Words:
    """The command of a kind of subscription, and its replies."""

    subscribe: bytes
    message: bytes
    unsubscribed: bytes


_PLAIN: Final = _Words(b"subscribe", b"message", b"unsubscribe")
_SHARDED: Final = _Words(b"ssubscribe", b"smessage", b"sunsubscribe")


@asynccontextmanager
async def subscribe(
    route: Route, channels: Channels, *, sharded: bool = False, timeout_s: float = REQUEST_TIMEOUT_DEFAULT_S
) -> AsyncGenerator[AsyncIterator[Message]]:
    """Subscribe to `channels` from entry on, when the server has confirmed both subscriptions, until exit.

    The iterator may be abandoned in the middle of a wait (by a timeout, say) and asked again; nothing is lost.
    On a sharded subscription only the server that has the slot of the channels receives what is published to them;
    when the slot moves, the iterator raises.
    On a connection that is half open it waits without end: the layer above judges the silence (rule W1).

    Raises:
        StoreUnreachable: not subscribed within `timeout_s`; or, from the iterator, the subscription has failed.
        StoreRefused: the server answered the subscription with an error.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(timeout_s):
                connection = await stack.enter_async_context(route.listening())
                messages = await _Messages.subscribed(connection, channels, _SHARDED if sharded else _PLAIN)
        except TimeoutError as error:
            raise StoreUnreachable(OPERATION, f"{route} did not confirm within {timeout_s:g} s") from error
        except BackendError:
            raise
        except Exception as error:
            if sharded and "unknown command" in str(error):
                problem = f"{route} is older than Redis 7.0, which a cluster must be for its sharded pubsub"
                raise StoreRefused(OPERATION, problem) from error
            raise before_sending(OPERATION, error) from error
        yield messages


class _Messages:
    """The iterator. Not a generator: that would end for good at the first cancelled wait."""

    def __init__(self, connection: StoreConnection, channels: Channels, words: _Words) -> None:
        self._connection = connection
        self._words = words
        self._pulse_channel = channels.pulse.encode()
        self._early: deque[Message] = deque()

    @classmethod
    async def subscribed(cls, connection: StoreConnection, channels: Channels, words: _Words) -> _Messages:
        """Subscribe, and wait until the server has confirmed it."""
        messages = cls(connection, channels, words)
        unconfirmed = {channels.node.encode(), channels.pulse.encode()}
        reply = await connection.exchange(pack((words.subscribe.upper(), *unconfirmed)))
        while True:
            match reply:
                case [words.subscribe, bytes() as channel, int()]:
                    unconfirmed.discard(channel)
                case _:
                    # Once the first channel is subscribed, its messages may come before the second one's confirmation.
                    messages._early.extend(messages._read(reply))
            if not unconfirmed:
                return messages
            reply = await connection.read()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        while not self._early:
            try:
                reply = await self._connection.read()
            except Exception as error:
                raise StoreUnreachable(OPERATION, f"the subscription broke: {error}") from error
            if isinstance(reply, list) and reply[0] == self._words.unsubscribed:
                # Nobody here has asked for it: the slot has moved, and the server has ended the subscription.
                raise StoreUnreachable(OPERATION, "the slot of the channels has moved to another server")
            self._early.extend(self._read(reply))
        return self._early.popleft()

    def _read(self, reply: Reply) -> list[Message]:
        match reply:
            case [self._words.message, bytes() as channel, bytes() as raw]:
                return [read_pulse(raw) if channel == self._pulse_channel else read_wakeup(raw)]
            case _:
                return []  # no message: a server may add kinds of replies to a subscription


def read_wakeup(raw: bytes) -> Wakeup | Malformed:
    """Parse a message on a node's channel."""
    match = _WAKEUP.fullmatch(raw)
    if match is None:
        return Malformed(raw[:MALFORMED_KEPT_BYTES])
    return Wakeup(due_us=int(match[1]), at_us=int(match[2]), seq=int(match[3]))


def read_pulse(raw: bytes) -> Pulse | Malformed:
    """Parse a message on the pulse channel."""
    match = _PULSE.fullmatch(raw)
    if match is None:
        return Malformed(raw[:MALFORMED_KEPT_BYTES])
    return Pulse(node=match[1].decode("ascii"), at_us=int(match[2]), seq=int(match[3]))
