#!/usr/bin/env bash
# rrule-temporal 2.2.8 (npm)
#
# One would guess that FREQ=HOURLY, FREQ=MINUTELY;INTERVAL=60 and every second or third of them treat a repeated hour
# alike, whichever way that is.
#
# In Berlin, on the morning on which 02:00 to 03:00 comes twice, FREQ=HOURLY leaves the second 02:30 out: two hours pass
# between two of its instants. The others count elapsed time and have it: FREQ=MINUTELY;INTERVAL=60 gives 02:30 twice, and
# FREQ=HOURLY;INTERVAL=2 goes from the first 02:30 to 03:30.
#
# It matters to those who build timers: an hourly job has a hole of two hours a year, and rewriting its rule in minutes,
# which looks like the same, shifts or adds runs. Step through elapsed intervals in UTC, and keep rules with a zone for
# days and longer.
. "$(dirname "${BASH_SOURCE[0]}")/support/prepare.sh"

node_with rrule-temporal@2.2.8
cat >rules.js <<'END'
const { RRuleTemporal } = require("rrule-temporal");

for (const rule of ["HOURLY", "MINUTELY;INTERVAL=60", "HOURLY;INTERVAL=2"]) {
  const rruleString = `DTSTART;TZID=Europe/Berlin:20261025T003000\nRRULE:FREQ=${rule};COUNT=5`;
  const times = new RRuleTemporal({ rruleString }).all().map((time) => time.toString().slice(11, 16) + time.offset);
  console.log(rule, ...times);
}
END

expect node rules.js <<'END'
HOURLY 00:30+02:00 01:30+02:00 02:30+02:00 03:30+01:00 04:30+01:00
MINUTELY;INTERVAL=60 00:30+02:00 01:30+02:00 02:30+02:00 02:30+01:00 03:30+01:00
HOURLY;INTERVAL=2 00:30+02:00 02:30+02:00 03:30+01:00 05:30+01:00 07:30+01:00
END
