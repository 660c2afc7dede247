"""The store that forgets: after a restart it is exactly what it was at some earlier moment."""

from __future__ import annotations

from itertools import count

import pytest

from dtimer.errors import StoreBusy, StoreFull, StoreReadOnly
from dtimer.limits import SECOND_US
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import (
    After,
    Applied,
    At,
    EventData,
    IfExists,
    LetterName,
    Member,
    NewEvent,
    Receipt,
    Release,
    Window,
)
from dtimer.sim.faulty.store import CHECKPOINT_MIN_OPERATIONS, LOSE_MAX_US, FaultyStore, Refusal
from dtimer.sim.rng import Rng

START_US = 1_900_000_000 * SECOND_US
MEMBER = Member("a", "1")


def store() -> FaultyStore:
    epochs = (f"epoch{number}" for number in count(1))
    return FaultyStore(start_us=START_US, epochs=epochs, reach=lambda _, node: node != "deaf")


def post(id: str, delay_us: int = 0, *, max_retries: int = 0, dead_letter: bool = False) -> op.Post:
    return op.Post(
        (NewEvent(EventData(id=id, payload=b"", max_retries=max_retries, dead_letter=dead_letter), After(delay_us)),)
    )


def seen(store: FaultyStore, now_us: int) -> list[object]:
    looks: list[Operation[object]] = [op.Inspect(), op.Upcoming(Window(), 256), op.ListDeadLetters(None, 256)]
    replies = [store.apply("dt", look, now_us) for look in looks]
    return [(reply.epoch, reply.seq, reply.value) for reply in replies]


def claim(rng: Rng) -> op.Claim:
    node = rng.pick(["a", "b"])
    return op.Claim(member=Member(node, "1"), room=2, confirm_timeout_us=SECOND_US, nonce=f"c{rng.drawn}")


def program(rng: Rng, length: int) -> list[tuple[int, Operation[object]]]:
    """Operations of all kinds, some milliseconds apart."""
    operations: list[tuple[int, Operation[object]]] = [(1, op.Join(Member(name, "1"))) for name in ("deaf", "a", "b")]
    now_us = 1
    for number in range(length):
        now_us += rng.below(40_000)
        id = f"e{rng.below(40)}"
        receipt = Receipt(id, 1, f"c{rng.below(10_000)}")
        made: Operation[object] = rng.pick(
            [
                post(id, rng.below(SECOND_US), max_retries=1),
                post(id, rng.below(SECOND_US), dead_letter=True),
                post(f"f{number}"),
                claim(rng),
                claim(rng),
                op.Cancel((id,)),
                op.ChangeDelay(id, rng.below(SECOND_US)),
                op.GiveBack(receipt=receipt, how=Release.COUNTED, delay_us=5),
                op.Resend(LetterName(id), At(0), IfExists.KEEP),
                op.Peek(id),
            ]
        )
        operations.append((now_us, made))
    return operations


@pytest.mark.parametrize("seed", range(6))
def test_what_was_applied_last_is_as_if_it_had_never_been(seed: int) -> None:
    """Whatever the history, with its clock steps: the rest of a history gives the same replies as without the loss."""
    rng = Rng(seed, "store")
    operations = program(rng, 3_000)
    last_us = operations[-1][0]
    until_us = last_us - rng.below(LOSE_MAX_US)
    forgetful, other = store(), store()
    steps = {rng.below(len(operations)): rng.between(-SECOND_US, SECOND_US) for _ in range(3)}

    offset_us = 0
    for number, (now_us, operation) in enumerate(operations):
        offset_us += steps.get(number, 0)
        forgetful.clock_offset_us = START_US + offset_us
        forgetful.apply("dt", operation, now_us)
        if now_us <= until_us:
            other.clock_offset_us = START_US + offset_us
            other.apply("dt", operation, now_us)
    forgetful.lose(until_us)
    other.clock_offset_us = forgetful.clock_offset_us

    assert seen(forgetful, last_us) == seen(other, last_us)

    def go_on(store: FaultyStore) -> list[Applied[object]]:
        return [store.apply("dt", operation, last_us + now_us) for now_us, operation in program(Rng(seed, "rest"), 200)]

    assert go_on(forgetful) == go_on(other)


