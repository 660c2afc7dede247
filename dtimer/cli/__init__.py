"""The ``dtimer`` command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="dtimer", description="Distributed timers that you can test.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="show three nodes at work on a real server",
        description="Starts a server and three node processes, posts events, kills a node, and checks what comes out.",
    )
    demo.add_argument("--redis-url", metavar="URL", help="use this server instead of an embedded one")
    parsed = parser.parse_args(arguments)

    from dtimer.cli.demo import run_demo

    return run_demo(parsed.redis_url)
