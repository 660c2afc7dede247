#!/usr/bin/env bash
# cron-parser 5.10.6 (npm), with luxon 3.7.2
#
# One would guess that prev() walks the same instants as next(), backwards: a schedule is a set of instants.
#
# In a zone with clock changes it does not. `30 2 * * *` in Berlin:
# - in spring, when 02:30 does not exist, next() gives 01:30Z (03:30 local) on 29 March; prev() leaves that day out;
# - in autumn, when 02:30 comes twice, next() gives the first only; prev() gives both.
#
# It matters to those who build timers: prev() is what finds "the last tick that should have run" after a stop. Here it
# forgets a run that next() promised, and in autumn claims a run that was never due. Find missed ticks by next() from
# the last tick that is known to have run, and let a tick's identity be the instant that next() gave.
. "$(dirname "${BASH_SOURCE[0]}")/support/prepare.sh"

node_with cron-parser@5.10.6 luxon@3.7.2
cat >walk.js <<'END'
const { CronExpressionParser } = require("cron-parser");

function walk(title, step, from, count) {
  const schedule = CronExpressionParser.parse("30 2 * * *", { currentDate: from, tz: "Europe/Berlin" });
  console.log(title, step, ...Array.from({ length: count }, () => schedule[step]().toISOString().slice(0, 16)));
}

walk("spring", "next", "2026-03-28T00:00:00Z", 3);
walk("spring", "prev", "2026-03-31T00:00:00Z", 3);
walk("autumn", "next", "2026-10-24T00:00:00Z", 3);
walk("autumn", "prev", "2026-10-27T00:00:00Z", 4);
END

expect node walk.js <<'END'
spring next 2026-03-28T01:30 2026-03-29T01:30 2026-03-30T00:30
spring prev 2026-03-30T00:30 2026-03-28T01:30 2026-03-27T01:30
autumn next 2026-10-24T00:30 2026-10-25T00:30 2026-10-26T01:30
autumn prev 2026-10-26T01:30 2026-10-25T01:30 2026-10-25T00:30 2026-10-24T00:30
END
