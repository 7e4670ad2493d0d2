"""Careful parsing of text and JSON: every failure names the file, the place, what stands there and what should."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from os import PathLike
from pathlib import Path
from typing import Any

from monai_landmark.errors import AnnotationError
from monai_landmark.files import write_text

__all__ = [
    "MISSING",
    "FilePath",
    "Point",
    "annotation_files",
    "csv_rows",
    "json_entry",
    "json_point",
    "number_text",
    "parse_number",
    "parse_point",
    "read_json",
    "read_text",
    "write_json",
]

FilePath = str | PathLike[str]
Point = tuple[float, float, int]
"""x, y in original pixels and the visibility code: 0 not annotated, 1 occluded, 2 visible."""
MISSING: Point = (math.nan, math.nan, 0)
MISSING_TEXTS = frozenset({"", "nan", "na", "n/a", "null", "none"})


def parse_number(text: str, *, file: FilePath, field: str) -> float:
    """A finite number written with a decimal point.

    Raises:
        AnnotationError: anything else; a decimal comma is refused, because it cannot be told from a separator.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and "_" not in text:
        return value
    comma = re.fullmatch(r"\s*[+-]?\d+,\d+\s*", text)
    raise AnnotationError(
        "not a number",
        file=file,
        field=field,
        value=text,
        expected="a number such as 835.5",
        action="export it with a decimal point" if comma else "correct the value",
    )


def parse_point(x: str, y: str, seen: str = "", *, file: FilePath, field: str) -> Point:
    """A landmark from the texts of its cells: both blank (or NaN) is not annotated, a blank visibility is visible.

    Raises:
        AnnotationError: half a point, no number, or a visibility that contradicts the point.
    """
    blank = [cell.strip().lower() in MISSING_TEXTS for cell in (x, y)]
    code = seen.strip() or ("0" if all(blank) else "2")
    if any(blank) != all(blank) or code not in ("0", "1", "2") or all(blank) != (code == "0"):
        raise AnnotationError(
            "half a landmark",
            file=file,
            field=field,
            value=(x, y, seen),
            expected="x and y with visibility 1 or 2, or neither with visibility 0",
            action="fill in both coordinates or leave both empty",
        )
    if all(blank):
        return MISSING
    return parse_number(x, file=file, field=field), parse_number(y, file=file, field=field), int(code)


def json_point(value: Any, seen: Any = None, *, file: FilePath, field: str) -> Point:
    """A landmark from parsed JSON: ``[x, y]`` or null, and its visibility code (absent: 2, or 0 for null).

    Raises:
        AnnotationError: anything else, or a visibility that contradicts the point.
    """
    if value is None and seen in (None, 0):
        return MISSING
    sound = isinstance(value, list) and len(value) == 2 and all(_is_number(item) for item in value)
    if not sound or seen not in (None, 1, 2):
        raise AnnotationError(
            "not a landmark",
            file=file,
            field=field,
            value=value if seen is None else (value, seen),
            expected="[x, y] with visibility 1 or 2, or null with visibility 0",
            action="correct the value",
        )
    return float(value[0]), float(value[1]), 2 if seen is None else int(seen)


def _is_number(value: Any) -> bool:
    """True for a JSON number that can be a coordinate: not NaN, infinite, absurdly large, true or false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15


def json_entry(container: Any, key: str, kind: type | tuple[type, ...], *, file: FilePath, where: str) -> Any:
    """Entry of a JSON object, of the wanted kind.

    Raises:
        AnnotationError: the container is no object, or the entry is absent or of another kind.
    """
    value = container.get(key) if isinstance(container, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = {dict: "an object", list: "a list", str: "text", int: "a whole number", float: "a number"}
        raise AnnotationError(
            "entry absent or of the wrong kind",
            file=file,
            field=f"{where}.{key}".lstrip("."),
            value=value if isinstance(container, dict) else container,
            expected=" or ".join(names[item] for item in kinds),
            action="check that the file is of this format and complete",
        )
    return value


def number_text(value: float) -> str:
    """Shortest text that reads back to exactly this number; whole numbers without a point."""
    return repr(value).removesuffix(".0")


def read_text(path: FilePath) -> str:
    """Text of a file, with or without a byte order mark.

    Raises:
        AnnotationError: not there, or not text in UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise AnnotationError(
            "cannot read the file", file=path, value=error.strerror, action="check the path"
        ) from error
    except UnicodeDecodeError as error:
        action = "save it as plain text in UTF-8"
        raise AnnotationError("not text in UTF-8", file=path, value=str(error), action=action) from error


def read_json(path: FilePath) -> Any:
    """Parsed content of a JSON file.

    Raises:
        AnnotationError: not readable or not JSON; names the line.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, AnnotationError):
            raise
        place = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else None
        action = "check that the file is complete"
        raise AnnotationError("not valid JSON", file=path, field=place, value=str(error), action=action) from error


def csv_rows(text: str, *, file: FilePath, separator: str = ",") -> list[tuple[int, list[str]]]:
    """Line number and stripped cells of every row of a CSV that is not blank.

    Raises:
        AnnotationError: an open quote or a cell beyond all measure; names the line.
    """
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        place, action = f"line {reader.line_num}", "check separators and quotes"
        raise AnnotationError("not valid CSV", file=file, field=place, value=str(error), action=action) from error


def write_json(path: FilePath, content: Any) -> Path:
    """Write indented JSON; NaN, which JSON does not know, is refused by ValueError."""
    return write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def annotation_files(path: FilePath, *suffixes: str) -> list[Path]:
    """The file itself, or the files of a folder with one of these suffixes, sorted by name.

    Raises:
        AnnotationError: neither is there.
    """
    folder = Path(path)
    if not folder.is_dir():
        files = [folder] if folder.is_file() else []
    else:
        files = sorted(item for item in folder.iterdir() if item.is_file() and item.name.lower().endswith(suffixes))
    if not files:
        expected = f"a file or a folder of files that end in {' or '.join(suffixes)}"
        raise AnnotationError("no annotation file", file=path, expected=expected, action="check the path")
    return files
