"""Immutable values, for what is made with every event or call. Type checkers enforce it; run time does not.

:func:`attrs.frozen` would enforce it at run time as well, but takes twice as long to make a value: a tenth of all that
a client does for an event. So the values are mutable at run time; do not rely on it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from attrs import frozen
else:
    frozen = partial(attrs.define, unsafe_hash=True)

__all__ = ["frozen"]
