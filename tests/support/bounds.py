"""How late is too late on a real server, by its own clock.

What is promised plus room for a busy host that stops any process for a while. The room is small beside what a broken
mechanism would cost: without its fallback a node looks only every ten seconds.
"""

from __future__ import annotations

from typing import Final

from dtimer.backends.redis.pool import REQUEST_TIMEOUT_DEFAULT_S
from dtimer.limits import BACKOFF_MAX_US, MILLISECOND_US

SLACK_MS: Final = 3_000.0
NO_STALL_MS: Final = 1_000.0
"""With a live node that has room and a store that can be reached (rule D7)."""
LATE_MS: Final = NO_STALL_MS + SLACK_MS
RECONNECT_MS: Final = BACKOFF_MAX_US / MILLISECOND_US
"""After an outage in which connections were refused: the longest pause between two attempts (rule N4)."""
SILENCE_MS: Final = REQUEST_TIMEOUT_DEFAULT_S * 1_000
"""Where nothing comes back, not even a refusal, an attempt takes so long to fail."""
