"""What the Makefile's targets do. Needs nothing but a Python >= 3.11 with its standard library.

Every supported Python found on the machine gets a virtual environment in `.venv/<major.minor>/`, with the locked tools
and the project in editable mode. Checks run in the oldest one, tests in all of them, oldest first.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".venv"
WHEELS = ROOT / "build" / "wheel"
EXAMPLE = ROOT / "conformance" / "example_backend"
LOCK = ROOT / "requirements" / "dev.txt"
OLDEST = (3, 11)

# Final releases of plain CPython only: few packages have wheels for the others.
PROBE = """
import json, importlib.util as u, sys, sysconfig
final = sys.version_info.releaselevel == "final"
plain = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
print(json.dumps([*sys.version_info[:2], final and plain, bool(u.find_spec("venv") and u.find_spec("ensurepip"))]))
"""

NO_PYTHON = "No Python >= 3.11 found. Install one (for example with your system's package manager or pyenv)."
NO_VENV = """\
The Python found cannot make virtual environments: its module `venv` or `ensurepip` is missing.
On Debian and Ubuntu: apt install python3-venv
Found: {}"""


def fail(message: str) -> NoReturn:
    sys.exit(f"error: {message}")


def child_environment(bin_directory: Path | None = None) -> dict[str, str]:
    """The caller's environment, so that settings such as PIP_* hold, less what would leak packages into the child."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"}
    }
    if bin_directory is not None:
        environment["PATH"] = f"{bin_directory}{os.pathsep}{environment.get('PATH', os.defpath)}"
    return environment


def candidates() -> Iterator[Path]:
    """Everything that may be a Python, without a promise that it runs."""
    yield Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python")
    directories = [
        *map(Path, os.environ.get("PATH", os.defpath).split(os.pathsep)),
        *sorted(pyenv.glob("*/bin")),
        *sorted(uv.glob("*/bin")),
    ]
    for directory in directories:
        if directory.is_dir():
            yield from sorted(path for path in directory.iterdir() if re.fullmatch(r"python3(\.\d+)?", path.name))


def find_pythons() -> dict[tuple[int, int], Path]:
    """The first working interpreter of each supported version, oldest version first."""
    found: dict[tuple[int, int], Path] = {}
    without_venv: list[str] = []
    seen: set[Path] = set()
    for path in candidates():
        # Not resolved any further: a version manager's launchers are one file that goes by the name it is called by.
        if path in seen:
            continue
        seen.add(path)
        try:
            answer = subprocess.check_output(
                [path, "-I", "-c", PROBE], env=child_environment(), stderr=subprocess.DEVNULL, timeout=30
            )
            major, minor, supported, has_venv = json.loads(answer)
        except (OSError, ValueError, subprocess.SubprocessError):
            continue
        version = (major, minor)
        if version < OLDEST or not supported or version in found:
            continue
        if has_venv:
            found[version] = path
        else:
            without_venv.append(str(path))
    if not found:
        fail(NO_VENV.format(", ".join(without_venv)) if without_venv else NO_PYTHON)
    return dict(sorted(found.items()))


