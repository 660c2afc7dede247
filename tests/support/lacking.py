"""What tests would use and this machine does not have, in one line: ``python -m support.lacking``."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Final

from support.host_clock import clock_can_be_set
from support.servers import server_binaries

KINDS: Final = ("redis-6.", "redis-7.", "redis-8.", "valkey-")
"""Of servers: how the names of those that are supported begin."""


def missing_kinds(names: Sequence[str]) -> list[str]:
    """The kinds of servers of which none is among the ones named."""
    return [f"{kind}x" for kind in KINDS if not any(name.startswith(kind) for name in names)]


def main() -> None:
    names = [binary.name for binary in server_binaries()]
    lacking = missing_kinds(names) + ([] if clock_can_be_set() else ["a C compiler"])
    print(
        f"{platform.python_version()}: servers {', '.join(names) or 'none'}; lacking {', '.join(lacking) or 'nothing'}"
    )


if __name__ == "__main__":
    main()
