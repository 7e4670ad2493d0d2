"""Configurations of a bundle: every ``_target_``, expression and path that MONAI would act on, without acting on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from os import PathLike
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigExpression
from monai.bundle.utils import merge_kv

from monai_landmark.errors import ConfigurationError, DataError
from monai_landmark.safety.allowed import TARGETS
from monai_landmark.safety.expressions import expression_problems
from monai_landmark.safety.known import KnownValues
from monai_landmark.safety.paths import path_problem

__all__ = ["check_config", "resolved_config"]

_KEY = re.compile(r"\+?[\w .-]+((::|#)\w+)*")
_SPECIAL = {"_target_", "_disabled_", "_requires_", "_desc_", "_mode_", "_meta_"}
_MOST_EXPRESSIONS = 2000
_MOST_COPIED = 20_000
_ACTION = "leave it out, or read what it does and trust this file by its hash"


def resolved_config(content: Mapping[str, Any], file: str | PathLike[str]) -> dict[str, Any]:
    """A configuration with macros (``%id``) and relative ids (``@#id``) put in, as MONAI does before it acts.

    Args:
        content: of one file, see :func:`~monai_landmark.safety.documents.read_document`; not changed.
        file: what errors call it.

    Returns:
        The content that MONAI would act on.

    Raises:
        ConfigurationError: if a key could change an expression, a macro takes in another file, or one does not end.
    """
    _refuse_keys(content, file)
    content = _merged(content)
    _refuse_macros(content, file)
    try:
        resolved = _resolve(content)
        again = _resolve(resolved)
    except (KeyError, ValueError, IndexError, TypeError, RecursionError) as error:
        problem, action = "has a macro or relative id that leads nowhere", "correct the id"
        raise ConfigurationError(problem, file=file, value=str(error), action=action) from error
    if again != resolved:
        problem = "has a macro or relative id whose meaning depends on the order in which they are put in"
        raise ConfigurationError(problem, file=file, action="write the content in its place")
    _refuse_keys(resolved, file)
    return resolved


def _merged(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keys such as ``+handlers`` and ``train::lr`` put in place, as MONAI does; an overlay keeps them."""
    parser = ConfigParser({}, globals=False)
    try:
        for key, value in deepcopy(dict(content)).items():
            if key.startswith("+") and key[1:] not in parser:
                return content
            merge_kv(parser, key, value)
    except (KeyError, ValueError, IndexError, TypeError, AttributeError):
        return content
    merged: dict[str, Any] = parser.get()
    return merged


def _resolve(content: Mapping[str, Any]) -> dict[str, Any]:
    parser = ConfigParser(deepcopy(dict(content)), globals=False)
    parser.resolve_macro_and_relative_ids()
    resolved: dict[str, Any] = parser.get()
    return resolved


def _refuse_keys(content: Mapping[str, Any], file: str | PathLike[str]) -> None:
    for name, value in _walk(content, ""):
        for key in value if isinstance(value, dict) else ():
            word = str(key)
            parts = re.split("::|#", word.removeprefix("+"))
            special = any(re.fullmatch(r"_\w+_", part) for part in parts)
            if not _KEY.fullmatch(word) or (special and word not in _SPECIAL):
                expected = "letters, digits, spaces, '_', '.', '-'; with underscores only " + ", ".join(
                    sorted(_SPECIAL)
                )
                problem = "has a key that MONAI may read in another way"
                raise ConfigurationError(problem, file=file, field=name, value=key, expected=expected, action=_ACTION)


def _refuse_macros(content: Mapping[str, Any], file: str | PathLike[str]) -> None:
    """Each may copy a part of this very file that has no macro itself; all copies together stay small."""
    copied = 0
    for name, value in _walk(content, ""):
        if not (isinstance(value, str) and value.startswith("%")):
            continue
        action = "write the content in its place"
        try:
            source, found = ConfigParser.split_path_id(ConfigParser.resolve_relative_ids(name, value)[1:])
        except ValueError as error:
            problem = "has a macro that leads nowhere"
            raise ConfigurationError(problem, file=file, field=name, value=value, action=action) from error
        if source:
            problem = "takes in another file, which is looked for in the folder where one works, not in the bundle"
            raise ConfigurationError(problem, file=file, field=name, value=value, action=action)
        inner = [each for _, each in _walk(_at(content, found), "")]
        copied += len(inner)
        if copied > _MOST_COPIED or any(isinstance(each, str) and each.startswith("%") for each in inner):
            problem = "has a macro that stands for another macro, or macros that grow too large"
            raise ConfigurationError(problem, file=file, field=name, value=value, action=action)


def check_config(
    content: Mapping[str, Any], file: str | PathLike[str], others: Mapping[str, Any] | None = None
) -> list[DataError]:
    """What a configuration does beyond what a bundle from elsewhere may do.

    Args:
        content: see :func:`resolved_config`.
        file: what the findings call it.
        others: the bundle's other configurations as one mapping, for ids that this one lacks.

    Returns:
        Findings, none where it is harmless.
    """

    def lookup(name: str) -> Any:
        """What an id stands for, the bundle's own before the others."""
        for source in (content, others or {}):
            value = _at(source, name)
            if value is not _ABSENT:
                return value
        raise KeyError(name)

    findings, expressions, values = [], 0, KnownValues(lookup)
    for name, value in _walk(content, ""):
        if isinstance(value, dict):
            findings += list(_component(value, file, name))
        if not isinstance(value, str):
            continue
        if ConfigExpression.is_expression(value):
            expressions += 1
            if expressions > _MOST_EXPRESSIONS:
                problem = f"has more than {_MOST_EXPRESSIONS} expressions"
                return [*findings, ConfigurationError(problem, file=file, action="check where it comes from")]
            findings += [
                ConfigurationError(f"an expression that {problem}", file=file, field=name, value=value, action=_ACTION)
                for problem in expression_problems(value, values)
            ]
        elif not name.endswith("_desc_") and (outside := path_problem(value)):
            action = "give a path below the bundle; paths of your own go on the command line"
            findings.append(
                ConfigurationError(f"a value that {outside}", file=file, field=name, value=value, action=action)
            )
    return findings


def _component(value: Mapping[str, Any], file: str | PathLike[str], name: str) -> Iterator[DataError]:
    target = value.get("_target_")
    if "_target_" in value and not (isinstance(target, str) and target in TARGETS):
        yield ConfigurationError(
            "makes or calls something that is not on the list for bundles from elsewhere",
            file=file,
            field=f"{name}::_target_".removeprefix("::"),
            value=target,
            expected="a component of landmark bundles, by its full name or MONAI's short one (docs/security.md)",
            action=_ACTION,
        )
    if value.get("_mode_", "default") != "default":
        problem = "makes a component in another way than by default"
        field = f"{name}::_mode_".removeprefix("::")
        yield ConfigurationError(
            problem, file=file, field=field, value=value["_mode_"], expected="default", action=_ACTION
        )


_ABSENT = object()


def _at(content: Any, name: str) -> Any:
    """The value with an id; keys such as ``train::lr`` and ``+imports`` stand for what they change."""
    for word in name.split("::"):
        if isinstance(content, dict):
            numbered = next((key for key in content if str(key) == word), _ABSENT)
            content = content.get(word, content.get(f"+{word}", content.get(numbered, _ABSENT)))
        elif isinstance(content, list) and word.isdecimal() and int(word) < len(content):
            content = content[int(word)]
        else:
            return _ABSENT
    return content


def _walk(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every value, with its id."""
    yield name, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from _walk(each, f"{name}::{key}" if name else str(key))
