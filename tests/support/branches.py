"""Which way the pure machine and the Lua scripts went: each condition in them is asked what came of it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from attrs import define, field
from redis import Redis

from dtimer.backends.redis import partition as redis_partition
from dtimer.backends.redis.scripts import load_script
from support.mutants import ROOT
from support.servers import Server

PARTS: Final = ("dead_letters", "refusals", "branches", "ring", "machine")
"""The later ones import from the earlier ones."""
NO_OPERATIONS: Final = {"check", "copy", "plant", "num_live", "joined", "reset_clock", "moved", "_earlier", "clear"}
"""What no program calls. A reset of the clock is compared by tests/backends/redis/test_clock_reset.py."""
NO_SCRIPTS: Final = {"reset_begin.lua", "reset_some.lua"}
"""Those of it."""
KEY: Final = "branches"


@define
class Branches:
    """Every way there is, by the function or script it is in and the condition that decides, and those that were gone.

    Two conditions in one function that read the same count as one.
    """

    known: set[str] = field(factory=set)
    taken: set[str] = field(factory=set)

    @property
    def missed(self) -> set[str]:
        return self.known - self.taken

    def add(self, place: str, condition: str) -> str:
        name = f"{place}: {' '.join(condition.split())}"
        self.known |= {f"{name} -> {outcome}" for outcome in ("true", "false")}
        return name

    def enter(self, place: str) -> str:
        """A function that is called goes one way only."""
        self.known.add(f"{place} -> true")
        return place

    def take(self, name: str, outcome: object) -> Any:
        self.taken.add(f"{name} -> {'true' if outcome else 'false'}")
        return outcome


class _Asking(ast.NodeTransformer):
    """Wraps what decides: tests, conditions of comprehensions, and all of `and` and `or` but the last."""

    def __init__(self, part: str, branches: Branches) -> None:
        self._part = part
        self._branches = branches
        self._function = ""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name in NO_OPERATIONS:
            return node
        self._function = f"{self._part}.{node.name}"
        entered = self._call(self._branches.enter(self._function), ast.Constant(True))
        self.generic_visit(node)
        node.body.insert(0, ast.Expr(entered))
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        return self._ask_test(node)

    def visit_While(self, node: ast.While) -> ast.AST:
        return self._ask_test(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        return self._ask_test(node)

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        asked = [self._asked(test) for test in node.ifs]
        self.generic_visit(node)
        node.ifs = asked
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        node.values = [*(self._asked(value) for value in node.values[:-1]), self.visit(node.values[-1])]
        return node

    def _ask_test(self, node: ast.If | ast.While | ast.IfExp) -> ast.AST:
        test = self._asked(node.test)
        node.test = ast.Constant(True)
        self.generic_visit(node)
        node.test = test
        return node

    def _asked(self, test: ast.expr) -> ast.expr:
        if not self._function:
            return test
        name = self._branches.add(self._function, ast.unparse(test))
        return self._call(name, self.visit(test))

    def _call(self, name: str, value: ast.expr) -> ast.Call:
        return ast.Call(ast.Name("_branch", ast.Load()), [ast.Constant(name), value], [])


def asking_machine(branches: Branches) -> Any:
    """The class of the machine, with a ring and dead letters that ask too."""
    modules: dict[str, ModuleType] = {}
    for part in PARTS:
        module = ModuleType(f"asking_{part}")
        sys.modules[module.__name__] = module  # attrs looks a class's module up by its name
        tree = ast.parse((ROOT / "semantics" / f"{part}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").rpartition(".")[2] in modules:
                node.module = modules[(node.module or "").rpartition(".")[2]].__name__
        module.__dict__["_branch"] = branches.take
        exec(compile(ast.fix_missing_locations(_Asking(part, branches).visit(tree)), part, "exec"), module.__dict__)
        modules[part] = module
    return modules["machine"].__dict__["Machine"]


_TOKEN: Final = re.compile(r"'(?:\\.|[^'\\])*'|--[^\n]*|\w+|==|~=|<=|>=|\.\.\.|\.\.|\S")
_FUNCTION: Final = re.compile(r"^local function (\w+)\(.*?\)(?P<body>.*?)^end\n", re.MULTILINE | re.DOTALL)
_ASKING: Final = f"""\
local branches_seen = {{}}
local function branch(number, outcome)
  local key = (outcome and '' or '-') .. number
  if not branches_seen[key] then redis.call('SADD', '{KEY}', key) end
  branches_seen[key] = true
  return outcome
