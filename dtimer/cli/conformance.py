"""``dtimer conformance``: the suite for those who do not use pytest."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from dtimer.cli.errors import UsageError
from dtimer.cli.files import check_writable
from dtimer.cli.targets import find_target
from dtimer.safe_repr import printable
from dtimer_conformance.report import Unreached, make_report
from dtimer_conformance.runner import Result, Status

_LETTERS = {Status.PASSED: ".", Status.FAILED: "F", Status.SKIPPED: "s"}


def run_conformance(target: str, *, json_path: str | None = None, name: str | None = None) -> int:
    """Judge a backend and print the report; returns the exit status.

    Args:
        json_path: a file for the report as JSON.
        name: what the report calls the backend; the target, without its password, if not given.

    Returns:
        0 if no rule is broken, 1 if one is, 2 if there is nothing to judge.
    """
    # As `python -m` would have it: a target in the current directory can be named.
    sys.path.insert(0, os.getcwd())
    # What nodes log about failures that the scenarios cause would only be read as failures.
    logging.getLogger("dtimer").addHandler(logging.NullHandler())
    try:
        check_writable(json_path)
        found = find_target(target)
    except UsageError as error:
        print(f"dtimer conformance: {error}", file=sys.stderr)
        return 2
    try:
        report = make_report(found, printable(name or _without_password(target)), progress=_show)
    except Unreached as error:
        print(f"dtimer conformance: {error}", file=sys.stderr)
        return 2
    print(file=sys.stderr)
    print(report.as_text())
    if json_path is not None:
        Path(json_path).write_text(report.as_json(), encoding="utf-8")
    return 0 if report.kept else 1


def _show(result: Result) -> None:
    print(_LETTERS[result.status], end="", file=sys.stderr, flush=True)


def _without_password(target: str) -> str:
    """A report is kept and shown around."""
    scheme, separator, rest = target.partition("://")
    return f"{scheme}{separator}{rest.partition('?')[0].rpartition('@')[2]}" if separator else target
