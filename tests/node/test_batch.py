"""What callers hand in at once goes out together, and comes back to each of them alone."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from dtimer.errors import BackendError, OutcomeUnknown, StoreFull, StoreUnreachable
from dtimer.limits import BATCH_MAX_BYTES, BATCH_MAX_ITEMS, SECOND_US
from dtimer.node.batcher import Batcher, BatchQueue, in_calls
from dtimer.runtime import AsyncioRuntime

Reports = list[Exception]


@pytest.fixture
def unheard() -> Reports:
    return []


@pytest.fixture
def queue(unheard: Reports) -> BatchQueue[str, str]:
    return BatchQueue("post", unheard.append)


def lane_of(request: Callable[[Sequence[str]], Awaitable[Sequence[str]]], unheard: Reports) -> Batcher[str, str]:
    """Of posts, that are repeated for ten seconds."""
    return Batcher("post", request, unheard.append, runtime=AsyncioRuntime(), repeat_within_us=10 * SECOND_US)


class Recorder:
    """Answers each item with itself in capitals, when it is let."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.errors: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, items: Sequence[str]) -> list[str]:
        self.calls.append(list(items))
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return [item.upper() for item in items]


async def test_items_of_one_turn_go_out_in_one_call_in_order(unheard: Reports) -> None:
    recorder = Recorder()
    batcher = lane_of(recorder, unheard)

    async def caller(item: str) -> str:
        return (await batcher.submit([item]))[0]

    assert await asyncio.gather(*map(caller, "abc")) == ["A", "B", "C"]
    assert recorder.calls == [["a", "b", "c"]]


async def test_one_call_is_in_flight_at_a_time(unheard: Reports) -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = lane_of(recorder, unheard)
    first = batcher.submit(["a"])
    await turns()
    later = [batcher.submit([item]) for item in "bc"]
    await turns()
    assert recorder.calls == [["a"]]

    recorder.gate.set()
    await first
    assert [(await submission)[0] for submission in later] == ["B", "C"]
    assert recorder.calls == [["a"], ["b", "c"]]


async def test_a_caller_cancelled_before_the_call_is_taken_out(unheard: Reports) -> None:
    recorder = Recorder()
    batcher = lane_of(recorder, unheard)

    async def caller(item: str) -> str:
        return (await batcher.submit([item]))[0]

    tasks = [asyncio.ensure_future(caller(item)) for item in "abc"]
    # In the same turn, right after they have handed their items in.
    asyncio.get_running_loop().call_soon(tasks[1].cancel)

    assert [await tasks[0], await tasks[2]] == ["A", "C"]
    assert recorder.calls == [["a", "c"]]


async def test_a_caller_cancelled_during_the_call_harms_no_other(unheard: Reports) -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = lane_of(recorder, unheard)
    tasks = [asyncio.ensure_future(batcher.submit([item])) for item in "abc"]
    await turns()
    tasks[1].cancel()
    await turns()
    recorder.gate.set()

    assert [await tasks[0], await tasks[2]] == [["A"], ["C"]]
    assert recorder.calls == [["a", "b", "c"]]


async def test_a_failed_call_gives_each_caller_an_error_of_its_own(unheard: Reports) -> None:
    recorder = Recorder()
    recorder.errors = [StoreFull("post", "no memory")]
    batcher = lane_of(recorder, unheard)

    async def caller(item: str) -> None:
        await batcher.submit([item])

    errors = await asyncio.gather(*map(caller, "abc"), return_exceptions=True)

    assert all(type(error) is StoreFull and error.operation == "post" for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert not unheard


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreUnreachable("claim", "x"), StoreUnreachable),
        (OutcomeUnknown("claim", "x"), OutcomeUnknown),
        (ZeroDivisionError(), OutcomeUnknown),
    ],
)
async def test_an_error_is_named_after_what_the_caller_asked_for(
    queue: BatchQueue[str, str], error: Exception, told: type[BackendError]
) -> None:
    submission = queue.submit(["a"], 0, SECOND_US)
    batch = queue.take()
    assert batch is not None

    batch.fail(error)

    with pytest.raises(told, match=r"^post: ") as caught:
        await submission
    assert caught.value.__cause__ is error


