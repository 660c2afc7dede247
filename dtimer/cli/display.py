"""What the demo shows: a live table on a terminal, plain lines elsewhere and without the extra ``cli``."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from attrs import field, frozen

from dtimer.safe_repr import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

ROWS: Final = 14


@frozen
class Said:
    """What a node said of an event.

    Attributes:
        at_s: since the demo began.
        what: ``got``, ``confirmed`` or ``too late``.
    """

    at_s: float
    node: str
    what: str
    id: str = field(converter=printable)
    num_retries: int
    lateness_ms: float


class Display(Protocol):
    """Where the demo says what happens."""

    def scene(self, title: str) -> None: ...
    def note(self, text: str) -> None: ...
    def event(self, said: Said) -> None: ...
    def verdict(self, holds: bool, what: str) -> None: ...
    def summary(self, figures: Mapping[str, str]) -> None: ...


@contextlib.contextmanager
def open_display() -> Generator[Display]:
    """The best display that standard output allows."""
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            from rich.live import Live

            with Live(refresh_per_second=10) as live:
                yield TerminalDisplay(live)
            return
    yield PlainDisplay()


class PlainDisplay:
    """A line for everything."""

    def scene(self, title: str) -> None:
        self._say(f"\n== {title}")

    def note(self, text: str) -> None:
        self._say(f"   {text}")

    def event(self, said: Said) -> None:
        late = f"  {said.lateness_ms:6.1f} ms late" if said.what == "got" else ""
        self._say(f"{said.at_s:7.3f} s  {said.node:4} {said.what:9} {said.id:16} num_retries={said.num_retries}{late}")

    def verdict(self, holds: bool, what: str) -> None:
        self._say(f"{'ok ' if holds else 'WRONG'} {what}")

    def summary(self, figures: Mapping[str, str]) -> None:
        self._say("\n== Summary")
        for name, figure in figures.items():
            self._say(f"{name:14} {figure}")

    def _say(self, line: str) -> None:
        print(line, flush=True)


class TerminalDisplay:
    """The latest events in a table, under which the verdicts grow."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._title = "dtimer"
        self._rows: deque[tuple[str, ...]] = deque(maxlen=ROWS)
        self._lines: list[str] = []

    def scene(self, title: str) -> None:
        self._title = title
        self._draw()

    def note(self, text: str) -> None:
        self._lines.append(f"[dim]{text}[/]")
        self._draw()

    def event(self, said: Said) -> None:
        late = f"{said.lateness_ms:.1f} ms" if said.what == "got" else ""
        self._rows.append((f"{said.at_s:.3f} s", said.node, said.what, said.id, str(said.num_retries), late))
        self._draw()

    def verdict(self, holds: bool, what: str) -> None:
        self._lines.append(f"[green]ok[/] {what}" if holds else f"[bold red]WRONG[/] {what}")
        self._draw()

    def summary(self, figures: Mapping[str, str]) -> None:
        self._lines += ["", *(f"{name:14} [bold]{figure}[/]" for name, figure in figures.items())]
        self._draw()

    def _draw(self) -> None:
        self._live.update(self._picture())

    def _picture(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table

        table = Table("time", "node", "what", "event", "num_retries", "late", title=self._title, min_width=72)
        for row in self._rows:
            table.add_row(*row)
        return Group(table, *self._lines)
