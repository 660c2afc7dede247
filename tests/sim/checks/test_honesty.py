"""Users who are lied to, or given more than they asked for, are heard."""

from __future__ import annotations

from dtimer.protocol import operations as op
from dtimer.protocol.outcomes import ConfirmOutcome, PostOutcome
from dtimer.protocol.values import After, Applied, EventData, NewEvent, Receipt
from dtimer.sim.checks.honesty import REMEMBERED_US, Honesty, Watch

ONCE = EventData(id="once", payload=b"2")
RECEIPT = Receipt("a", 1, "c")


class Case:
    def __init__(self) -> None:
        self.now_us = 0
        self.complaints: list[str] = []
        self.honesty = Honesty(lambda: self.now_us, self.complain)

    def complain(self, rules: str, who: str, id: str, what: str) -> None:
        self.complaints.append(rules)

    def posts(self, outcome: PostOutcome = PostOutcome.CREATED) -> None:
        post = op.Post((NewEvent(ONCE, After(0)),))
        self.honesty.on_applied("client", 1, "dt", post, Applied("epoch", 1, 1, (outcome,)))

    def confirms(self, outcome: ConfirmOutcome = ConfirmOutcome.CONFIRMED) -> None:
        self.honesty.on_applied("n1", 1, "dt", op.Confirm((RECEIPT,)), Applied("epoch", 1, 1, (outcome,)))


def test_a_post_that_was_never_applied_did_not_work() -> None:
    case = Case()
    case.posts(PostOutcome.KEPT)
    case.honesty.told_posted("once", b"2")
    assert case.complaints == ["P5"]


def test_a_post_that_was_applied_did_something() -> None:
    case = Case()
    case.posts()
    case.honesty.told_not_posted("once", b"2", "StoreUnreachable")
    assert case.complaints == ["F1"]


def test_a_post_is_applied_once() -> None:
    """F1: whatever became of the event meanwhile."""
    case = Case()
    case.posts()
    case.honesty.on_rolled_back(None)
    case.posts(PostOutcome.REPLACED)
    assert case.complaints == ["F1"]


def test_a_confirm_that_was_never_applied_did_not_work() -> None:
    case = Case()
    case.confirms(ConfirmOutcome.STALE)
    case.honesty.told_confirmed("n1", RECEIPT)
    assert case.complaints == ["E1"]


def test_the_truth_is_no_offence() -> None:
    case = Case()
    case.honesty.told_not_posted("once", b"2", "StoreUnreachable")
    case.posts()
    case.honesty.told_posted("once", b"2")
    case.confirms()
    case.honesty.told_confirmed("n1", RECEIPT)
    case.honesty.on_rolled_back(None)
    case.honesty.told_confirmed("n1", RECEIPT)
    assert case.complaints == []


def test_it_does_not_remember_for_ever() -> None:
    case = Case()
    for _ in range(1_000):
        case.now_us += REMEMBERED_US // 10
        case.honesty.on_applied(
            "client", 1, "dt", op.Confirm((Receipt("a", case.now_us, "c"),)),
            Applied("epoch", 1, 1, (ConfirmOutcome.CONFIRMED,)),
        )  # fmt: skip
    assert len(case.honesty._confirmed) <= 11


class TestAProgram:
    def test_has_no_more_handlers_than_it_has_room(self) -> None:
        case = Case()
        watch = Watch("n1", 2, case.complain)
        for _ in range(5):
            watch.begins("a", requires_confirm=True)
            watch.ends()
        watch.begins("a", requires_confirm=True)
        watch.begins("b", requires_confirm=True)
        assert case.complaints == []
        watch.begins("c", requires_confirm=True)
        assert case.complaints == ["N2"]

    def test_is_given_only_what_would_be_lost_while_it_leaves(self) -> None:
        case = Case()
        watch = Watch("n1", 2, case.complain, leaving=True)
        watch.begins("a", requires_confirm=False)
        assert case.complaints == []
        watch.begins("b", requires_confirm=True)
        assert case.complaints == ["N1"]

    def test_is_given_nothing_when_it_has_left(self) -> None:
        case = Case()
        watch = Watch("n1", 2, case.complain, leaving=True, left=True)
        watch.begins("a", requires_confirm=False)
        assert case.complaints == ["N1"]
