"""Who is told to come: the ring and the arm, as claims."""

from __future__ import annotations

import pytest

from dtimer.limits import (
    ANNOUNCE_MAX_TRIES,
    ARM_GRACE_US,
    MEMBER_LIFE_POLLS,
    POLL_MAX_US,
    SECOND_US,
    UNARMED_OVERDUE_US,
)
from dtimer.protocol import operations as op
from dtimer.protocol.outcomes import ClaimStatus, JoinOutcome
from dtimer.protocol.values import Member, Parked
from support.store import Store, ids


def ring_of(store: Store) -> list[tuple[str, Parked | None]]:
    return [(member.node, member.parked) for member in store.look().ring]


def armed(store: Store) -> str | None:
    arm = store.look().arm
    return None if arm is None else arm.node


def test_events_one_at_a_time_go_round_the_ring() -> None:
    """D6: any N in a row to N nodes."""
    store = Store()
    store.join("a", "b", "c")
    takers = []
    for number in range(9):
        store.post(str(number), 1000)
        store.wait(1001)
        node = armed(store)
        assert node is not None
        assert ids(store.claim(node)) == [str(number)]
        takers.append(node)

    assert takers == ["a", "b", "c"] * 3


def test_one_node_is_told_and_only_of_an_earlier_head() -> None:
    """W2, W3."""
    store = Store()
    store.join("a", "b")
    store.post("first", 500)
    store.post("later", 900)
    store.post("earlier", 300)
    store.do(op.Cancel(("earlier",)))

    told = [(node, due_us) for node, due_us, _ in store.told]
    assert told == [("a", 501), ("a", 303)]


def test_a_node_that_comes_too_early_is_armed_by_its_reply() -> None:
    """W3: a spurious wake-up costs nothing."""
    store = Store()
    store.join("a", "b")
    store.post("e", 500)
    due_us = store.look().head_us

    claimed = store.claim("a")

    assert (ids(claimed), claimed.come_at_us) == ([], due_us)
    assert len(store.told) == 1


def test_the_armed_node_learns_from_its_reply_that_the_head_moved() -> None:
    """W3: cancelling or delaying the head strands nobody."""
    store = Store()
    store.join("a")
    store.post("head", 200)
    store.post("next", 600)
    store.do(op.Cancel(("head",)))
    store.wait(200)

    claimed = store.claim("a")

    assert claimed.come_at_us == store.look().head_us


def test_only_the_armed_nodes_reply_says_when_to_come() -> None:
    """W4."""
    store = Store()
    store.join("a", "b")
    store.post("e", 500)

    assert store.claim("b").come_at_us is None


def test_who_took_something_is_last_in_the_ring_and_the_next_is_told() -> None:
    """W4."""
    store = Store()
    store.join("a", "b")
    store.post("now")
    store.post("then", 5000)

    store.claim("a")

    assert [node for node, _ in ring_of(store)] == ["b", "a"]
    assert store.told[-1][0] == "b"


def test_an_unarmed_node_takes_only_what_is_well_overdue() -> None:
    """D6."""
    store = Store()
    store.join("a", "b")
    store.post("e")
    store.wait(UNARMED_OVERDUE_US - 1)
    assert ids(store.claim("b")) == []

    store.wait(1)
    assert ids(store.claim("b")) == ["e"]


def test_an_armed_node_that_does_not_come_is_suspect() -> None:
    """W5: found by the next one who looks, and passed over until it comes."""
    store = Store()
    store.join("hung", "b", "c")
    store.post("e", 500)
    store.wait(500 + ARM_GRACE_US + 1)

    claimed = store.claim("b")
    store.post("f", 500)

    assert ids(claimed) == ["e"]
    assert dict(ring_of(store))["hung"] is Parked.SUSPECT
    assert armed(store) == "c"
    store.claim("hung")
    assert dict(ring_of(store))["hung"] is None


def test_a_node_whom_nobody_hears_for_is_passed_over() -> None:
    """N3."""
    store = Store()
    store.join("dead", "b")
    store.deaf = {"dead"}

    store.post("e", 500)

    assert store.told == [("dead", 501, False), ("b", 501, True)]
    assert ring_of(store) == [("dead", Parked.UNREACHED), ("b", None)]
    assert armed(store) == "b"


def test_tries_to_reach_somebody_are_bounded() -> None:
    """N3: an operation's work has a limit; the next operation goes on."""
    store = Store()
    nodes = [f"n{number:03}" for number in range(ANNOUNCE_MAX_TRIES + 2)]
    store.join(*nodes)
    store.deaf = set(nodes[:-1])

    store.post("e", 500)
    assert len(store.told) == ANNOUNCE_MAX_TRIES
    assert armed(store) is None
    store.do(op.Cancel(("none",)))

    assert armed(store) == nodes[-1]


