"""Who is told to come (N1, N3, W2 to W5)."""

from __future__ import annotations

from dtimer.protocol import (
    ANNOUNCE_MAX_TRIES,
    ARM_GRACE_US,
    CLAIM_EXTRA_ENTRIES,
    MEMBER_LIFE_POLLS,
    Arm,
    ClaimStatus,
    JoinOutcome,
    Member,
    Parked,
    RingMember,
)

from dtimer_sqlite.turn import Row, Turn


def status(turn: Turn, member: Member) -> ClaimStatus:
    row = _row(turn, member.node)
    if row is None:
        return ClaimStatus.NOT_JOINED
    if row["incarnation"] == member.incarnation:
        return ClaimStatus.JOINED
    return ClaimStatus.NOT_JOINED if row["incarnation"] < member.incarnation else ClaimStatus.FENCED


def join(turn: Turn, member: Member) -> JoinOutcome:
    before = status(turn, member)
    earlier = _row(turn, member.node)
    if earlier is not None and before is not ClaimStatus.NOT_JOINED:
        if before is ClaimStatus.JOINED:
            _renew(turn, member)
        _remove_silent(turn)
        if before is ClaimStatus.FENCED:
            return JoinOutcome.FENCED
        return JoinOutcome.TOOK_OVER if earlier["took_over"] else JoinOutcome.ALREADY_JOINED
    took_over = earlier is not None and earlier["expires_us"] > turn.at_us
    _remove(turn, member.node)
    turn.joins += 1
    turn.db.execute(
        "INSERT INTO members (ns, node, incarnation, place, parked, expires_us, took_over)"
        " VALUES (?, ?, ?, ?, NULL, ?, ?)",
        (turn.ns, member.node, member.incarnation, _end(turn), _expiry(turn, member), took_over),
    )
    _remove_silent(turn)
    return JoinOutcome.TOOK_OVER if took_over else JoinOutcome.JOINED


def leave(turn: Turn, member: Member) -> bool:
    if status(turn, member) is not ClaimStatus.JOINED:
        return False
    _remove(turn, member.node)
    return True


def greet(turn: Turn, member: Member) -> None:
    """A member has come: it is alive and can be told to come again; those who did not come are found out."""
    _renew(turn, member)
    turn.db.execute("UPDATE members SET parked = NULL WHERE ns = ? AND node = ?", (turn.ns, member.node))
    _remove_silent(turn)
    arm = turn.arm
    if arm is not None and arm.node != member.node and turn.at_us - arm.at_us > ARM_GRACE_US:
        park(turn, arm.node, Parked.SUSPECT)


def park(turn: Turn, node: str, why: Parked) -> None:
    turn.db.execute("UPDATE members SET parked = ? WHERE ns = ? AND node = ?", (why.value, turn.ns, node))
    _disarm(turn, node)


def move_to_end(turn: Turn, node: str) -> None:
    """It took something, so that others come first."""
    turn.db.execute("UPDATE members SET place = ? WHERE ns = ? AND node = ?", (_end(turn), turn.ns, node))
    _disarm(turn, node)


def settle(turn: Turn, claimer: str | None = None) -> None:
    """Arm one for no later than the head (W2); the claimer needs no message, since its reply tells it (W4)."""
    head_us = head(turn)
    if head_us is None:
        if turn.arm is not None and turn.arm.node == claimer:
            turn.arm = None
        return
    for _ in range(ANNOUNCE_MAX_TRIES):
        node = _first(turn) if turn.arm is None else turn.arm.node
        if node is None:
            return
        if node != claimer:
            if turn.arm is not None and turn.arm.due_us <= head_us:
                return
            if not turn.tell(node, head_us):
                park(turn, node, Parked.UNREACHED)
                continue
        turn.arm = Arm(node, head_us, max(head_us, turn.at_us))
        return


def head(turn: Turn) -> int | None:
    """When the first of the queue can be claimed."""
    row = turn.db.execute("SELECT next_us FROM events WHERE ns = ? ORDER BY next_us LIMIT 1", (turn.ns,)).fetchone()
    return None if row is None else int(row[0])


def members(turn: Turn) -> tuple[RingMember, ...]:
    rows = turn.db.execute("SELECT * FROM members WHERE ns = ? ORDER BY place", (turn.ns,))
    return tuple(
        RingMember(row["node"], row["incarnation"], row["parked"] and Parked(row["parked"]), row["expires_us"])
        for row in rows
    )


def _row(turn: Turn, node: str) -> Row | None:
    row: Row | None = turn.db.execute("SELECT * FROM members WHERE ns = ? AND node = ?", (turn.ns, node)).fetchone()
    return row


def _first(turn: Turn) -> str | None:
    row = turn.db.execute(
        "SELECT node FROM members WHERE ns = ? AND parked IS NULL ORDER BY place LIMIT 1", (turn.ns,)
    ).fetchone()
    return None if row is None else str(row[0])


def _end(turn: Turn) -> int:
    (place,) = turn.db.execute("SELECT coalesce(max(place), 0) + 1 FROM members WHERE ns = ?", (turn.ns,)).fetchone()
    return int(place)


def _renew(turn: Turn, member: Member) -> None:
    turn.db.execute(
        "UPDATE members SET expires_us = ? WHERE ns = ? AND node = ?",
        (_expiry(turn, member), turn.ns, member.node),
    )


def _expiry(turn: Turn, member: Member) -> int:
    return turn.at_us + MEMBER_LIFE_POLLS * member.poll_us


def _remove(turn: Turn, node: str) -> None:
    turn.db.execute("DELETE FROM members WHERE ns = ? AND node = ?", (turn.ns, node))
    _disarm(turn, node)


def _remove_silent(turn: Turn) -> None:
    rows = turn.db.execute(
        "SELECT node FROM members WHERE ns = ? AND expires_us <= ? ORDER BY expires_us, node LIMIT ?",
        (turn.ns, turn.at_us, CLAIM_EXTRA_ENTRIES),
    ).fetchall()
    for (node,) in rows:
        _remove(turn, node)


def _disarm(turn: Turn, node: str) -> None:
    if turn.arm is not None and turn.arm.node == node:
        turn.arm = None
