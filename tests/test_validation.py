"""What users pass is checked before any I/O, and named when it is refused."""

from __future__ import annotations

import asyncio
import enum
import inspect
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtimer import DTimer, Durable, JsonCodec, Post, SimBackend, _validation
from dtimer._validation import Retry
from dtimer.backends.redis import RedisBackend
from dtimer.errors import InvalidArgument, PayloadNotEncodable
from dtimer.limits import DELAY_MAX_US, INSTANT_MAX_US
from dtimer.protocol.values import After, At, IfExists, RetryPolicy
from dtimer.sim import Faults, Simulation


@pytest.mark.parametrize(
    ("delay", "us"),
    [
        (0, 0),
        (-1, 0),
        (-1e15, 0),
        (1, 1_000),
        (0.4, 400),
        (10.7, 10_700),
        (0.0005, 1),
        (0.00049999, 0),
        (timedelta(seconds=2), 2_000_000),
        (timedelta(microseconds=-5), 0),
        (DELAY_MAX_US // 1000, DELAY_MAX_US),
    ],
)
def test_a_delay_is_milliseconds_or_a_timedelta(delay: float | timedelta, us: int) -> None:
    assert _validation.delay_us(delay) == us


@given(st.floats(0, 1e12, allow_nan=False))
def test_a_delay_is_rounded_half_up_exactly(delay: float) -> None:
    """Rule T5; the products of floats are not exact, so fractions judge."""
    exact = Fraction(delay) * 1000

    assert _validation.delay_us(delay) == math.floor(exact + Fraction(1, 2))


@pytest.mark.parametrize(
    "delay", [math.nan, math.inf, -math.inf, True, False, "5", None, Decimal(5), 1e300, timedelta.max, 10**30]
)
def test_what_is_no_delay_is_refused(delay: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _validation.delay_us(delay)
    assert caught.value.argument == "delay"


@pytest.mark.parametrize(("timeout", "us"), [(10, 10_000_000), (0.5, 500_000), (timedelta(milliseconds=3), 3_000)])
def test_a_timeout_is_seconds_or_a_timedelta(timeout: float | timedelta, us: int) -> None:
    assert _validation.timeout_us(timeout, "confirm_timeout") == us


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, True, "5", None, timedelta(0), 1e-9, 1e12])
def test_what_is_no_timeout_is_refused(timeout: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^confirm_timeout "):
        _validation.timeout_us(timeout, "confirm_timeout")


def test_a_time_of_day_keeps_its_microseconds_and_may_be_in_any_zone() -> None:
    at = datetime(2100, 1, 1, 2, 0, 0, 123_457, tzinfo=timezone(timedelta(hours=2)))

    assert _validation.due(None, at) == At(4_102_444_800_123_457)


def test_a_time_long_past_is_at_once() -> None:
    assert _validation.due(None, datetime.min.replace(tzinfo=UTC)) == At(0)


@pytest.mark.parametrize("at", [datetime(2030, 1, 1), datetime(2200, 1, 1, tzinfo=UTC), "2030-01-01", 5])
def test_what_is_no_time_of_day_is_refused(at: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _validation.due(None, at)
    assert caught.value.argument == "at"


def test_the_last_instant_before_the_limit_is_accepted() -> None:
    assert _validation.instant_us(datetime(2199, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == INSTANT_MAX_US - 1


def test_exactly_one_of_delay_and_time_is_given() -> None:
    assert _validation.due(5, None) == After(5_000)
    with pytest.raises(InvalidArgument):
        _validation.due(None, None)
    with pytest.raises(InvalidArgument):
        _validation.due(5, datetime(2030, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("id", ["x", "é" * 256, "\x00", "__proto__", " "])
def test_an_id_is_any_text_of_1_to_512_bytes(id: str) -> None:
    assert _validation.event_id(id) == id


@pytest.mark.parametrize("id", ["", "é" * 257, "a" * 513, 5, b"x", None, "\ud800"])
def test_what_is_no_id_is_refused(id: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^id "):
        _validation.event_id(id)


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "ä", "x\n", None, 5, "{x}"])
def test_a_node_id_that_would_break_a_key_is_refused(name: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^node_id "):
        _validation.name(name, "node_id")


@pytest.mark.parametrize("value", [-1, 1.5, True, "1", math.nan, None, 1_000_001])
def test_what_is_no_number_of_retries_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^max_retries "):
        _validation.max_retries(value)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "5", None])
def test_what_is_no_number_of_events_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^max_events "):
        _validation.max_events(value)


@pytest.mark.parametrize("value", ["", "REPLACE", None, 1, []])
def test_what_is_no_choice_for_an_existing_event_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^if_exists "):
        _validation.if_exists(value)


def test_the_choices_for_an_existing_event_are_words() -> None:
    assert [_validation.if_exists(word) for word in ("replace", "keep", "error")] == list(IfExists)


def test_negative_bounds_and_no_limit_count_as_not_given() -> None:
    """As in the original (rule R2)."""
    assert _validation.window_us(-1, "offset") is None
    assert _validation.window_us(0, "offset") == 0
    assert _validation.limit(0) is None
    assert _validation.limit(-5) is None
    assert _validation.limit(7) == 7


@pytest.mark.parametrize("value", [1.5, True, "1"])
def test_what_is_no_limit_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^limit "):
        _validation.limit(value)


def test_a_retry_is_given_in_the_units_of_a_delay() -> None:
    assert Retry(100, factor=2, max_delay=timedelta(seconds=1)).policy == RetryPolicy(100_000, 2.0, 1_000_000)
    assert Retry(timedelta(seconds=1)) == Retry(1000)


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("delay", lambda: Retry(math.nan)),
        ("factor", lambda: Retry(1, factor=0.5)),
        ("factor", lambda: Retry(1, factor=math.inf)),
        ("factor", lambda: Retry(1, factor=True)),
        ("max_delay", lambda: Retry(1, max_delay=math.inf)),
        ("retry", lambda: _validation.retry(5)),
    ],
)
def test_what_is_no_retry_is_refused(argument: str, make: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert caught.value.argument == argument


@pytest.mark.parametrize("value", [0, -5, True, math.inf, "x"])
def test_an_event_cannot_expire_before_it_is_due(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^expires_after "):
        _validation.expires_after_us(value)


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no text")


class Unnamed(type):
    def __getattribute__(cls, name: str) -> Any:
        if name == "__qualname__":
            raise ValueError("no name")
        return super().__getattribute__(name)


class Nameless(Unprintable, metaclass=Unnamed):
    pass


class Broken(Mapping[Any, Any]):
    """It can neither be read, nor compared, nor hashed."""

    def __getitem__(self, key: Any) -> Any:
        raise GeneratorExit

    def __iter__(self) -> Any:
        raise GeneratorExit

    def __len__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise GeneratorExit

    __hash__ = None  # type: ignore[assignment]


class Zone(tzinfo):
    def __init__(self, says: Any) -> None:
        self._says = says

    def utcoffset(self, when: datetime | None) -> Any:
        if isinstance(self._says, BaseException):
            raise self._says
        return self._says

    dst = tzname = utcoffset


BAD_NUMBERS = [10**5000, -(10**5000), Unprintable(), Nameless()]


async def calls() -> list[tuple[str, Callable[[Any], Any]]]:
    """Each public argument that is a number, called with one."""
    sim = SimBackend()
    timer = DTimer(sim)
    tracked: list[Any] = []
    timer.on("event", tracked.append)
    await timer.join()
    await timer.post("x", 0, id="x", max_retries=3)
    await sim.run_until_idle()
    (event,) = tracked
    return [
        ("delay", lambda bad: timer.post("x", bad)),
        ("expires_after", lambda bad: timer.post("x", 0, expires_after=bad)),
        ("max_retries", lambda bad: timer.post("x", 0, max_retries=bad)),
        ("confirm_timeout", lambda bad: timer.post("x", 0, max_retries=1, confirm_timeout=bad)),
        ("max_run", lambda bad: timer.post("x", 0, max_retries=1, max_run=bad)),
        ("id", lambda bad: timer.post("x", 0, id=bad)),
        ("at", lambda bad: timer.post("x", at=bad)),
        ("retry", lambda bad: timer.post("x", 0, max_retries=1, retry=bad)),
        ("dead_letter", lambda bad: timer.post("x", 0, dead_letter=bad)),
        ("if_exists", lambda bad: timer.post("x", 0, if_exists=bad)),
        ("headers", lambda bad: timer.post("x", 0, headers=bad)),
        ("headers", lambda bad: timer.post("x", 0, headers={"a": bad})),
        ("headers", lambda bad: timer.post("x", 0, headers={bad: "a"})),
        ("durability", lambda bad: timer.post("x", 0, durability=bad)),
        ("payload", lambda bad: timer.post(bad, 0)),
        ("payload", lambda bad: timer.post([{"a": bad}], 0)),
        ("payload", lambda bad: timer.post({bad: 1}, 0)),
        ("posts", lambda bad: timer.post_many([bad])),
        ("posts", timer.post_many),
        ("ids", timer.cancel_many),
        ("backend", DTimer),
        ("codec", lambda bad: DTimer(sim, codec=bad)),
        ("plain_handlers", lambda bad: DTimer(sim, plain_handlers=bad)),
        ("name", lambda bad: timer.off(bad, print)),
        ("nodes", lambda bad: Simulation(nodes=bad)),
        ("rates", lambda bad: Faults(rates=bad)),
        ("script", lambda bad: Faults(script=bad)),
        ("script", lambda bad: Faults(script=[bad])),
        ("delay", lambda bad: timer.post_many([Post(payload=1, delay=bad)])),
        ("id", timer.cancel),
        ("id", lambda bad: timer.cancel_many(["x", bad])),
        ("id", timer.confirm),
        ("id", timer.peek),
        ("delay", lambda bad: timer.change_delay("y", bad)),
        ("offset", lambda bad: timer.upcoming(offset=bad)),
        ("duration", lambda bad: timer.upcoming(duration=bad)),
        ("limit", lambda bad: timer.upcoming(limit=bad)),
        ("limit", lambda bad: timer.dead_letters(limit=bad)),
        ("delay", lambda bad: timer.resend("x", bad)),
        ("timeout", lambda bad: timer.leave(timeout=bad)),
        ("drain", lambda bad: timer.leave(drain=bad)),
        ("max_events", lambda bad: setattr(timer, "max_events", bad)),
        ("name", lambda bad: timer.on(bad, print)),
        ("name", lambda _: timer.on(cast("Any", "exhausted"), print)),
        ("handler", lambda bad: timer.on("event", bad)),
        ("delay", event.release),
        ("counted", lambda bad: event.release(0, counted=bad)),
        ("timeout", event.extend),
        ("reason", event.bury),
        ("max_events", lambda bad: DTimer(sim, max_events=bad)),
        ("confirm_timeout", lambda bad: DTimer(sim, confirm_timeout=bad)),
        ("max_run", lambda bad: DTimer(sim, max_run=bad)),
        ("payload_max_bytes", lambda bad: DTimer(sim, payload_max_bytes=bad)),
        ("refused_for", lambda bad: DTimer(sim, refused_for=bad)),
        ("repeat_within", lambda bad: timer.post("x", 0, repeat_within=bad)),
        ("repeat_within", lambda bad: RedisBackend.from_url("redis://h", repeat_within=bad)),
        ("request_timeout", lambda bad: RedisBackend.from_url("redis://h", request_timeout=bad)),
        ("node_id", lambda bad: DTimer(sim, node_id=bad)),
        ("delay", Retry),
        ("factor", lambda bad: Retry(1, factor=bad)),
        ("max_delay", lambda bad: Retry(1, max_delay=bad)),
        ("replicas", lambda bad: Durable(replicas=bad)),
        ("within", lambda bad: Durable(replicas=1, within=bad)),
        ("seed", lambda bad: SimBackend(seed=bad)),
        ("start", lambda bad: SimBackend(start=bad)),
        ("hang_after", lambda bad: SimBackend(hang_after=bad)),
        ("namespace", lambda bad: SimBackend(namespace=bad)),
        ("duration", sim.advance),
        ("at", sim.advance_to),
        ("duration", sim.sleep),
        ("duration", sim.timeout),
        ("limit", lambda bad: sim.autojump(limit=bad)),
        ("seed", lambda bad: Simulation(seed=bad)),
        ("nodes", lambda bad: Simulation(nodes=[bad])),
        ("keep", lambda bad: Simulation(keep=bad)),
        ("namespace", lambda bad: RedisBackend.from_url("redis://h", bad)),
        ("partitions", lambda bad: RedisBackend.from_url("redis://h", partitions=bad)),
        ("partitions", lambda bad: RedisBackend.embedded(partitions=bad)),
        ("path", RedisBackend.embedded),
        ("url", RedisBackend.from_url),
    ]


async def test_a_huge_integer_or_one_that_cannot_be_shown_is_refused_wherever_it_is_given() -> None:
    """Python refuses to write an integer of more than 4,300 digits, so a message about one fails, too."""
    for name, call in await calls():
        for bad in BAD_NUMBERS:
            with pytest.raises(InvalidArgument) as caught:  # noqa: PT012  # some are to be awaited
                result = call(bad)
                if inspect.isawaitable(result):
                    await result
            assert caught.value.argument == name, call
            assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("nodes", [10**5000, -1, 10_001], ids=["huge", "negative", "too many"])
def test_a_simulation_has_a_number_of_nodes_that_can_be_run(nodes: int) -> None:
    with pytest.raises(InvalidArgument, match=r"^nodes "):
        Simulation(nodes=nodes)


@pytest.mark.parametrize("payload", [{1: 2}, [{"a": {1: 2}}]])
async def test_a_key_that_is_no_text_is_named(payload: Any) -> None:
    with pytest.raises(PayloadNotEncodable, match="keys must be str, and 1 is none"):
        await DTimer(SimBackend()).post(payload, 5)


@pytest.mark.parametrize("wrong", [True, 1.0, "1", [], {}])
async def test_what_looks_like_an_option_that_was_given_before_is_none(sim: SimBackend, wrong: Any) -> None:
    """Options that are known are not looked at again; ``True == 1``, and a list cannot be looked up at all."""
    timer = DTimer(sim)
    await timer.post("x", 1, max_retries=1)
    await timer.post_many([Post("x", 1, max_retries=1)])

    for call in (timer.post("x", 1, max_retries=wrong), timer.post_many([Post("x", 1, max_retries=wrong)])):
        with pytest.raises(InvalidArgument, match="max_retries must be an int"):
            await call


async def test_an_option_that_there_is_not_is_refused_as_any_argument(sim: SimBackend) -> None:
    options: Any = {"max_retires": 3}

    with pytest.raises(TypeError, match=r"post\(\) got an unexpected keyword argument 'max_retires'"):
        await DTimer(sim).post("x", 1, **options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_retires'"):
        Post("x", 1, **options)


@pytest.mark.parametrize(("name", "value"), [("retry", Retry(1_000)), ("confirm_timeout", 30), ("max_run", 60)])
async def test_what_only_an_event_to_confirm_has_needs_one(name: str, value: Any) -> None:
    """Silently delivered at most once, it would not come again, whatever the policy says (rules D3 and D4)."""
    timer = DTimer(SimBackend())
    given: dict[str, Any] = {name: value}

    with pytest.raises(InvalidArgument, match=f"^{name} needs max_retries of 1 or more, or dead_letter=True"):
        await timer.post("x", 60, **given)
    with pytest.raises(InvalidArgument, match=f"^{name} needs max_retries of 1 or more, or dead_letter=True"):
        await timer.post_many([Post(payload="x", delay=60, **given)])
    await timer.post("x", 60, max_retries=1, **given)
    await timer.post("x", 60, dead_letter=True, **given)


@pytest.mark.parametrize("bad", ["abc", b"abc"], ids=["str", "bytes"])
async def test_a_text_is_no_list_of_texts(bad: Any) -> None:
    """Its characters would be cancelled one by one."""
    timer = DTimer(SimBackend())
    await timer.post(1, 60_000, id="a")
    with pytest.raises(InvalidArgument, match=r"^ids "):
        await timer.cancel_many(bad)
    with pytest.raises(InvalidArgument, match=r"^posts "):
        await timer.post_many(bad)
    assert await timer.peek("a") is not None


@pytest.mark.parametrize(
    "bad", [None, "redis://:Secret@h", SimBackend, object()], ids=["None", "a URL", "a class", "object"]
)
def test_what_is_no_backend_is_refused_without_a_word_of_a_password(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^backend must be a RedisBackend") as caught:
        DTimer(bad)
    assert "Secret" not in str(caught.value)


def test_a_mapping_that_cannot_be_read_is_refused() -> None:
    timer = DTimer(SimBackend())
    for name in ("headers", "if_exists"):
        with pytest.raises(InvalidArgument, match=rf"^{name} "):
            asyncio.run(timer.post(1, 1, **cast("Any", {name: Broken()})))
    with pytest.raises(InvalidArgument, match=r"^name "):
        timer.on(cast("Any", Broken()), print)
    with pytest.raises(InvalidArgument, match=r"^plain_handlers "):
        DTimer(SimBackend(), plain_handlers=cast("Any", Broken()))


@pytest.mark.parametrize("says", [GeneratorExit(), 42, timedelta(days=3)], ids=["raises", "a number", "three days"])
async def test_a_time_zone_that_is_none_is_refused(says: Any) -> None:
    at = datetime(2030, 1, 1, tzinfo=Zone(says))
    sim = SimBackend()
    for call in (lambda: DTimer(sim).post(1, at=at), lambda: sim.advance_to(at)):
        with pytest.raises(InvalidArgument, match=r"^at has a time zone"):
            await call()
    with pytest.raises(InvalidArgument, match=r"^start has a time zone"):
        SimBackend(start=at)


class Colour(str, enum.Enum):  # noqa: UP042  # not a StrEnum: its str is another one
    RED = "red"


class Number(int, enum.Enum):
    THREE = 3


class Stubborn(float):
    def as_integer_ratio(self) -> Any:
        raise GeneratorExit


class Days(timedelta):
    def __floordiv__(self, other: Any) -> Any:
        raise GeneratorExit


async def test_a_member_of_an_enum_is_what_it_is_worth() -> None:
    """Its `str` and what a format makes of it are its name, and would go to the store."""
    sim = SimBackend(namespace=Colour.RED)
    timer = DTimer(sim, node_id=Colour.RED, max_events=Number.THREE)
    assert (sim.namespace, timer.node_id) == ("red", "red")
    assert {type(sim.namespace), type(timer.node_id), type(timer.max_events)} == {str, int}
    posted = await timer.post(
        1, Number.THREE, id=Colour.RED, max_retries=Number.THREE, headers={Colour.RED: Colour.RED}
    )
    assert posted == "red"
    pending = await timer.peek("red")
    assert pending is not None
    assert (pending.id, type(pending.max_retries), dict(pending.headers)) == ("red", int, {"red": "red"})
    assert await timer.cancel(Colour.RED)


async def test_what_a_subclass_makes_of_a_number_is_not_asked() -> None:
    timer = DTimer(SimBackend())
    for delay in (Stubborn(3.0), Days(days=1)):
        assert await timer.post(1, delay)


@pytest.mark.parametrize("error", [GeneratorExit(), asyncio.CancelledError()], ids=["GeneratorExit", "cancelled"])
async def test_whatever_a_codec_raises_on_the_way_in_is_no_end_of_the_caller(error: BaseException) -> None:
    """A task group would take its task for cancelled, and not say a word."""

    class Refusing(JsonCodec):
        def encode(self, payload: Any) -> bytes:
            raise error

    timer = DTimer(SimBackend(), codec=Refusing())
    with pytest.raises(PayloadNotEncodable):
        await timer.post(1, 1)
