"""The datalist: one JSON file that says which films, landmarks, spacings and patients belong to which split.

It is a MONAI (decathlon) datalist: each section is a list of items under its own key, so
``monai.data.load_decathlon_datalist(path, is_segmentation=False, data_list_key="training", base_dir=root)`` reads it.
An item holds ``image`` (relative to ``root``), ``id``, ``patient``, ``size`` [H, W], ``spacing`` [row_mm, col_mm] or
null, ``spacing_source``, ``sha256`` of the file; where annotated also ``landmarks`` [[x, y] or null, ...] in original
pixels, ``visibility`` [0, 1 or 2, ...] and, for several readers, ``readers`` {name: landmarks}; where the film recurs
in another section ``near_duplicates`` [ids].
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.datalist_checks import SECTIONS, check_datalist
from monai_landmark.errors import AnnotationError
from monai_landmark.files import file_sha256, write_text

__all__ = [
    "SECTIONS",
    "Datalist",
    "LeftOut",
    "dump_lines",
    "film_hashes",
    "landmarks_array",
    "landmarks_json",
    "load_datalist",
    "save_datalist",
    "with_hashes",
]

Item = dict[str, Any]


@dataclass(frozen=True)
class LeftOut:
    """A film that is in the folder and not in the datalist.

    Attributes:
        film: path of the film relative to the folder that was prepared.
        reason: why, as a sentence a person can act on.
        by: ``"fault"``: it could not be used; ``"rule"``: a rule that was asked for left it out.
    """

    film: str
    reason: str
    by: Literal["fault", "rule"] = "fault"


@dataclass
class Datalist:
    """All that a datalist JSON holds.

    Attributes:
        name: name of the data set.
        schema: name of a shipped landmark schema, or absolute path of a YAML; None when no film is annotated.
        root: absolute folder that the items' image paths are relative to.
        sections: items by section (:data:`SECTIONS`).
        reader: whose landmarks are the target.
        duplicates_policy: what was done with films that recur in another section: ``mark``, ``drop`` or ``refuse``.
        duplicates: every pair found, ``{"films": [id, id], "similarity": float, "identical": bool}``.
        left_out: films that are not in the datalist, with the reason.
        notes: the decisions that were made, in sentences (spacing rule, split, reader).
    """

    name: str
    schema: str | None
    root: Path
    sections: dict[str, list[Item]] = field(default_factory=dict)
    reader: str | None = None
    duplicates_policy: str = "mark"
    duplicates: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def items(self) -> Iterator[tuple[str, Item]]:
        """Every item with the name of its section, in file order."""
        for section in SECTIONS:
            for item in self.sections.get(section, []):
                yield section, item

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Datalist:
        """Read and check a datalist JSON.

        Args:
            path: the JSON file.

        Returns:
            The datalist, image paths still relative to ``root``.

        Raises:
            AnnotationError: the file is not a datalist, or an item contradicts the schema, itself or another item.
        """
        path = Path(path)
        content = _read_json(path)
        check_datalist(content, path)
        return cls(
            name=content["name"],
            schema=_beside(path, content["schema"]),
            root=Path(os.path.normpath(path.absolute().parent / content["root"])),
            sections={section: content[section] for section in SECTIONS if section in content},
            reader=content.get("reader"),
            duplicates_policy=content.get("duplicates_policy", "mark"),
            duplicates=content.get("duplicates", []),
            left_out=[LeftOut(**entry) for entry in content.get("left_out", [])],
            notes=content.get("notes", []),
        )

    def to_json(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """The JSON content; ``root`` and a schema's YAML are relative where they lie beside it, so that all can move.

        Args:
            path: where the JSON will lie.

        Returns:
            Plain dicts, lists, strings and finite numbers.
        """
        folder, root = Path(path).absolute().parent, self.root.absolute()
        content: dict[str, Any] = {
            "name": self.name,
            "schema": self.schema if self.schema is None else _relative(Path(self.schema), folder),
            "reader": self.reader,
            "root": _relative(root, folder),
            "duplicates_policy": self.duplicates_policy,
            "notes": self.notes,
        }
        content |= {section: self.sections[section] for section in SECTIONS if self.sections.get(section)}
        content["duplicates"] = self.duplicates
        content["left_out"] = [vars(entry) for entry in self.left_out]
        return content


def load_datalist(path: str | os.PathLike[str], section: str) -> list[Item]:
    """Items of one section, ready for a MONAI dataset.

    Args:
        path: the datalist JSON.
        section: one of :data:`SECTIONS`.

    Returns:
        Items with an absolute ``image`` path; landmarks that are not annotated are ``[nan, nan]``.

    Raises:
        AnnotationError: the datalist is broken (see :meth:`Datalist.load`) or has no such section.
    """
    datalist = Datalist.load(path)
    if section not in datalist.sections:
        found = ", ".join(datalist.sections) or "none"
        raise AnnotationError(
            "the datalist has no such section",
            file=path,
            field=section,
            expected=f"one of: {found}",
            action="name one of these, or run `prepare` again",
        )
    return [_absolute(item, datalist.root) for item in datalist.sections[section]]


def save_datalist(datalist: Datalist, path: str | os.PathLike[str]) -> None:
    """Check a datalist and write it in one step: a reader sees the old file or the new one, never half of one.

    Args:
        datalist: what to write.
        path: the JSON file; its folder is made when absent.

    Raises:
        AnnotationError: the datalist would not pass :meth:`Datalist.load`.
    """
    path = Path(path)
    content = datalist.to_json(path)
    check_datalist(content, path)
    write_text(path, dump_lines(content))


def film_hashes(items: Iterable[Mapping[str, Any]]) -> list[str]:
    """What may stand beside weights that leave the house, so that others can tell which films they were made of.

    An id is often a file's name, and that of a patient. The hash of a file is known to those only who have the file.

    Args:
        items: of a datalist.

    Returns:
        SHA-256 of each film's file, as the datalist says, else of the file.
    """
    return [item.get("sha256") or file_sha256(item["image"]) for item in items]


def with_hashes(items: Iterable[Mapping[str, Any]], named: Iterable[str], root: Path = Path()) -> set[str]:
    """Films that somebody named by :func:`film_hashes`, or by their ids.

    Args:
        items: of a datalist.
        named: hashes or ids.
        root: of the items' paths; a film of which the datalist does not say the hash is read.

    Returns:
        Their ids.
    """
    known = list(items)
    found = {item["id"] for item in known}.intersection(named := set(named))
    for item in known if named - found else ():
        try:
            sha256 = item.get("sha256") or file_sha256(root / item["image"])
        except OSError:  # nobody can use it
            continue
        found |= {item["id"]} if sha256 in named else set()
    return found


def landmarks_array(item: Mapping[str, Any], reader: str | None = None) -> NDArray[np.float64]:
    """Landmarks of an item, of the target reader or of a named one.

    Args:
        item: an item of a datalist, as the file holds it or as :func:`load_datalist` gives it.
        reader: a key of the item's ``readers``; None for the target ``landmarks``.

    Returns:
        ``(K, 2)`` (x, y) in original pixels; NaN where not annotated.

    Raises:
        AnnotationError: the item has no landmarks, or none of that reader.
    """
    rows = item.get("landmarks") if reader is None else item.get("readers", {}).get(reader)
    if rows is None:
        who = "landmarks" if reader is None else f"landmarks of reader {reader!r}"
        raise AnnotationError(f"the film has no {who}", file=item.get("image"), field=reader or "landmarks")
    return np.array([(np.nan, np.nan) if row is None else row for row in rows], dtype=np.float64).reshape(-1, 2)


def landmarks_json(landmarks: NDArray[np.float64]) -> list[list[float] | None]:
    """Landmarks as the datalist writes them; the inverse of :func:`landmarks_array`.

    Args:
        landmarks: ``(K, 2)`` (x, y) in original pixels, NaN = not annotated.

    Returns:
        ``[x, y]`` rounded to 1/10,000 pixel, or None where not annotated.
    """
    return [[round(float(x), 4), round(float(y), 4)] if np.isfinite([x, y]).all() else None for x, y in landmarks]


def _beside(file: Path, schema: str | None) -> str | None:
    """Path of a schema's YAML that lies relative to the datalist; a shipped name stays a name."""
    yaml = file.absolute().parent / (schema or "")
    return str(yaml) if yaml.is_file() else schema


