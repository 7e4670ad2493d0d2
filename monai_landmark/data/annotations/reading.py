"""The one way in: annotations of any format, told by name or recognized by what the file holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_landmark.data.annotations.base import Annotation, FilmSizes, SchemaLike
from monai_landmark.data.annotations.coco import read_coco
from monai_landmark.data.annotations.csv_table import read_csv
from monai_landmark.data.annotations.dha import read_dha
from monai_landmark.data.annotations.isbi import read_isbi
from monai_landmark.data.annotations.parsing import FilePath, csv_rows, read_json, read_text
from monai_landmark.data.annotations.plain_json import read_plain_json
from monai_landmark.data.annotations.ratio import read_ratio
from monai_landmark.data.annotations.slicer import Spacings, read_fcsv, read_mrk_json
from monai_landmark.errors import AnnotationError

__all__ = ["FORMATS", "read_annotations", "sniff_format"]

READERS: dict[str, Callable[..., list[Annotation]]] = {
    "csv": read_csv,
    "isbi": read_isbi,
    "dha": read_dha,
    "ratio": read_ratio,
    "coco": read_coco,
    "mrk.json": read_mrk_json,
    "fcsv": read_fcsv,
    "json": read_plain_json,
}
FORMATS = tuple(READERS)
"""Names of the formats, as ``format=`` takes them."""
SUFFIXES = (".mrk.json", ".fcsv", ".txt", ".csv", ".json")
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


def read_annotations(
    path: FilePath,
    format: str | None = None,
    *,
    schema: SchemaLike | None = None,
    film_sizes: FilmSizes | None = None,
    spacing: Spacings = None,
    reader: str | None = None,
) -> list[Annotation]:
    """Read the annotations of a file, or of a folder with one kind of annotation file.

    Args:
        path: the file or folder.
        format: one of :data:`FORMATS`; None recognizes it by the content.
        schema: names and order of the landmarks; None takes those of the file, or of the public set of the format.
        film_sizes: film -> (height, width), to refuse landmarks outside the film; needed for ratio text.
        spacing: (row_mm, col_mm) of all films, or film -> that; needed for Slicer's files. ``(1.0, 1.0)``, or None
            within a mapping, stands for films that Slicer showed without spacing.
        reader: who annotated, where the file does not say.

    Raises:
        AnnotationError: not recognized, something needed not given, or a file that does not say what it must.
    """
    kind = format or sniff_format(path)
    if kind not in READERS:
        raise AnnotationError("unknown annotation format", value=kind, expected=f"one of {', '.join(FORMATS)}")
    needs = {"ratio": ("film_sizes", film_sizes), "mrk.json": ("spacing", spacing), "fcsv": ("spacing", spacing)}
    if kind in needs and needs[kind][1] is None:
        raise AnnotationError(
            f"{kind} annotations mean nothing without {needs[kind][0]}",
            file=path,
            action=f"give {needs[kind][0]}" + (", (1.0, 1.0) for films without" if needs[kind][0] == "spacing" else ""),
        )
    options: dict[str, Any] = {"schema": schema, "film_sizes": film_sizes, "reader": reader}
    if needs.get(kind, ("",))[0] == "spacing":
        options["spacing"] = spacing
    return READERS[kind](path, **{key: value for key, value in options.items() if value is not None})


def sniff_format(path: FilePath) -> str:
    """The format of a file, or of the annotation files of a folder, by suffix and content.

    Raises:
        AnnotationError: a folder with several kinds of annotation files or none, or a content that fits no format.
    """
    place = Path(path)
    if place.is_dir():
        files = sorted(item for item in place.iterdir() if item.name.lower().endswith(SUFFIXES))
        kinds = {item.suffix.lower() for item in files}
        if len(kinds) != 1:
            expected = f"files of one kind: {', '.join(SUFFIXES)}"
            raise _unclear(
                "a folder of several kinds" if kinds else "no annotation files", place, sorted(kinds), expected
            )
        place = files[0]
    name = place.name.lower()
    if name.endswith(".fcsv"):
        return "fcsv"
    if name.endswith(".json"):
        return _sniff_json(place)
    if name.endswith(".txt"):
        return _sniff_text(place)
    if name.endswith(".csv"):
        return _sniff_csv(place)
    raise _unclear("unknown kind of annotation file", place, place.suffix, f"one of {', '.join(SUFFIXES)}")


def _unclear(problem: str, file: Path, value: Any, expected: str) -> AnnotationError:
    """The refusal to guess a format."""
    action = f"name the format: {', '.join(FORMATS)}"
    return AnnotationError(problem, file=file, value=value, expected=expected, action=action)


def _sniff_json(file: Path) -> str:
    """Slicer markups, COCO or plain JSON, by the keys at the top; exactly one must fit."""
    content = read_json(file)
    keys = set(content) if isinstance(content, dict) else set()
    needed = {"mrk.json": {"markups"}, "coco": {"images", "annotations", "categories"}, "json": {"films"}}
    fitting = [kind for kind, wanted in needed.items() if wanted <= keys]
    if len(fitting) != 1:
        expected = "the keys markups, or images with annotations and categories, or films"
        raise _unclear("unknown kind of JSON", file, sorted(keys), expected)
    return fitting[0]


def _sniff_text(file: Path) -> str:
    """ISBI text starts with ``x,y``, ratio text with the number of landmarks."""
    first = next(iter(read_text(file).splitlines()), "")
    if first.strip().isdigit():
        return "ratio"
    parts = first.split(",")
    if len(parts) == 2 and all(map(NUMBER.fullmatch, parts)):
        return "isbi"
    raise _unclear("unknown kind of text", file, first, "x,y or the number of landmarks on the first line")


def _sniff_csv(file: Path) -> str:
    """The Digital Hand Atlas has numbers on its first line, from the second value on; a header has none."""
    first = next(iter(read_text(file).splitlines()), "")
    cells = next((cells for _, cells in csv_rows(re.sub("[;\t]", ",", first), file=file)), [])
    numbers = [bool(NUMBER.fullmatch(cell)) for cell in cells[1:]]
    if numbers and all(numbers):
        return "dha"
    if numbers and not any(numbers):
        return "csv"
    raise _unclear("unknown kind of CSV", file, first, "a header, or an id and numbers on the first line")
