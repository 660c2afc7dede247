"""What should not have happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from attrs import frozen
from typing_extensions import override


@frozen
class Violation:
    """
    Attributes:
        rules: by their numbers in the reference of the semantics.
        t_us: microseconds since the start of the run.
        who: the host it was seen at.
        id: of the event; empty if it is about none.
        what: in words, the figures included.
    """

    rules: str
    t_us: int
    who: str
    id: str
    what: str

    @property
    def kind(self) -> str:
        """The same for the same mistake, whatever its figures; what reducing a case goes by."""
        return self.rules

    @override
    def __str__(self) -> str:
        about = f", {self.id!r}" if self.id else ""
        return f"{self.rules}{about}: {self.what}, seen at {self.who} at {self.t_us / 1e6:.6f} s"


Complain: TypeAlias = Callable[[str, str, str, str], None]
"""Called with rules, host, event and words."""
