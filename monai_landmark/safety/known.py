"""What the texts of a configuration will be, as far as the file says it: paths are put together from pieces."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any, Final

from monai.bundle.reference_resolver import ReferenceResolver

from monai_landmark.safety.allowed import TEXTS

__all__ = ["KNOWN_LATER", "TEXT_KNOWN_LATER", "KnownValues", "Lookup", "parsed", "pieces", "reference"]

KNOWN_LATER: Final = object()
TEXT_KNOWN_LATER: Final = object()
_LONGEST_TEXT = 4096
_LONGEST_CHAIN = 20
_REFERENCES: Final = "__local_refs"  # what MONAI puts in place of "@id"

Lookup = Callable[[str], Any]


def parsed(text: str) -> list[ast.stmt]:
    """An expression as MONAI hands it to Python: references are put in as text, so it is parsed after they are.

    Args:
        text: with its ``$`` and its ``@id``.

    Returns:
        Its statements; an expression is one.

    Raises:
        SyntaxError: if Python cannot parse it; ValueError, RecursionError or MemoryError if it does not even try.
    """
    found = {name[1:]: None for name in ReferenceResolver.id_matcher.findall(ReferenceResolver.normalize_id(text))}
    source: str = ReferenceResolver.update_refs_pattern(text, found)
    return ast.parse(source[1:]).body


def reference(node: ast.expr) -> str | None:
    """The id that a node refers to.

    Args:
        node: of a parsed expression.

    Returns:
        The id of ``__local_refs['id']``, None for anything else.
    """
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == _REFERENCES:
        key = node.slice
        return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value else None
    return None


def pieces(node: ast.expr) -> Iterator[ast.expr]:
    """The operands of ``a + b + c``.

    Args:
        node: a sum, or anything else, which is its own only piece.

    Yields:
        Them, from left to right.
    """
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from pieces(node.left)
        yield from pieces(node.right)
    else:
        yield node


class KnownValues:
    """What a part of an expression will be, as far as the configuration says it.

    Args:
        lookup: from an id to its raw value; raises KeyError where there is none.
    """

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup
        self._open: set[str] = set()
        self._found: dict[str, Any] = {}

    def is_text(self, node: ast.expr) -> bool:
        """Whether it is a text, known now or later.

        Args:
            node: of a parsed expression.

        Returns:
            False too where nothing is known of it.
        """
        value = self.of(node)
        return value is TEXT_KNOWN_LATER or isinstance(value, str)

    def is_given(self, node: ast.expr) -> bool:
        """Whether a reference leads out of the bundle: the command line gives its value.

        Args:
            node: of a parsed expression.

        Returns:
            True where the id is not there, or null.
        """
        name = reference(node)
        try:
            return name is not None and self.lookup(name) is None
        except KeyError:
            return True

    def of(self, node: ast.expr) -> Any:
        """The value of a node.

        Args:
            node: of a parsed expression.

        Returns:
            A text, number, list or mapping; :data:`TEXT_KNOWN_LATER` or :data:`KNOWN_LATER`.
        """
        name = reference(node)
        if name is not None:
            return self._referred(name)
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._sum([self.of(piece) for piece in pieces(node)])
        if isinstance(node, ast.Subscript):
            return self._item(node)
        if isinstance(node, ast.List | ast.Tuple):
            return [self.of(item) for item in node.elts]
        parts = _parts(node)
        texts = [part for part in parts if self.is_text(part)]
        named = isinstance(node, ast.Call) and ast.unparse(node.func) in TEXTS | {"str"}
        named = named or (isinstance(node, ast.Attribute) and node.attr in {"name", "schema"})
        return TEXT_KNOWN_LATER if texts or named else KNOWN_LATER

    def _sum(self, parts: list[Any]) -> Any:
        if all(isinstance(part, str) for part in parts) and sum(map(len, parts)) < _LONGEST_TEXT:
            return "".join(parts)
        return TEXT_KNOWN_LATER if any(p is TEXT_KNOWN_LATER or isinstance(p, str) for p in parts) else KNOWN_LATER

    def _item(self, node: ast.Subscript) -> Any:
        whole = self.of(node.value)
        if isinstance(whole, list | dict) and isinstance(node.slice, ast.Constant):
            try:
                key: Any = node.slice.value
                return self._raw(whole[key])
            except (LookupError, TypeError):
                return KNOWN_LATER
        if isinstance(whole, str) or whole is TEXT_KNOWN_LATER:
            return TEXT_KNOWN_LATER
        return KNOWN_LATER

    def _referred(self, name: str) -> Any:
        if name in self._open or len(self._open) > _LONGEST_CHAIN:
            return TEXT_KNOWN_LATER
        if name not in self._found:
            self._open.add(name)
            try:
                self._found[name] = self._raw(self.lookup(name))
            except KeyError:
                self._found[name] = KNOWN_LATER
            finally:
                self._open.remove(name)
        return self._found[name]

    def _raw(self, raw: Any) -> Any:
        if isinstance(raw, str) and ReferenceResolver.id_matcher.fullmatch(ReferenceResolver.normalize_id(raw)):
            return self._referred(ReferenceResolver.normalize_id(raw[1:]))
        if isinstance(raw, str) and raw.startswith("$"):
            try:
                body = parsed(raw)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                return TEXT_KNOWN_LATER
            return self.of(body[0].value) if len(body) == 1 and isinstance(body[0], ast.Expr) else TEXT_KNOWN_LATER
        if isinstance(raw, dict) and "_target_" in raw:
            return KNOWN_LATER
        return KNOWN_LATER if raw is None else raw


def _parts(node: ast.expr) -> list[ast.expr]:
    """What a choice may give."""
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    return list(node.values) if isinstance(node, ast.BoolOp) else []
