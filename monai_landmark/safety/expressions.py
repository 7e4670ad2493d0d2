"""Expressions of a bundle (``$...``): Python that is parsed, never run, and held against the lists of allowed.py."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any

from monai_landmark.safety.allowed import (
    ATTRIBUTES,
    BUILTINS,
    CALLS,
    ENVIRONMENT,
    FIRST_ARGUMENTS,
    KEYWORDS_ONLY,
    METHODS,
    MODULES,
    VALUES,
)
from monai_landmark.safety.known import KNOWN_LATER, KnownValues, parsed, pieces, reference
from monai_landmark.safety.paths import path_problem

__all__ = ["expression_problems"]

_LONGEST = 1000
_LARGEST = 10**9
_REFERENCES = "__local_refs"  # what MONAI puts in place of "@id"


def expression_problems(text: str, values: KnownValues) -> list[str]:
    """Why an expression may not be evaluated.

    Args:
        text: with its ``$`` and its ``@id``; relative ids and macros resolved.
        values: of the configuration it stands in.

    Returns:
        Clauses, each one thing that it does; none where it may.
    """
    if len(text) > _LONGEST:
        return [f"is longer than {_LONGEST} characters"]
    try:
        statements = parsed(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return [f"is no Python expression ({error})"]
    if len(statements) != 1:
        return ["is more than one statement"]
    if isinstance(statements[0], ast.Import | ast.ImportFrom):
        return _import_problems(statements[0])
    if not isinstance(statements[0], ast.Expr):
        return [f"is a statement ({type(statements[0]).__name__})"]
    try:
        return list(dict.fromkeys(_Check(values).problems(statements[0].value)))
    except RecursionError:
        return ["is nested too deep"]


def _import_problems(node: ast.Import | ast.ImportFrom) -> list[str]:
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) or len(names) != 1 or node.names[0].asname:
        return ["imports a name under which something else may be hidden"]
    return [] if names[0] in MODULES else [f"imports {names[0]}"]


class _Check:
    """Walks one expression; what it does not know it refuses."""

    def __init__(self, values: KnownValues) -> None:
        self.values = values
        self.local: set[str] = set()
        self.allowed: dict[type[ast.AST], Callable[[Any], Iterator[str]]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.Attribute: self._attribute,
            ast.Subscript: self._subscript,
            ast.Call: self._call,
            ast.BinOp: self._binary,
            ast.ListComp: self._comprehension,
            ast.GeneratorExp: self._comprehension,
            ast.Starred: self._starred,
        }
        self.plain: tuple[type[ast.expr], ...] = (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Slice)
        self.plain += (ast.IfExp, ast.BoolOp, ast.Compare, ast.UnaryOp)

    def problems(self, node: ast.expr) -> Iterator[str]:
        """What an expression may not hold, one sentence each."""
        if isinstance(node, self.plain):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    yield from self.problems(child)
        elif type(node) in self.allowed:
            yield from self.allowed[type(node)](node)
        else:
            yield f"has a {type(node).__name__}"

    def _constant(self, node: ast.Constant) -> Iterator[str]:
        if isinstance(node.value, str) and (problem := path_problem(node.value)):
            yield f"has the text {node.value!r}, which {problem}"
        elif isinstance(node.value, int) and abs(node.value) > _LARGEST:
            yield "has a number above 1e9"
        elif not isinstance(node.value, str | int | float | None):
            yield f"has a {type(node.value).__name__}"

    def _name(self, node: ast.Name) -> Iterator[str]:
        if node.id not in self.local:
            yield f"names {node.id}"

    def _dotted(self, node: ast.expr) -> str | None:
        """``torch.cuda.is_available``, where the first word is a module and no variable of the expression."""
        words: list[str] = []
        while isinstance(node, ast.Attribute):
            words.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id not in self.local and node.id != _REFERENCES:
            return ".".join([node.id, *reversed(words)])
        return None

    def _attribute(self, node: ast.Attribute) -> Iterator[str]:
        name = self._dotted(node)
        if name is not None:
            if name not in VALUES:
                yield f"names {name}"
            return
        if node.attr not in ATTRIBUTES:
            yield f"reads the attribute {node.attr}"
        yield from self.problems(node.value)

    def _subscript(self, node: ast.Subscript) -> Iterator[str]:
        if reference(node) is not None:
            return  # what it refers to is looked at where it stands
        if self._dotted(node.value) == "os.environ":
            if not (isinstance(node.slice, ast.Constant) and node.slice.value in ENVIRONMENT):
                yield "reads an environment variable"
            return
        if self.values.is_text(node.value):
            yield "takes a piece of a text"
        yield from self.problems(node.value)
        yield from self.problems(node.slice)

    def _call(self, node: ast.Call) -> Iterator[str]:
        name = self._dotted(node.func)
        if name is None:
            if not isinstance(node.func, ast.Attribute):
                yield "calls what an expression gave"
            elif node.func.attr not in METHODS:
                yield f"calls the method {node.func.attr}"
            if isinstance(node.func, ast.Attribute):
                yield from self.problems(node.func.value)
        elif name in BUILTINS:
            yield from self._builtin(node, name)
        elif name not in CALLS:
            yield f"calls {name}"
        else:
            yield from self._limited(node, name)
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                yield "calls with a number of arguments known only later"
            yield from self.problems(argument)
        for keyword in node.keywords:
            if keyword.arg is None and name != "dict":
                yield "calls with keywords known only later"
            yield from self.problems(keyword.value)

    def _builtin(self, node: ast.Call, name: str) -> Iterator[str]:
        if name == "getattr":
            wanted = node.args[1] if len(node.args) > 1 else None
            if not (isinstance(wanted, ast.Constant) and wanted.value in ATTRIBUTES):
                yield "reads an attribute that is not on the list"
        elif name not in {"len", "int", "float", "bool", "str", "isinstance"}:
            if any(self.values.is_text(argument) for argument in node.args):
                yield "takes a text to pieces"

    def _limited(self, node: ast.Call, name: str) -> Iterator[str]:
        if name in KEYWORDS_ONLY:
            extra = {str(keyword.arg) for keyword in node.keywords} - KEYWORDS_ONLY[name]
            if extra or len(node.args) > 1:
                yield f"calls {name} with more than it may ({', '.join(sorted(extra)) or 'positional arguments'})"
        if name in FIRST_ARGUMENTS:
            place, words = FIRST_ARGUMENTS[name]
            value = node.args[place] if len(node.args) > place else None
            if not (isinstance(value, ast.Constant) and value.value in words):
                yield f"asks {name} for something else than {', '.join(sorted(words))}"

    def _binary(self, node: ast.BinOp) -> Iterator[str]:
        sides = (node.left, node.right)
        if isinstance(node.op, ast.Add):
            parts = list(pieces(node))
            if any(self.values.is_text(part) for part in parts):
                yield from self._joined(parts)
            else:
                for side in sides:
                    yield from self.problems(side)
            return
        if not isinstance(node.op, ast.Sub | ast.Mult | ast.Div | ast.FloorDiv | ast.Mod):
            yield f"has a {type(node.op).__name__}"
        if any(self.values.is_text(side) for side in sides):
            yield "computes with a text"
        if any(isinstance(self.values.of(side), list | tuple) or isinstance(side, ast.ListComp) for side in sides):
            yield "repeats a list"
        for side in sides:
            yield from self.problems(side)

    def _joined(self, parts: list[ast.expr]) -> Iterator[str]:
        """A text put together: it must be known here, but for a first part that the command line gives."""
        known = [self.values.of(part) for part in parts]
        if known[0] is KNOWN_LATER and self.values.is_given(parts[0]):
            known[0] = "given"
        if not all(isinstance(part, str) for part in known):
            yield "puts a text together from pieces that are known only when it runs"
            for part in parts:
                if not isinstance(part, ast.Constant):
                    yield from self.problems(part)
        elif any(part.startswith(".") for part in known[1:]):
            yield "puts a text together with a piece that begins with a dot"
        elif problem := path_problem("".join(known)):
            yield f"gives the text {''.join(known)!r}, which {problem}"

    def _starred(self, node: ast.Starred) -> Iterator[str]:
        if self.values.is_text(node.value):
            yield "takes a text to pieces"
        yield from self.problems(node.value)

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp) -> Iterator[str]:
        for part in node.generators:
            if self.values.is_text(part.iter):
                yield "takes a text to pieces"
            yield from self.problems(part.iter)
            roots = {name.split(".")[0] for name in MODULES}
            if not isinstance(part.target, ast.Name) or part.target.id in roots | BUILTINS | {_REFERENCES}:
                yield "binds a name that is taken"
                return
            self.local.add(part.target.id)
            for condition in part.ifs:
                yield from self.problems(condition)
        yield from self.problems(node.elt)
