"""What tests of faults measured, for the tables of the documentation; it judges nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final, Protocol

FIGURES: Final = os.environ.get("DTIMER_FIGURES")
"""A file to which they add it, a JSON object a line; by default it is only printed."""


class Figure(Protocol):
    """The fixture ``figure``."""

    def __call__(self, **figures: float) -> None: ...


def noted(test: str) -> Figure:
    def note(**figures: float) -> None:
        line = json.dumps({"test": test, **{name: round(value, 3) for name, value in figures.items()}})
        print(line)
        if FIGURES is not None:
            with Path(FIGURES).open("a") as file:
                file.write(line + "\n")

    return note
