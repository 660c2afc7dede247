"""Payloads and headers, to bytes and back."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import make_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from dtimer import OrjsonCodec
from dtimer.codecs.codec import decode_headers, encode_headers
from dtimer.codecs.json import JsonCodec
from dtimer.errors import InvalidArgument, PayloadNotEncodable, PayloadTooLarge
from dtimer.posts import encode_payload

needs_orjson = pytest.mark.skipif(
    importlib.util.find_spec("orjson") is None, reason="orjson has no build for this Python"
)
either_codec = pytest.mark.parametrize("make", [JsonCodec, pytest.param(OrjsonCodec, marks=needs_orjson)])
MakeCodec = Callable[[], JsonCodec | OrjsonCodec]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@either_codec
@given(payload=JSON)
def test_what_json_holds_comes_back_the_same(make: MakeCodec, payload: Any) -> None:
    """The original's retries made `[]` into `{}` and lost digits."""
    codec = make()

    assert codec.decode(codec.encode(payload)) == payload


@needs_orjson
@given(payload=JSON)
def test_nodes_may_change_from_one_codec_to_the_other_one_by_one(payload: Any) -> None:
    assert JsonCodec().decode(OrjsonCodec().encode(payload)) == payload
    assert OrjsonCodec().decode(JsonCodec().encode(payload)) == payload


class Lenient(list[float]):
    """Equal to everything."""

    @override
    def __eq__(self, other: object) -> bool:
        return True

    @override
    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None


class Odd(Enum):
    NAN = math.nan
    DEEP = ((1.5, {"a": math.inf}),)


def circle() -> list[Any]:
    result: list[Any] = []
    result.append(result)
    return result


@pytest.mark.parametrize(
    "payload",
    [
        math.nan,
        [math.inf],
        b"x",
        {1: 2},
        {"a": [{None: 1}]},
        [{True: 1}],
        ((({1.5: {}},),),),
        {1, 2},
        object,
        "\ud800",
        {"a": [None, (1.5, {"b": -math.inf})]},
        ["null", -math.inf],
        Lenient([math.nan]),
        [Odd.NAN],
        {"a": Odd.DEEP},
        circle(),
        1j,
        datetime(2026, 1, 1, tzinfo=UTC),
        Decimal("1.5"),
        make_dataclass("Data", ["a"])(1),
    ],
    ids=repr,
)
@either_codec
def test_what_json_cannot_hold_is_refused_before_it_is_sent(make: MakeCodec, payload: Any) -> None:
    with pytest.raises(PayloadNotEncodable) as caught:
        encode_payload(make(), payload, 1000)
    assert caught.value.argument == "payload"
    assert caught.value.__cause__ is not None
    assert "docs/how-to/use-your-own-codec.md" in str(caught.value)


class Text(str):
    __slots__ = ()


class Number(float):
    __slots__ = ()


class Several(dict[str, Any]):
    """Shows the first of several values, as some frameworks' forms do."""

    @override
    def items(self) -> Any:
        return [(key, values[0]) for key, values in super().items()]


class Pair(NamedTuple):
    left: int
    right: int


def nested(depth: int) -> list[Any]:
    result: list[Any] = []
    for _ in range(depth):
        result = [result]
    return result


@pytest.mark.parametrize(
    ("payload", "back"),
    [
        pytest.param(2**64, 2**64, id="more than 64 bits"),
        pytest.param([-(2**63) - 1, 2**200], [-(2**63) - 1, 2**200], id="much more"),
        pytest.param(nested(300), nested(300), id="deep"),
        pytest.param({Text("a"): Text("b")}, {"a": "b"}, id="str of a class of its own"),
        pytest.param([Number(1.5)], [1.5], id="float of a class of its own"),
        pytest.param(OrderedDict(a=None), {"a": None}, id="dict of a class of its own"),
        pytest.param(Pair(1, 2), [1, 2], id="named tuple"),
        pytest.param({"a": None, "b": ["null", 1e300, -0.0]}, {"a": None, "b": ["null", 1e300, -0.0]}, id="null"),
        pytest.param({"a": Several(b=[1, 2])}, {"a": {"b": 1}}, id="what a class of its own shows"),
        pytest.param([Lenient([1.5]), None], [[1.5], None], id="list of a class of its own beside null"),
        pytest.param({"a": None, "b": (1, 2.5)}, {"a": None, "b": [1, 2.5]}, id="null and a tuple"),
    ],
)
@either_codec
def test_what_is_json_all_the_same_is_taken(make: MakeCodec, payload: Any, back: Any) -> None:
    codec = make()

    assert codec.decode(codec.encode(payload)) == back


class Colour(Enum):
    RED = "red"


class Size(StrEnum):
    LARGE = "large"


@needs_orjson
@pytest.mark.parametrize(
    ("payload", "back"), [(UUID(int=1), str(UUID(int=1))), (Colour.RED, "red"), (Size.LARGE, "large")], ids=repr
)
def test_orjson_writes_the_text_of_a_uuid_and_the_value_of_an_enum(payload: Any, back: str) -> None:
    """As the documentation says: it can be told not to write much else, but not these."""
    codec = OrjsonCodec()

    assert codec.decode(codec.encode({"a": payload, "b": None})) == {"a": back, "b": None}


