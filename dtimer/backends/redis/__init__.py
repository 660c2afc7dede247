"""dtimer on Redis and Valkey."""

from dtimer.backends.redis.backend import RedisBackend
from dtimer.backends.redis.embedded import EmbeddedServer, EmbeddedServerFailed

__all__ = ["EmbeddedServer", "EmbeddedServerFailed", "RedisBackend"]
