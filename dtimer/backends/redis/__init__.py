"""dtimer on Redis and Valkey."""

from dtimer.backends.redis.backend import RedisBackend
from dtimer.backends.redis.embedded import EmbeddedServer, EmbeddedServerFailed
from dtimer.backends.redis.repartition import Migrated, migrate_partitions
from dtimer.backends.redis.upgrade import Upgraded, upgrade_namespace

__all__ = [
    "EmbeddedServer",
    "EmbeddedServerFailed",
    "Migrated",
    "RedisBackend",
    "Upgraded",
    "migrate_partitions",
    "upgrade_namespace",
]
