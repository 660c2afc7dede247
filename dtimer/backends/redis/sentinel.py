"""Finding the master that sentinels watch over.

redis-py's Sentinel client could ask for it, but over connections that resend and may wait for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from typing_extensions import override

from dtimer.backends.redis.config import ConnectionSettings, SentinelSettings
from dtimer.backends.redis.connection import ask
from dtimer.backends.redis.wire.resp import as_list

ASK_TIMEOUT_S: Final = 1.0
"""For one sentinel: they answer from memory, and there are others."""
_OUT_OF_SERVICE: Final = frozenset({"s_down", "o_down", "disconnected"})


class SentinelMaster:
    """The current master: a :class:`dtimer.backends.redis.config.Place` that moves."""

    def __init__(self, settings: SentinelSettings) -> None:
        self._settings = settings
        self._sentinels = deque(settings.sentinels)

    @override
    def __str__(self) -> str:
        return f"the master {self._settings.service!r}"

    async def locate(self) -> ConnectionSettings:
        """Ask the sentinels, each time beginning with the next one: one that is cut off from the others may be wrong.

        Raises:
            RedisConnectionError: none of them names a master that is up.
        """
        problems: list[str] = []
        self._sentinels.rotate(-1)
        for sentinel in tuple(self._sentinels):
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    return await self._asked(sentinel)
            except TimeoutError:
                problems.append(f"{sentinel} does not answer")
            except (RedisError, OSError, ValueError, LookupError) as error:  # the last two: a strange reply
                problems.append(f"{sentinel}: {error}")
        raise RedisConnectionError(f"no sentinel names a master {self._settings.service!r} ({'; '.join(problems)})")

    async def _asked(self, sentinel: ConnectionSettings) -> ConnectionSettings:
        reply = await ask(sentinel, b"SENTINEL", b"MASTER", self._settings.service)
        words = [word.decode("ascii", errors="replace") for word in as_list(reply) if isinstance(word, bytes)]
        state = dict(zip(words[::2], words[1::2], strict=True))
        wrong = _OUT_OF_SERVICE & set(state["flags"].split(","))
        if wrong:
            raise RedisConnectionError(f"the master is {', '.join(sorted(wrong))}")
        others = int(state["num-other-sentinels"])
        if others < self._settings.min_other_sentinels:
            raise RedisConnectionError(f"it sees only {others} other sentinels")
        host = self._settings.host_forced or state["ip"]
        return self._settings.master.at(host, int(state["port"]))