def test_a_full_node_is_passed_over_until_it_claims() -> None:
    """D8: an event never waits for a full node while another has room."""
    store = Store()
    store.join("a", "b")
    store.post("1")
    store.post("2")

    store.claim("a", room=1)

    assert dict(ring_of(store))["a"] is Parked.FULL
    assert store.told[-1][0] == "b"
    assert ids(store.claim("b")) == ["2"]


def test_with_all_parked_nothing_is_sent_and_who_comes_takes() -> None:
    """D8."""
    store = Store()
    store.join("a")
    store.claim("a", room=0)
    store.post("e")
    assert store.told == []
    assert armed(store) is None

    assert ids(store.claim("a")) == ["e"]


def test_a_deadline_arms_like_a_due_time() -> None:
    """D3: a retry is as punctual as a first delivery."""
    store = Store()
    store.join("a", "b")
    store.post("e", max_retries=1)

    delivery = store.take("a", timeout_us=700)

    arm = store.look().arm
    assert arm is not None
    assert (arm.node, arm.due_us) == ("b", delivery.deadline_us)


def test_who_leaves_hands_its_arm_over() -> None:
    """N1."""
    store = Store()
    store.join("a", "b")
    store.post("e", 500)

    assert store.do(op.Leave(Member("a", "1")))

    assert [node for node, _, _ in store.told] == ["a", "b"]
    assert armed(store) == "b"
    assert store.claim("a").status is ClaimStatus.NOT_JOINED


def test_a_later_join_fences_the_earlier_one() -> None:
    """N1."""
    store = Store()
    store.join("a")
    assert store.do(op.Join(Member("a", "2"))) is JoinOutcome.TOOK_OVER
    store.post()

    assert store.claim("a").status is ClaimStatus.FENCED
    assert not store.do(op.Leave(Member("a", "1")))
    assert ids(store.claim("a", incarnation="2")) == ["e"]


def test_an_earlier_join_that_comes_again_is_fenced_itself() -> None:
    """N1, F1: its reply was lost, and another has joined under the node id since. It gives no sign of life either."""
    store = Store()
    store.do(op.Join(Member("a", "1")))
    store.do(op.Join(Member("a", "2")))
    (member,) = store.do(op.Inspect()).ring
    store.wait(5)

    assert store.do(op.Join(Member("a", "1"))) is JoinOutcome.FENCED

    assert store.do(op.Inspect()).ring == (member,)


@pytest.mark.parametrize("early_us", [0, 1])
def test_a_join_takes_over_from_a_member_that_is_not_due_to_be_removed(early_us: int) -> None:
    """N1, N3."""
    store = Store()
    store.do(op.Join(Member("a", "1")))
    (member,) = store.do(op.Inspect()).ring
    store.wait(member.expires_us - early_us - store.now_us)

    outcome = store.do(op.Join(Member("a", "2")))

    assert outcome is (JoinOutcome.TOOK_OVER if early_us else JoinOutcome.JOINED)


def test_joining_twice_changes_nothing() -> None:
    """N1."""
    store = Store()
    store.join("a", "b")

    assert store.do(op.Join(Member("a", "1"))) is JoinOutcome.ALREADY_JOINED

    assert ring_of(store) == [("a", None), ("b", None)]


def test_a_node_that_is_silent_for_long_is_removed() -> None:
    """N3."""
    store = Store()
    store.join("silent", "b")
    store.post("e", 2 * MEMBER_LIFE_POLLS * POLL_MAX_US)
    store.wait(MEMBER_LIFE_POLLS * POLL_MAX_US - 2)
    store.claim("b")
    assert [node for node, _ in ring_of(store)] == ["silent", "b"]
    store.wait(1)

    store.claim("b")

    assert [node for node, _ in ring_of(store)] == ["b"]


def test_many_hung_nodes_cost_one_late_event_each() -> None:
    """W5, D7: never every event."""
    store = Store()
    store.join("h1", "h2", "alive")
    late = 0
    for number in range(6):
        store.post(str(number), 1000)
        store.wait(1001)
        if armed(store) == "alive":
            assert ids(store.claim("alive")) == [str(number)]
        else:
            late += 1
            store.wait(SECOND_US)
            assert ids(store.claim("alive")) == [str(number)]

    assert late == 2
