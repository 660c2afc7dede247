#!/usr/bin/env bash
# burner-redis 0.1.7 (PyPI), the store behind `memory://` of pydocket 0.27.0
#
# One would guess that a store "compatible with Redis" runs scripts in the Lua of Redis, 5.1, in which all numbers are
# doubles, and that counters refuse to overflow.
#
# It runs Lua 5.4, which has integers: a key made of a time in microseconds has all its digits, where Redis 7.0 writes
# "due:1.7960000001235e+15", and 10 / 2 is "5.0", where Redis writes "5". There is no cjson and no TIME. HINCRBY
# past 2^63 wraps around to a negative number; Redis answers with an error.
#
# It matters to those who build timers: a script that joins a time to a name makes one key for each microsecond in the
# tests and one for each 100 microseconds in production, where two timers then share a key. Format numbers by
# string.format('%.0f', ...), which is right in both, and test a script on the server that will run it.
. "$(dirname "${BASH_SOURCE[0]}")/support/prepare.sh"

python_with burner-redis==0.1.7
cat >scripts.py <<'END'
import asyncio

from burner_redis import BurnerRedis


async def main() -> None:
    store = BurnerRedis()
    for script in (
        "return _VERSION",
        "return 'due:' .. 1796000000123456",
        "return 'half:' .. 10 / 2",
        "return string.format('%.0f', 1796000000123456)",
        "return type(cjson)",
    ):
        print(script, "->", (await store.eval(script, 0)).decode())
    try:
        await store.eval("return redis.call('TIME')", 0)
    except Exception as error:
        print("TIME ->", str(error).splitlines()[0])
    await store.hincrby("hash", "count", 2**63 - 1)
    print("2^63 - 1 and 1 ->", await store.hincrby("hash", "count", 1))


asyncio.run(main())
END

expect python scripts.py <<'END'
return _VERSION -> Lua 5.4
return 'due:' .. 1796000000123456 -> due:1796000000123456
return 'half:' .. 10 / 2 -> half:5.0
return string.format('%.0f', 1796000000123456) -> 1796000000123456
return type(cjson) -> nil
TIME -> runtime error: ERR unknown command 'TIME'
2^63 - 1 and 1 -> -9223372036854775808
END
