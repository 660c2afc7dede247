"""Waiting until a post is on replicas or on disk: ``WAIT`` and ``WAITAOF`` after it, on its own connection. Pure."""

from __future__ import annotations

from dtimer.backends.redis.pool import Then
from dtimer.backends.redis.wire.resp import Reply, pack, shown
from dtimer.errors import NotDurable
from dtimer.limits import MILLISECOND_US
from dtimer.protocol.values import Durability


def waiting(durability: Durability) -> Then:
    """The command that follows the post."""
    # In milliseconds; 0 would mean without a limit.
    within_ms = max(1, -(-durability.within_us // MILLISECOND_US))
    if durability.disk:
        command = pack((b"WAITAOF", 1, durability.replicas, within_ms))
    else:
        command = pack((b"WAIT", durability.replicas, within_ms))
    return Then(command, within_ms / 1_000)


def require(durability: Durability, reached: Reply) -> None:
    """Raises NotDurable unless the server says that it got as far as was asked for."""
    match reached:
        case [int() as local, int() as replicas] if durability.disk:
            on_disk = local > 0
        case int() as replicas if not durability.disk:
            on_disk = True
        case _:
            raise NotDurable("post", f"the server answered in no known way: {shown(reached)}")
    problems = []
    if not on_disk:
        problems.append("it is not known to be on disk")
    if replicas < durability.replicas:
        problems.append(f"{replicas} of {durability.replicas} replicas have it")
    if problems:
        raise NotDurable("post", f"after {durability.within_us / 1e6:g} s {' and '.join(problems)}")
