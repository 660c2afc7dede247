"""Payloads and headers, to bytes and back."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtimer.codec import JsonCodec, decode_headers, encode_headers, encode_payload
from dtimer.errors import InvalidArgument, PayloadNotEncodable, PayloadTooLarge

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_json_holds_comes_back_the_same(payload: Any) -> None:
    """The original's retries made `[]` into `{}` and lost digits."""
    codec = JsonCodec()

    assert codec.decode(codec.encode(payload)) == payload


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
        circle(),
        1j,
    ],
    ids=repr,
)
def test_what_json_cannot_hold_is_refused_before_it_is_sent(payload: Any) -> None:
    with pytest.raises(PayloadNotEncodable) as caught:
        encode_payload(JsonCodec(), payload, 1000)
    assert caught.value.argument == "payload"
    assert caught.value.__cause__ is not None


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


def test_a_tuple_is_an_array() -> None:
    assert JsonCodec().encode((1, 2)) == b"[1,2]"


@pytest.mark.parametrize("data", [b"", b"nope", b"\xff", b"NaN", b"[Infinity]", b"[] 1", "[]".encode("utf-16")])
def test_what_is_not_json_is_not_decoded(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any kind of it will do
        JsonCodec().decode(data)


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
