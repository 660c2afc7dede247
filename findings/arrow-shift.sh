#!/usr/bin/env bash
# arrow 1.4.0 (PyPI), with python-dateutil 2.9.0.post0 and tzdata 2026.6
#
# One would guess that `shift(minutes=15)` and `shift(hours=1)` move by elapsed time, and only days and longer units by
# the clock on the wall, as pendulum, whenever and luxon do; at the least, that a shift forwards never goes back.
#
# All units move the clock on the wall, and the result is the first of two equal times. In Berlin, on the morning on
# which 02:00 to 03:00 comes twice: 02:30 (first) plus an hour is two hours later; 02:30 (second) plus 15 minutes is 45
# minutes earlier; plus nothing, an hour earlier.
# `Arrow.range("day", ...)` from 02:30 goes on at 03:30 for good, once it has passed the day without a 02:30.
#
# It matters to those who build timers: all through that hour, "in 15 minutes" is overdue when it is posted, and a daily
# reminder stays an hour late. Shift in UTC: `arrow.utcnow().shift(...)`.
. "$(dirname "${BASH_SOURCE[0]}")/support/prepare.sh"

python_with arrow==1.4.0 python-dateutil==2.9.0.post0 tzdata==2026.6
cat >shift.py <<'END'
from datetime import timedelta
from zoneinfo import ZoneInfo

import arrow

BERLIN = ZoneInfo("Europe/Berlin")


def elapsed(start: arrow.Arrow, **shift: int) -> timedelta:
    return start.shift(**shift).to("UTC") - start.to("UTC")


first = arrow.Arrow(2026, 10, 25, 2, 30, tzinfo=BERLIN)
second = arrow.Arrow(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)
print("first 02:30 + 1 h:", elapsed(first, hours=1))
for minutes in (15, 0):
    print(f"second 02:30 + {minutes} min:", elapsed(second, minutes=minutes).total_seconds() / 60, "min")
days = arrow.Arrow.range("day", arrow.Arrow(2026, 3, 28, 2, 30, tzinfo=BERLIN), arrow.Arrow(2026, 3, 31, tzinfo=BERLIN))
print("daily:", *(day.format("DD.MM. HH:mmZ") for day in days))
END

expect python shift.py <<'END'
first 02:30 + 1 h: 2:00:00
second 02:30 + 15 min: -45.0 min
second 02:30 + 0 min: -60.0 min
daily: 28.03. 02:30+0100 29.03. 03:30+0200 30.03. 03:30+0200
END