@needs_orjson
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the memory")
def test_what_orjson_wrote_takes_no_more_memory_than_it_is_long() -> None:
    """It writes into a buffer of some KiB, of which it gives back nothing; `sys.getsizeof` does not see that."""
    code = (
        "import dtimer\n"
        "codec = dtimer.OrjsonCodec()\n"
        "def pages(): return int(open('/proc/self/statm').read().split()[1])\n"
        "before = pages()\n"
        "kept = [codec.encode({'n': n, 'text': 'x' * 155}) for n in range(20_000)]\n"
        "print((pages() - before) * 4096 / len(kept))"
    )

    said = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True).stdout

    assert float(said) < 1_000


@needs_orjson
def test_what_both_codecs_write_is_the_same_but_for_how_a_float_is_written() -> None:
    payload: Any = {"text": "\u2028 é", "list": [1, 2.5, True, None, {"empty": []}], "nothing": {}}

    assert OrjsonCodec().encode(payload) == JsonCodec().encode(payload)


def test_without_orjson_its_codec_says_what_to_install() -> None:
    """And nothing else misses it."""
    code = (
        "import sys; sys.modules['orjson'] = None\n"
        "import dtimer\n"
        "try: dtimer.OrjsonCodec()\n"
        "except ModuleNotFoundError as error: print(error.name, error)"
    )

    said = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True).stdout

    assert said == 'orjson OrjsonCodec needs orjson: pip install "dtimer[orjson]"\n'


def test_a_circle_is_refused_and_forgotten() -> None:
    codec = JsonCodec()
    circle: list[Any] = [1]
    circle.append(circle)
    for _ in range(2):
        with pytest.raises(ValueError, match="Circular"):
            codec.encode(circle)
    circle.pop()
    assert codec.encode([circle, circle]) == b"[[1],[1]]"


def test_a_depth_that_json_cannot_take_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RecursionError):
        JsonCodec().encode(deep)


def _refusing(markers: object, *_: object) -> object:
    if markers is None:
        raise TypeError("made of something else")
    return _MADE(markers, *_)


_MADE: Any = getattr(json.encoder, "c_make_encoder")  # noqa: B009  # no type checker knows it


@pytest.mark.parametrize("found", [None, _refusing])
def test_without_what_json_does_not_document_payloads_are_the_same(
    found: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload: Any = {"text": "\u2028 é", "list": [1, 2.5, True, None, {"empty": []}], "nothing": {}}
    usual = JsonCodec().encode(payload)
    monkeypatch.setattr(json.encoder, "c_make_encoder", found)

    assert JsonCodec().encode(payload) == usual
    assert usual.decode() == json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def test_a_string_may_look_like_an_object() -> None:
    """Objects are looked for in the text first."""
    payload: Any = {"{": "{1:2}", "list": ["{", ["{1:2}"]]}

    assert JsonCodec().decode(JsonCodec().encode(payload)) == payload
    assert JsonCodec().encode("{1:2}") == b'"{1:2}"'


@either_codec
def test_a_tuple_is_an_array(make: MakeCodec) -> None:
    assert make().encode((1, 2)) == b"[1,2]"


@pytest.mark.parametrize("data", [b"", b"nope", b"\xff", b"NaN", b"[Infinity]", b"[] 1", "[]".encode("utf-16")])
@either_codec
def test_what_is_not_json_is_not_decoded(make: MakeCodec, data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any kind of it will do
        make().decode(data)


def test_white_space_around_a_value_is_no_harm() -> None:
    """Another client's encoder may write it."""
    assert JsonCodec().decode(b' \n{"a": 1}\r\n') == {"a": 1}


def test_a_payload_may_be_as_large_as_the_limit_and_no_larger() -> None:
    assert len(encode_payload(JsonCodec(), "x" * 98, 100)) == 100
    with pytest.raises(PayloadTooLarge) as caught:
        encode_payload(JsonCodec(), "x" * 99, 100)
    assert caught.value.argument == "payload"


class TextCodec:
    """Forgets that bytes are asked for."""

    def encode(self, payload: str) -> bytes:
        return payload  # type: ignore[return-value]  # the point

    def decode(self, data: bytes) -> str:
        return data.decode()


def test_a_codec_that_makes_no_bytes_is_found_out() -> None:
    with pytest.raises(PayloadNotEncodable, match="str, not bytes"):
        encode_payload(TextCodec(), "x", 100)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=5))
def test_headers_come_back_the_same(headers: dict[str, str]) -> None:
    assert decode_headers(encode_headers(headers)) == headers


def test_no_headers_are_no_bytes() -> None:
    assert encode_headers(None) == encode_headers({}) == b""


@pytest.mark.parametrize("headers", [5, [], "x", {"a": 1}, {1: "a"}, {"a": "x" * 1024}, {"a": "\ud800"}])
def test_what_are_no_headers_is_refused(headers: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^headers "):
        encode_headers(headers)


@pytest.mark.parametrize("data", [b"\xff", b"{", b"[]", b'{"a":1}'])
def test_strange_headers_never_keep_a_payload_from_being_delivered(data: bytes) -> None:
    assert decode_headers(data) == {}
