"""3D Slicer point lists: where points lie, what the files say, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from monai_landmark.data.annotations import Annotation, read_fcsv, read_mrk_json, write_fcsv, write_mrk_json
from monai_landmark.errors import AnnotationError, FilmError

SPACING = (0.2, 0.4)
POINT_SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "label": {"type": "string"},
        "description": {"type": "string"},
        "position": {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
        "positionStatus": {"enum": ["undefined", "preview", "defined"]},
    },
}
"""Key facts of Slicer's markups-schema-v1.0.3.json."""
MARKUPS_SCHEMA = {
    "type": "object",
    "required": ["@schema", "markups"],
    "properties": {
        "@schema": {"type": "string", "pattern": r"(?i)markups-schema-v1\.[0-9]+\.[0-9]+\.json#*$"},
        "markups": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type"],
                "properties": {
                    "type": {"enum": ["Fiducial", "Line", "Angle", "Curve", "ClosedCurve", "Plane", "ROI"]},
                    "name": {"type": "string"},
                    "coordinateSystem": {"enum": ["LPS", "RAS"]},
                    "coordinateUnits": {"enum": ["mm", "um"]},
                    "controlPoints": {"type": "array", "items": POINT_SCHEMA},
                    "display": {"type": "object", "properties": {"pointLabelsVisibility": {"type": "boolean"}}},
                },
            },
        },
    },
}


def _mrk(folder: Path, points: list[dict[str, Any]], **markup: Any) -> Path:
    file = folder / "one.mrk.json"
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points} | markup
    file.write_text(json.dumps({"@schema": "markups-schema-v1.0.3.json#", "markups": [markup]}))
    return file


def _fcsv(folder: Path, lines: list[str], system: str | None = "LPS") -> Path:
    header = ["# Markups fiducial file version = 4.11"] + ([f"# CoordinateSystem = {system}"] if system else [])
    file = folder / "one.fcsv"
    file.write_text(
        "\n".join([*header, "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID", *lines])
    )
    return file


def _point(label: str, *position: float, **more: Any) -> dict[str, Any]:
    return {"label": label, "position": list(position)} | more


def test_pixel_col_row_lies_at_lps_col_mm_row_mm(tmp_path: Path) -> None:
    """Pixel (row 10, col 30) of a film with rows of 0.2 mm and columns of 0.4 mm lies at L 12, P 2."""
    (annotation,) = read_mrk_json(_mrk(tmp_path, [_point("a", 12.0, 2.0, 0.0)]), spacing=SPACING)
    np.testing.assert_allclose(annotation.landmarks, [[30, 10]], rtol=1e-15)
    assert (annotation.film, annotation.names, annotation.visibility.tolist()) == ("one", ("a",), [2])


def test_written_position_is_in_lps_millimeters(tmp_path: Path) -> None:
    annotation = Annotation("one", np.array([[30.0, 10.0]]), np.array([2], dtype=np.int8), ("a",))
    file = write_mrk_json(tmp_path / "one.mrk.json", annotation, spacing=SPACING)
    (markup,) = json.loads(file.read_text())["markups"]
    assert (markup["coordinateSystem"], markup["coordinateUnits"]) == ("LPS", "mm")
    np.testing.assert_allclose(markup["controlPoints"][0]["position"], [12, 2, 0])
    line = write_fcsv(tmp_path / "one.fcsv", annotation, spacing=SPACING).read_text().splitlines()[-1].split(",")
    np.testing.assert_allclose([float(value) for value in line[1:4]], [12, 2, 0])
    assert line[11] == "a" and len(line) == 14


@pytest.mark.parametrize(("system", "sign"), [("LPS", 1), ("RAS", -1)])
def test_both_coordinate_systems_are_read(tmp_path: Path, system: str, sign: int) -> None:
    points = [_point("a", sign * 12.0, sign * 2.0, 0.0)]
    (annotation,) = read_mrk_json(_mrk(tmp_path, points, coordinateSystem=system), spacing=SPACING)
    np.testing.assert_allclose(annotation.landmarks, [[30, 10]])
    for name in (system, {"LPS": "1", "RAS": "0"}[system]):
        (annotation,) = read_fcsv(
            _fcsv(tmp_path, [f"1,{sign * 12},{sign * 2},0,0,0,0,1,1,1,0,a,,"], name), spacing=SPACING
        )
        np.testing.assert_allclose(annotation.landmarks, [[30, 10]])


@pytest.mark.parametrize("unit", ["um", ["um", "UCUM", "micrometer"]])
def test_micrometers_are_read(tmp_path: Path, unit: Any) -> None:
    file = _mrk(tmp_path, [_point("a", 12000.0, 2000.0, 0.0)], coordinateUnits=unit)
    np.testing.assert_allclose(read_mrk_json(file, spacing=SPACING)[0].landmarks, [[30, 10]])


def test_films_without_spacing_are_in_pixels(tmp_path: Path) -> None:
    file = _mrk(tmp_path, [_point("a", 30.0, 10.0, 0.0)])
    for spacing in (None, (1.0, 1.0), {"one": None}):
        assert read_mrk_json(file, spacing=spacing)[0].landmarks.tolist() == [[30, 10]]
    assert read_mrk_json(file, spacing={"one": (0.5, 0.1)})[0].landmarks.tolist() == [[300, 20]]


