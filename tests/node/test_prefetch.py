"""One `max_events` for the claims of many partitions: never too much, and everybody has a turn."""

from __future__ import annotations

from attrs import define, field

from dtimer.node.prefetch import Prefetch


@define(eq=False)
class Partition:
    """The claims of one, as far as room is concerned."""

    name: str
    rung: int = 0

    def ring(self) -> None:
        self.rung += 1


@define(eq=False)
class Node:
    """A node with so many partitions.

    Attributes:
        unfinished: deliveries that somebody works on.
    """

    num_partitions: int
    max_events: int
    unfinished: int = 0
    partitions: list[Partition] = field(init=False)
    prefetch: Prefetch = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.partitions = [Partition(str(number)) for number in range(self.num_partitions)]
        self.prefetch = Prefetch(
            self.num_partitions, lambda: self.max_events - self.unfinished, lambda: self.max_events
        )

    def brings(self, partition: Partition, number: int) -> None:
        self.prefetch.answered(partition, number)
        self.unfinished += number


def test_one_partition_has_all_the_room() -> None:
    node = Node(num_partitions=1, max_events=8)
    (only,) = node.partitions

    assert node.prefetch.of(only) == 8
    assert node.prefetch.reserve(only) == 8
    node.brings(only, 3)
    assert node.prefetch.reserve(only) == 5
    node.prefetch.failed(only)
    assert node.prefetch.of(only) == 5


def test_claims_in_flight_never_ask_for_more_than_there_is() -> None:
    """N2: each might bring all that it asked for."""
    node = Node(num_partitions=16, max_events=8)

    asked = [node.prefetch.reserve(partition) for partition in node.partitions]

    assert asked == [2, 2, 2, 2] + [0] * 12


def test_room_that_was_not_used_is_there_again_and_those_without_hear_of_it() -> None:
    node = Node(num_partitions=5, max_events=8)
    *first, last = node.partitions
    for partition in first:
        node.prefetch.reserve(partition)
    assert node.prefetch.of(last) == 0

    node.brings(first[0], 0)
    node.prefetch.changed()

    assert [partition.rung for partition in node.partitions] == [0, 0, 0, 0, 1]
    assert node.prefetch.of(last) == 2


def test_a_backlog_is_taken_in_growing_claims() -> None:
    node = Node(num_partitions=4, max_events=100)
    busy, other, *_ = node.partitions
    asked = []
    for _ in range(4):
        asked.append(node.prefetch.reserve(busy))
        node.brings(busy, asked[-1])
        node.unfinished = 0
    node.prefetch.reserve(busy)
    node.brings(busy, 1)

    assert asked == [25, 50, 100, 100]
    assert node.prefetch.of(busy) == 25
    assert node.prefetch.of(other) == 25


def test_a_backlog_keeps_nobody_from_his_turn() -> None:
    """Handlers end one by one, and each time there is room for one event."""
    node = Node(num_partitions=3, max_events=2)
    taken: list[str] = []
    for partition in node.partitions:
        node.prefetch.reserve(partition)
        node.brings(partition, min(2, 2 - node.unfinished))

    for _ in range(9):
        node.unfinished -= 1
        (turn,) = [partition for partition in node.partitions if node.prefetch.of(partition)]
        assert node.prefetch.reserve(turn) == 1
        node.brings(turn, 1)
        taken.append(turn.name)

    assert taken[3:6] == taken[:3] == taken[6:]
    assert sorted(taken[:3]) == ["0", "1", "2"]


def test_a_newcomer_does_not_push_in_before_those_who_wait() -> None:
    node = Node(num_partitions=2, max_events=1)
    waiting, new = node.partitions
    node.prefetch.reserve(waiting)
    node.brings(waiting, 1)
    node.unfinished = 0

    assert (node.prefetch.of(new), node.prefetch.of(waiting)) == (0, 1)


def test_whoever_failed_asks_without_room_until_it_is_answered() -> None:
    """It may hang for seconds each time; what it reserved would be of use to nobody."""
    node = Node(num_partitions=2, max_events=1)
    failing, other = node.partitions
    node.prefetch.reserve(failing)

    node.prefetch.failed(failing)

    assert node.prefetch.reserve(failing) == 0
    assert node.prefetch.of(other) == 1
    node.brings(failing, 0)
    node.prefetch.reserve(other)
    node.brings(other, 0)
    assert node.prefetch.of(failing) == 1


def test_whoever_left_has_no_claim_to_room() -> None:
    node = Node(num_partitions=2, max_events=1)
    leaving, other = node.partitions
    node.prefetch.reserve(leaving)
    node.brings(leaving, 1)
    node.unfinished = 0
    assert node.prefetch.of(other) == 0

    node.prefetch.gone(leaving)

    assert node.prefetch.of(other) == 1
