"""From payloads to bytes and back: the only place that looks into either (rule P4).

A store sees bytes only, so the posting and the receiving side must agree on a codec.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias, cast

from typing_extensions import TypeVar

from dtimer.errors import InvalidArgument
from dtimer.limits import HEADERS_MAX_BYTES
from dtimer.safe_repr import safe_repr, safe_str
from dtimer.user_code import ends_the_program

JsonValue: TypeAlias = bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"] | None
"""What JSON can hold. Arrays may be lists or tuples, and come back as lists; objects are dicts."""


PayloadT = TypeVar("PayloadT", default=JsonValue)


class Codec(Protocol[PayloadT]):
    """Turns payloads into bytes and back. Either direction may raise any exception for what it cannot do."""

    def encode(self, payload: PayloadT) -> bytes: ...

    def decode(self, data: bytes) -> PayloadT: ...


_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


def encode_headers(headers: object) -> bytes:
    """The bytes of an event's headers, at most 1 KiB; none for no headers (rule P4)."""
    if headers is None:
        return b""
    if not isinstance(headers, Mapping):
        raise InvalidArgument("headers", f"must be a mapping, not {safe_repr(headers)}")
    try:
        entries = list(cast("Mapping[object, object]", headers).items())
    except BaseException as error:
        if ends_the_program(error):
            raise
        raise InvalidArgument("headers", f"cannot be read: {safe_str(error)}") from error
    if not entries:
        return b""
    checked: dict[str, str] = {}
    for key, value in entries:
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidArgument("headers", f"must map str to str, not {safe_repr(key)} to {safe_repr(value)}")
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
