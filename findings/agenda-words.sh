#!/usr/bin/env bash
# agenda 6.2.6 (npm), with its date.js 0.3.3 and @sinonjs/fake-timers 15.5.0 to fix the date
#
# One would guess that `schedule("in 1.5 hours", ...)` means 90 minutes, as `every("1.5 hours", ...)` does, and that
# "in 1 month" keeps the day of the month or takes the month's last day.
#
# schedule() reads a decimal as a time of day: "in 1.5 hours" and "in 1.5 days" are the next 01:05, "in half an hour" is
# the next 00:05. None of them is an error. "in 1 month" from a 30th or 31st is a 28th, in months of any length.
# every() reads the words by another parser, which knows decimals.
#
# It matters to those who build timers: a delay in words is parsed without an error into an instant that is hours off,
# and that depends on the time of day at which the test runs (at 23:35, half an hour is right). Take delays as numbers
# with a unit, or refuse what the parser has not understood to the last letter.
. "$(dirname "${BASH_SOURCE[0]}")/support/prepare.sh"

node_with agenda@6.2.6 date.js@0.3.3 @sinonjs/fake-timers@15.5.0
cat >words.mjs <<'END'
import { Job } from "agenda";
import FakeTimers from "@sinonjs/fake-timers";

FakeTimers.install({ now: new Date("2026-11-30T11:00:00Z"), toFake: ["Date"] });

function when(method, words) {
  const job = new Job({ attrs: {}, definitions: {} }, { name: "job", type: "normal", data: {} });
  if (method === "schedule") job.schedule(words);
  else job.repeatEvery(words, { skipImmediate: true });
  return job.attrs.nextRunAt?.toISOString();
}

for (const words of ["in 90 minutes", "in 1.5 hours", "in 1.5 days", "in half an hour", "in 1 month", "in 2 months"])
  console.log("schedule", words, when("schedule", words));
console.log("every 1.5 hours", when("every", "1.5 hours"));
END

expect node words.mjs <<'END'
schedule in 90 minutes 2026-11-30T12:30:00.000Z
schedule in 1.5 hours 2026-12-01T01:05:00.000Z
schedule in 1.5 days 2026-12-01T01:05:00.000Z
schedule in half an hour 2026-12-01T00:05:00.000Z
schedule in 1 month 2026-12-28T11:00:00.000Z
schedule in 2 months 2027-01-28T11:00:00.000Z
every 1.5 hours 2026-11-30T12:30:00.000Z
END
