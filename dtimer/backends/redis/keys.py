"""The names of a namespace's keys and channels. All share one hash tag, so that a Redis Cluster keeps them together.

What each key holds is said in ``docs/reference/redis-keys.md`` and at the top of the Lua that owns it.
"""

from __future__ import annotations

from typing import Final

from dtimer.backends.redis.pubsub import Channels

NAMES: Final = ("meta", "queue", "records", "states", "ring", "nodes", "lives", "letters", "buried")
"""In the order that the scripts expect."""


class Keys:
    """Names made from a namespace's own.

    Attributes:
        prefix: before every key and every channel: ``{dt}:``, and ``{dt:3}:`` in the partition with this number.
        all: every key, in the order that the scripts expect.
    """

    def __init__(self, namespace: str, partition: int = 0) -> None:
        """
        Args:
            partition: the first has the names of a namespace in one piece, which so can tell that it is none.
                No namespace has a colon in its own name.
        """
        self.namespace = namespace
        self.prefix = f"{{{namespace}:{partition}}}:" if partition else f"{{{namespace}}}:"
        self.all = tuple(self.prefix + name for name in NAMES)

    def channels(self, node: str, epoch: str) -> Channels:
        """The epoch is in their names because channels are shared by all databases of a server (rule F6)."""
        return Channels(node=f"{self.prefix}{epoch}:n:{node}", pulse=f"{self.prefix}{epoch}:p")
