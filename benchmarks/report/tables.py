"""The tables that all reports show: cells of text, without a layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import field, frozen

from benchmarks.catalogue import OURS
from benchmarks.comparison import comparison
from benchmarks.goals import Verdict
from benchmarks.result import Result


@frozen
class Table:
    """Rows of cells below a head.

    Attributes:
        command: what measures just this.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    command: str = ""


@frozen
class Column:
    """A figure as a column; `names` are its parts."""

    head: str
    figure: str


@frozen
class Section:
    """Figures that are read together: a row for each peer, a column for each figure."""

    title: str
    part: str
    columns: Sequence[Column]
    note: str = field(default="")


SECTIONS: Final = (
    Section(
        "Posts a second",
        "posts",
        (
            Column("one caller", "post.one"),
            Column("64 callers", "post.callers"),
            Column("batches of 500", "post.batch"),
        ),
    ),
    Section(
        "Fired a second, all due at once, one process",
        "drains",
        (
            Column("100 at a time", "drain.100"),
            Column("256", "drain.256"),
            Column("8", "drain.8"),
            Column("256, `async with`", "drain.block"),
            Column("first after ms", "drain.100.first_ms"),
        ),
    ),
    Section(
        "Lateness, ms",
        "lateness",
        (
            *(
                Column(f"{said} {part}", f"late.{rate}.{part}")
                for rate, said in (("500", "500/s"), ("2000", "2,000/s"), ("quiet", "quiet"))
                for part in ("p50", "p99", "max")
            ),
        ),
        "From the due time to the start of the handler; posting goes on meanwhile from another process.",
    ),
    Section(
        "Redis work for a timer's life",
        "drains,calls",
        (
            Column("CPU us", "work.cpu_us"),
            Column("of that posting", "work.post_cpu_us"),
            Column("claim and confirm", "work.fire_cpu_us"),
            Column("in scripts us", "work.script_us"),
            Column("commands", "work.commands"),
            Column("client calls", "calls"),
        ),
        "Commands called inside scripts are counted as commands, and not as client calls.",
    ),
    Section("Memory of a pending timer", "memory", (Column("bytes", "memory"),), "The payload is 200 of them."),
    Section(
        "Idle, with 10,000 far timers",
        "idle",
        (
            Column("client calls/s", "idle.1.calls"),
            Column("commands/s", "idle.1.commands"),
            Column("CPU ms/s", "idle.1.cpu_ms"),
            Column("50 nodes: client calls/s", "idle.50.calls"),
            Column("commands/s", "idle.50.commands"),
            Column("CPU ms/s", "idle.50.cpu_ms"),
        ),
        "An idle server without clients takes about 1.5 ms/s.",
    ),
    Section(
        "Two processes against one, fired a second",
        "nodes",
        (Column("one", "nodes.1"), Column("two", "nodes.2"), Column("smaller share", "nodes.2.share")),
    ),
    Section(
        "The simulator, CPU of this process",
        "simulator",
        (
            Column("a day, s", "sim.day.cpu_s"),
            Column("a unit test over a week, ms", "sim.test.cpu_ms"),
            Column("an idle node-hour, s", "sim.idle.cpu_s"),
            Column("memory of the day, MiB", "sim.day.peak_mib"),
        ),
        "The day has 5 nodes and 100,000 timers.",
    ),
)

BASES: Final = {"backlog.10000.life_us": "with 10,000", "nodes.1": "one process"}

RAW: Final = (
    ("ZADD + HSET over a plain socket", "commands"),
    ("the same two in a script", "script"),
)
RAW_CLIENT: Final = (
    ("redis-py, ZADD, one caller", "redis_py.one"),
    ("redis-py, ZADD, 64 callers, a pool", "redis_py.callers"),
    ("redis-py, pipelines of 100 x (ZADD + HSET)", "redis_py.pipeline"),
)


def tables(result: Result) -> list[Table]:
    if result.against:
        return [against(result)]
    found = [goals(result), *(_section(result, section) for section in SECTIONS)]
    found += [_raw(result), _backlogs(result), *(_growth(result, kind) for kind in ("namespaces", "nodes"))]
    return [table for table in found if table.rows]


def goals(result: Result) -> Table:
    rows = [_goal(result, verdict) for verdict in result.verdicts if verdict.ours is not None]
    return Table("Goals", ("what", "goal", "ours", "compared with", "ratio", "reached"), rows)


def against(result: Result) -> Table:
    """Two builds of ours, line by line."""
    rows: list[list[str]] = []
    for compared in comparison(result.ratios):
        figure, low_high = compared.line.figure, compared.interval
        rows.append(
            [
                compared.line.what,
                *(f"{shown(result.median(figure, key))} {compared.line.unit}" for key in (OURS, result.against)),
                f"{compared.ratio:.3f}",
                "" if low_high is None else f"{low_high[0]:.3f} to {low_high[1]:.3f}",
                str(compared.rounds),
                compared.said,
            ]
        )
    head = ("what", "today", result.title(result.against), "ratio", "95 % interval", "rounds", "verdict")
    note = (
        "The ratio is the median of those of single rounds; its interval is distribution-free, from their order.\n"
        "  WORSE: the whole interval lies below 0.95, or above 1.05 for lateness and costs."
    )
    return Table(f"Today's build against {result.against.partition('@')[2]}", head, rows, note)


