"""3D Slicer point lists: ``.mrk.json`` (markups schema 1.0.x) and ``.fcsv``; one film a file.

Slicer places pixel (col, row) of a 2-D image without orientation at LPS (col * col_mm, row * row_mm, 0); a film without
spacing is shown with pixels of 1 mm. The files say themselves whether they are LPS or RAS (x and y negated): both are
read, LPS is written. A landmark that is not annotated has positionStatus "undefined" in ``.mrk.json`` ("missing", which
newer versions of Slicer write, and "preview", a point never placed, are read as that too); ``.fcsv``, which has no such
word, leaves it out. An occluded landmark carries the description "occluded".
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_landmark.data.annotations.base import (
    Annotation,
    FilmSizes,
    SchemaLike,
    check_annotations,
    common_names,
    find_film,
    from_named,
    landmark_names,
)
from monai_landmark.data.annotations.parsing import (
    MISSING,
    FilePath,
    Point,
    annotation_files,
    csv_rows,
    json_entry,
    json_point,
    number_text,
    parse_number,
    read_json,
    read_text,
    write_json,
)
from monai_landmark.data.spacing import check_spacing
from monai_landmark.errors import AnnotationError
from monai_landmark.files import write_text

__all__ = ["Spacings", "read_fcsv", "read_mrk_json", "write_fcsv", "write_mrk_json"]

Spacings = tuple[float, float] | Mapping[str, tuple[float, float] | None] | None
"""(row_mm, col_mm) of every film, or film -> its own; None is a film without spacing, shown with 1 mm pixels."""
MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
_MM_PER_UNIT = {"mm": 1.0, "um": 1e-3}
_AXIS_SIGNS = {"LPS": 1.0, "RAS": -1.0, "1": 1.0, "0": -1.0}
_HALF_SLICE_MM = 0.5
"""A 2-D image is one slice of 1 mm in Slicer: a point further off was not placed on this film."""


def read_mrk_json(
    path: FilePath,
    schema: SchemaLike | None = None,
    *,
    spacing: Spacings,
    film_sizes: FilmSizes | None = None,
    reader: str | None = None,
) -> list[Annotation]:
    """Read the point list of one ``.mrk.json`` file, or of all in a folder; the film is the name without that ending.

    Args:
        path: the file or the folder.
        schema: gives names and order; a landmark without a point is not annotated. None keeps the labels of the file.
        spacing: of the films as Slicer showed them.
        film_sizes: film -> (height, width), to refuse landmarks outside the film.
        reader: who annotated; the files do not say.

    Raises:
        AnnotationError: names the file, the entry and what was expected there.
        FilmError: a spacing that cannot be.
    """
    files = annotation_files(path, ".mrk.json", ".json")
    found = (_annotation(file, _json_points(file), schema, spacing, reader) for file in files)
    return check_annotations(found, film_sizes, path)


def read_fcsv(
    path: FilePath,
    schema: SchemaLike | None = None,
    *,
    spacing: Spacings,
    film_sizes: FilmSizes | None = None,
    reader: str | None = None,
) -> list[Annotation]:
    """Read one ``.fcsv`` file, or all in a folder; see :func:`read_mrk_json` for the arguments and errors."""
    files = annotation_files(path, ".fcsv")
    found = (_annotation(file, _fcsv_points(file), schema, spacing, reader) for file in files)
    return check_annotations(found, film_sizes, path)


def write_mrk_json(
    path: FilePath, annotation: Annotation, *, spacing: Spacings, descriptions: Sequence[str] | None = None
) -> Path:
    """Write the landmarks of one film as a point list in LPS.

    Coordinates come back within rounding (1e-12 of the film); the reader is left out.

    Args:
        path: the file, which should be called ``<film>.mrk.json``.
        annotation: with landmark names.
        spacing: of the film as Slicer shows it.
        descriptions: a text for each landmark, shown in Slicer.

    Raises:
        AnnotationError: the landmarks have no names.
        FilmError: a spacing that cannot be.
    """
    points = [
        {
            "id": str(at),
            "label": label,
            "description": text,
            **({} if position is None else {"position": position}),
            "positionStatus": "undefined" if position is None else "defined",
        }
        for at, (label, text, position) in enumerate(_placed(annotation, spacing, descriptions), start=1)
    ]
    markup = {
        "type": "Fiducial",
        "name": annotation.film,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "controlPoints": points,
        "display": {"pointLabelsVisibility": True},
    }
    return write_json(path, {"@schema": MARKUPS_SCHEMA, "markups": [markup]})


def write_fcsv(
    path: FilePath, annotation: Annotation, *, spacing: Spacings, descriptions: Sequence[str] | None = None
) -> Path:
    """Write the landmarks of one film in LPS; see :func:`write_mrk_json`.

    Landmarks that are not annotated are left out: read the file with a schema to get them back.

    Raises:
        AnnotationError: the landmarks have no names.
        FilmError: a spacing that cannot be.
    """
    stream = io.StringIO()
    stream.write(f"# Markups fiducial file version = 5.0\n# CoordinateSystem = LPS\n# columns = {FCSV_COLUMNS}\n")
    writer = csv.writer(stream, lineterminator="\n")
    for at, (label, text, position) in enumerate(_placed(annotation, spacing, descriptions), start=1):
        if position is not None:
            writer.writerow([at, *map(number_text, position), 0, 0, 0, 1, 1, 1, 0, label, text, ""])
    return write_text(path, stream.getvalue())


def _placed(
    annotation: Annotation, spacing: Spacings, descriptions: Sequence[str] | None
) -> Iterable[tuple[str, str, list[float] | None]]:
    """Label, description and LPS position (None = not annotated) of every landmark."""
    row_mm, col_mm = _spacing_of(annotation.film, spacing, None)
    names = common_names([annotation], "Slicer markups")
    for at, (x, y, seen) in enumerate(annotation.points()):
        texts = [*(["occluded"] if seen == 1 else []), *([descriptions[at]] if descriptions else [])]
        yield names[at], "; ".join(filter(None, texts)), [x * col_mm, y * row_mm, 0.0] if seen else None


def _spacing_of(film: str, spacing: Spacings, file: FilePath | None) -> tuple[float, float]:
    """(row_mm, col_mm) with which Slicer shows the film."""
    own = find_film(spacing, film, file=file, what="spacing") if isinstance(spacing, Mapping) else spacing
    return (
        (1.0, 1.0)
        if own is None
        else check_spacing(own, file=None if file is None else str(file), field=f"spacing of film {film}")
    )


def _annotation(
    file: Path, placed: Mapping[str, Point], schema: SchemaLike | None, spacing: Spacings, reader: str | None
) -> Annotation:
    """The annotation of one file from LPS millimeters."""
    film = re.sub(r"(\.mrk)?\.(json|fcsv)$", "", file.name, flags=re.IGNORECASE)
    row_mm, col_mm = _spacing_of(film, spacing, file)
    points = {label: (x / col_mm, y / row_mm, seen) for label, (x, y, seen) in placed.items()}
    return from_named(film, points, landmark_names(schema) or tuple(points), file=file, reader=reader)


def _place(xyz: Sequence[float], scale: float, description: str, file: Path, field: str) -> Point:
    """LPS millimeters in the film plane from a position in the file; ``scale`` carries unit and axis direction."""
    x, y, z = xyz
    if not math.isclose(z, 0.0, abs_tol=_HALF_SLICE_MM):
        raise AnnotationError(
            "the point does not lie in the film plane",
            file=file,
            field=field,
            value=list(xyz),
            expected="z = 0",
            action="place the point on the film itself, loaded as a 2-D image without orientation",
        )
    return x * scale, y * scale, 1 if description.split(";")[0].strip() == "occluded" else 2


def _add(points: dict[str, Point], label: str, point: Point, file: Path, field: str) -> None:
    """Add a named point; refuses a label that is empty or comes twice."""
    if not label or label in points:
        raise AnnotationError(
            "label comes twice" if label else "point without a label",
            file=file,
            field=field,
            value=label,
            expected="the name of a landmark, once",
            action="label the points with the landmark names in Slicer",
        )
    points[label] = point


def _sign(system: str, file: Path, field: str) -> float:
    """1 for LPS, -1 for RAS."""
    if system not in _AXIS_SIGNS:
        raise AnnotationError("unknown coordinate system", file=file, field=field, value=system, expected="LPS or RAS")
    return _AXIS_SIGNS[system]


def _json_points(file: Path) -> dict[str, Point]:
    """Label -> LPS millimeters of the only point list in a ``.mrk.json`` file."""
    markups = json_entry(read_json(file), "markups", list, file=file, where="")
    lists = [markup for markup in markups if isinstance(markup, dict) and markup.get("type") == "Fiducial"]
    if len(lists) != 1:
        found, expected = [m.get("type") for m in markups if isinstance(m, dict)], "one point list (type Fiducial)"
        action = "save each film's point list to a file of its own"
        raise AnnotationError(
            "not one point list", file=file, field="markups", value=found, expected=expected, action=action
        )
    unit = lists[0].get("coordinateUnits", "mm")
    unit = unit[0] if isinstance(unit, list) and unit else unit
    if unit not in _MM_PER_UNIT:
        raise AnnotationError("unknown unit", file=file, field="coordinateUnits", value=unit, expected="mm or um")
    sign = _sign(str(lists[0].get("coordinateSystem", "LPS")), file, "coordinateSystem")
    points: dict[str, Point] = {}
    for at, entry in enumerate(json_entry(lists[0], "controlPoints", list, file=file, where="markups[0]")):
        field = f"controlPoints[{at}]"
        label = json_entry(entry, "label", str, file=file, where=field).strip()
        _add(points, label, _json_place(entry, sign * _MM_PER_UNIT[unit], file, field), file, field)
    return points


def _json_place(entry: Any, scale: float, file: Path, field: str) -> Point:
    """Position of one control point; Slicer writes "" for the position of a point that has none."""
    status = entry.get("positionStatus", "defined")
    if status in ("undefined", "missing", "preview"):
        return MISSING
    position = json_entry(entry, "position", list, file=file, where=field)
    if status != "defined" or len(position) != 3:
        value, expected = (status, position), 'positionStatus "defined" with three numbers'
        raise AnnotationError("not a position", file=file, field=field, value=value, expected=expected)
    x, y, _ = json_point(position[:2], file=file, field=field)
    z, _, _ = json_point([position[2], 0], file=file, field=field)
    return _place((x, y, z), scale, str(entry.get("description", "")), file, field)


def _fcsv_points(file: Path) -> dict[str, Point]:
    """Label -> LPS millimeters of an ``.fcsv`` file."""
    lines = read_text(file).splitlines()
    header = dict(re.findall(r"^# *(.*?) *= *(.*?) *$", "\n".join(lines), flags=re.MULTILINE))
    system = header.get("CoordinateSystem")
    if system is None:
        expected, action = (
            "# CoordinateSystem = LPS or RAS",
            "save the point list again with a current version of Slicer",
        )
        raise AnnotationError("the header does not name the axes", file=file, expected=expected, action=action)
    columns = header.get("columns", FCSV_COLUMNS).split(",")
    sign = _sign(system, file, "CoordinateSystem")
    points: dict[str, Point] = {}
    # comment lines are emptied, not dropped, so that the line numbers stay true
    body = "\n".join("" if line.startswith("#") else line for line in lines)
    for number, cells in csv_rows(body, file=file):
        field = f"line {number}"
        row = dict(zip(columns, cells, strict=False))
        if not {"x", "y", "z", "label"} <= row.keys():
            raise AnnotationError("line too short", file=file, field=field, value=cells, expected=",".join(columns))
        xyz = [parse_number(row[axis], file=file, field=f"{field}, {axis}") for axis in "xyz"]
        _add(points, row["label"].strip(), _place(xyz, sign, row.get("desc", ""), file, field), file, field)
    return points
