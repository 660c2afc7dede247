"""Values that nobody changes, for what is made with every event or call: a type checker sees to it.

At run time :func:`attrs.frozen` would see to it too, and take twice as long to make a value: a tenth of all that
a client does for an event. So there they can be changed; whoever does is at fault.
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