def step(
    name: str, command: Sequence[str | Path], bin_directory: Path | None = None, *, beside_others: bool = False
) -> None:
    """Runs a command quietly: one line when it works, all its output when it does not."""
    if not beside_others:
        print(f"{name:<34}", end=" ", flush=True)
    start = time.monotonic()
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=child_environment(bin_directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    begun = f"{name:<34} " if beside_others else ""
    verdict = "ok" if result.returncode == 0 else "FAILED"
    print(f"{begun}{verdict:<6} {time.monotonic() - start:6.1f} s", flush=True)
    if result.returncode:
        print(result.stdout, end="", flush=True)
        fail(f"{name}: exit code {result.returncode}")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_stamped(stamp: Path, source: Path) -> bool:
    return stamp.is_file() and stamp.read_text() == digest(source)


class Environment:
    """A virtual environment of one Python version."""

    def __init__(self, name: str, base: Path) -> None:
        self.name = name
        self.base = base
        self.directory = ENVIRONMENTS / self.name
        self.bin = self.directory / "bin"
        self.python = self.bin / "python"

    def prepare(self) -> None:
        """Makes it, or brings it up to date. A stamp is written last, so an interrupted step is done again."""
        self.prepare_tools()
        installed = self.directory / "project.stamp"
        if not is_stamped(installed, ROOT / "pyproject.toml"):
            self.install("dtimer, editable", "--editable", ROOT)
            installed.write_text(digest(ROOT / "pyproject.toml"))

    def prepare_tools(self) -> None:
        """Only the locked packages, without the project."""
        locked = self.directory / "lock.stamp"
        # The interpreter it was made from may be gone.
        runs = self.python.exists() and subprocess.run([self.python, "-c", ""], check=False).returncode == 0
        if not runs or not is_stamped(locked, LOCK):
            step(f"{self.name}: virtual environment", [self.base, "-m", "venv", "--clear", self.directory])
            step(f"{self.name}: locked packages", [*self.pip, "--requirement", LOCK])
            locked.write_text(digest(LOCK))

    @property
    def pip(self) -> list[str]:
        return [str(self.python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]

    def install(self, what: str, *arguments: str | Path) -> None:
        """Installs a project, whose dependencies and build tools the lock has brought."""
        step(f"{self.name}: {what}", [*self.pip, "--no-build-isolation", "--no-deps", *arguments])

    def check(self, name: str, *command: str, beside_others: bool = False) -> None:
        step(f"{self.name}: {name}", [self.bin / command[0], *command[1:]], self.bin, beside_others=beside_others)

    def run(self, program: str, *arguments: str, folder: Path = ROOT, **variables: str) -> int:
        """Runs a program with its output shown."""
        sys.stdout.flush()
        command = [str(self.bin / program), *arguments]
        return subprocess.run(command, cwd=folder, env=child_environment(self.bin) | variables, check=False).returncode

    def become(self, program: str, *arguments: str) -> NoReturn:
        """Runs a program in place of this one, so that what ends `make` ends the program too."""
        sys.stdout.flush()
        os.chdir(ROOT)
        path = str(self.bin / program)
        os.execve(path, [path, *arguments], child_environment(self.bin))


def found_environments() -> list[Environment]:
    """For each Python found, oldest version first; not yet made."""
    return [Environment(f"{major}.{minor}", base) for (major, minor), base in find_pythons().items()]


def prepared(everything: bool = False) -> list[Environment]:
    """The oldest version's environment, or those of all versions, ready for use."""
    environments = found_environments() if everything else found_environments()[:1]
    for environment in environments:
        environment.prepare()
    return environments


def run_lint(environment: Environment) -> None:
    environment.check("ruff format", "ruff", "format", "--check", ".")
    environment.check("ruff check", "ruff", "check", ".")


def run_typecheck(environment: Environment) -> None:
    """Both at once, since each keeps one core busy."""
    commands = (["mypy"], ["basedpyright", "--pythonpath", str(environment.python)])
    with ThreadPoolExecutor() as pool:
        checks = [pool.submit(environment.check, command[0], *command, beside_others=True) for command in commands]
    for check in checks:
        check.result()


def setup(_: Sequence[str]) -> int:
    names = [environment.name for environment in prepared(everything=True)]
    print(f"ready: {', '.join(f'.venv/{name}' for name in names)}")
    return 0


def run_example(environment: Environment) -> int:
    """Tests the example backend where the built wheel alone is installed, as its author's project would be."""
    example = Environment("example", environment.base)
    example.prepare_tools()
    shutil.rmtree(WHEELS, ignore_errors=True)
    environment.check("wheel", "python", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(WHEELS))
    (wheel,) = WHEELS.glob("*.whl")
    example.install("the wheel", "--force-reinstall", wheel)
    example.install("the example backend", "--force-reinstall", EXAMPLE)
    print("example backend: pytest", flush=True)
    return example.run("pytest", folder=EXAMPLE)


def run_pytest(environment: Environment, arguments: Sequence[str], servers: str) -> int:
    """The tests that `tests/support/selection.py` chooses by that word."""
    start = time.monotonic()
    print(f"{environment.name}: pytest, DTIMER_TEST_SERVERS={servers}", flush=True)
    # The console script, not `python -m`: the latter would put the repository's root on sys.path.
    # Tests of real servers mostly wait, so there is room for more workers than cores.
    options = ["-n", WORKERS, "--dist", "worksteal"]
    code = environment.run("pytest", *options, *arguments, DTIMER_TEST_SERVERS=servers)
    print(f"{environment.name}: pytest {time.monotonic() - start:.0f} s", flush=True)
    return code


def test(arguments: Sequence[str]) -> int:
    environments = prepared(everything=True)
    run_lint(environments[0])
    run_typecheck(environments[0])
    if not arguments and (code := run_example(environments[0])):
        return code
    for environment in environments:
        # Servers do not differ by Python: one version talks to all that are found, the others to the first.
        if code := run_pytest(environment, arguments, "shared" if environment is environments[0] else "first"):
            return code
    return 0


def test_all(arguments: Sequence[str]) -> int:
    """All of it, even if a part fails. What this machine lacks is named, which is not a failure."""
    environments: list[Environment] = []
    for environment in found_environments():
        try:
            environment.prepare()
        except SystemExit as problem:
            print(f"Python {environment.name} is left out: {problem}", flush=True)
        else:
            environments.append(environment)
    if not environments:
        fail("no environment could be made")
    run_lint(environments[0])
    run_typecheck(environments[0])
    codes = [] if arguments else [run_example(environments[0]), worlds([])]
    for environment in environments:
        codes.append(run_pytest(environment, arguments, "all"))
    for environment in environments:
        environment.run("python", "-P", "-m", "support.lacking", PYTHONPATH=str(ROOT / "tests"))
    missing = missing_pythons([environment.name for environment in environments])
    print(f"supported Pythons that were not tried: {', '.join(missing) or 'none'}", flush=True)
    return 1 if any(codes) else 0


def missing_pythons(found: Sequence[str]) -> list[str]:
    """Of the versions that the project says it supports, those that are not among the ones found."""
    supported = re.findall(r"Python :: (3\.\d+)\"", (ROOT / "pyproject.toml").read_text())
    return [version for version in supported if version not in found]


def lint(_: Sequence[str]) -> int:
    run_lint(prepared()[0])
    return 0


def typecheck(_: Sequence[str]) -> int:
    run_typecheck(prepared()[0])
    return 0


def format_code(_: Sequence[str]) -> int:
    environment = prepared()[0]
    # Fixes first: they may need formatting. What cannot be fixed is lint's to report, not a reason to stop here.
    environment.run("ruff", "check", "--fix-only", "--quiet", ".")
    return environment.run("ruff", "format", ".")


def demo(arguments: Sequence[str]) -> int:
    return prepared()[0].run("python", "-P", "-m", "dtimer", "demo", *arguments)


def reports(_: Sequence[str]) -> int:
    return prepared()[0].run("python", "scripts/reports.py")


def soak(arguments: Sequence[str]) -> int:
    return prepared()[0].run("python", "-P", "-m", "soak", *arguments, PYTHONPATH=str(ROOT / "tests"))


def worlds(arguments: Sequence[str]) -> int:
    return prepared()[0].run("python", "-P", "-m", "dtimer_conformance.state_space", *arguments)


def digests(_: Sequence[str]) -> int:
    """Writes anew what simulated runs are held to; for whoever has changed rules, nodes or the workload."""
    tests = ["tests/sim/faulty/test_simulation.py", "tests/sim/scenario/test_cases.py"]
    return prepared()[0].run("pytest", "-k", "every_python", *tests, DTIMER_WRITE_DIGESTS="1")


def bench(arguments: Sequence[str]) -> int:
    # Ctrl-C reaches all of `make`. A parent in between would kill the benchmark before it has cleaned up.
    prepared()[0].become("python", "-m", "benchmarks", *arguments)


def findings(_: Sequence[str]) -> int:
    """Runs what shows how packages of others behave, and names the scripts that no longer see what they record."""
    environment = child_environment() | {"PYTHON": sys.executable}
    changed = [
        script.name
        for script in sorted((ROOT / "findings").glob("*.sh"))
        if subprocess.run([script], env=environment, check=False).returncode
    ]
    print(f"changed, or not run: {', '.join(changed) or 'none'}")
    return bool(changed)


def clean(_: Sequence[str]) -> int:
    names = [".venv", "build", "dist", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"]
    sources = [ROOT / name for name in ("dtimer", "conformance", "tests", "scripts", "benchmarks")]
    caches = [cache for source in sources for cache in source.rglob("__pycache__")]
    for path in [*(ROOT / name for name in names), *caches]:
        shutil.rmtree(path, ignore_errors=True)
    return 0


WORKERS = "4"
"""Of pytest; each has servers of its own."""

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "setup": setup,
    "test": test,
    "test-all": test_all,
    "lint": lint,
    "typecheck": typecheck,
    "format": format_code,
    "demo": demo,
    "soak": soak,
    "worlds": worlds,
    "reports": reports,
    "digests": digests,
    "bench": bench,
    "findings": findings,
    "clean": clean,
}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        fail(f"usage: dev.py {{{','.join(COMMANDS)}}} [argument ...]")
    try:
        return COMMANDS[sys.argv[1]](sys.argv[2:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
