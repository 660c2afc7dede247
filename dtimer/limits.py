"""Every limit and default of dtimer, by name, with its reason.

The state machine, the Lua scripts (which get these values when they are loaded), the node and the argument checks
all read them here.
Units stand in the names; all times are integers in microseconds.
"""

from __future__ import annotations

import re
from typing import Final

MILLISECOND_US: Final = 1_000
SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US
YEAR_US: Final = 365 * DAY_US + DAY_US // 4

# --- what a user may pass (rules T5, T6, P2, P4, P6) -------------------------------------------

DELAY_MAX_US: Final = 100 * YEAR_US
"""A delay from today stays below 2**53 us since 1970, up to which a Redis score counts exactly."""
INSTANT_MAX_US: Final = 7_258_118_400 * SECOND_US
"""2200-01-01T00:00:00Z, for the same reason."""
STORE_TIME_MAX_US: Final = 2**53 - DAY_US
"""In the year 2255: what the store's time is at most, its host's time and the skew after leaps together. Without a day
of its own at the end, in which batches count on."""
EXPIRES_AFTER_MAX_US: Final = 50 * YEAR_US
"""The latest due time plus this is still below 2**53 us."""
ID_MAX_BYTES: Final = 512
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Namespaces and node ids: they become parts of keys, channels and ACL patterns."""
PAYLOAD_MAX_BYTES: Final = 1 << 20
HEADERS_MAX_BYTES: Final = 1 << 10
RETRIES_MAX: Final = 1_000_000
REASON_MAX_BYTES: Final = 1 << 10
"""Longer reasons for burying an event, and texts of errors, are cut, not refused: the event matters more."""
LAST_ERROR_MAX_BYTES: Final = 4 << 10
"""An error's type and text, and what is kept beside them, stay below this: a larger one is not dtimer's."""

SCHEMA: Final = 2
"""The major version of what a namespace keeps; one of another major version is refused (rule F7)."""

# --- defaults, those of the original Node dtimer (constructor and post) -------------------------

NAMESPACE_DEFAULT: Final = "dt"
MAX_EVENTS_DEFAULT: Final = 8
CONFIRM_TIMEOUT_DEFAULT_US: Final = 10 * SECOND_US

# --- what one operation may do (rule D5) ----------------------------------------------------------

BATCH_MAX_ITEMS: Final = 512
"""Lua's unpack fails near 8,000 values; this stays far below and keeps a script under some ms."""
BATCH_MAX_BYTES: Final = 8 << 20
"""Payload bytes in one call and in one reply; a single larger event still travels, alone."""
EVENT_MAX_BYTES: Final = 64 << 20
"""A payload of one event, whatever a timer allows; a record that is larger was written by something else."""
REPLY_MAX_BYTES: Final = 80 << 20
"""No reply is larger: one event, and less than 16 MiB of ids, times and what was set aside. A connection on which
more has come without an end is closed."""
SKEW_TOLD_US: Final = SECOND_US
"""A clock that is this far off is worth a line; time servers correct some milliseconds all the time."""
RESET_MAX_BYTES: Final = 1 << 20
"""Of records, or one larger, that a reset of the clock reads at a time, in some ms: the server has other clients."""
UNREADABLE_SHOWN_BYTES: Final = 64 << 10
"""How much of a record that cannot be read is part of a reply; the record may have any size."""
CLAIM_EXTRA_ENTRIES: Final = 64
"""Exhausted, expired and unreadable entries that a claim clears without using up its room."""
PAGE_MAX_ITEMS: Final = 256

REPLICAS_MAX: Final = 100
"""No primary has more; a larger number is a mistake."""
PARTITIONS_MAX: Final = 1_024
"""Of a namespace. Each costs every node a connection, and the namespace some calls a second when it is idle."""

# --- announcements and the ring (rules D6, N3, W1 to W5) ------------------------------------------

