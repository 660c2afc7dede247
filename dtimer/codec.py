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
from dtimer.limits import HEADERS_MAX_BYTES

JsonValue: TypeAlias = bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None
"""What JSON can hold. Arrays may be lists or tuples, and come back as lists; objects are dicts."""

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
        self._encode = _json_encoder()
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def encode(self, payload: JsonValue) -> bytes:
        text = self._encode(payload)
        if isinstance(payload, (dict, list, tuple)):
            _refuse_other_keys(payload)
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


def _json_encoder() -> Callable[[object], str]:
    """As :meth:`json.JSONEncoder.encode`, which makes what it encodes with anew for each value: half of its time.

    It is made once here. What ``json.encoder`` calls it is not documented, so where it is called otherwise, or made
    of something else, the documented way has to do.
    """
    slow = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return slow.encode
    try:
        # markers, default, encoder of strings, indent, separators of keys and of items, sort_keys, skipkeys, allow_nan
        chunks: Callable[[object, int], Iterable[str]] = make(
            None, slow.default, json.encoder.encode_basestring, None, ":", ",", False, False, False
        )
    except TypeError:
        return slow.encode

    def encode(value: object) -> str:
        try:
            return "".join(chunks(value, 0))
        except (ValueError, TypeError, RecursionError):
            return slow.encode(value)  # says better what is wrong; it looks for circles, too

    return encode


_PLAIN: Final = frozenset((str, int, float, bool, type(None)))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse_other_keys(payload: object) -> None:
    """Walk without recursion; the encoder has been through it and found neither circles nor other types."""
    containers = [payload]
    for container in containers:
        if isinstance(container, dict):
            entries = cast("dict[str, object]", container)
            "".join(entries)  # raises a TypeError for what is no str
            values: Iterable[object] = entries.values()
        else:
            values = cast("Sequence[object]", container)
        if _PLAIN.issuperset(map(type, values)):
            continue  # as mostly, and in half the time
        containers += [value for value in values if isinstance(value, (dict, list, tuple))]


def encode_payload(codec: Codec[PayloadT], payload: PayloadT, max_bytes: int) -> bytes:
    """The bytes of a payload to post, at most `max_bytes` (rule P6).

    Raises:
        PayloadNotEncodable: the codec refused it, or made something else than bytes.
        PayloadTooLarge: it is over the limit.
    """
    try:
        data: object = codec.encode(payload)
    except Exception as error:
        raise PayloadNotEncodable("payload", f"cannot be encoded: {error}") from error
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
        raise InvalidArgument("headers", f"must be a mapping, not {headers!r}")
    if not headers:
        return b""
    checked: dict[str, str] = {}
    for key, value in cast("Mapping[object, object]", headers).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidArgument("headers", f"must map str to str, not {key!r} to {value!r}")
        checked[key] = value
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
    except ValueError:
        return _NO_HEADERS
    if not isinstance(value, dict):
        return _NO_HEADERS
    entries = cast("dict[str, object]", value)
    headers = {key: text for key, text in entries.items() if isinstance(text, str)}
    return MappingProxyType(headers) if len(headers) == len(entries) else _NO_HEADERS