def _goal(result: Result, verdict: Verdict) -> list[str]:
    goal = verdict.goal
    who = BASES.get(verdict.who) or result.title(verdict.who)
    theirs = "" if verdict.theirs is None else f"{shown(verdict.theirs)} {who}"
    return [
        goal.what,
        goal.said,
        f"{shown(verdict.ours)} {goal.unit}",
        theirs,
        "" if verdict.ratio is None else f"{verdict.ratio:.2f}",
        {True: "yes", False: "NO", None: "not measured"}[verdict.reached],
    ]


def _section(result: Result, section: Section) -> Table:
    rows: list[list[str]] = []
    columns = [column for column in section.columns if column.figure in result.values]
    for subject in result.subjects:
        cells = [shown(result.median(column.figure, subject.key)) for column in columns]
        if any(cells):
            rows.append([subject.title, *cells])
    command = f'make bench ARGS="--only {section.part}"'
    return Table(section.title, ("", *(column.head for column in columns)), rows, section.note, command)


def _raw(result: Result) -> Table:
    rows = [
        [title, *(shown(result.median(f"raw.{name}.{depth}", "server")) for depth in (1, 100, 1_000))]
        for title, name in RAW
        if f"raw.{name}.1" in result.values
    ]
    rows += [
        [title, shown(result.median(f"raw.{name}", "server")), "", ""]
        for title, name in RAW_CLIENT
        if f"raw.{name}" in result.values
    ]
    head = ("timers a second, sent at once:", "1", "100", "1,000")
    return Table("The server's own limits", head, rows, command='make bench ARGS="--only raw"')


def backlogs(result: Result) -> list[int]:
    return sorted({int(name.split(".")[1]) for name in result.values if name.startswith("backlog.")})


def _backlogs(result: Result) -> Table:
    parts = (
        ("post, us", "post_us"),
        ("claim to confirm, us", "drain_us"),
        ("both", "life_us"),
        ("Redis CPU us", "redis_us"),
    )
    rows = [
        [f"{pending:,}", *(shown(result.median(f"backlog.{pending}.{part}", OURS)) for _, part in parts)]
        for pending in backlogs(result)
    ]
    head = ("timers pending", *(name for name, _ in parts))
    return Table(
        "The cost of a backlog, ours, in batches of 100, a timer",
        head,
        rows,
        command='make bench ARGS="--only backlog"',
    )


def growths(result: Result, kind: str) -> list[int]:
    return sorted(
        int(name.split(".")[1]) for name in result.values if name.startswith(f"{kind}.") and name.endswith(".poll_us")
    )


def _growth(result: Result, kind: str) -> Table:
    parts = (
        ("script calls/s, idle", "calls"),
        ("Redis CPU ms/s, idle", "cpu_ms"),
        ("a poll, us in Redis", "poll_us"),
        ("a PUBLISH, us in Redis", "publish_us"),
        ("a post that is announced, us", "post_us"),
    )
    rows = [
        [f"{count:,}", *(shown(result.median(f"{kind}.{count}.{part}", OURS)) for _, part in parts)]
        for count in growths(result, kind)
    ]
    title = "Namespaces on one server, a node in each" if kind == "namespaces" else "Nodes in one namespace"
    return Table(
        f"{title}, ours", (kind, *(name for name, _ in parts)), rows, command='make bench ARGS="--only growth"'
    )


def shown(value: float | None) -> str:
    """Three digits are all that such a figure is worth."""
    if value is None:
        return ""
    if abs(value) >= 1_000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{float(f'{value:.3g}'):g}"


def failures(result: Result) -> list[str]:
    """What has no figure, and why, a line each."""
    lines = [f"{result.title(key)} is left out: {why}" for key, why in result.left_out.items()]
    for failure in result.failures:
        kind = "BROKEN RUN" if failure.broken else "no figure"
        lines.append(f"{kind}: {failure.figure}, {result.title(failure.subject)}: {failure.reason}")
    return lines


def settings(result: Result) -> list[str]:
    """Each peer with its versions and settings, a line each."""
    loop = "uvloop" if result.uvloop else "asyncio's own loop"
    lines: list[str] = []
    for subject in result.subjects:
        versions = ", ".join(
            f"{name} {version}" for name, version in sorted(subject.versions.items()) if name != "runtime"
        )
        runtime = subject.versions.get("runtime", subject.runtime)
        extra = f", {loop}" if subject.runtime == "python" else ""
        note = f" ({subject.note})" if subject.note else ""
        lines.append(f"{subject.title}: {subject.said}; {runtime}{extra}, {versions}{note}")
    return lines
