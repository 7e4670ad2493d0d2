"""Files of a bundle that hold facts, not settings: model card, metadata, list of large files, hashes, log format."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from monai_landmark.errors import ConfigurationError, DataError
from monai_landmark.safety.paths import path_problem

__all__ = ["check_card", "check_facts", "check_large_files", "check_logging", "check_metadata", "read_hashes"]

_TRANSFER = {"frozen", "timesteps", "noise", "schedule", "probe", "dropout"}
_SHAPE = re.compile(r"[\d\s*+/()pn-]{1,40}")
_SCHEMAS = ("https://project-monai.github.io/", "https://github.com/Project-MONAI/")
_HANDLERS = {"StreamHandler", "logging.StreamHandler", "NullHandler", "logging.NullHandler"}
_HANDLER_ARGUMENTS = {"(sys.stdout,)", "(sys.stderr,)", "()", ""}
_LOG_KEYS = {"keys", "level", "handlers", "qualname", "propagate", "class", "formatter", "args", "format", "datefmt"}
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_facts(
    content: Mapping[str, Any], file: str | PathLike[str], *, paths: bool = True, apart: frozenset[str] = frozenset()
) -> list[DataError]:
    """What a file of facts holds beyond facts.

    Args:
        content: of the file.
        file: what the findings call it.
        paths: whether its texts may be used as paths.
        apart: keys at the top whose texts are never used.

    Returns:
        Findings.
    """
    found: list[DataError] = []
    for name, value in _walk(content, ""):
        if isinstance(value, dict) and "_target_" in value:
            field, value = f"{name}::_target_".removeprefix("::"), value["_target_"]
            found.append(_finding("a component in a file of facts", file, field, value, "move it to configs/"))
        elif isinstance(value, str) and value.startswith(("$", "%")):
            found.append(_finding("an expression in a file of facts", file, name, value, "leave it out"))
        elif paths and isinstance(value, str) and name not in apart and (problem := path_problem(value)):
            found.append(_finding(f"a value that {problem}", file, name, value, "give a path below the bundle"))
    return found


def check_card(content: Mapping[str, Any], file: str | PathLike[str]) -> list[DataError]:
    """A model card, ``model.json``: facts, from which the network is built.

    Args:
        content: of the file.
        file: what the findings call it.

    Returns:
        Findings.
    """
    found = check_facts(content, file, apart=frozenset({"initialization"}))  # tells where the weights once began
    transfer = content.get("transfer", {})
    unknown = sorted(map(str, transfer.keys() - _TRANSFER)) if isinstance(transfer, dict) else ["no mapping"]
    if unknown:
        problem, expected = "tells the network more than how it looks at a film", ", ".join(sorted(_TRANSFER))
        found.append(_finding(problem, file, "transfer", unknown, "get the card again", expected))
    if not re.fullmatch(r"[\w.-]{1,100}", str(content.get("architecture", "auto"))):
        value, expected = content["architecture"], "the name of a network"
        found.append(_finding("names no architecture", file, "architecture", value, "get the card again", expected))
    if "sha256" in content and not _SHA256.fullmatch(str(content["sha256"])):
        found.append(_finding("has no SHA-256", file, "sha256", content["sha256"], "get the card again"))
    return found


def check_metadata(content: Mapping[str, Any], file: str | PathLike[str]) -> list[DataError]:
    """``metadata.json``, whose shapes MONAI computes and whose schema it downloads.

    Args:
        content: of the file.
        file: what the findings call it.

    Returns:
        Findings.
    """
    found = check_facts(content, file, paths=False)
    for name, value in _walk(content, ""):
        if "spatial_shape" in name.split("::") and isinstance(value, str) and not _SHAPE.fullmatch(value):
            expected = "numbers, p, n and arithmetic"
            found.append(_finding("a shape that is a program", file, name, value, "write a number", expected))
    schema = content.get("schema")
    if schema is not None and not str(schema).startswith(_SCHEMAS):
        problem, expected = "a schema from elsewhere, which is downloaded", " or ".join(_SCHEMAS)
        found.append(_finding(problem, file, "schema", schema, "leave it out", expected))
    return found


def check_large_files(content: Mapping[str, Any], file: str | PathLike[str]) -> list[DataError]:
    """``large_files.yml``: what MONAI downloads into the bundle.

    Args:
        content: of the file.
        file: what the findings call it.

    Returns:
        Findings.
    """
    entries = content.get("large_files")
    if (
        not isinstance(entries, list)
        or set(content) != {"large_files"}
        or not all(isinstance(e, dict) for e in entries)
    ):
        return [_finding("is no list of large files", file, None, None, "mend it")]
    found = check_facts(content, file, paths=False)
    for number, entry in enumerate(entries):
        name, place, address = f"large_files::{number}", str(entry.get("path", "")), str(entry.get("url", ""))
        if unknown := sorted(map(str, entry.keys() - {"path", "url", "hash_val", "hash_type"})):
            found.append(_finding("tells the download more", file, name, unknown, "leave it out"))
        if problem := path_problem(place) or (None if place else "is empty"):
            found.append(_finding(f"a path that {problem}", file, f"{name}::path", place, "do not download it"))
        if not address.startswith("https://"):
            found.append(_finding("an address that is not https", file, f"{name}::url", address, "do not download it"))
        hashed = entry.get("hash_type", "sha256") == "sha256" and _SHA256.fullmatch(str(entry.get("hash_val", "")))
        if not hashed:
            value, action = entry.get("hash_val"), "add hash_type: sha256 and the file's hash_val"
            found.append(_finding("a download without a SHA-256", file, f"{name}::hash_val", value, action))
    return found


def check_logging(path: str | PathLike[str], name: str) -> list[DataError]:
    """``logging.conf``: Python evaluates ``class`` and ``args``, and a handler may write files or open connections.

    Args:
        path: the file.
        name: what the findings call it.

    Returns:
        Findings.
    """
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(Path(path).read_text(encoding="utf-8"), name)
    except (configparser.Error, UnicodeDecodeError) as error:
        return [_finding("is no log format", name, None, str(error), "leave it out")]
    found: list[DataError] = []
    for section in [*parser.sections(), parser.default_section]:
        for key, value in parser[section].items():
            limits = {"class": _HANDLERS, "args": _HANDLER_ARGUMENTS}.get(key)
            if key not in _LOG_KEYS or (limits is not None and value.strip() not in limits):
                problem = "a log setting that is evaluated, or writes elsewhere than to the screen"
                expected = "StreamHandler with args=(sys.stdout,)"
                found.append(_finding(problem, name, f"[{section}] {key}", value, "leave the file out", expected))
    return found


def read_hashes(path: str | PathLike[str], name: str) -> dict[str, str]:
    """``SHA256SUMS``, as ``sha256sum`` writes it.

    Args:
        path: the file.
        name: what the error calls it.

    Returns:
        Hexadecimal digests by names below the bundle.

    Raises:
        ConfigurationError: if a line has another form, or names a file outside.
    """
    found = {}
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](\S.*)", line)
        place = match.group(2).removeprefix("./") if match else ""
        if match is None or path_problem(place) or place in found:
            expected = "a SHA-256, two spaces and a path below the bundle, each once"
            problem = "has a line that is no hash of a file"
            raise ConfigurationError(problem, file=name, value=line, expected=expected, action="make it with sha256sum")
        found[place] = match.group(1)
    return found


def _finding(
    problem: str, file: Any, field: str | None, value: Any, action: str, expected: str | None = None
) -> ConfigurationError:
    return ConfigurationError(problem, file=file, field=field, value=value, expected=expected, action=action)


def _walk(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from _walk(each, f"{name}::{key}" if name else str(key))