end
"""
_ENDS: Final = {"if": "then", "elseif": "then", "while": "do"}
_BEFORE_OPERAND: Final = {"and", "or", "=", ",", "return", "then", "do", "else", *_ENDS, "until"}


@define
class _Scripts:
    """Lua sources that ask. A branch has a number there: its name would look like a use of the functions in it."""

    branches: Branches
    names: list[str] = field(factory=lambda: [""])

    def asking(self, file: str, source: str) -> str:
        """The source with its conditions asked; what came of them is in a set of the server's."""
        tokens = [found for found in _TOKEN.finditer(source) if not found[0].startswith("--")]
        functions = list(_FUNCTION.finditer(source))
        inserted: list[tuple[int, str]] = []

        def ask(start: int, stop: int) -> None:
            place = next((f"{file} {found[1]}" for found in functions if found.start() < start < found.end()), file)
            number = self._number(self.branches.add(place, source[start:stop]))
            inserted.extend([(start, f"branch({number}, "), (stop, ")")])

        for place, token in enumerate(tokens):
            if (end := _ENDS.get(token[0])) is not None:
                after = next(index for index in range(place, len(tokens)) if tokens[index][0] == end)
                ask(tokens[place + 1].start(), tokens[after - 1].end())
            elif token[0] == "until":
                ask(tokens[place + 1].start(), source.index("\n", token.end()))
            elif token[0] in {"and", "or"}:
                first = _first_of_operand(tokens, place)
                # In `a and b or c` b only has to be true.
                if not (token[0] == "or" and tokens[first - 1][0] == "and"):
                    ask(tokens[first].start(), tokens[place - 1].end())
        for function in functions:
            number = self._number(self.branches.enter(f"{file} {function[1]}"))
            inserted.append((function.start("body"), f" branch({number}, true)"))
        # Of what is inserted at one place, what closes comes first, and the wider opens first; sorting keeps that.
        inserted.sort(key=lambda item: (item[0], item[1] != ")"))
        parts, last = [], 0
        for position, text in inserted:
            parts += [source[last:position], text]
            last = position
        return "".join([*parts, source[last:]])

    def _number(self, name: str) -> int:
        self.names.append(name)
        return len(self.names) - 1

    def take(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.branches.take(self.names[abs(int(key))], not key.startswith("-"))


def _first_of_operand(tokens: list[re.Match[str]], place: int) -> int:
    depth = 0
    for index in range(place - 1, -1, -1):
        text = tokens[index][0]
        if text in {")", "]", "}"}:
            depth += 1
        elif depth == 0 and (text in _BEFORE_OPERAND or text in {"(", "[", "{"}):
            return index + 1
        elif text in {"(", "[", "{"}:
            depth -= 1
    raise AssertionError("an operand has a beginning")


@contextmanager
def asking_scripts(branches: Branches, server: Server, folder: Path) -> Generator[None]:
    """Redis backends run scripts that ask meanwhile, all on this server."""
    sound = dict(redis_partition._SCRIPTS)
    scripts = _Scripts(branches)
    lua = ROOT / "backends" / "redis" / "lua"
    for path in (*(lua / f"{name}.lua" for name in sound), *(lua / "lib").glob("*.lua")):
        copied = folder / path.relative_to(lua)
        copied.parent.mkdir(exist_ok=True)
        source = path.read_text(encoding="utf-8")
        if path.name not in NO_SCRIPTS:
            source = scripts.asking(path.name, source)
        copied.write_text(_ASKING + source if path.name == "namespace.lua" else source, encoding="utf-8")
    redis_partition._SCRIPTS.update({name: load_script(name, folder) for name in sound})
    try:
        yield
    finally:
        redis_partition._SCRIPTS.update(sound)
    with Redis(host=server.host, port=server.port, decode_responses=True) as client:
        scripts.take(str(key) for key in client.smembers(KEY))
