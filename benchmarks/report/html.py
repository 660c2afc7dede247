"""A page of plots that stands alone: no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from benchmarks.catalogue import OURS
from benchmarks.goals import GOALS
from benchmarks.report import svg
from benchmarks.report.tables import Table, backlogs, failures, goals, growths, settings, shown, tables
from benchmarks.result import CURVE_POINTS, Result

STYLE: Final = """
body { font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; color: #1b1f24; background: #fff; margin: 2rem auto;
  max-width: 1320px; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; max-width: 80ch; } .soft { color: #57606a; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(560px, 1fr)); gap: 1.6rem 2rem; }
figure { margin: 0; } figcaption { margin-bottom: .4rem; } svg { width: 100%; height: auto; display: block; }
svg text { font-family: system-ui, "DejaVu Sans", sans-serif; font-size: 14px; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .25rem .8rem .25rem 0; vertical-align: top; }
th { border-bottom: 2px solid #57606a; } td { border-bottom: 1px solid #d8dee4; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.yes { color: #15803d; font-weight: bold; } .no { color: #b91c1c; font-weight: bold; }
li { margin: .2rem 0; }
"""

MORE: Final = "more is better"
LESS: Final = "less is better"
BARS: Final = (
    ("Posting", "post.one", "One caller that waits for each post", f"posts/s, {MORE}"),
    ("Posting", "post.callers", "64 callers at once", f"posts/s, {MORE}"),
    ("Posting", "post.batch", "Batches of 500", f"posts/s, {MORE}"),
    ("All due at once", "drain.100", "100 handlers at a time", f"fired/s, {MORE}"),
    ("All due at once", "drain.256", "max_events 256", f"fired/s, {MORE}"),
    ("All due at once", "drain.8", "max_events 8, the default", f"fired/s, {MORE}"),
    ("What a timer costs Redis", "work.cpu_us", "CPU for post, claim and confirm", f"us a timer, {LESS}"),
    ("What a timer costs Redis", "work.commands", "Commands, also inside scripts", f"a timer, {LESS}"),
    ("What a timer costs Redis", "memory", "Memory while pending, 200 bytes of it payload", f"bytes, {LESS}"),
    ("What idling costs, one worker, 10,000 far timers", "idle.1.calls", "Client calls", f"calls/s, {LESS}"),
    (
        "What idling costs, one worker, 10,000 far timers",
        "idle.1.commands",
        "Commands, also inside scripts",
        f"/s, {LESS}",
    ),
)
RATES: Final = (
    ("late.500", "500 timers a second"),
    ("late.2000", "2,000 timers a second"),
    ("late.quiet", "2 a second"),
)
LATE_MIN_MS: Final = 0.1


def page(result: Result) -> str:
    made = f"dtimer {result.version} ({result.commit}), {result.made}, {result.conditions}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>dtimer side by side</title><style>{STYLE}</style></head><body>",
        f'<h1>dtimer and its peers, side by side</h1><p class="soft">{escape(made)}<br>{escape(result.command)}</p>',
    ]
    parts += ["<h2>Goals</h2>", _table(goals(result))]
    if lines := failures(result):
        parts += ["<h2>Without a figure</h2>", _list(lines)]
    for heading in dict.fromkeys(row[0] for row in BARS):
        plots = [_bars(result, figure, title, unit) for group, figure, title, unit in BARS if group == heading]
        parts += _section(heading, plots)
        if heading == "All due at once":
            parts += _section("Lateness: from the due time to the start of the handler", _lateness(result))
    parts += _section(
        "As it grows, ours", [_backlog(result), *(_growth(result, kind) for kind in ("namespaces", "nodes"))]
    )
    parts += ["<h2>Settings</h2>", _list(settings(result)), "<h2>All figures</h2>"]
    for table in tables(result)[1:]:
        parts += [f"<h3>{escape(table.title)}</h3>", _table(table), f'<p class="soft">{escape(table.note)}</p>']
    parts.append("</body></html>")
    return "\n".join(parts) + "\n"


def _section(heading: str, plots: Sequence[str]) -> list[str]:
    shown_plots = [plot for plot in plots if plot]
    if not shown_plots:
        return []
    return [f"<h2>{escape(heading)}</h2>", '<div class="plots">', *shown_plots, "</div>"]


def _bars(result: Result, figure: str, title: str, unit: str) -> str:
    measured = [(subject, result.median(figure, subject.key)) for subject in result.subjects]
    rows = [
        svg.Bar(subject.title, value, shown(value), subject.key == OURS)
        for subject, value in measured
        if value is not None
    ]
    if not rows:
        return ""
    rows.sort(key=lambda row: row.value, reverse=MORE in unit)
    return svg.bars(title, unit, rows)


def _lateness(result: Result) -> list[str]:
    x = svg.decades("lateness in ms, logarithmic", LATE_MIN_MS, 10_000)
    y = svg.Axis("percent that were no later", 0, 100, [(part, f"{part}") for part in (0, 25, 50, 75, 100)])
    plots: list[str] = []
    for figure, title in RATES:
        by_subject = result.curves.get(figure, {})
        series: list[svg.Series] = []
        # By the place in the list, so that a peer has one colour in all plots.
        for index, subject in enumerate(result.subjects):
            if subject.key not in by_subject:
                continue
            points = [(ms, 100 * step / CURVE_POINTS) for step, ms in enumerate(by_subject[subject.key])]
            colour = svg.OURS_COLOUR if subject.key == OURS else svg.COLOURS[index % len(svg.COLOURS)]
            series.append(svg.Series(subject.title, points, colour))
        goals_here = {goal.figure: goal.limit for goal in GOALS if goal.figure.startswith(f"{figure}.")}
        marks = [(goals_here[f"{figure}.{part}"], at) for part, at in (("p50", 50.0), ("p99", 99.0))]
        if series:
            plots.append(svg.curves(title, "further left is better", x, y, series, marks))
    return plots


def _backlog(result: Result) -> str:
    sizes = backlogs(result)
    parts = (
        ("post", "post_us", svg.OURS_COLOUR),
        ("claim to confirm", "drain_us", svg.COLOURS[0]),
        ("CPU in Redis", "redis_us", svg.COLOURS[1]),
    )
    return _grown(
        result, "A backlog, in batches of 100", "us a timer", "timers pending, logarithmic", "backlog", sizes, parts
    )


def _growth(result: Result, kind: str) -> str:
    counts = growths(result, kind)
    parts = (
        ("a poll, in Redis", "poll_us", svg.OURS_COLOUR),
        ("a PUBLISH, in Redis", "publish_us", svg.COLOURS[0]),
    )
    title = "Namespaces, a node in each" if kind == "namespaces" else "Nodes in one namespace"
    return _grown(result, title, "us a call", f"{kind}, logarithmic", kind, counts, parts)


def _grown(  # noqa: PLR0917
    result: Result,
    title: str,
    unit: str,
    along: str,
    figure: str,
    at: Sequence[int],
    parts: Sequence[tuple[str, str, str]],
) -> str:
    if len(at) < 2:
        return ""
    series: list[svg.Series] = []
    for label, part, colour in parts:
        values = [(float(count), result.median(f"{figure}.{count}.{part}", OURS)) for count in at]
        series.append(svg.Series(label, [(count, value) for count, value in values if value is not None], colour))
    y = svg.linear(unit, [value for line in series for _, value in line.points])
    return svg.lines(title, f"{unit}, {LESS}", svg.decades(along, min(at), max(at)), y, series)


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _table(table: Table) -> str:
    numeric = [
        all(row[index][:1].isdigit() or not row[index] for row in table.rows) and index > 0
        for index in range(len(table.head))
    ]

    def cell(tag: str, text: str, right: bool) -> str:
        names = {"yes": "yes", "NO": "no"}.get(text, "number" if right else "")
        return f'<{tag} class="{names}">{escape(text)}</{tag}>' if names else f"<{tag}>{escape(text)}</{tag}>"

    rows = "".join(
        "<tr>" + "".join(cell("td", text, right) for text, right in zip(row, numeric, strict=True)) + "</tr>"
        for row in table.rows
    )
    head = "".join(cell("th", text, right) for text, right in zip(table.head, numeric, strict=True))
    return f"<table><tr>{head}</tr>{rows}</table>"
