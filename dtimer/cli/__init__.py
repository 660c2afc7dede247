"""The ``dtimer`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dtimer.cli.sim import add_arguments as add_sim_arguments
from dtimer.cli.sim import run_sim
from dtimer.limits import NAMESPACE_DEFAULT


def make_parser() -> argparse.ArgumentParser:
    """All commands and their options; `docs/reference/api.md` lists them."""
    parser = argparse.ArgumentParser(prog="dtimer", description="Distributed timers that you can test.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="show three nodes at work on a real server",
        description="Starts a server and three node processes, posts events, kills a node, and checks what comes out.",
    )
    demo.add_argument("--redis-url", metavar="URL", help="use this server instead of an embedded one")
    conformance = commands.add_parser(
        "conformance",
        help="judge a backend by the rules",
        description="Takes a backend through every scenario of the conformance suite and prints which rules it keeps.",
        epilog="Exits with 0 if no rule is broken, with 1 if one is, and with 2 if there is nothing to judge.",
    )
    conformance.add_argument("target", metavar="TARGET", help="sim, a redis:// URL, or package.module:factory")
    conformance.add_argument("--json", metavar="FILE", help="write the report to this file, too")
    conformance.add_argument("--name", metavar="NAME", help="what the report calls the backend; TARGET if not given")
    doctor = commands.add_parser(
        "doctor",
        help="look for settings of a server that put events at risk",
        description="Opens the namespace and looks at the server's settings, as a node does when it joins.",
        epilog="Exits with 0 if nothing is found, with 1 if something is, and with 2 if it could not look.",
    )
    doctor.add_argument(
        "url", metavar="URL", help="redis://, rediss:// or unix://, of a server or with an option below"
    )
    doctor.add_argument(
        "--partitions",
        metavar="NUMBER",
        type=int,
        default=1,
        help="in how many the namespace is; %(default)s if not given",
    )
    simulation = commands.add_parser(
        "sim",
        help="run the library in simulated clusters in which everything goes wrong",
        description="Runs a workload of dtimer's own in simulated clusters, one for each seed, and judges every run.",
        epilog="Exits with 0 if all is as promised, with 1 if something is not, and with 2 for bad arguments.",
    )
    add_sim_arguments(simulation)
    migrate = commands.add_parser(
        "migrate-partitions",
        help="keep a namespace in another number of partitions",
        description="Moves a namespace on Redis into another number of partitions. No node may be joined meanwhile.",
        epilog="Safe to run again after it was interrupted. Exits with 0 if the number is as wanted, and else with 2.",
    )
    migrate.add_argument("url", metavar="URL", help="redis:// or rediss://, of a server or with an option below")
    migrate.add_argument("--to", metavar="NUMBER", type=int, required=True, help="how many partitions it is to have")
    purge = commands.add_parser(
        "purge",
        help="remove a namespace that is not used any more",
        description="Says what a namespace on Redis holds, asks, and removes all of it. No node may be joined.",
        epilog="Exits with 0 if nothing is left, with 1 if it was not to be removed, and with 2 if it could not be.",
    )
    purge.add_argument("url", metavar="URL", help="redis:// or rediss://, of a server or with an option below")
    purge.add_argument("--yes", action="store_true", help="do not ask")
    upgrade = commands.add_parser(
        "upgrade",
        help="give a namespace of an earlier version the form that this one reads",
        description="Rewrites what a namespace on Redis keeps for this version. No node may be joined meanwhile.",
        epilog="Safe to run again after it was interrupted. Exits with 0 if the namespace is as this version wants it, "
        "with 1 if it was not to be upgraded, and with 2 if it could not be.",
    )
    upgrade.add_argument("url", metavar="URL", help="redis:// or rediss://, of a server or with an option below")
    upgrade.add_argument("--yes", action="store_true", help="do not ask")
    reset = commands.add_parser(
        "clock-reset",
        help="put a namespace's clock right, after the server's was wrong",
        description="Says by how much the clock of a namespace on Redis is ahead of the server's, asks, and puts it "
        "right. No node may be joined.",
        epilog="Safe to run again after it was interrupted. Exits with 0 if the clock is right, with 1 if it was to "
        "stay as it is, and with 2 if it could not be put right.",
    )
    reset.add_argument("url", metavar="URL", help="redis:// or rediss://, of a server or with an option below")
    reset.add_argument("--yes", action="store_true", help="do not ask")
    for command in (doctor, migrate, purge, upgrade, reset):
        command.add_argument("--namespace", metavar="NAME", default=NAMESPACE_DEFAULT, help="%(default)s if not given")
        kind = command.add_mutually_exclusive_group()
        kind.add_argument("--cluster", action="store_true", help="the URL is that of a server of a Redis Cluster")
        kind.add_argument(
            "--sentinel", metavar="SERVICE", help="the URL is that of a sentinel that watches over SERVICE"
        )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit status.

    A command's module is imported when it runs, so that no command needs the extras of another.
    """
    parsed = make_parser().parse_args(arguments)
    if parsed.command == "doctor":
        from dtimer.cli.doctor import run_doctor

        return run_doctor(
            parsed.url,
            namespace=parsed.namespace,
            partitions=parsed.partitions,
            cluster=parsed.cluster,
            sentinel=parsed.sentinel,
        )
    if parsed.command == "sim":
        return run_sim(parsed)

    if parsed.command == "conformance":
        return _conformance(parsed.target, parsed.json, parsed.name)

    if parsed.command == "migrate-partitions":
        from dtimer.cli.migrate import run_migration

        return run_migration(
            parsed.url, namespace=parsed.namespace, to=parsed.to, cluster=parsed.cluster, sentinel=parsed.sentinel
        )

    if parsed.command == "purge":
        from dtimer.cli.purge import run_purge

        return run_purge(
            parsed.url, namespace=parsed.namespace, yes=parsed.yes, cluster=parsed.cluster, sentinel=parsed.sentinel
        )

    if parsed.command == "upgrade":
        from dtimer.cli.upgrade import run_upgrade

        return run_upgrade(
            parsed.url, namespace=parsed.namespace, yes=parsed.yes, cluster=parsed.cluster, sentinel=parsed.sentinel
        )

    if parsed.command == "clock-reset":
        from dtimer.cli.clock_reset import run_clock_reset

        return run_clock_reset(
            parsed.url, namespace=parsed.namespace, yes=parsed.yes, cluster=parsed.cluster, sentinel=parsed.sentinel
        )

    from dtimer.cli.demo import run_demo

    return run_demo(parsed.redis_url)


def _conformance(target: str, json_path: str | None, name: str | None) -> int:
    """The suite needs an extra, which nobody needs for running timers."""
    try:
        from dtimer.cli.conformance import run_conformance
    except ModuleNotFoundError as error:
        if error.name not in {"hypothesis", "pytest"}:
            raise
        print("dtimer conformance needs the extra: pip install 'dtimer[conformance]'", file=sys.stderr)
        return 2
    return run_conformance(target, json_path=json_path, name=name)
