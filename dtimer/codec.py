"""From payloads to bytes and back: the only place that looks into either (rule P4).

A store sees bytes only, so whoever posts and whoever receives must agree on a codec.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NoReturn, Protocol, TypeAlias, cast

from typing_extensions import TypeVar

from dtimer.errors import InvalidArgument, PayloadNotEncodable, PayloadTooLarge
from dtimer.foreign import ends_the_program, is_outcome
from dtimer.limits import HEADERS_MAX_BYTES
from dtimer.shown import said, shown

JsonValue: TypeAlias = bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None
"""What JSON can hold. Arrays may be lists or tuples, and come back as lists; objects are dicts."""

_HOW_TO: Final = "for other types see the guide 'Use your own codec', docs/how-to/use-your-own-codec.md"

PayloadT = TypeVar("PayloadT", default=JsonValue)


class Codec(Protocol[PayloadT]):
    """Turns payloads into bytes and back. Either direction may raise any exception for what it cannot do."""

    def encode(self, payload: PayloadT) -> bytes: ...

    def decode(self, data: bytes) -> PayloadT: ...


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
            text = self._documented.encode(payload)  # says better what is wrong; it looks for circles, too
        # Only objects have keys, and whether there are any is sooner told by the text than by a walk.
        if isinstance(payload, dict):
            _refuse_keys_of(payload)
            if text.rfind("{"):  # not the first character: there is another, or a string has one
                _refuse_other_keys(payload.values())
        elif "{" in text:
            _refuse_other_keys((payload,))
        return text.encode()

    def decode(self, data: bytes) -> JsonValue:
        text = data.decode()
        try:
            value, end = self._decoder.raw_decode(text)
        except ValueError:
            value, end = None, -1
        # That looks for no white space around the value, which costs a third and which `encode` writes none of.
        if end != len(text):
            value = self._decoder.decode(text)
        return cast(JsonValue, value)


Chunks: TypeAlias = Callable[[object, int], Iterable[str]]


def _chunks_of(encoder: json.JSONEncoder) -> Chunks:
    """What :meth:`json.JSONEncoder.encode` encodes with and makes anew for each value, which is half of its time.

    It is made once here. What ``json.encoder`` calls it is not documented, so where it is called otherwise, or made
    of something else, the documented way has to do.
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
        raise TypeError(f"keys must be str, and {shown(wrong)} is none: JSON would make it some") from None


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


def encode_payload(codec: Codec[PayloadT], payload: PayloadT, max_bytes: int) -> bytes:
    """The bytes of a payload to post, at most `max_bytes` (rule P6).

    Raises:
        PayloadNotEncodable: the codec refused it, or made something else than bytes.
        PayloadTooLarge: it is over the limit.
    """
    try:
        data: object = codec.encode(payload)
    except BaseException as error:
        # In a test what pytest raises is about the test.
        if ends_the_program(error) or is_outcome(error):
            raise
        raise PayloadNotEncodable("payload", f"cannot be encoded: {said(error)}; {_HOW_TO}") from error
    if not isinstance(data, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # a codec may be wrong
        raise PayloadNotEncodable("payload", f"was encoded as {type(data).__name__}, not bytes")
    if len(data) > max_bytes:
        raise PayloadTooLarge("payload", f"is {len(data)} bytes when encoded; {max_bytes} are allowed")
    return data


_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


def encode_headers(headers: object) -> bytes:
    """The bytes of an event's headers, at most 1 KiB; none for no headers (rule P4)."""
    if headers is None:
        return b""
    if not isinstance(headers, Mapping):
        raise InvalidArgument("headers", f"must be a mapping, not {shown(headers)}")
    try:
        entries = list(cast("Mapping[object, object]", headers).items())
    except BaseException as error:
        if ends_the_program(error):
            raise
        raise InvalidArgument("headers", f"cannot be read: {said(error)}") from error
    if not entries:
        return b""
    checked: dict[str, str] = {}
    for key, value in entries:
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidArgument("headers", f"must map str to str, not {shown(key)} to {shown(value)}")
        checked[str.__str__(key)] = str.__str__(value)
    try:
        data = json.dumps(checked, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise InvalidArgument("headers", "must be encodable as UTF-8") from None
    if len(data) > HEADERS_MAX_BYTES:
        raise InvalidArgument("headers", f"are {len(data)} bytes when encoded; {HEADERS_MAX_BYTES} are allowed")
    return data


def decode_headers(data: bytes) -> Mapping[str, str]:
    """An event's headers; those of another client that are not a JSON object of strings count as none.

    They travel beside the payload and must never keep it from being delivered.
    """
    if not data:
        return _NO_HEADERS
    try:
        value: object = json.loads(data.decode())
    except (ValueError, RecursionError):  # the latter for what is nested some thousand deep
        return _NO_HEADERS
    if not isinstance(value, dict):
        return _NO_HEADERS
    entries = cast("dict[str, object]", value)
    headers = {key: text for key, text in entries.items() if isinstance(text, str)}
    return MappingProxyType(headers) if len(headers) == len(entries) else _NO_HEADERS
