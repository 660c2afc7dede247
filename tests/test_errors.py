"""Errors are raised as the reference says, and name what the caller gave."""

from __future__ import annotations

import ast
import contextlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import dtimer
import dtimer.backends.redis
import dtimer.sim
from dtimer import errors

FOLDER: Final = Path(dtimer.__file__).parent
SOURCES: Final = {
    path.relative_to(FOLDER).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(FOLDER.rglob("*.py"))
}
REPORTS: Final = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.Report)
}


def raised_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The last part of each name that is raised, or called to make what is raised, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(raised, ast.Name):
                yield raised.id, node.lineno
            elif isinstance(raised, ast.Attribute):
                yield raised.attr, node.lineno


def test_reports_are_never_raised_at_a_caller() -> None:
    assert "PayloadRefused" in REPORTS

    found = [
        f"{path}:{line}: {name}"
        for path, tree in SOURCES.items()
        for name, line in raised_names(tree)
        if name in REPORTS
    ]

    assert found == []


# --- what is wrong is named as the caller knows it ------------------------------------------------------------------

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
REFUSALS: Final = {"InvalidArgument", "PayloadNotEncodable", "PayloadTooLarge"}


def parameters(function: Function) -> list[str]:
    """Its names, in the order of their positions."""
    given = function.args
    optional = [each for each in (given.vararg, given.kwarg) if each is not None]
    return [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs, *optional)]


def fields(kind: ast.ClassDef) -> set[str]:
    """What a class of attrs is made of."""
    return {
        node.target.id.lstrip("_")
        for node in kind.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def offered(tree: ast.Module) -> set[str]:
    """The parameters of what others can call in a module."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names |= fields(node)
        for each in (node, *(node.body if isinstance(node, ast.ClassDef) else ())):
            if isinstance(each, FUNCTIONS) and (not each.name.startswith("_") or each.name == "__init__"):
                names |= {*parameters(each)}
    return names


def public_parameters() -> set[str]:
    """The parameters of everything that users import from the package."""
    names: set[str] = set()
    for module in (dtimer, dtimer.sim, dtimer.backends.redis):
        for public in (getattr(module, name) for name in module.__all__):
            members = [public, *(member for name, member in inspect.getmembers(public) if not name.startswith("_"))]
            for each in members:
                with contextlib.suppress(TypeError, ValueError):
                    names |= {*inspect.signature(each).parameters}
    return names


VALIDATORS: Final = {
    node.name: parameters(node).index("argument")
    for tree in SOURCES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef) and "argument" in parameters(node) and node.name != "__init__"
}
"""Functions that are told which argument they look at, and in which place; `self` is none of theirs."""


def named(call: ast.Call) -> str | None:
    """The argument that a call blames, if it is spelled out."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    place = 0 if function in REFUSALS else VALIDATORS.get(function)
    if place is None:
        return None
    blamed = call.args[place] if place < len(call.args) else None
    for keyword in call.keywords:
        if keyword.arg == "argument":
            blamed = keyword.value
    return blamed.value if isinstance(blamed, ast.Constant) and isinstance(blamed.value, str) else None


def blames(tree: ast.Module) -> Iterator[tuple[int, str, set[str]]]:
    """Each line that blames an argument, with its name, and what the functions and classes around it are given."""

    def walk(node: ast.AST, around: set[str]) -> Iterator[tuple[int, str, set[str]]]:
        if isinstance(node, Function):
            around = around | {*parameters(node)}
        elif isinstance(node, ast.ClassDef):
            around = around | fields(node)
        elif isinstance(node, ast.Call) and (name := named(node)) is not None:
            yield node.lineno, name, around
        for child in ast.iter_child_nodes(node):
            yield from walk(child, around)

    return walk(tree, set())


def test_a_refused_argument_is_one_of_the_function_that_was_called() -> None:
    """`argument` of an `InvalidArgument` is a parameter's name, for a program to look at."""
    public = public_parameters()
    found, wrong = 0, list[str]()
    for path, tree in SOURCES.items():
        # Of these two nothing is called by users but through the rest.
        known = public if path == "_validation.py" or path.startswith("node/") else offered(tree)
        for line, name, around in blames(tree):
            found += 1
            if name not in known | around:
                wrong.append(f"{path}:{line}: {name}")

    assert found > 80
    assert wrong == []
