"""Signatures and words below the command line, held over the syntax trees."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import ssl_app

ROOT = Path(ssl_app.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MOST_PARAMETERS = 7
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
KNOW_FLAGS = ("commands", "cli.py", "config.py", "settings.py")  # what makes flags, and what tells the user of them

# functions whose parameters another package decides or that are a list of keyword settings, with the reason
CALLED_BY_OTHERS = {
    "config.py::option": "one keyword for each property of a flag; it is written by name, in one line of a dataclass",
}


Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def functions(path: Path) -> list[tuple[str, Function]]:
    """Every function of a file with its dotted name; constructors that a dataclass writes are not among them."""

    def within(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, Function | ast.ClassDef):
                name = f"{prefix}.{child.name}" if prefix else child.name
            if isinstance(child, Function):
                yield name, child
            yield from within(child, name)

    return list(within(tree(path), ""))


def parameters(function: Function | ast.Lambda) -> list[str]:
    """Names of the parameters, keyword-only ones too, without self and cls."""
    every = function.args
    names = [one.arg for one in (*every.posonlyargs, *every.args, *every.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Every string of a file, docstrings and pieces of f-strings too, with its line."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_no_function_takes_more_than_seven_parameters() -> None:
    found = {
        f"{path.relative_to(ROOT).as_posix()}::{name}": len(parameters(function))
        for path in FILES
        for name, function in functions(path)
        if len(parameters(function)) > MOST_PARAMETERS
    }
    assert set(CALLED_BY_OTHERS) <= set(found), "an exception that is none any more"
    assert not {where: count for where, count in found.items() if where not in CALLED_BY_OTHERS}


def test_messages_go_through_the_log_and_not_through_a_parameter() -> None:
    for path in FILES:
        takers = [name for name, function in functions(path) if "say" in parameters(function)]
        assert not takers, f"{path.relative_to(ROOT)}: {takers}"


def test_below_the_command_line_no_text_contains_a_flag() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {flag}"
        for path in FILES
        if path.relative_to(ROOT).parts[0] not in KNOW_FLAGS
        for line, text in texts(path)
        for flag in FLAG.findall(text)
    ]
    assert not found, "\n".join(found)
