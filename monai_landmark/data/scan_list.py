"""The list of scans: one JSON file that says which scans and labels belong to which split.

It is laid out as MONAI's datalists are: each section is a list of items under its own key. An item holds ``image`` (a
NIfTI file or the folder of a DICOM series) and, where it is labeled, ``label``, both relative to ``root``; ``id``,
``patient``, ``sha256``; ``slices``, their number; ``shown``, how many organs each slice shows; and, where only parts of
the scan belong to the section, ``blocks`` [[first, end], ...]. ``numbers`` tells which number in the label files is
which organ. A patient is in one section. Only a list whose ``gap`` is a number of slices may share a scan between
sections, in blocks at least that far apart: for trials with a single scan, whose numbers are optimistic.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_landmark.data.datalist_checks import SECTIONS
from monai_landmark.errors import AnnotationError
from monai_landmark.files import write_text

__all__ = ["ScanList", "blocks_of", "load_scans", "organs_of", "slice_hashes", "slices_of"]

Item = dict[str, Any]
_MAY_SHARE_PATIENTS = {"training", "unlabelled"}


@dataclass
class ScanList:
    """All that a list of scans holds.

    Attributes:
        name: of the data set.
        root: folder that the items' paths are relative to.
        organs: names of the network's classes, from 1.
        numbers: number in the label files -> organ; numbers that are not here are background.
        reader: who drew the labels; a model, where it was one.
        sections: items by section.
        gap: slices between blocks of one scan in different sections; None: a scan is in one section.
        notes: the decisions that were made, in sentences.
    """

    name: str
    root: Path
    organs: tuple[str, ...]
    numbers: dict[int, str]
    reader: str = ""
    sections: dict[str, list[Item]] = field(default_factory=dict)
    gap: int | None = None
    notes: list[str] = field(default_factory=list)

    def items(self) -> Iterator[tuple[str, Item]]:
        """Every item with the name of its section."""
        for section in SECTIONS:
            for item in self.sections.get(section, []):
                yield section, item

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ScanList:
        """Read and check a list of scans.

        Args:
            path: the JSON file.

        Returns:
            The list.

        Raises:
            AnnotationError: not a list of scans, an item is incomplete, or a patient is in two sections.
        """
        file = Path(path)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            action = "give the list that `scans` wrote"
            raise AnnotationError("cannot be read", file=file, value=str(error), action=action) from None
        _check(content, file)
        return cls(
            name=content["name"],
            root=Path(os.path.normpath(file.absolute().parent / content["root"])),
            organs=tuple(content["organs"]),
            numbers={int(number): organ for number, organ in content["numbers"].items()},
            reader=content.get("reader", ""),
            sections={section: content[section] for section in SECTIONS if section in content},
            gap=content.get("gap"),
            notes=content.get("notes", []),
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Check the list and write it in one step.

        Args:
            path: the JSON file.

        Returns:
            The path.

        Raises:
            AnnotationError: it would not pass :meth:`load`.
        """
        file = Path(path)
        folder, root = file.absolute().parent, self.root.absolute()
        content: dict[str, Any] = {
            "name": self.name,
            "root": root.relative_to(folder).as_posix() if root.is_relative_to(folder) else str(root),
            "organs": list(self.organs),
            "numbers": {str(number): organ for number, organ in self.numbers.items()},
            "reader": self.reader,
            "gap": self.gap,
            "notes": self.notes,
            **{section: self.sections[section] for section in SECTIONS if self.sections.get(section)},
        }
        _check(content, file)
        return write_text(file, json.dumps(content, indent=1) + "\n")


def load_scans(path: str | os.PathLike[str], section: str) -> list[Item]:
    """Scans of one section.

    Args:
        path: the list's JSON file.
        section: one of ``training``, ``validation``, ``test``, ``unlabelled``.

    Returns:
        Items with absolute paths, and the list's ``numbers`` and ``organs``.

    Raises:
        AnnotationError: the list is broken, or has no such section.
    """
    found = ScanList.load(path)
    if section not in found.sections:
        expected = f"one of: {', '.join(found.sections) or 'none'}"
        raise AnnotationError("the list has no such section", file=path, field=section, expected=expected)
    shared = {"numbers": found.numbers, "organs": found.organs}
    return [{**_absolute(item, found.root), **shared} for item in found.sections[section]]


def organs_of(path: str | os.PathLike[str]) -> list[str]:
    """Organs of a list of scans, in the order of the network's classes.

    Args:
        path: the list's JSON file.

    Returns:
        Their names.
    """
    return list(ScanList.load(path).organs)


