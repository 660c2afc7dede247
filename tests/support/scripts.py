"""What went over a connection, in terms of the backend's scripts."""

from __future__ import annotations

from collections.abc import Sequence

from redis import Redis

from dtimer.backends.redis.scripts import load_script
from support.proxy import Which


def runs(script: str) -> Which:
    """Picks the connections whose last command ran this script, by its sha1."""
    sha1 = load_script(script).sha1.encode()
    return lambda sent: sha1 in sent[sent.rfind(b"EVALSHA") :]


def make_known(client: Redis, scripts: Sequence[str]) -> None:
    """Teach the server scripts, so that the first run of each is one command."""
    for script in scripts:
        client.script_load(load_script(script).source)
