"""Whether a reply is one at all: of the types that the protocol promises, all the way down."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import attrs
from typing_extensions import get_original_bases

from dtimer.protocol import operations as op
from dtimer.protocol import values
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import Applied
from dtimer_conformance.explain import is_tuple, items

NOT_NEGATIVE: Final = frozenset({"at_us", "seq", "skew_us", "number", "num_counted", "num_retries", "delivery"})
"""Fields that count or tell the time of day."""


def problems_of(operation: Operation[Any], reply: object) -> Iterator[str]:
    """What is wrong with the shape of a reply, each problem with its place in it."""
    if not _is_reply(reply):
        yield f"the reply is {reply!r}, and not an Applied"
        return
    for name, hint in _hints(Applied).items():
        right = _value_hint(type(operation)) if name == "value" else hint
        yield from _wrong(getattr(reply, name), right, name)
    value: object = getattr(reply, "value", None)
    yield from _wrong_length(operation, value)


def _is_reply(reply: object) -> bool:
    return isinstance(reply, Applied)


def _wrong_length(operation: Operation[Any], value: object) -> Iterator[str]:
    """One outcome for each item."""
    count: int | None = None
    match operation:
        case op.Post(asked) | op.Cancel(asked) | op.Confirm(asked) | op.Extend(asked) | op.Discard(asked):
            count = len(asked)
        case op.Claim() if isinstance(value, values.Claimed):
            if len(value.confirmed) != len(operation.confirming):
                yield f"value.confirmed has {len(value.confirmed)} outcomes for {len(operation.confirming)} receipts"
            if len(value.extended) != len(operation.extending):
                yield f"value.extended has {len(value.extended)} outcomes for {len(operation.extending)} extensions"
            if len(value.deliveries) > operation.room:
                yield f"value.deliveries has {len(value.deliveries)} items for a room of {operation.room}"
        case _:
            pass
    if count is not None and is_tuple(value) and len(items(value)) != count:
        yield f"value has {len(items(value))} outcomes for {count} items"


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _value_hint(kind: type[Operation[Any]]) -> Any:
    """The type argument of the operation's base: what its reply is a reply of."""
    (base,) = get_original_bases(kind)
    return get_args(base)[0]


def _wrong(value: object, hint: Any, place: str) -> Iterator[str]:
    origin = get_origin(hint)
    if hint is None or hint is NoneType:
        fits = value is None
    elif origin in {Union, UnionType}:
        choices = [list(_wrong(value, choice, place)) for choice in get_args(hint)]
        if all(choices):
            # The choice that is not None says best what is wrong.
            yield from choices[0]
        return
    elif origin is tuple:
        if is_tuple(value):
            for index, item in enumerate(items(value)):
                yield from _wrong(item, get_args(hint)[0], f"{place}[{index}]")
            return
        fits = False
    elif attrs.has(hint):
        if isinstance(value, hint):
            for name, part in _hints(hint).items():
                yield from _wrong(getattr(value, name), part, f"{place}.{name}")
            return
        fits = False
    elif isinstance(hint, type) and issubclass(hint, Enum):
        fits = isinstance(value, hint)
    else:
        # An int is exactly an int: a float loses microseconds, and a bool is a mistake.
        fits = type(value) is hint or (hint is float and type(value) is int)
        if fits and place.rpartition(".")[2] in NOT_NEGATIVE and isinstance(value, int) and value < 0:
            yield f"{place} is {value}, which is negative"
    if not fits:
        yield f"{place} is {value!r}, and not {_named(hint)}"


def _named(hint: Any) -> str:
    return str(getattr(hint, "__name__", hint))
