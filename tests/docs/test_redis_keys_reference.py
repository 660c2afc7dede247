"""What operators are told about Redis is true of the scripts and of a real server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
import redis
from redis.exceptions import NoPermissionError

from dtimer.backends.redis import RedisBackend
from dtimer.backends.redis.keys import Keys
from dtimer.protocol.values import (
    EVENT_FIELDS,
    After,
    At,
    EventData,
    Extension,
    IfExists,
    LetterName,
    Member,
    NewEvent,
    Receipt,
    Release,
    Window,
)
from support.guide import rights_of_the_guide
from support.servers import Server

ROOT: Final = Path(__file__).resolve().parents[2]
REFERENCE: Final = (ROOT / "docs" / "reference" / "redis-keys.md").read_text(encoding="utf-8")
LUA: Final = ROOT / "dtimer" / "backends" / "redis" / "lua"


def test_the_keys_are_listed_in_the_order_of_the_scripts() -> None:
    listed = re.findall(r"^\| `(\{dt\}:\w+)` \|", REFERENCE, re.MULTILINE)

    assert tuple(listed) == Keys("dt").all


def test_each_field_of_a_record_is_listed() -> None:
    """A letter has one meaning for good: ``n`` was the nonce of a post once."""
    (fields,) = re.findall(r"^### Records\n(.*?)^###", REFERENCE, re.MULTILINE | re.DOTALL)
    letters = [field.letter for field in EVENT_FIELDS] + ["h", "w"]

    assert re.findall(r"^\| `(\w)`", fields, re.MULTILINE) == letters
    assert len({*letters, "n"}) == len(letters) + 1


def test_every_command_of_the_scripts_is_permitted_and_no_other() -> None:
    """A command that is missing would show only when an operator's server refuses it."""
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in LUA.rglob("*.lua"))
    in_scripts = {command.lower() for command in re.findall(r"redis\.p?call\('(\w+)'", scripts)}
    permitted = {rule[1:] for rule in rights_of_the_guide() if rule.startswith("+")}

    assert permitted == in_scripts | {"evalsha", "eval", "subscribe", "ping"}


async def test_a_user_with_these_permissions_can_do_everything(server: Server) -> None:
    """The permissions are copied into production as they stand."""
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "shop", *rights_of_the_guide())
        try:
            await _do_everything(f"redis://shop:password@{server.host}:{server.port}/0")
        finally:
            admin.execute_command("ACL", "DELUSER", "shop")


async def _do_everything(url: str) -> None:
    member = Member("a", "1")
    async with RedisBackend.from_url(url, namespace="shop") as backend:
        epoch = (await backend.open()).epoch
        async with backend.wakeups("a", epoch) as messages:
            await backend.join(member)
            events = [EventData(id=id, payload=b"", max_retries=1, dead_letter=True) for id in ("x", "y", "z")]
            told = await backend.post([NewEvent(event, After(0)) for event in events])
            await anext(messages)
            claimed = await backend.claim(member, room=3, confirm_timeout_us=1_000_000, nonce="c", pulse=True)
            await anext(messages)
        x, y, z = (delivery.receipt for delivery in claimed.value.deliveries)
        await backend.extend([Extension(x, 1_000_000)])
        await backend.release(y, how=Release.UNCOUNTED, delay_us=60_000_000)
        await backend.change_delay("y", delay_us=1_000_000)
        await backend.peek("y")
        await backend.upcoming(Window(0, 60_000_000), limit=1)
        await backend.bury(z, detail="")
        await backend.dead_letters(None, limit=1)
        await backend.inspect()
        await backend.resend(LetterName("z"), due=At(0), if_exists=IfExists.REPLACE)
        await backend.discard([LetterName("z")])
        await backend.confirm([x, Receipt("q", 1, "c")])
        await backend.confirm_newest("z")
        await backend.cancel(["y", "z"])
        await backend.leave(member)

    assert [announcement.reached for announcement in told.announced] == [True]
    with redis.Redis.from_url(url) as user, pytest.raises(NoPermissionError):
        user.execute_command("GET", "{shop}:meta")
