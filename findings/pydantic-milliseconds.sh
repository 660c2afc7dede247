#!/usr/bin/env bash
# pydantic 2.14.4 (PyPI)
#
# One would guess that what a model writes, the same model reads: with `ser_json_temporal="milliseconds"`, or at least
# with `val_temporal_unit="milliseconds"` beside it.
#
# A timedelta does not come back. 90 seconds are written as 90000.0 and read as 90,000 seconds, which are 25 hours; no
# setting of val_temporal_unit changes that, since it is for dates and datetimes only. Datetimes come back, but without
# val_temporal_unit those of the first months of 1970 do not, since numbers up to 2e10 are taken for seconds.
#
# It matters to those who build timers: a delay, a time-out or a retry's interval in a payload becomes a thousand times
# as long, without an error. Leave durations in ISO 8601, or in a number of seconds.
. "$(dirname "${BASH_SOURCE[0]}")/support/prepare.sh"

python_with pydantic==2.14.4
cat >model.py <<'END'
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict


def round_trip(config: ConfigDict) -> None:
    class Retry(BaseModel):
        model_config = config
        interval: timedelta
        since: datetime

    print(config)
    for since in (datetime(2026, 11, 30, tzinfo=UTC), datetime(1970, 2, 1, tzinfo=UTC)):
        written = Retry(interval=timedelta(seconds=90), since=since).model_dump_json()
        read = Retry.model_validate_json(written)
        print(" ", written, "->", read.interval, "|", read.since)


round_trip(ConfigDict(ser_json_temporal="seconds"))
round_trip(ConfigDict(ser_json_temporal="milliseconds"))
round_trip(ConfigDict(ser_json_temporal="milliseconds", val_temporal_unit="milliseconds"))
END

expect python model.py <<'END'
{'ser_json_temporal': 'seconds'}
  {"interval":90.0,"since":1795996800.0} -> 0:01:30 | 2026-11-30 00:00:00+00:00
  {"interval":90.0,"since":2678400.0} -> 0:01:30 | 1970-02-01 00:00:00+00:00
{'ser_json_temporal': 'milliseconds'}
  {"interval":90000.0,"since":1795996800000.0} -> 1 day, 1:00:00 | 2026-11-30 00:00:00+00:00
  {"interval":90000.0,"since":2678400000.0} -> 1 day, 1:00:00 | 2054-11-16 00:00:00+00:00
{'ser_json_temporal': 'milliseconds', 'val_temporal_unit': 'milliseconds'}
  {"interval":90000.0,"since":1795996800000.0} -> 1 day, 1:00:00 | 2026-11-30 00:00:00+00:00
  {"interval":90000.0,"since":2678400000.0} -> 1 day, 1:00:00 | 1970-02-01 00:00:00+00:00
END
