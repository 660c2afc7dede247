"""Three kinds of plots as SVG: bars, distributions, lines. Dark on light, sizes in px."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from attrs import field, frozen

WIDTH: Final = 620
INK: Final = "#1b1f24"
FAINT: Final = "#d8dee4"
SOFT: Final = "#57606a"
OURS_COLOUR: Final = "#0a58ca"
BAR_COLOUR: Final = "#9aa5b1"
COLOURS: Final = ("#c2410c", "#15803d", "#7e22ce", "#0e7490", "#a16207", "#be185d", "#4b5563")
BAR_PX: Final = 20
GAP_PX: Final = 9
LABEL_PX: Final = 180
VALUE_PX: Final = 70
PLOT_HEIGHT: Final = 330
MARGIN_LEFT: Final = 62
MARGIN_BOTTOM: Final = 46
MARGIN_TOP: Final = 12
LEGEND_PX: Final = 214


@frozen
class Bar:
    label: str
    value: float
    shown: str
    ours: bool


@frozen
class Series:
    """A line. `points` are in the units of the axes."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: str


@frozen
class Axis:
    """One direction of a plot."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = field(default=False)

    def part(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        if self.logarithmic:
            clipped = min(max(value, self.low), self.high)
            return math.log(clipped / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def bars(title: str, unit: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars from zero, each with its value at its end."""
    height = len(rows) * (BAR_PX + GAP_PX) + GAP_PX
    room = WIDTH - LABEL_PX - VALUE_PX
    top = max((row.value for row in rows), default=1.0) or 1.0
    parts = [f'<line x1="{LABEL_PX}" y1="0" x2="{LABEL_PX}" y2="{height}" stroke="{SOFT}"/>']
    for index, row in enumerate(rows):
        y = GAP_PX + index * (BAR_PX + GAP_PX)
        middle = y + BAR_PX / 2 + 5
        width = max(1.0, row.value / top * room)
        colour = OURS_COLOUR if row.ours else BAR_COLOUR
        weight = "bold" if row.ours else "normal"
        parts += [
            _text(LABEL_PX - 8, middle, row.label, "end", weight=weight),
            f'<rect x="{LABEL_PX}" y="{y}" width="{width:.1f}" height="{BAR_PX}" fill="{colour}"/>',
            _text(LABEL_PX + width + 6, middle, row.shown, "start", weight=weight),
        ]
    return _figure(title, unit, height, parts)


def curves(  # noqa: PLR0917
    title: str, unit: str, x: Axis, y: Axis, series: Sequence[Series], marks: Sequence[tuple[float, float]]
) -> str:
    """Lines with a legend at the right; `marks` are points to be passed on the left."""
    at_x, at_y, parts = _frame(x, y, WIDTH - MARGIN_LEFT - LEGEND_PX)
    for mark_x, mark_y in marks:
        cx, cy = at_x(mark_x), at_y(mark_y)
        parts.append(f'<path d="M{cx:.1f} {cy - 6:.1f}v12M{cx - 6:.1f} {cy:.1f}h12" stroke="{INK}" stroke-width="2"/>')
    for index, line in enumerate(series):
        parts.append(_line(line, at_x, at_y))
        legend_y = MARGIN_TOP + 12 + index * 22
        legend_x = WIDTH - LEGEND_PX + 16
        parts += [
            f'<line x1="{legend_x}" y1="{legend_y}" x2="{legend_x + 20}" y2="{legend_y}" '
            f'stroke="{line.colour}" stroke-width="4"/>',
            _text(legend_x + 26, legend_y + 5, line.label, "start"),
        ]
    if marks:
        legend_y = MARGIN_TOP + 12 + len(series) * 22
        legend_x = WIDTH - LEGEND_PX + 26
        parts += [
            f'<path d="M{legend_x} {legend_y - 6}v12M{legend_x - 6} {legend_y}h12" stroke="{INK}" stroke-width="2"/>',
            _text(legend_x + 16, legend_y + 5, "our goals", "start"),
        ]
    return _figure(title, unit, PLOT_HEIGHT, parts)


