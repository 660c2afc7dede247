"""The judge sees each thing that must not happen, and nothing in what may."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.history import (
    Cancelled,
    Deed,
    Did,
    Drained,
    Fault,
    Got,
    LeftOver,
    Moved,
    Pen,
    Posted,
    Record,
    Reply,
    Told,
    read,
)
from soak.judge import BOUND_US, RECOVERY_US, SLACK_US, Verdict, judge

SECOND_US = 1_000_000
LATE_US = BOUND_US + SLACK_US + SECOND_US


def posted(*, reply: Reply = Reply.DONE, max_retries: int = 3) -> Posted:
    return Posted("x", 1_000, 2_000, reply, SECOND_US, max_retries)


def got(number: int = 1, at_us: int = 1_003_000, **other: object) -> Got:
    words: dict[str, object] = {"num_retries": number - 1, "due_us": min(at_us, 1_002_000), "intact": True}
    words |= {"deadline_us": at_us + 2 * SECOND_US, "now_us": at_us + 1_000} | other
    return Got(node="n1", id="x", number=number, at_us=at_us, **words)  # type: ignore[arg-type]


def did(number: int = 1, deed: Deed = Deed.CONFIRMED, at_us: int = 1_010_000) -> Did:
    return Did("x", number, deed, at_us, at_us + 1_000)


RESTED = (LeftOver((), ()), Drained(90 * SECOND_US))
AGAIN = did(2, at_us=1_030_000)
RETRY = got(2, 3_003_000, due_us=3_003_000)
LOSSY = Fault("f", 1_020_000, 2_000_000, True, lossy=True)
TOLD = Told("n1", "StoreLostWrites", ("x",), 2_100_000)
FAILED = Told("n1", "HandlerFailed", ("x",), 1_011_000)

FINE: dict[str, list[Record]] = {
    "confirmed": [posted(), got(), did()],
    "retried at its deadline": [posted(), got(), RETRY, did(2, at_us=3_010_000)],
    "released, so that it comes at once": [posted(), got(), did(1, Deed.RELEASED), got(2, 1_020_000), AGAIN],
    "cancelled": [posted(), Cancelled("x", 3_000, 4_000, Reply.DONE)],
    "cancelled by a call whose reply was lost": [posted(), Cancelled("x", 3_000, 4_000, Reply.UNKNOWN)],
    "claimed before it was cancelled": [posted(), got(), Cancelled("x", 1_000_000, 1_004_000, Reply.DONE)],
    "never posted, as its caller knows": [posted(reply=Reply.FAILED)],
    "perhaps posted, and not": [posted(reply=Reply.UNKNOWN)],
    "perhaps posted, and so": [posted(reply=Reply.UNKNOWN), got(), did()],
    "killed while it confirmed": [posted(), got(), did(1, Deed.UNKNOWN)],
    "a dead letter": [posted(), got(), LeftOver((), ("x",))],
    "moved nearer": [posted(), Moved("x", 3_000, 4_000, Reply.DONE, 0), got(1, 5_000, due_us=4_000), did()],
    "late in an outage": [
        posted(),
        Fault("f", SECOND_US, 5 * SECOND_US, True),
        got(at_us=5 * SECOND_US + RECOVERY_US),
        did(at_us=10**7),
    ],
    "made due by a leap of the server's clock": [
        posted(), Fault("f", 10_000, 60_000, False, leap=True), got(at_us=50_000, due_us=40_000), did(1, at_us=70_000),
    ],
    "its deadline passed by a leap": [
        posted(), got(), Fault("f", 1_020_000, 1_040_000, False, leap=True), got(2, 1_030_000), did(2, at_us=1_050_000),
    ],
    "lost, and told": [posted(), LOSSY, TOLD],
    "confirmed, lost, told, and again": [
        posted(), got(), did(), LOSSY, TOLD, got(1, 3_000_000), did(1, at_us=3_010_000),
    ],
    "claimed while the clock was ahead, lost, told, and again": [
        posted(),
        got(at_us=9_000_000, due_us=9_000_000, now_us=1_004_000),
        LOSSY,
        TOLD,
        got(1, 3_000_000),
        did(1, at_us=3_010_000),
    ],
    "confirmed, lost, and its node killed": [
        posted(), got(), did(), LOSSY, Fault("f", SECOND_US, 2 * SECOND_US, False, ended=("n1",)),
        got(1, 3_000_000), did(1, at_us=3_010_000),
    ],
    "raised, and told": [posted(), got(), did(1, Deed.RAISED), FAILED, RETRY, did(2, at_us=3_010_000)],
    "at most once, and gone with its node": [posted(max_retries=0), Fault("f", 0, 1, False)],
}  # fmt: skip

WRONG: dict[str, tuple[Verdict, list[Record]]] = {
    "never given": (Verdict.LOST, [posted()]),
    "given, but neither confirmed nor dead": (Verdict.LOST, [posted(), got()]),
    "at most once, without a fault": (Verdict.LOST, [posted(max_retries=0)]),
    "after its confirm, which was written down twice": (
        Verdict.AFTER_ITS_END,
        [posted(), got(), did(1, Deed.UNKNOWN), did(), RETRY],
    ),
    "live for ever": (Verdict.STUCK, [posted(), got(), did(), LeftOver(("x",), ())]),
    "one number twice": (Verdict.TOO_OFTEN, [posted(), got(), got(), did()]),
    "at most once twice": (
        Verdict.TOO_OFTEN,
        [posted(max_retries=0), got(deadline_us=None), got(2, num_retries=0, deadline_us=None)],
    ),
    "one retry too many": (Verdict.TOO_OFTEN, [posted(max_retries=1), got(num_retries=2), did()]),
    "again before its deadline": (Verdict.AT_ONCE, [posted(), got(), got(2, 1_020_000), AGAIN]),
    "after its confirm": (Verdict.AFTER_ITS_END, [posted(), got(), did(), RETRY]),
    "after its cancel": (Verdict.AFTER_ITS_END, [posted(), Cancelled("x", 3_000, 4_000, Reply.DONE), got()]),
    "before its due time": (Verdict.EARLY, [posted(), got(due_us=1_003_001), did()]),
    "before its delay was over": (Verdict.EARLY, [posted(), got(at_us=1_000_999), did()]),
    "late in health": (Verdict.LATE, [posted(), got(at_us=1_002_000 + LATE_US), did(1, at_us=10**7)]),
    "late, and an outage was long ago": (
        Verdict.LATE,
        [posted(), Fault("f", 0, 1, True), got(at_us=1_002_000 + RECOVERY_US + LATE_US), did(1, at_us=10**8)],
    ),
    "late, and the fault was no outage": (
        Verdict.LATE,
        [posted(), Fault("f", SECOND_US, LATE_US, False), got(at_us=1_002_000 + LATE_US), did(1, at_us=10**7)],
    ),
    "from nowhere": (Verdict.UNEXPECTED, [got(), did()]),
    "refused, and given all the same": (Verdict.UNEXPECTED, [posted(reply=Reply.FAILED), got(), did()]),
    "lost, and not told": (Verdict.LOST, [posted(), LOSSY]),
    "lost and told, but nothing had been cut": (Verdict.LOST, [posted(), TOLD]),
    "confirmed, lost, and again": (Verdict.AFTER_ITS_END, [posted(), got(), did(), LOSSY, got(2, 4 * SECOND_US)]),
    "claimed, lost, and again": (
        Verdict.TOO_OFTEN,
        [posted(), got(), LOSSY, got(1, 4 * SECOND_US), did(1, at_us=5 * SECOND_US)],
    ),
    "before its delay was over, and a leap was long ago": (
        Verdict.EARLY,
        [Fault("f", 0, 1, False, leap=True), posted(), got(at_us=1_000_999), did()],
    ),
    "raised, and not told": (Verdict.UNTOLD, [posted(), got(), did(1, Deed.RAISED), RETRY, did(2, at_us=3_010_000)]),
    "raised once, and told twice": (
        Verdict.UNTOLD,
        [posted(), got(), did(1, Deed.RAISED), FAILED, FAILED, RETRY, did(2, at_us=3_010_000)],
    ),
    "another payload": (Verdict.DAMAGED, [posted(), got(intact=False), did()]),
}


@pytest.mark.parametrize("history", FINE.values(), ids=FINE)
def test_what_may_happen(history: list[Record]) -> None:
    _, violations = judge([*RESTED, *history])

    assert violations == []


@pytest.mark.parametrize(("verdict", "history"), WRONG.values(), ids=WRONG)
def test_what_must_not(verdict: Verdict, history: list[Record]) -> None:
    _, violations = judge([*RESTED, *history])

    assert [violation.verdict for violation in violations] == [verdict]


def test_each_verdict_can_be_given() -> None:
    assert {verdict for verdict, _ in WRONG.values()} == set(Verdict)


def test_a_run_that_was_not_drained_is_no_success() -> None:
    _, violations = judge([posted(), got(), did()])

    assert [violation.verdict for violation in violations] == [Verdict.STUCK]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    records: list[Record] = [
        posted(), got(), did(), RESTED[0], RESTED[1], Cancelled("x", 1, 2, Reply.UNKNOWN),
        Moved("x", 1, 2, Reply.NOTHING, 3), Fault("f", 1, 2, True), LeftOver(("a",), ("b", "c")), TOLD,
        Fault("f", 1, 2, True, leap=True, lossy=True, ended=("n1",)),
    ]  # fmt: skip
    pen = Pen(tmp_path / "history.jsonl")
    for record in records:
        pen.write(record)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"what": "Posted", "id": "cut by a kill')

    assert list(read(tmp_path / "history.jsonl")) == records
