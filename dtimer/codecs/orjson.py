"""JSON by orjson, in a fraction of the time: the extra ``dtimer[orjson]``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import cast

from typing_extensions import override

from dtimer.codecs.codec import JsonValue
from dtimer.codecs.json import JsonCodec


class OrjsonCodec(JsonCodec):
    """Writes with orjson what orjson writes well, and leaves the rest to :class:`dtimer.JsonCodec`.

    It takes all that JsonCodec takes, and refuses what that refuses, but for UUIDs and plain enums: orjson writes their
    text and their value, and offers no way to tell it not to. It does not look into an ``orjson.Fragment`` either.

    Either codec reads what the other wrote, so nodes can change over one by one. Reading is the standard library's:
    orjson would make an inexact float of an integer of more than 64 bits.
    """

    def __init__(self) -> None:
        """
        Raises:
            ModuleNotFoundError: orjson is not installed.
        """
        try:
            import orjson
        except ModuleNotFoundError as error:
            problem = 'OrjsonCodec needs orjson: pip install "dtimer[orjson]"'
            raise ModuleNotFoundError(problem, name=error.name) from error
        super().__init__()
        self._dumps = orjson.dumps
        self._loads = orjson.loads
        # Left to JsonCodec: it refuses the first two, and asks a subclass for its items, which orjson does not.
        self._option = (
            orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
        )

    @override
    def encode(self, payload: JsonValue) -> bytes:
        try:
            data = self._dumps(payload, None, self._option)
        except TypeError:
            # An integer of more than 64 bits, a depth of more than 254, a class of its own, or what is no JSON:
            # whichever it is, JsonCodec takes it or says what is wrong with it.
            return super().encode(payload)
        # So orjson writes what is not finite, too. What comes back equal has nothing of the kind, and to compare takes
        # half the time of a walk.
        if b"null" in data and self._loads(data) != payload and not _all_finite(payload):
            return super().encode(payload)
        # A copy, for orjson gives the buffer it wrote to, which has room for some KiB more.
        return b"".join((data, b""))


def _all_finite(payload: JsonValue) -> bool:
    """Walk without recursion; the encoder has been through it and found neither circles nor other types."""
    remaining: list[object] = [payload]
    for value in remaining:
        if isinstance(value, float):
            if not math.isfinite(value):
                return False
        elif isinstance(value, Enum):
            remaining.append(value.value)
        elif isinstance(value, dict):
            remaining += cast("dict[str, object]", value).values()
        elif isinstance(value, (list, tuple)):
            remaining += cast("Sequence[object]", value)
    return True
