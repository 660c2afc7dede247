"""A copy of the machine: it goes on like the original, and neither touches the other."""

from __future__ import annotations

from dtimer.protocol import operations as op
from dtimer.protocol.values import (
    Applied,
    LetterName,
    Member,
)
from dtimer.semantics import Machine
from support.store import Store


def full_of_everything() -> Store:
    """Members that are armed, full and unreached; events that are scheduled, unconfirmed and dead."""
    store = Store()
    store.deaf = {"deaf"}
    store.join("deaf", "a", "b")
    for number in range(4):
        store.post(f"e{number}", number, max_retries=1, dead_letter=True)
    store.wait(2)
    (first,) = store.claim("a", room=1).deliveries
    store.do(op.Bury(first.receipt, "because"))
    store.claim("a", room=1)
    store.post("later", 1_000_000)
    return store


def go_on(machine: Machine, at_us: int) -> list[Applied[object]]:
    """Replies of operations that touch every part of the state."""
    operations: list[op.Operation[object]] = [
        op.Cancel(("e2",)),
        op.Claim(member=Member("b", "1"), room=8, confirm_timeout_us=1_000, nonce="n"),
        op.Discard((LetterName("e0"),)),
        op.Join(Member("c", "1")),
        op.Inspect(),
    ]
    replies: list[Applied[object]] = []
    for operation in operations:
        replies.append(machine.apply(operation, at_us=max(at_us, machine.last_us), reach=lambda _: True))
        machine.check()
    return replies


def seen(store: Store) -> object:
    return store.do(op.Inspect()), store.do(op.ListDeadLetters(None, 10)), store.machine.last_us


def test_it_goes_on_like_the_original() -> None:
    store = full_of_everything()
    copy = store.machine.copy()
    at_us = store.now_us + 10

    assert go_on(copy, at_us) == go_on(store.machine, at_us)


def test_neither_touches_the_other() -> None:
    store = full_of_everything()
    before = seen(store)

    go_on(store.machine.copy(), store.now_us + 10)

    assert seen(store) == before
