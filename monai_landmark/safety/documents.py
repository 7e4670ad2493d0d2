"""YAML and JSON from elsewhere: parsed to plain values, within limits, or refused."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from monai_landmark.errors import ConfigurationError

__all__ = ["DEPTH", "MOST_BYTES", "MOST_VALUES", "parse_document", "read_document"]

MOST_BYTES = {".json": 16 << 20, ".yaml": 1 << 20, ".yml": 1 << 20}  # PyYAML takes seconds for a megabyte
MOST_VALUES = 1_000_000
DEPTH = 32


class _Refused(ValueError):
    """What a document may not hold; the second argument is what to do."""


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader, the one MONAI reads with, without tags, anchors, aliases, merges and repeated keys."""

    depth = values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node that is no alias, at a depth that can be read."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _Refused(f"has an anchor or alias in {where}, which can grow without limit", "write the value out")
        if event.tag is not None:
            raise _Refused(f"has the tag {event.tag!r} in {where}, which can make any object", "write a plain value")
        self.depth += 1
        self.values += 1
        _refuse_size(self.depth, self.values)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping without merges and without a key given twice."""
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise _Refused("merges mappings with <<", "write the keys out")
            if not isinstance(key, yaml.ScalarNode):
                raise _Refused("has a key that is a list or a mapping", "use plain keys")
        construct: Any = self.construct_object
        pairs = [(construct(key, deep=True), construct(value, deep=True)) for key, value in node.value]
        return _without_repeats(pairs)


# the stock constructor fills a mapping in later, for aliases to itself; there are none here
_PlainLoader.add_constructor("tag:yaml.org,2002:map", _PlainLoader.construct_mapping)


def read_document(path: str | PathLike[str], name: str | None = None) -> dict[Any, Any]:
    """Parse a YAML or JSON file that may be hostile.

    Args:
        path: a file that ends in .json, .yaml or .yml.
        name: what errors call it; the path by default.

    Returns:
        Its mapping, of plain values only.

    Raises:
        ConfigurationError: if it is too large or too deep, is not UTF-8, repeats a key, or has a YAML tag, anchor or
            alias, or is not one mapping.
    """
    path = Path(path)
    limit, size = MOST_BYTES[path.suffix.lower()], path.stat().st_size
    if size > limit:
        action = "check where it comes from"
        raise _error("is too large to be a configuration", name or path, size, f"at most {limit} bytes", action)
    return parse_document(path.read_bytes(), name or path, path.suffix)


def parse_document(content: bytes, file: str | PathLike[str], suffix: str) -> dict[Any, Any]:
    """Like :func:`read_document`, of bytes that were read before.

    Args:
        content: the bytes.
        file: what errors call them.
        suffix: .json, .yaml or .yml.

    Returns:
        See :func:`read_document`.

    Raises:
        ConfigurationError: see :func:`read_document`.
    """
    try:
        text = content.decode("utf-8")
        plain = _json(text) if suffix.lower() == ".json" else yaml.load(text, Loader=_PlainLoader)  # noqa: S506
    except UnicodeDecodeError as error:
        raise _error("is not UTF-8", file, str(error), "UTF-8 text", "save it as UTF-8") from error
    except _Refused as error:
        raise _error(error.args[0], file, None, "plain values", error.args[1]) from error
    except RecursionError as error:
        raise _error("is nested too deep", file, None, f"at most {DEPTH} levels", "write it flatter") from error
    except (ValueError, yaml.YAMLError) as error:
        raise _error("cannot be parsed", file, str(error), f"one {suffix[1:].upper()} mapping", "mend it") from error
    if not isinstance(plain, dict):
        raise _error("is not a mapping", file, type(plain).__name__, "keys and values", "mend it")
    return plain


def _json(text: str) -> Any:
    def refuse(constant: str) -> None:
        """Raise where the parser would make a number of what JSON does not have."""
        raise _Refused(f"has {constant}, which JSON does not know", "write a number or null")

    plain = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=refuse)
    values, level = 0, [plain]
    for depth in range(DEPTH + 2):
        values += len(level)
        _refuse_size(depth if level else 0, values)
        level = [
            item
            for each in level
            if isinstance(each, list | dict)
            for item in (each.values() if isinstance(each, dict) else each)
        ]
    return plain


def _refuse_size(depth: int, values: int) -> None:
    if depth > DEPTH:
        raise _Refused(f"is nested deeper than {DEPTH} levels", "write it flatter")
    if values > MOST_VALUES:
        raise _Refused(f"has more than {MOST_VALUES} values", "check where it comes from")


def _without_repeats(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Refused(f"repeats the key {key!r}; which one counts depends on the reader", "keep one of them")
        found[key] = value
    return found


def _error(problem: str, file: Any, value: Any, expected: str, action: str) -> ConfigurationError:
    return ConfigurationError(problem, file=file, value=value, expected=expected, action=action)
