"""A server process that lives no longer than the Python process that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dtimer.loop_local import after_fork

# The shell's standard input is a lifeline: when Python ends, in whatever way, the kernel closes the other end of it,
# `read` returns, and the server is asked to stop. No hook of Python's own runs when its process is killed.
# Nothing else removes a temporary folder then. While Python lives it is Python's: it reads the log in it, and
# starts another server there if this one could not have its port.
_SUPERVISOR: Final = """
exec 3<&0
temporary=$1; shift
"$@" 3<&- </dev/null & server=$!
{ read -r _ <&3; trap '' TERM; kill -TERM "$server" 2>/dev/null; exit 9; } & watcher=$!
wait "$server"; code=$?
kill "$watcher" 2>/dev/null
wait "$watcher"
[ $? = 9 ] && [ -n "$temporary" ] && rm -rf -- "$temporary"
exit "$code"
"""


class SupervisedProcess:
    """A running command. Let go of it with :meth:`let_go`, or end it with :meth:`kill`."""

    def __init__(
        self, command: Sequence[str], *, folder: Path, log: Path, inherited: int, temporary: bool = False
    ) -> None:
        """Start it; takes a millisecond or two.

        Args:
            folder: where it runs.
            log: the file that its output goes to, emptied first.
            inherited: a file descriptor that it keeps open for as long as it lives.
            temporary: `folder` is removed when Python has let go of it, in whatever way, and it has ended.

        Raises:
            OSError: it could not be started.
        """
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _SUPERVISOR, "supervisor", str(folder) if temporary else "", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                pass_fds=[inherited],
                # Ctrl-C is for the program, which still needs its server to end well. And a group can be killed as one.
                start_new_session=True,
            )
        after_fork(self, SupervisedProcess._forked)

    def _forked(self) -> None:
        """It is the parent's: to hold its lifeline would keep it alive, and to end with it would stop it."""
        self.let_go()
        # Which makes what is left here harmless: it signals nothing, waits for nothing, warns of nothing.
        self._process.returncode = 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def let_go(self) -> None:
        """Ask it to stop."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Make sure that nothing of it is left to collect, and that it has ended.

        Args:
            number: by SIGTERM it may still be about to end, by itself.
        """
        self.let_go()
        self._signal(number)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