def _relative(path: Path, folder: Path) -> str:
    """Relative to ``folder`` where it lies in it."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _absolute(item: Item, root: Path) -> Item:
    """Copy of an item with an absolute image path and NaN in place of null landmarks."""
    item = dict(item, image=os.path.normpath(root / item["image"]))
    if "landmarks" in item:
        item["landmarks"] = landmarks_array(item).tolist()
    if "readers" in item:
        item["readers"] = {reader: landmarks_array(item, reader).tolist() for reader in item["readers"]}
    return item


def _read_json(path: Path) -> Any:
    """Content of a JSON file; Python's NaN and Infinity, which JSON does not have, are refused."""

    def refuse(constant: str) -> None:
        """Raise where the parser would make a number of the constant."""
        raise AnnotationError("not valid JSON", file=path, value=constant, expected="null where nothing is annotated")

    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except OSError as error:
        raise AnnotationError(
            f"cannot be read ({error.strerror})", file=path, action="give the path of a datalist"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise AnnotationError(f"not valid JSON ({error})", file=path, action="run `prepare` again") from None


def dump_lines(content: Mapping[str, Any]) -> str:
    """JSON with one item of each list a line: small, soon written, and still readable in a diff.

    Args:
        content: plain dicts, lists, strings and finite numbers.

    Returns:
        The text.
    """

    def entry(key: str, value: Any) -> str:
        """One key with its value; the members of a list each on a line of their own."""
        if isinstance(value, Sequence) and not isinstance(value, str) and value:
            rows = ",\n  ".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in value)
            return f"{json.dumps(key)}: [\n  {rows}\n ]"
        return f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"

    return "{\n " + ",\n ".join(entry(key, value) for key, value in content.items()) + "\n}\n"