def test_points_without_a_position_are_missing(tmp_path: Path) -> None:
    """Slicer writes an empty text for the position of such a point."""
    points = [
        _point("a", 1.0, 1.0, 0.0, positionStatus="undefined"),
        {"label": "b", "position": "", "positionStatus": "missing"},
        {"label": "c", "positionStatus": "preview"},
        _point("d", 1.0, 2.0, 0.0, positionStatus="defined"),
    ]
    (annotation,) = read_mrk_json(_mrk(tmp_path, points), spacing=None)
    assert annotation.visibility.tolist() == [0, 0, 0, 2] and np.isnan(annotation.landmarks[:3]).all()


@pytest.mark.parametrize(
    ("write", "read", "ending"), [(write_mrk_json, read_mrk_json, ".mrk.json"), (write_fcsv, read_fcsv, ".fcsv")]
)
@pytest.mark.parametrize("spacing", [None, SPACING, {"one": (0.143, 0.143), "two": None}])
def test_round_trip_is_within_rounding(
    tmp_path: Path,
    complete: list,
    partial: list,
    schema: Any,
    write: Callable,
    read: Callable,
    ending: str,
    spacing: Any,
) -> None:
    for films in (complete, partial):
        for annotation in films:
            write(tmp_path / f"{annotation.film}{ending}", annotation, spacing=spacing)
        for got, put in zip(read(tmp_path, schema, spacing=spacing), films, strict=True):
            assert (got.film, got.names, got.visibility.tolist()) == (put.film, put.names, put.visibility.tolist())
            np.testing.assert_allclose(got.landmarks, put.landmarks, rtol=0, atol=1e-9)


def test_what_is_written_fits_slicers_schema(tmp_path: Path, partial: list[Annotation]) -> None:
    file = write_mrk_json(tmp_path / "one.mrk.json", partial[0], spacing=SPACING, descriptions=["error 2 mm", "", "x"])
    content = json.loads(file.read_text())
    jsonschema.validate(content, MARKUPS_SCHEMA)
    points = content["markups"][0]["controlPoints"]
    assert [p["positionStatus"] for p in points] == ["defined", "undefined", "defined"]
    assert [p["description"] for p in points] == ["occluded; error 2 mm", "", "x"]
    assert [p["id"] for p in points] == ["1", "2", "3"] and "position" not in points[1]


@pytest.mark.parametrize(
    ("points", "markup", "words"),
    [
        ([_point("a", 1, 2, 0), _point("a", 1, 2, 0)], {}, r"label comes twice; field: controlPoints\[1\]; found: 'a'"),
        ([_point("", 1, 2, 0)], {}, "point without a label"),
        ([_point("a", 1, 2, 30)], {}, "does not lie in the film plane"),
        ([_point("a", 1, 2)], {}, "not a position"),
        ([_point("a", 1, "2", 0)], {}, "not a landmark"),
        ([_point("a", 1, 2, 0, positionStatus="lost")], {}, "not a position"),
        ([{"label": "a"}], {}, r"field: controlPoints\[0\]\.position"),
        ([[1, 2, 0]], {}, r"field: controlPoints\[0\]\.label"),
        ([_point("a", -5, 2, 0)], {}, "outside the film"),
        ([_point("a", 1, 2, 0)], {"coordinateSystem": "IJK"}, "unknown coordinate system"),
        ([_point("a", 1, 2, 0)], {"coordinateUnits": "inch"}, "unknown unit"),
        ([_point("a", 1, 2, 0)], {"type": "Line"}, r"not one point list; field: markups; found: \['Line'\]"),
    ],
)
def test_malformed_markups_are_refused(tmp_path: Path, points: list, markup: dict, words: str) -> None:
    with pytest.raises(AnnotationError, match=words) as caught:
        read_mrk_json(_mrk(tmp_path, points, **markup), spacing=None)
    assert "one.mrk.json" in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "system", "words"),
    [
        (["1,1,2,0,0,0,0,1,1,1,0,a,,"], None, "does not name the axes"),
        (["1,1,2,0,0,0,0,1,1,1,0,a,,"], "2", "unknown coordinate system"),
        (["1,1,2"], "LPS", "line too short; field: line 4"),
        (["1,1,two,0,0,0,0,1,1,1,0,a,,"], "LPS", "not a number; field: line 4, y; found: 'two'"),
        (["1,1,2,9,0,0,0,1,1,1,0,a,,"], "LPS", "film plane"),
        (["1,1,2,0,0,0,0,1,1,1,0,a,,", "2,1,2,0,0,0,0,1,1,1,0,a,,"], "LPS", "label comes twice; field: line 5"),
    ],
)
def test_malformed_fcsv_is_refused(tmp_path: Path, lines: list[str], system: str | None, words: str) -> None:
    with pytest.raises(AnnotationError, match=words):
        read_fcsv(_fcsv(tmp_path, lines, system), spacing=None)


def test_labels_outside_the_schema_and_impossible_spacings_are_refused(
    tmp_path: Path, complete: list, schema: Any
) -> None:
    file = _mrk(tmp_path, [_point("F-1", 1, 2, 0)])
    with pytest.raises(AnnotationError, match=r"unknown landmark name.*'F-1'"):
        read_mrk_json(file, schema, spacing=None)
    with pytest.raises(FilmError, match="spacing of film one"):
        read_mrk_json(file, spacing=(0.0, 0.1))
    with pytest.raises(AnnotationError, match="spacing of the film unknown"):
        read_mrk_json(file, spacing={"two": (0.1, 0.1)})
    with pytest.raises(AnnotationError, match="landmark names"):
        write_mrk_json(tmp_path / "x.mrk.json", replace(complete[0], names=None), spacing=None)
