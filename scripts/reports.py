"""Writes conformance/reports/: what the suite says of the simulator and of each server that the tests find."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "conformance" / "reports"
sys.path.insert(0, str(ROOT / "tests"))

from support.servers import running, server_binaries  # noqa: E402  # it lies in the tests


def report(target: str, name: str) -> int:
    command = [sys.executable, "-P", "-m", "dtimer", "conformance", target, "--json", str(REPORTS / f"{name}.json")]
    print(name, flush=True)
    return subprocess.run([*command, "--name", name], check=False, stdout=subprocess.DEVNULL).returncode


def main() -> int:
    codes = [report("sim", "sim")]
    for binary in server_binaries():
        with running(binary) as server:
            codes.append(report(server.url, binary.name))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
