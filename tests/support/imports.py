"""Which modules of ours a module of ours needs, whichever package it takes a name from."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path


class Modules:
    """The modules of some packages, as their source says.

    A name that a package re-exports counts as imported from the module that defines it:
    ``from dtimer import DTimer`` needs ``dtimer.timer``, and so does ``dtimer.DTimer`` after ``import dtimer``.
    """

    def __init__(self, packages: Mapping[str, Path]) -> None:
        """
        Args:
            packages: their folders by their names.
        """
        self._trees: dict[str, ast.Module] = {}
        for package, folder in packages.items():
            for path in folder.rglob("*.py"):
                parts = [package, *path.relative_to(folder).with_suffix("").parts]
                self._trees[".".join(part for part in parts if part != "__init__")] = ast.parse(path.read_text())
        self._re_exported = {
            module: {bound: (source, name) for bound, source, name in _imports(tree) if name}
            for module, tree in self._trees.items()
        }

    def within(self, part: str) -> list[str]:
        """The modules of a part."""
        return [module for module in self._trees if within(module, part)]

    def imports_of(self, module: str) -> set[str]:
        """All modules that a module imports, wherever in it, for types too."""
        found: set[str] = set()
        bound: dict[str, str] = {}
        for alias, source, name in _imports(self._trees[module]):
            needed = self._defining(source, name)
            found.add(needed)
            if needed == f"{source}.{name}" or (not name and alias != source):
                bound[alias] = needed
            elif not name:  # `import a.b` binds `a`
                package = source.partition(".")[0]
                bound[package] = package
        for node in ast.walk(self._trees[module]):
            if isinstance(node, ast.Attribute) and (base := self._module_of(node.value, bound)) is not None:
                found.add(self._defining(base, node.attr))
        return found

    def circles(self) -> list[list[str]]:
        """The groups of modules that need each other, if only for types."""
        needs = {module: self.imports_of(module) & self._trees.keys() - {module} for module in self._trees}
        reached = {module: _reached(needs, module) for module in needs}
        groups = {frozenset(other for other in reached[module] if module in reached[other]) for module in needs}
        return sorted(sorted(group) for group in groups if group)

    def _defining(self, module: str, name: str) -> str:
        """The module that defines a name, or is named; of packages that are not ours, the one it is taken from."""
        while name and f"{module}.{name}" not in self._trees:
            if name not in self._re_exported.get(module, {}):
                return module
            module, name = self._re_exported[module][name]
        return f"{module}.{name}" if name else module

    def _module_of(self, expression: ast.expr, bound: Mapping[str, str]) -> str | None:
        """The module of ours that an expression such as ``values`` or ``dtimer.sim`` stands for."""
        if isinstance(expression, ast.Name):
            return bound.get(expression.id)
        if isinstance(expression, ast.Attribute):
            module = f"{self._module_of(expression.value, bound)}.{expression.attr}"
            return module if module in self._trees else None
        return None


def within(module: str, part: str) -> bool:
    """Whether a module is this part, or lies in it."""
    return module == part or module.startswith(f"{part.rstrip('.')}.")


def _imports(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """For each import: the name that it binds, the module, and the name in it, empty for the module itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module
            assert module is not None, f"line {node.lineno}: imports are absolute"
            yield from ((alias.asname or alias.name, module, alias.name) for alias in node.names)


def _reached(needs: Mapping[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    ahead = set(needs[start])
    while ahead:
        module = ahead.pop()
        reached.add(module)
        ahead |= needs[module] - reached
    return reached
