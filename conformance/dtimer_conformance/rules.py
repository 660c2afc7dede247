"""The rules of dtimer by number and title, as ``docs/reference/semantics.md`` has them, for reports and reports."""

from __future__ import annotations

from typing import Final

RULES: Final[dict[str, str]] = {
    "T1": "The store's clock is the only clock",
    "T2": "The store's time never goes back",
    "T3": "Never early",
    "T4": "In the order of due times, first given first",
    "T5": "Delays",
    "T6": "Times of day",
    "O1": "One history",
    "O2": "No lost call goes untold",
    "P1": "Posting needs no node",
    "P2": "Names",
    "P3": "Afterwards exactly one event has the id",
    "P4": "Payloads are opaque",
    "P5": "Many in one call",
    "P6": "Large payloads are refused",
    "P7": "Expiry",
    "D1": "One taker at a time",
    "D2": "Counting",
    "D3": "Retries",
    "D4": "The confirm timeout",
    "D5": "Limits on one call",
    "D6": "Round robin",
    "D7": "Punctual",
    "D8": "Nobody waits for a full node",
    "E1": "Confirm",
    "E2": "Cancel",
    "E3": "Change of delay",
    "E4": "Release and extend",
    "E5": "Exhausted events and dead letters",
    "E6": "Outcomes",
    "R1": "Peek",
    "R2": "Upcoming",
    "N1": "Joining and leaving",
    "N2": "`max_events`",
    "N3": "Unreached and silent nodes",
    "N4": "After a failure",
    "N5": "Without takers there is no room",
    "W1": "The pulse",
    "W2": "One is armed",
    "W3": "Early is harmless",
    "W4": "A claim re-arms",
    "W5": "Suspects",
    "F1": "Lost replies",
    "F2": "A lost claim",
    "F3": "Handlers that raise",
    "F4": "What cannot be read",
    "F5": "Whole or not at all",
    "F6": "Namespaces are independent",
    "F7": "Schema",
    "F8": "Loops, threads and processes",
}


def title(rule: str) -> str:
    """A rule for people: its number and what it is about."""
    return f"{rule} ({RULES[rule]})"


def where(rule: str) -> str:
    """Where the rule is written."""
    return f"docs/reference/semantics.md#{rule.lower()}"
