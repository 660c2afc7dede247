"""The store's time, made from its host's clock (rule T2). Pure: the host's reading is an argument."""

from __future__ import annotations

from typing import Final

from attrs import define

from dtimer.limits import CLOCK_STEP_US, INSTANT_MAX_US, STORE_TIME_MAX_US

CLOCK_BEYOND: Final = "the clock of the store's host is later than the year 2200"
"""Why a store refuses, in the error of one that is simulated."""


@define
class StoreClock:
    """Never goes back, and after a backward step of the host's clock goes on at its normal pace.

    Attributes:
        skew_us: by how much the store's time runs ahead of the host's clock, for good, after such steps.
    """

    skew_us: int = 0

    def accepts(self, host_us: int) -> bool:
        """Whether the host's clock shows a time that can be one; a store refuses every operation while it does not."""
        return host_us <= INSTANT_MAX_US and host_us + self.skew_us <= STORE_TIME_MAX_US

    def read(self, host_us: int, last_us: int) -> int:
        """The time of an operation, given the host's clock and the last microsecond given out."""
        now_us = host_us + self.skew_us
        if now_us < last_us - CLOCK_STEP_US:
            self.skew_us += last_us - now_us
        return max(now_us, last_us)
