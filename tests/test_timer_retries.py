"""What follows when a delivery fails: retries, dead letters and reports."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from dtimer import (
    BuryOutcome,
    DTimer,
    DTimerError,
    Ended,
    EndReason,
    Event,
    ExtendOutcome,
    InvalidArgument,
    PayloadNotDecodable,
    PayloadRefused,
    ReleaseOutcome,
    Retry,
    SimBackend,
)
from node.watched import Watched


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


@pytest.fixture
def timer(sim: SimBackend) -> DTimer:
    return DTimer(sim, node_id="n")


@pytest.fixture
def errors(timer: DTimer) -> list[DTimerError]:
    """What the timer's error handler hears."""
    heard: list[DTimerError] = []
    timer.on("error", heard.append)
    return heard


async def test_a_retry_policy_says_when_a_failed_event_comes_again(
    sim: SimBackend, timer: DTimer, errors: list[DTimerError]
) -> None:
    """Rules D3 and F3."""
    times: list[Any] = []
    ended: list[Ended] = []
    timer.on("ended", ended.append)

    @timer.on("event")
    async def handle(event: Event) -> None:
        times.append(event.delivered_at)
        raise ValueError

    async with timer:
        await timer.post("p", 0, id="x", max_retries=3, retry=Retry(100, factor=2, max_delay=300))
        await sim.advance(5_000)

    gaps = [(b - a) / timedelta(milliseconds=1) for a, b in pairwise(times)]
    # Timers have a grain of a millisecond.
    assert all(wanted <= gap < wanted + 2 for gap, wanted in zip(gaps, [100, 200, 300], strict=True))
    assert [(end.reason, end.num_retries) for end in ended] == [(EndReason.EXHAUSTED, 3)]
    assert len(errors) == 4
    assert timer.counters.exhausted == 1


async def test_without_a_policy_a_failed_event_comes_again_at_its_deadline(
    sim: SimBackend, timer: DTimer, errors: list[DTimerError]
) -> None:
    timer.on("event", lambda event: 1 / 0)
    async with timer:
        await timer.post("p", 0, max_retries=1, confirm_timeout=3)
        await sim.advance(2_990)
        assert len(errors) == 1
        await sim.advance(20)

    assert len(errors) == 2


async def test_a_confirmed_event_is_not_given_back_when_its_handler_raises(
    sim: SimBackend, errors: list[DTimerError]
) -> None:
    watched = Watched(sim)
    timer = DTimer(watched)
    timer.on("error", errors.append)

    @timer.on("event")
    async def handle(event: Event) -> None:
        await timer.confirm(event.id)
        raise ValueError

    async with timer:
        await timer.post("p", 0, max_retries=1, retry=Retry(1))
        await sim.advance(60_000)

    assert watched.count("release") == []
    assert len(errors) == 1


async def test_a_block_that_raises_leaves_the_event_to_its_policy_once(sim: SimBackend) -> None:
    watched = Watched(sim)
    timer = DTimer(watched)
    failures: list[DTimerError] = []
    timer.on("error", failures.append)

    @timer.on("event")
    async def handle(event: Event) -> None:
        async with event:
            raise ValueError(event.num_retries)

    async with timer:
        await timer.post("p", 0, max_retries=1, retry=Retry(50))
        await sim.advance(200)

    assert len(failures) == len(watched.count("release")) == 2


async def test_release_extend_and_bury_do_what_they_say(sim: SimBackend, timer: DTimer) -> None:
    """Rules E4 and F4."""
    outcomes: list[Any] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        if event.delivery_number == 1:
            outcomes.append(await event.release(200))
        elif event.delivery_number == 2:
            outcomes.append(await event.extend(100))
        else:
            outcomes.append(await event.bury("no use"))

    async with timer:
        await timer.post("p", 0, id="x", max_retries=1)
        await sim.advance(199)
        assert outcomes == [ReleaseOutcome.RELEASED]
        await sim.advance(99_000)
        assert outcomes[1:] == [ExtendOutcome.EXTENDED]
        await sim.advance(2_000)
        assert outcomes[2:] == [BuryOutcome.BURIED]
        (letter,) = await timer.dead_letters()
        assert (letter.reason, letter.detail) == (EndReason.BURIED, "no use")