UNARMED_OVERDUE_US: Final = 50 * MILLISECOND_US
"""A node that is not armed leaves events that are overdue for less to the one that is."""
ARM_GRACE_US: Final = 50 * MILLISECOND_US
"""An armed node that has not claimed this long after its time is suspect."""
ANNOUNCE_MAX_TRIES: Final = 64
PULSE_SILENCE_US: Final = 600 * MILLISECOND_US
PULSE_JITTER_US: Final = 200 * MILLISECOND_US
"""Silence plus jitter plus a round trip stays below the second that D7 promises."""
POLL_MAX_US: Final = 10 * SECOND_US
"""A node claims at least this often, which renews its lease."""
MEMBER_LIFE_POLLS: Final = 10
"""A member that has not claimed for this many of its longest polls is removed."""

# --- the store's clock (rule T2) -------------------------------------------------------------------

CLOCK_STEP_US: Final = 1 * MILLISECOND_US
"""A host clock this far behind the last time given has been stepped back.
Less is only that a batch gave each item a microsecond of its own (at most 512)."""

# --- failures (rules E5, F1, F4) --------------------------------------------------------------------

REFUSED_FOR_DEFAULT_US: Final = 3_600 * SECOND_US
"""A refusal this long after the first one buries the event: a rolling deploy is over by then."""
REFUSAL_ROUNDS: Final = 8
"""How often a refused event goes round the whole ring. In a burst one round may miss a node; eight do not."""
REFUSAL_WAIT_MIN_US: Final = 50 * MILLISECOND_US
REFUSAL_WAIT_MAX_US: Final = 4 * SECOND_US
"""With a round after it this stays below the 5 s in which a node that has joined gets what waits for it."""
DEAD_LETTERS_MAX: Final = 10_000
DEAD_LETTER_AGE_US: Final = 30 * DAY_US
BRANCHES_MAX: Final = 32
"""Of a namespace's history. A client that comes back after more restarts gets the report of a loss that may be none."""
CALLS_REMEMBERED_MAX: Final = 4_096
"""Ids of acknowledged calls that a timer can name when a store has lost them."""
REPEAT_WITHIN_US: Final = 5 * SECOND_US
"""Calls that are safe to repeat are repeated inside for this time."""
BACKOFF_MIN_US: Final = 50 * MILLISECOND_US
BACKOFF_MAX_US: Final = 2 * SECOND_US
"""The longest pause between two attempts to reach the store."""

# --- one process's side (rules E1, F4, N1, T1) --------------------------------------------------------

CLAIM_PORTION_MIN: Final = 32
"""A node claims half of what it may hold at a time, but not less than this: each call has its price."""
RECEIPTS_REMEMBERED_MAX: Final = 4_096
"""Deliveries for which a node remembers the receipt that ``timer.confirm(id)`` uses."""
LEAVE_TIMEOUT_DEFAULT_US: Final = 30 * SECOND_US
LEAVE_CANCEL_GRACE_US: Final = 1 * SECOND_US
"""The time in which a handler that ``leave`` has cancelled can clean up."""
HANDLER_THREADS_MAX: Final = 512
"""Threads for plain handlers; there are never more than handlers that run, which `max_events` bounds."""
MAX_RUN_DEFAULT_US: Final = 3_600 * SECOND_US
"""How long the delivery of a running handler is extended: long for work, short for a handler that hangs."""
LOOP_BLOCKED_US: Final = 500 * MILLISECOND_US
"""An event loop that is blocked this long is reported; a node that is late by a tenth of it is passed over."""
LOOP_BLOCKED_AGAIN_US: Final = 60 * SECOND_US
"""A handler that blocks mostly does so each time, so it is reported once in a while."""
HOOK_CALLS_MAX: Final = 100
"""Calls of ``error`` handlers that run at once, and of the handlers for each other kind of report: a handler that never
ends must not pile up tasks without bound."""
CLOCK_LEAP_US: Final = 1 * SECOND_US
"""A store's clock that gains this much on this process's between two replies has leapt: clocks drift by some ms."""
CLOCK_WINDOW_US: Final = 30 * SECOND_US
"""A bound on the store's clock is forgotten after one to two of these: two clocks drift by some ms in that time."""
