"""A host's clock that a test sets, for servers and other processes (``set_clock.c``)."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen

SOURCE: Final = Path(__file__).with_name("set_clock.c")
COMPILER: Final = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def clock_can_be_set() -> bool:
    """There is a C compiler here."""
    return COMPILER is not None


def build(folder: Path) -> Path:
    """Compile the library to preload into that folder."""
    assert COMPILER is not None
    library = folder / "set_clock.so"
    subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return library


@frozen
class HostClock:
    """
    Attributes:
        environment: of the processes that are to have this clock.
    """

    environment: Mapping[str, str]
    _offset: mmap.mmap

    def set(self, offset_s: float) -> None:
        """How far it is from the right time, from the very next look of those processes on."""
        self._offset[:8] = struct.pack("q", round(offset_s * 1e6))


@contextmanager
def host_clock(folder: Path, library: Path | None = None) -> Iterator[HostClock]:
    """It is right until it is set, and stays as it is at the end.

    Args:
        folder: where its file is.
        library: from :func:`build`, if it is built already.
    """
    file = folder / "offset"
    file.write_bytes(bytes(mmap.PAGESIZE))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), mmap.PAGESIZE) as offset:
        yield HostClock({"LD_PRELOAD": str(library or build(folder)), "DTIMER_CLOCK": str(file)}, offset)