def lines(title: str, unit: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """The same with a dot at each point that was measured."""
    at_x, at_y, parts = _frame(x, y, WIDTH - MARGIN_LEFT - LEGEND_PX)
    for index, line in enumerate(series):
        parts.append(_line(line, at_x, at_y))
        parts += [
            f'<circle cx="{at_x(px):.1f}" cy="{at_y(py):.1f}" r="4" fill="{line.colour}"/>' for px, py in line.points
        ]
        legend_y = MARGIN_TOP + 12 + index * 22
        legend_x = WIDTH - LEGEND_PX + 16
        parts += [
            f'<circle cx="{legend_x + 6}" cy="{legend_y}" r="5" fill="{line.colour}"/>',
            _text(legend_x + 18, legend_y + 5, line.label, "start"),
        ]
    return _figure(title, unit, PLOT_HEIGHT, parts)


def linear(title: str, values: Sequence[float]) -> Axis:
    """From zero to a round number above all values."""
    top = max(values, default=1.0) or 1.0
    step = 10.0 ** math.floor(math.log10(top))
    step = next(size for size in (step / 5, step / 2, step, step * 2) if top / size <= 6)
    count = math.ceil(top / step)
    ticks = [(index * step, f"{index * step:,.10g}") for index in range(count + 1)]
    return Axis(title, 0, count * step, ticks)


def decades(title: str, low: float, high: float) -> Axis:
    """A logarithmic axis with a tick at each power of ten."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    ticks = [(10.0**power, f"{10.0**power:,.10g}") for power in range(first, last + 1)]
    return Axis(title, 10.0**first, 10.0**last, ticks, logarithmic=True)


Place = Callable[[float], float]


def _frame(x: Axis, y: Axis, width: float) -> tuple[Place, Place, list[str]]:
    height = PLOT_HEIGHT - MARGIN_TOP - MARGIN_BOTTOM

    def at_x(value: float) -> float:
        return MARGIN_LEFT + x.part(value) * width

    def at_y(value: float) -> float:
        return MARGIN_TOP + (1 - y.part(value)) * height

    parts: list[str] = []
    for value, label in x.ticks:
        parts.append(
            f'<line x1="{at_x(value):.1f}" y1="{MARGIN_TOP}" x2="{at_x(value):.1f}" y2="{MARGIN_TOP + height}" '
            f'stroke="{FAINT}"/>'
        )
        parts.append(_text(at_x(value), MARGIN_TOP + height + 18, label, "middle", size=12))
    for value, label in y.ticks:
        parts.append(
            f'<line x1="{MARGIN_LEFT}" y1="{at_y(value):.1f}" x2="{MARGIN_LEFT + width}" y2="{at_y(value):.1f}" '
            f'stroke="{FAINT}"/>'
        )
        parts.append(_text(MARGIN_LEFT - 8, at_y(value) + 4, label, "end", size=12))
    parts.append(_text(MARGIN_LEFT + width / 2, PLOT_HEIGHT - 8, x.title, "middle", colour=SOFT))
    turned = (
        f'<text transform="translate(14 {MARGIN_TOP + height / 2}) rotate(-90)" text-anchor="middle" fill="{SOFT}">'
    )
    parts.append(f"{turned}{escape(y.title)}</text>")
    return at_x, at_y, parts


def _line(line: Series, at_x: Place, at_y: Place) -> str:
    points = " ".join(f"{at_x(px):.1f},{at_y(py):.1f}" for px, py in line.points)
    width = 3.5 if line.colour == OURS_COLOUR else 2
    return f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="{width}"/>'


def _text(
    x: float, y: float, text: str, anchor: str, *, weight: str = "normal", size: int = 14, colour: str = INK
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}" '
        f'fill="{colour}">{escape(text)}</text>'
    )


def _figure(title: str, unit: str, height: float, parts: Sequence[str]) -> str:
    caption = f"<figcaption><b>{escape(title)}</b> {escape(unit)}</figcaption>"
    drawing = "\n".join(parts)
    return (
        f'<figure>{caption}<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{drawing}</svg></figure>"
    )