async def test_a_failure_that_nobody_awaits_is_reported_and_asyncio_does_not_complain(
    queue: BatchQueue[str, str], unheard: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    queue.submit(["a"], 0, SECOND_US)
    batch = queue.take()
    assert batch is not None

    batch.fail(StoreFull("post", "no memory"))

    assert [type(error) for error in unheard] == [StoreFull]
    del batch
    gc.collect()
    assert not caplog.records


async def test_a_batch_ends_before_the_limits_of_a_call(queue: BatchQueue[str, str]) -> None:
    for _ in range(BATCH_MAX_ITEMS + 1):
        queue.submit(["a"], 0, SECOND_US)
    queue.submit(["big"], BATCH_MAX_BYTES, SECOND_US)
    queue.submit(["next"], 1, SECOND_US)

    assert [len(batch.items) for batch in iter(queue.take, None)] == [BATCH_MAX_ITEMS, 2, 1]


async def test_one_larger_item_goes_alone(queue: BatchQueue[str, str]) -> None:
    queue.submit(["huge"], BATCH_MAX_BYTES + 1, SECOND_US)
    queue.submit(["next"], 1, SECOND_US)
    batch = queue.take()

    assert batch is not None
    assert batch.items == ["huge"]


async def test_what_is_sent_again_goes_first(queue: BatchQueue[str, str]) -> None:
    for item in "ab":
        queue.submit([item], 0, SECOND_US)
    batch = queue.take()
    assert batch is not None
    queue.submit(["c"], 0, SECOND_US)

    assert queue.failed(batch, StoreUnreachable("post", "a test"), began_us=0, again_us=SECOND_US)

    again = queue.take()
    assert again is not None
    assert again.items == ["a", "b", "c"]


async def test_too_few_replies_leave_nobody_waiting(queue: BatchQueue[str, str]) -> None:
    submission = queue.submit(["a", "b"], 0, SECOND_US)
    batch = queue.take()
    assert batch is not None

    batch.answer(["A"])

    with pytest.raises(OutcomeUnknown, match="1 outcomes for 2 items"):
        await submission


async def test_an_answer_that_is_none_leaves_nobody_waiting(unheard: Reports) -> None:
    """Whatever a backend's bug hands back; and those behind are served."""
    answers: list[Any] = [None, ["B"]]

    async def request(items: Sequence[str]) -> Sequence[str]:
        await asyncio.sleep(0)
        answer: Sequence[str] = answers.pop(0)
        return answer

    batcher = lane_of(request, unheard)
    first = batcher.submit(["a"])
    await asyncio.sleep(0)
    second = batcher.submit(["b"])

    with pytest.raises(OutcomeUnknown):
        await first
    assert await second == ["B"]


async def test_a_sender_that_is_cancelled_leaves_nobody_waiting(unheard: Reports) -> None:
    recorder = Recorder()
    recorder.gate.clear()
    batcher = lane_of(recorder, unheard)
    waiting = asyncio.ensure_future(batcher.submit(["a"]))
    await turns()
    queued = asyncio.ensure_future(batcher.submit(["b"]))
    await turns()

    (sender,) = (task for task in asyncio.all_tasks() if task.get_name() == "dtimer: post")
    sender.cancel()

    results = await asyncio.gather(waiting, queued, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2


async def test_what_another_carries_waits_for_it(unheard: Reports) -> None:
    recorder = Recorder()
    batcher = lane_of(recorder, unheard)
    rings: list[int] = []
    batcher.hand_over(lambda: rings.append(1))
    submission = batcher.submit(["a"])
    await turns()
    assert (recorder.calls, rings) == ([], [1])

    batcher.take_back()

    assert await submission == ["A"]
    await batcher.idle()


def test_a_long_list_is_split_in_order() -> None:
    items = ["a" * size for size in (BATCH_MAX_BYTES, 1, BATCH_MAX_BYTES - 1, 1)]

    parts = [(len(part), size) for part, size in in_calls(items, len)]

    assert parts == [(1, BATCH_MAX_BYTES), (2, BATCH_MAX_BYTES), (1, 1)]
    assert [len(part) for part, _ in in_calls(["x"] * 1025, len)] == [512, 512, 1]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