def blocks_of(item: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Parts of a scan that an item stands for.

    Args:
        item: of a list of scans.

    Returns:
        ``(first, end)`` slices of each, the end excluded; the whole scan as one.
    """
    return [(int(first), int(end)) for first, end in item.get("blocks") or [(0, item["slices"])]]


def slices_of(item: Mapping[str, Any]) -> list[Item]:
    """The slices of a scan as items of their own.

    Args:
        item: see :func:`load_scans`.

    Returns:
        One for each slice: the scan's ``image``, ``label``, ``numbers``, ``organs`` and ``patient``, the number of the
        ``slice``, ``scan`` (the scan's id), and an ``id`` of its own.
    """
    keys = [key for key in ("image", "label", "numbers", "organs", "patient", "sha256") if key in item]
    shared = {key: item[key] for key in keys}
    return [
        {**shared, "slice": index, "scan": item["id"], "id": f"{item['id']}/{index:04d}"}
        for first, end in blocks_of(item)
        for index in range(first, end)
    ]


def slice_hashes(slices: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a model card says of the slices that were trained on: nothing that names a patient.

    Args:
        slices: see :func:`slices_of`.

    Returns:
        The SHA-256 of the scan's file and the number of the slice, of each.
    """
    return [f"{one['sha256']}/{one['slice']}" for one in slices]


def _absolute(item: Item, root: Path) -> Item:
    paths = {key: os.path.normpath(root / item[key]) for key in ("image", "label") if item.get(key)}
    return {**item, **paths}


def _check(content: Any, file: Path) -> None:
    """Refuse a list that is incomplete or contradicts itself."""
    _require(isinstance(content, dict), "not a list of scans", file, "(file)", type(content).__name__, "a JSON object")
    kinds: dict[str, Any] = {"name": str, "root": str, "organs": list, "numbers": dict}
    for key, kind in kinds.items():
        _require(isinstance(content.get(key), kind), "field missing", file, key, content.get(key), kind.__name__)
    organs = content["organs"]
    unknown = [organ for organ in content["numbers"].values() if organ not in organs]
    _require(not unknown, "a number is of no organ of the list", file, "numbers", unknown, ", ".join(organs))
    numbers = list(content["numbers"])
    _require(all(n.isdigit() and int(n) > 0 for n in numbers), "not numbers", file, "numbers", numbers, "1, 2, ...")
    _require(any(section in content for section in SECTIONS), "no section", file, "(file)", None, ", ".join(SECTIONS))
    seen: dict[str, str] = {}
    homes: dict[str, str] = {}
    for section in SECTIONS:
        for index, item in enumerate(content.get(section, [])):
            place = f"{section}[{index}]"
            _check_item(item, file, place, labeled=section in ("training", "validation", "test"))
            other = seen.setdefault(item["id"], place)
            _require(other == place, f"id used twice, first in {other}", file, f"{place}.id", item["id"], "its own id")
            home = homes.setdefault(item["patient"], section)
            kept = home == section or {home, section} == _MAY_SHARE_PATIENTS or content.get("gap") is not None
            _require(kept, f"patient also in {home}", file, f"{place}.patient", item["patient"], "one section each")
    if content.get("gap") is not None:
        _check_gap(content, file)


def _check_item(item: Any, file: Path, place: str, labeled: bool) -> None:
    _require(isinstance(item, dict), "item is not an object", file, place, item, "image, id, patient, slices")
    wanted = ["image", "id", "patient", "sha256", *(["label"] if labeled else [])]
    for key in wanted:
        good = isinstance(item.get(key), str) and item[key]
        _require(bool(good), "field missing", file, f"{place}.{key}", item.get(key), "text")
    count = item.get("slices")
    _require(isinstance(count, int) and count > 1, "no number of slices", file, f"{place}.slices", count, "2 or more")
    shown = item.get("shown")
    if shown is not None:
        good = isinstance(shown, list) and len(shown) == count and all(isinstance(n, int) and n >= 0 for n in shown)
        _require(good, "not one number for each slice", file, f"{place}.shown", shown, f"{count} numbers")
    before = 0
    for first, end in blocks_of(item):
        _require(before <= first < end <= count, "no such block", file, f"{place}.blocks", [first, end], "in order")
        before = end


def _check_gap(content: Mapping[str, Any], file: Path) -> None:
    """Blocks of one scan in different sections must be apart; those that may share a patient need not."""
    gap = content["gap"]
    _require(isinstance(gap, int) and gap > 0, "no gap", file, "gap", gap, "1 or more slices")
    blocks = [
        (section, item["image"], block)
        for section in SECTIONS
        for item in content.get(section, [])
        for block in blocks_of(item)
    ]
    for section, image, (first, end) in blocks:
        for other, same, (later, later_end) in blocks:
            apart = max(later - end, first - later_end)
            if same == image and section != other and {section, other} != _MAY_SHARE_PATIENTS and apart < gap:
                place = f"{section} and {other}, {image}"
                found, expected = [[first, end], [later, later_end]], f"at least {gap} slices apart"
                _require(False, "blocks of two sections touch", file, place, found, expected)


def _require(holds: bool, problem: str, file: Path, place: str, value: Any, expected: str) -> None:
    if not holds:
        action = "mend the list, or run `scans` again"
        raise AnnotationError(problem, file=file, field=place, value=value, expected=expected, action=action)