async def test_a_counted_release_without_retries_left_is_told_as_exhausted(sim: SimBackend, timer: DTimer) -> None:
    ended: list[Ended] = []
    timer.on("ended", ended.append)

    @timer.on("event")
    async def handle(event: Event) -> None:
        assert await event.release(counted=True) in {ReleaseOutcome.RELEASED, ReleaseOutcome.EXHAUSTED}

    async with timer:
        await timer.post("p", 0, max_retries=1)
        await sim.advance(100)

    assert [(end.payload, end.num_retries) for end in ended] == [("p", 1)]


async def test_an_expired_event_is_told_and_not_delivered(sim: SimBackend, timer: DTimer) -> None:
    """Rule P7."""
    ended: list[Ended] = []
    timer.on("ended", ended.append)
    timer.on("event", ended.append)  # type: ignore[call-overload]  # it must not come
    await timer.post("p", 100, expires_after=500)
    await sim.advance(2_000)
    async with timer:
        await sim.advance(0)

    assert [(end.payload, end.reason) for end in ended] == [("p", EndReason.EXPIRED)]
    assert timer.counters.expired == 1


async def test_an_end_that_nobody_is_told_of_is_logged(
    sim: SimBackend, timer: DTimer, caplog: pytest.LogCaptureFixture
) -> None:
    """Exhausted events vanished silently in the original."""
    timer.on("event", lambda event: None)
    async with timer:
        await timer.post("p", 0, id="x", max_retries=1, confirm_timeout=1)
        await sim.advance(5_000)

    assert [record.levelname for record in caplog.records if "exhausted" in record.getMessage()] == ["WARNING"]
    assert "'x'" in caplog.text


class Picky:
    """A codec that knows only numbers."""

    def encode(self, payload: int) -> bytes:
        return str(payload).encode()

    def decode(self, data: bytes) -> int:
        return int(data)


async def test_a_payload_that_cannot_be_decoded_is_buried_after_an_hour(sim: SimBackend) -> None:
    """Rule F4. It is told of twice: an event that comes every four seconds would fill the log."""
    await DTimer(sim).post("text", 0, id="x", max_retries=5)
    timer = DTimer(sim, codec=Picky())
    refused: list[DTimerError] = []
    got: list[Event[int]] = []
    timer.on("error", refused.append)
    timer.on("event", got.append)
    async with timer:
        await timer.post(5, 0)
        await sim.advance(timedelta(hours=1))
        assert await timer.dead_letters() == []
        await sim.advance(5_000)
        (letter,) = await timer.dead_letters()

    assert [event.payload for event in got] == [5]
    assert len(refused) == 2
    assert 900 < timer.counters.refused_payloads < 950
    assert all(isinstance(error, PayloadRefused) and error.payload == b'"text"' for error in refused)
    assert "dead letter" in str(refused[-1])
    assert (letter.reason, letter.payload_bytes) == (EndReason.REFUSED, b'"text"')
    assert "invalid literal" in letter.detail
    with pytest.raises(PayloadNotDecodable, match="the codec refused it") as caught:
        letter.payload  # noqa: B018
    assert (caught.value.id, caught.value.payload) == (letter.id, b'"text"')
    assert isinstance(caught.value.__cause__, ValueError)


async def test_how_long_refused_events_are_kept_is_the_timers_to_set(sim: SimBackend) -> None:
    """Rule F4."""
    await DTimer(sim).post("text", 0, id="x", max_retries=5)
    async with DTimer(sim, codec=Picky(), refused_for=timedelta(seconds=2)) as timer:
        timer.on("event", print)
        timer.on("error", lambda _: None)
        await sim.advance(1_900)
        before = await timer.dead_letters()
        await sim.advance(2_000)

        assert before == []
        assert [letter.id for letter in await timer.dead_letters()] == ["x"]

    with pytest.raises(InvalidArgument, match="refused_for"):
        DTimer(sim, refused_for=0)


async def test_the_last_bytes_of_an_untracked_payload_are_in_the_report(sim: SimBackend) -> None:
    await DTimer(sim).post("text", 0)
    timer = DTimer(sim, codec=Picky())
    refused: list[DTimerError] = []
    timer.on("error", refused.append)
    timer.on("event", print)
    async with timer:
        await sim.advance(10)

    (error,) = refused
    assert isinstance(error, PayloadRefused)
    assert error.payload == b'"text"'
    assert isinstance(error.__cause__, ValueError)