def test_it_can_lose_writes_again_and_again() -> None:
    """Each time it goes on from what is left."""
    forgetful = store()
    for number in range(5_000):
        forgetful.apply("dt", post(f"e{number}", 10**9), number * 10_000 + 1)
        if number % 1_000 == 999:
            forgetful.lose(number * 10_000 - LOSE_MAX_US // 2)

    machine = forgetful.machine("dt")
    assert machine is not None
    assert machine.num_live == 5_000 - 5 * 501


def test_a_namespace_that_did_not_exist_yet_is_another_one_afterwards() -> None:
    """As on a real server: the epoch is one of the writes."""
    forgetful = store()
    epoch = forgetful.apply("dt", op.Open(), SECOND_US).epoch

    forgetful.lose(SECOND_US // 2)

    assert forgetful.apply("dt", op.Open(), 2 * SECOND_US).epoch != epoch


def test_a_restart_that_kept_something_keeps_the_epoch() -> None:
    forgetful = store()
    epoch = forgetful.apply("dt", op.Join(MEMBER), SECOND_US).epoch

    forgetful.lose(SECOND_US)

    assert forgetful.apply("dt", op.Open(), 2 * SECOND_US).epoch == epoch


def test_its_journal_stays_short() -> None:
    """Days of a run must not pile up."""
    forgetful = store()
    gap_us = 20_000
    for number in range(20_000):
        forgetful.apply("dt", op.Join(MEMBER), number * gap_us)

    checkpoints = forgetful._spaces["dt"]._checkpoints
    assert (
        sum(len(checkpoint.entries) for checkpoint in checkpoints)
        <= LOSE_MAX_US // gap_us + 2 * CHECKPOINT_MIN_OPERATIONS
    )


def test_a_read_does_not_persist_the_skew_it_sees() -> None:
    """T2: only operations other than reads move the last microsecond."""
    stepped = store()
    stepped.apply("dt", op.Join(MEMBER), 10 * SECOND_US)
    stepped.clock_offset_us -= 5 * SECOND_US

    early = stepped.apply("dt", op.Open(), 10 * SECOND_US)
    late = stepped.apply("dt", op.Join(MEMBER), 12 * SECOND_US)

    assert early.skew_us == 5 * SECOND_US
    assert late.skew_us == 3 * SECOND_US
    assert late.at_us == early.at_us


class TestRefusals:
    @pytest.mark.parametrize(
        ("how", "error", "refused", "taken"),
        [
            ("read_only", StoreReadOnly, [post("e"), op.Join(MEMBER), op.Cancel(("e",))], [op.Peek("e")]),
            (
                "out_of_memory",
                StoreFull,
                [post("e"), op.Resend(LetterName("e"), At(0), IfExists.KEEP)],
                [op.Cancel(("e",))],
            ),
            ("loading", StoreBusy, [post("e"), op.Peek("e")], []),
            ("busy", StoreBusy, [post("e"), op.Peek("e")], []),
        ],
    )
    def test_is_answered_with_the_error_of_the_real_backend(
        self,
        how: Refusal,
        error: type[Exception],
        refused: list[Operation[object]],
        taken: list[Operation[object]],
    ) -> None:
        """F5: what ends events still works when the memory is full."""
        refusing = store()
        refusing.apply("dt", op.Open(), 0)
        refusing.refuse(how)
        before = refusing.machine("dt")
        assert before is not None

        for operation in refused:
            with pytest.raises(error):
                refusing.apply("dt", operation, 1)
        assert before.seq == 0
        for operation in taken:
            refusing.apply("dt", operation, 1)

        refusing.accept(how)
        for operation in refused:
            refusing.apply("dt", operation, 2)

    @pytest.mark.parametrize(("how", "error"), [("read_only", StoreReadOnly), ("out_of_memory", StoreFull)])
    def test_a_namespace_cannot_be_made(self, how: Refusal, error: type[Exception]) -> None:
        refusing = store()
        refusing.refuse(how)

        with pytest.raises(error):
            refusing.apply("dt", op.Open(), 1)
