#!/usr/bin/env bash
# freezegun 1.5.5 with cbor2 6.3.0, msgspec 0.23.0, ormsgpack 1.13.1 and pydantic 2.14.4 (PyPI)
#
# One would guess that a codec which writes datetimes writes those of freezegun as well: FakeDatetime is a subclass, and
# real datetimes even count as its instances. And that all is as before when time is no longer frozen.
#
# - pydantic writes both.
# - msgspec and ormsgpack compare the exact type and refuse FakeDatetime. msgspec also refuses to read a datetime while
#   time is frozen, since `datetime.datetime` then names FakeDatetime, a class that it does not know.
# - cbor2 keeps the classes that it finds at its first call. If that was before the freeze, it refuses FakeDatetime. If it
#   was during the freeze, it refuses every real datetime and date until the process ends.
#
# It matters to those who build timers: a payload with a datetime fails in tests that freeze time and nowhere else; with
# cbor2, a later test fails that freezes nothing, or the first one does, as the order of tests has it. Move time by a tool
# that leaves the classes alone, as time-machine does, or by a virtual clock that the code is given.
. "$(dirname "${BASH_SOURCE[0]}")/support/prepare.sh"

python_with freezegun==1.5.5 cbor2==6.3.0 msgspec==0.23.0 ormsgpack==1.13.1 pydantic==2.14.4
cat >payloads.py <<'END'
import datetime
import sys
from collections.abc import Callable

import cbor2
import freezegun
import msgspec
import ormsgpack
import pydantic

CALLED_BEFORE = sys.argv[1] == "before"
REAL = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


class Payload(pydantic.BaseModel):
    due: datetime.datetime


def attempt(name: str, call: Callable[[], object]) -> None:
    try:
        print(f"  {name}:", call())
    except Exception as error:
        print(f"  {name}:", f"{type(error).__name__}: {error}")


print("cbor2 first called", sys.argv[1], "the freeze")
if CALLED_BEFORE:
    cbor2.dumps(REAL)
with freezegun.freeze_time("2030-01-01"):
    now = datetime.datetime.now(datetime.UTC)
    attempt("cbor2 writes a fake one", lambda: cbor2.dumps(now)[2:])
    if not CALLED_BEFORE:
        attempt("pydantic", lambda: Payload(due=now).model_dump_json())
        attempt("msgspec", lambda: msgspec.json.encode(now))
        attempt("msgspec reads", lambda: msgspec.json.decode('"2030-01-01T00:00:00Z"', type=datetime.datetime))
        attempt("ormsgpack", lambda: ormsgpack.packb(now))
attempt("cbor2 writes a real one afterwards", lambda: cbor2.dumps(REAL)[2:])
attempt("cbor2 writes a date afterwards", lambda: cbor2.dumps(REAL.date())[-10:])
END

expect sh -c "python payloads.py before && python payloads.py within" <<'END'
cbor2 first called before the freeze
  cbor2 writes a fake one: CBOREncodeError: cannot encode type <class 'freezegun.api.FakeDatetime'>
  cbor2 writes a real one afterwards: b'2030-01-01T00:00:00Z'
  cbor2 writes a date afterwards: b'2030-01-01'
cbor2 first called within the freeze
  cbor2 writes a fake one: b'2030-01-01T00:00:00Z'
  pydantic: {"due":"2030-01-01T00:00:00Z"}
  msgspec: TypeError: Encoding objects of type FakeDatetime is unsupported
  msgspec reads: ValidationError: Expected `FakeDatetime`, got `str`
  ormsgpack: TypeError: Type is not msgpack serializable: FakeDatetime
  cbor2 writes a real one afterwards: CBOREncodeError: cannot encode type <class 'datetime.datetime'>
  cbor2 writes a date afterwards: CBOREncodeError: cannot encode type <class 'datetime.date'>
END
