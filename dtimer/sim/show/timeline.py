"""A run as a page of its own: one lane for each node, the store and the clients; needs nothing but a browser."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Final

from dtimer.sim.faulty.trace import Record

_PLACES: Final = re.compile("__(TITLE|RECORDS)__")


def timeline_html(records: Iterable[Record], *, title: str = "dtimer simulation") -> str:
    """The page, with the records in it.

    Args:
        records: of a trace, in their order.
        title: of the page.
    """
    template = files("dtimer.sim.show").joinpath("timeline.html").read_text(encoding="utf-8")
    data = json.dumps(list(records), separators=(",", ":"), ensure_ascii=True)
    # Ids and notes are anybody's words; without a "<" none of them can end the script element that holds them.
    data = data.replace("<", "\\u003c")
    parts = {"TITLE": html.escape(title), "RECORDS": data}
    # At one go: what stands in for one place may look like the other.
    return _PLACES.sub(lambda place: parts[place[1]], template)
