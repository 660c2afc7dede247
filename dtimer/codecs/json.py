"""JSON by the standard library: the default codec."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn, TypeAlias, cast

from dtimer.codecs.codec import JsonValue
from dtimer.safe_repr import safe_repr


class JsonCodec:
    """The default codec: compact UTF-8 JSON, which refuses whatever would come back as something else.

    That is NaN and infinities, keys that are not strings (``json`` would quietly make them some), lone surrogates,
    and other types.
    """

    def __init__(self) -> None:
        self._documented = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        self._chunks = _chunks_of(self._documented)
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def encode(self, payload: JsonValue) -> bytes:
        try:
            text = "".join(self._chunks(payload, 0))
        except (ValueError, TypeError, RecursionError):
            text = self._documented.encode(payload)  # it has better messages, and finds circles, too
        # Only objects have keys. Searching the text for "{" is cheaper than walking the value.
        if isinstance(payload, dict):
            _refuse_keys_of(payload)
            if text.rfind("{"):  # not the first character: there is another, or a string has one
                _refuse_other_keys(payload.values())
        elif "{" in text:
            _refuse_other_keys((payload,))
        return text.encode()

    def decode(self, data: bytes) -> JsonValue:
        text = data.decode()
        value: JsonValue
        try:
            value, end = self._decoder.raw_decode(text)
        except ValueError:
            value, end = None, -1
        # `raw_decode` skips no white space around the value, which would cost a third; `encode` writes none.
        if end != len(text):
            value = self._decoder.decode(text)
        return value


Chunks: TypeAlias = Callable[[object, int], Iterable[str]]


def _chunks_of(encoder: json.JSONEncoder) -> Chunks:
    """The function that :meth:`json.JSONEncoder.encode` makes for each value, which is half of its time.

    It is made once here. Its name in ``json.encoder`` is not documented, so where it has another name, or is made in
    another way, the documented method has to do.
    """
    documented: Chunks = lambda value, _: encoder.iterencode(value)  # noqa: E731  # of the type of the other
    make: Callable[..., Chunks] | None = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return documented
    try:
        # markers, default, encoder of strings, indent, separators of keys and of items, sort_keys, skipkeys, allow_nan
        return make(None, encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    except TypeError:
        return documented


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse_keys_of(entries: Mapping[str, object]) -> None:
    try:
        "".join(entries)  # the fastest way to look at all of them
    except TypeError:
        wrong = next(key for key in cast("Mapping[object, object]", entries) if not isinstance(key, str))
        raise TypeError(f"keys must be str, and {safe_repr(wrong)} is none: JSON would make it some") from None


def _refuse_other_keys(values: Iterable[object]) -> None:
    """Walk without recursion; the encoder has been through it and found neither circles nor other types."""
    remaining = list(values)
    for value in remaining:
        if isinstance(value, dict):
            entries = cast("dict[str, object]", value)
            _refuse_keys_of(entries)
            remaining += entries.values()
        elif isinstance(value, (list, tuple)):
            remaining += cast("Sequence[object]", value)
