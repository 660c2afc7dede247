#!/usr/bin/env bash
# tenacity 9.2.1 with trio 0.35.0 (PyPI)
#
# One would guess that a retry policy in a test under trio's MockClock lives in virtual time altogether, since tenacity
# notices trio and waits by trio.sleep: a policy "every 10 minutes, for at most 1,000 seconds" tries three times.
#
# The waits are virtual, but stop_after_delay and stop_before_delay count time.monotonic(). No time passes for them, so
# the policy never gives up; this script stops it at the eighth try, after 4,200 virtual seconds. The statistics mix
# both: idle_for is the sum of the virtual waits.
#
# It matters to those who build timers: a test of "gives up in time" does not end, or passes for the wrong reason. A
# limit belongs on the clock that the waits are on. Under virtual time, stop by attempts, or put trio.fail_after around
# the whole.
. "$(dirname "${BASH_SOURCE[0]}")/support/prepare.sh"

python_with tenacity==9.2.1 trio==0.35.0
cat >policy.py <<'END'
import tenacity
import trio
import trio.testing


async def tries(stop: object) -> tuple[int, float, float]:
    """The number of tries, the virtual seconds that they took, and the virtual seconds waited as tenacity has it."""
    policy = tenacity.AsyncRetrying(
        stop=tenacity.stop_any(stop, tenacity.stop_after_attempt(8)), wait=tenacity.wait_fixed(600)
    )
    start, count = trio.current_time(), 0
    try:
        async for attempt in policy:
            with attempt:
                count += 1
                raise ConnectionError
    except tenacity.RetryError:
        pass
    return count, trio.current_time() - start, policy.statistics["idle_for"]


for stop in (tenacity.stop_after_attempt(3), tenacity.stop_after_delay(1_000), tenacity.stop_before_delay(1_000)):
    print(type(stop).__name__, *trio.run(tries, stop, clock=trio.testing.MockClock(autojump_threshold=0)))
END

expect python policy.py <<'END'
stop_after_attempt 3 1200.0 1200.0
stop_after_delay 8 4200.0 4200.0
stop_before_delay 8 4200.0 4200.0
END
