"""The ring of joined nodes and the arm: who is told to come when something is due (rules D6, D8, N1, N3, W2 to W5).

Theory of operation
===================

Members stand in a ring, in the order of their positions. At most one of them is *armed*: it has been told to come at
``arm.due_us`` or knows it from its last claim's reply. Everybody else sleeps.

Two things keep one node enough. :meth:`Ring.settle` runs at the end of every operation and restores the invariant
that an eligible member is armed for no later than the head of the queue, if there are both (W2). And a member that
cannot be relied on is *parked*, out of the arm's way, until its next claim: it is full (D8), it did not come (W5),
or nobody heard the announcement (N3).

An announcement's time is only ever made earlier. When the head moves later, the armed node comes in vain once, and
the reply to its claim arms it anew (W3): one needless call instead of a message for every cancel.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from dtimer.limits import ANNOUNCE_MAX_TRIES, ARM_GRACE_US, CLAIM_EXTRA_ENTRIES, MEMBER_LIFE_POLLS
from dtimer.protocol.outcomes import ClaimStatus, JoinOutcome
from dtimer.protocol.values import Announcement, Arm, Member, Parked, RingMember


@define
class _Node:
    incarnation: str
    position: int
    expires_us: int
    took_over: bool
    parked: Parked | None = None


@define
class Ring:
    """Members and the arm of one namespace.

    Attributes:
        joins: how often a member has joined (F4).
    """

    arm: Arm | None = None
    joins: int = 0
    _nodes: dict[str, _Node] = field(factory=dict)
    _last_position: int = 0

    def copy(self) -> Ring:
        """A ring of its own that stands where this one does."""
        nodes = {
            name: _Node(node.incarnation, node.position, node.expires_us, node.took_over, node.parked)
            for name, node in self._nodes.items()
        }
        return Ring(self.arm, self.joins, nodes, self._last_position)

    @property
    def num_members(self) -> int:
        """How many there are, the parked ones included."""
        return len(self._nodes)

    def status(self, member: Member) -> ClaimStatus:
        """Whether a member may claim (N1)."""
        node = self._nodes.get(member.node)
        if node is None:
            return ClaimStatus.NOT_JOINED
        if node.incarnation == member.incarnation:
            return ClaimStatus.JOINED
        # One that joined before this one, and is known: the store has lost the later join.
        return ClaimStatus.NOT_JOINED if node.incarnation < member.incarnation else ClaimStatus.FENCED

    def join(self, member: Member, at_us: int) -> JoinOutcome:
        """Put a member at the end, in place of any earlier incarnation; a later one stays (N1).

        A repetition may be the first to be answered, so it tells again whether the join has fenced another (F1).
        """
        status = self.status(member)
        if status is ClaimStatus.FENCED:
            return JoinOutcome.FENCED
        before = self._nodes.get(member.node)
        expires_us = _expiry(member, at_us)
        if before is not None and status is ClaimStatus.JOINED:
            before.expires_us = expires_us
            return JoinOutcome.TOOK_OVER if before.took_over else JoinOutcome.ALREADY_JOINED
        self._remove(member.node)
        self.joins += 1
        self._last_position += 1
        took_over = before is not None and before.expires_us > at_us
        self._nodes[member.node] = _Node(member.incarnation, self._last_position, expires_us, took_over)
        return JoinOutcome.TOOK_OVER if took_over else JoinOutcome.JOINED

    def leave(self, member: Member) -> bool:
        """Take a member out; its arm goes to whom :meth:`settle` finds (N1)."""
        if not self.status(member):
            return False
        self._remove(member.node)
        return True

    def arrive(self, member: Member, at_us: int) -> None:
        """A member claims: it is unparked, and lives (N3); an armed one that did not come is suspect (W5)."""
        node = self._nodes[member.node]
        node.parked = None
        node.expires_us = _expiry(member, at_us)
        self.expire(at_us)
        if self.arm is not None and self.arm.node != member.node and at_us > self.arm.at_us + ARM_GRACE_US:
            self.park(self.arm.node, Parked.SUSPECT)

    def clear(self) -> None:
        """Nobody is a member any more."""
        self._nodes.clear()
        self.arm = None

    def expire(self, at_us: int) -> None:
        """Remove members that gave no sign of life for too long, those first that have been silent longest (N3)."""
        dead = sorted((node.expires_us, name) for name, node in self._nodes.items() if node.expires_us <= at_us)
        for _, name in dead[:CLAIM_EXTRA_ENTRIES]:
            self._remove(name)

    def is_armed(self, name: str) -> bool:
        return self.arm is not None and self.arm.node == name

    def disarm(self) -> None:
        self.arm = None

    def park(self, name: str, why: Parked) -> None:
        self._nodes[name].parked = why
        if self.is_armed(name):
            self.arm = None

    def move_to_end(self, name: str) -> None:
        """Who took something is the last to be asked again (W4)."""
        self._last_position += 1
        self._nodes[name].position = self._last_position

    def settle(
        self, head_us: int | None, at_us: int, reach: Callable[[str], bool], *, claimer: str | None = None
    ) -> tuple[Announcement, ...]:
        """Restore the invariant of the arm (W2), and say who was told.

        Args:
            head_us: when the first entry of the queue is claimable; None if there is none.
            reach: asked once for each announcement whether it reached anybody (N3).
            claimer: the member whose claim this is: its reply tells it when to come, so nothing is sent to it (W4).
        """
        announced: list[Announcement] = []
        if head_us is None:
            if claimer is not None and self.is_armed(claimer):
                self.arm = None
            return ()
        if claimer is not None and self.is_armed(claimer):
            self.arm = Arm(claimer, head_us, max(head_us, at_us))
        while self.arm is None or head_us < self.arm.due_us:
            name = self._first_eligible() if self.arm is None else self.arm.node
            if name is None:
                break
            if len(announced) == ANNOUNCE_MAX_TRIES:
                self.arm = None
                break
            self.arm = Arm(name, head_us, max(head_us, at_us))
            if name == claimer:
                break
            reached = reach(name)
            announced.append(Announcement(name, head_us, reached))
            if not reached:
                self.park(name, Parked.UNREACHED)
        return tuple(announced)

    def members(self) -> tuple[RingMember, ...]:
        """All members in ring order."""
        ordered = sorted(self._nodes.items(), key=lambda item: item[1].position)
        return tuple(RingMember(name, node.incarnation, node.parked, node.expires_us) for name, node in ordered)

    def check(self, head_us: int | None) -> None:
        """Assert what holds after every operation."""
        if self.arm is not None:
            assert self.arm.node in self._nodes, "the armed node is a member"
            assert self._nodes[self.arm.node].parked is None, "the armed node is not parked"
            assert head_us is None or self.arm.due_us <= head_us, "armed for no later than the head"
        elif head_us is not None and self._first_eligible() is not None:
            unreached = [node for node in self._nodes.values() if node.parked is Parked.UNREACHED]
            assert len(unreached) >= ANNOUNCE_MAX_TRIES, "nobody is armed only if nobody is eligible or many are dead"

    def _first_eligible(self) -> str | None:
        eligible = [(node.position, name) for name, node in self._nodes.items() if node.parked is None]
        return min(eligible)[1] if eligible else None

    def _remove(self, name: str) -> None:
        self._nodes.pop(name, None)
        if self.is_armed(name):
            self.arm = None


def _expiry(member: Member, at_us: int) -> int:
    return at_us + MEMBER_LIFE_POLLS * member.poll_us
