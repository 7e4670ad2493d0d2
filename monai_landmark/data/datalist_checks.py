"""What a datalist must fulfil before anything is trained or measured on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import AnnotationError, FilmError

__all__ = ["POLICIES", "SECTIONS", "SPACING_SOURCES", "check_datalist"]

SECTIONS = ("training", "validation", "test", "unlabelled")
"""Sections of a datalist, in the order in which they are written."""
POLICIES = ("mark", "drop", "refuse")
"""What can be done with films that recur in another section."""
SPACING_SOURCES = ("user", "calibrated", "magnification-corrected", "detector", "uncalibrated", "none")
"""Where a film's spacing can come from, best first."""

# An unlabelled film may show a training patient; one that shows a test patient would leak into pre-training.
_MAY_SHARE_PATIENTS = {"training", "unlabelled"}


class _Check:
    """Raises for one datalist file, naming the place inside it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def fail(self, problem: str, field: str, value: Any, expected: str) -> NoReturn:
        """Refuse the datalist.

        Args:
            problem: what is wrong.
            field: the place inside the file.
            value: what stands there.
            expected: what should.

        Raises:
            AnnotationError: always.
        """
        raise AnnotationError(
            problem,
            file=self.file,
            field=field,
            value=value,
            expected=expected,
            action="mend the source data and run `prepare` again",
        )

    def require(self, holds: bool, problem: str, field: str, value: Any, expected: str) -> None:
        """Refuse the datalist unless a condition holds.

        Args:
            holds: the condition.
            problem: what is wrong when it does not hold.
            field: the place inside the file.
            value: what stands there.
            expected: what should.

        Raises:
            AnnotationError: the condition does not hold.
        """
        if not holds:
            self.fail(problem, field, value, expected)


def check_datalist(content: Any, file: Path) -> None:
    """Refuse a datalist that contradicts its schema, itself or good practice.

    Args:
        content: the parsed JSON.
        file: where it came from, for the message.

    Raises:
        AnnotationError: names file, section, item, field and value. Checked: the fields and their types; landmark count
            equal to the schema's; coordinates finite; visibility 0 exactly where a landmark is null; spacing two
            numbers within 0.01-2 mm, or null with source ``none``; ids unique over all sections; no patient in
            two sections (``training`` and ``unlabelled`` may share one).
    """
    check = _Check(file)
    check.require(isinstance(content, dict), "not a datalist", "(file)", content, "a JSON object")
    fields: dict[str, Any] = {"name": str, "root": str, "schema": (str, type(None))}
    for key, kind in fields.items():
        check.require(key in content and isinstance(content[key], kind), "field missing", key, content.get(key), "text")
    policy = content.get("duplicates_policy", "mark")
    check.require(policy in POLICIES, "unknown policy", "duplicates_policy", policy, " | ".join(POLICIES))
    present = [section for section in SECTIONS if section in content]
    check.require(bool(present), "no section", "(file)", sorted(content), f"at least one of {', '.join(SECTIONS)}")
    count = None if content["schema"] is None else _schema(content["schema"], file).count
    seen: dict[str, str] = {}
    patients: dict[str, str] = {}
    for section in present:
        items = content[section]
        check.require(isinstance(items, list), "section is not a list", section, items, "a list of items")
        for index, item in enumerate(items):
            place = f"{section}[{index}]"
            _check_film(check, item, place)
            _check_annotation(check, item, place, count, required=section != "unlabelled")
            _check_unique(check, item, place, section, seen, patients)


def _schema(name: str, file: Path) -> LandmarkSchema:
    """Shipped schema, or the YAML at a path relative to the datalist."""
    beside = file.parent / name
    return LandmarkSchema.load(str(beside) if beside.is_file() else name)


def _check_film(check: _Check, item: Any, place: str) -> None:
    check.require(isinstance(item, dict), "item is not an object", place, item, "an object with image, id, patient")
    for key in ("image", "id", "patient"):
        value = item.get(key)
        check.require(isinstance(value, str) and value != "", "field missing", f"{place}.{key}", value, "text")
    size = item.get("size")
    whole = _is_list(size, 2) and all(type(n) is int and n > 0 for n in size)
    check.require(whole, "impossible film size", f"{place}.size", size, "[H, W] in pixels")
    source, spacing = item.get("spacing_source"), item.get("spacing")
    where = f"{place}.spacing_source"
    check.require(source in SPACING_SOURCES, "unknown spacing source", where, source, " | ".join(SPACING_SOURCES))
    if (spacing is None) != (source == "none"):
        check.fail("spacing and its source disagree", where, source, "`none` exactly where spacing is null")
    if spacing is not None:
        _check_spacing(check, spacing, f"{place}.spacing")
    duplicates = item.get("near_duplicates", [])
    texts = isinstance(duplicates, list) and all(isinstance(name, str) for name in duplicates)
    check.require(texts, "not a list of ids", f"{place}.near_duplicates", duplicates, "a list of film ids")


def _check_spacing(check: _Check, spacing: Any, field: str) -> None:
    from monai_landmark.data.spacing import check_spacing

    try:
        check_spacing(spacing, file=check.file, field=field)
    except FilmError as error:
        check.fail(error.problem, field, spacing, error.expected or "[row_mm, col_mm], each within 0.01-2 mm")


def _check_annotation(check: _Check, item: Mapping[str, Any], place: str, count: int | None, required: bool) -> None:
    """Landmarks, visibility and further readers of one item."""
    if "landmarks" not in item:
        check.require(not required, "item without landmarks", f"{place}.landmarks", item["id"], "landmarks of the film")
        return
    if count is None:
        check.fail("landmarks without a schema", "schema", None, "the name or the YAML of a landmark schema")
    _check_landmarks(check, item["landmarks"], f"{place}.landmarks", count)
    codes: Any = item.get("visibility")
    field = f"{place}.visibility"
    known = _is_list(codes, count) and all(type(code) is int and code in (0, 1, 2) for code in codes)
    if not known:
        check.fail("visibility codes are not usable", field, codes, f"{count} codes, each 0, 1 or 2")
    for index, (code, row) in enumerate(zip(codes, item["landmarks"], strict=True)):
        agrees = (code == 0) == (row is None)
        check.require(
            agrees, "visibility contradicts landmark", f"{field}[{index}]", code, "0 exactly where it is null"
        )
    readers = item.get("readers", {})
    check.require(isinstance(readers, dict), "not an object", f"{place}.readers", readers, "{reader: landmarks}")
    for name, rows in readers.items():
        _check_landmarks(check, rows, f"{place}.readers.{name}", count)


def _check_landmarks(check: _Check, rows: Any, field: str, count: int) -> None:
    found = len(rows) if isinstance(rows, list) else rows
    check.require(_is_list(rows, count), "wrong number of landmarks", field, found, f"{count}, as in the schema")
    for index, row in enumerate(rows):
        fits = row is None or (_is_list(row, 2) and all(_is_finite(number) for number in row))
        check.require(fits, "not a landmark", f"{field}[{index}]", row, "[x, y] in original pixels, or null")


def _check_unique(
    check: _Check, item: Mapping[str, Any], place: str, section: str, seen: dict[str, str], patients: dict[str, str]
) -> None:
    """One film once, and one patient on one side of a split."""
    other = seen.setdefault(item["id"], place)
    check.require(other == place, f"id used twice, first in {other}", f"{place}.id", item["id"], "a unique id")
    home = patients.setdefault(item["patient"], section)
    if home != section and {home, section} != _MAY_SHARE_PATIENTS:
        check.fail(f"patient also in {home}", f"{place}.patient", item["patient"], "every patient in one section")


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
