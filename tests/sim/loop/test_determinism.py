"""One seed, one order: in every process, with every hash seed, on every Python version, whatever the memory is like."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import simulated
from support.interpreters import found_pythons, importable, start
from support.simulated import Program, digest

HASH_SEEDS: Final = ("0", "1", "random")
PROGRAM: Final = Path(simulated.__file__)
PROGRAMS: Final = "20"


@pytest.fixture
def pythonpath(tmp_path: Path) -> str:
    return importable(tmp_path)


def outputs(pythons: dict[str, Path], kind: str, pythonpath: str) -> dict[tuple[str, str], list[str]]:
    started = {
        (version, hash_seed): start(python, PROGRAM, kind, "1", PROGRAMS, pythonpath=pythonpath, hash_seed=hash_seed)
        for version, python in pythons.items()
        for hash_seed in HASH_SEEDS[: 3 if len(pythons) == 1 else 1]
    }
    said = {key: process.communicate(timeout=120)[0].splitlines() for key, process in started.items()}
    assert all(process.returncode == 0 for process in started.values()), said
    return said


def test_programs_run_the_same_in_other_processes_with_other_hashes(pythonpath: str) -> None:
    """Of sets of strings the order would differ, and of sets of anything that is hashed by its address."""
    said = outputs({"this": Path(sys.executable)}, "wild", pythonpath)

    here = [digest(Program(number, 1).run()) for number in range(int(PROGRAMS))]
    assert list(said.values()) == [here] * len(HASH_SEEDS)


@pytest.mark.once
def test_programs_run_the_same_on_every_version(pythonpath: str) -> None:
    """Of those whose asyncio cancels alike: it was mended in the first releases of 3.11."""
    pythons = {version: python for version, python in found_pythons().items() if is_settled(python)}
    if len(pythons) < 2:
        pytest.skip(f"found only {', '.join(pythons) or 'none'} from Python 3.11.5 on")
    said = outputs(pythons, "steady", pythonpath)

    assert len(set(map(tuple, said.values()))) == 1


def is_settled(python: Path) -> bool:
    return (
        subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11, 5))"], check=False).returncode
        == 0
    )


def test_another_seed_is_another_order() -> None:
    assert len({digest(Program(0, seed).run()) for seed in range(5)}) == 5


@settings(max_examples=10, deadline=None)
@given(number=st.integers(0), seed=st.integers(0), threshold=st.integers(1, 1_000), ballast=st.integers(0, 100_000))
def test_memory_and_the_garbage_collector_have_no_say(number: int, seed: int, threshold: int, ballast: int) -> None:
    expected = Program(number, seed).run()

    # Other addresses, and a collection at other moments.
    kept = [object() for _ in range(ballast)]
    thresholds = gc.get_threshold()
    gc.set_threshold(threshold, 2, 2)
    try:
        said = Program(number, seed).run()
    finally:
        gc.set_threshold(*thresholds)

    assert said == expected
    assert len(kept) == ballast


def test_programs_do_what_they_are_made_for() -> None:
    """A test of nothing would pass as well."""
    lines = Program(0, 1).run()

    assert len(lines) > 1_000
    for step in simulated.STEPS:
        assert any(f"ends {step.__name__}" in line for line in lines), step
    for word in ("paused>", "killed>", "generator closed", "boom", "told", "called back", "never retrieved"):
        assert any(word in line for line in lines), word
