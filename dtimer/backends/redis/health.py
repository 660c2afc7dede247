"""Finds settings of a server that put events at risk. Pure: from the server's replies to findings."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from dtimer.limits import SKEW_TOLD_US
from dtimer.protocol.values import Finding, Risk
from dtimer.safe_repr import printable

_EVICTING_PREFIX: Final = "allkeys-"
"""Such a policy takes any key. The others take none, or only keys that expire, and ours do not."""


def warnings_of(info: str, save: str | None, skew_us: int = 0) -> tuple[Finding, ...]:
    """
    Args:
        skew_us: by how much the namespace's clock is ahead of the server's.
        info: the reply to ``INFO``.
        save: the value of ``CONFIG GET save``, empty if no snapshots are taken; None if it could not be asked for.
    """
    lines = (printable(line).partition(":") for line in info.splitlines() if not line.startswith("#"))
    fields = {name: value for name, _, value in lines}
    found = []

    policy = fields.get("maxmemory_policy", "")
    if policy.startswith(_EVICTING_PREFIX):
        detail = f"maxmemory-policy is {policy}: a full server drops whole queues; noeviction refuses new posts instead"
        found.append(Finding(Risk.EVICTION, detail))

    if fields.get("aof_enabled") == "0" and save == "":
        detail = "neither an append-only file nor snapshots are written: a restart loses every event"
        found.append(Finding(Risk.NO_PERSISTENCE, detail))

    if skew_us >= SKEW_TOLD_US:
        detail = (
            f"the namespace's clock is {timedelta(microseconds=skew_us)} ahead of the server's, which was wrong for a "
            "while or was set back: what was posted with at= before comes early by that; see dtimer clock-reset"
        )
        found.append(Finding(Risk.CLOCK, detail))
    return tuple(found)
