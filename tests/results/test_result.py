"""LandmarkResult and its files: round trips, the published schema, refusals."""

from __future__ import annotations

import csv
import json
import math

import jsonschema
import numpy as np
import pytest

from monai_landmark import __version__
from monai_landmark.data.annotations.slicer import read_mrk_json
from monai_landmark.errors import DataError
from monai_landmark.results import LandmarkResult, load_results, result_json_schema, save_results, write_csv
from monai_landmark.results.files import write_markups
from monai_landmark.results.result import Guarantee

NAMES = ("sella", "nasion", "lost")
POINTS = np.array([[100.25, 200.5], [1 / 3, 7.0], [np.nan, np.nan]])


def make(**changes: object) -> LandmarkResult:
    """A result with three landmarks, one of them not found, on a film with oblong pixels."""
    fields = {
        "film": "film-1",
        "original_size": (400, 300),
        "names": NAMES,
        "points_px": POINTS,
        "spacing_mm": (0.1, 0.25),
        "spacing_source": "calibrated",
        "confidence": [0.9, 0.5, np.nan],
        "expected_error_mm": [0.7, 1.5, np.nan],
        "schema": "isbi19",
        "model_name": "xray_landmarks",
        "model_sha256": "0f" * 32,
        "warnings": ("one landmark was not found",),
    }
    return LandmarkResult(**(fields | changes))  # type: ignore[arg-type]


PROMISED = {
    "region_radius_mm": [1.5, 3.25, np.nan],
    "refer": [False, True, True],
    "guarantee": Guarantee(region_level=0.9, tolerance_mm=4.0, risk=0.05),
}
WITHOUT_SPACING = {"spacing_mm": None, "spacing_source": "none", "expected_error_mm": None}


def test_millimeters_follow_each_axis() -> None:
    points_mm = make().points_mm
    assert points_mm is not None
    np.testing.assert_allclose(points_mm[:2], [[25.0625, 20.05], [1 / 12, 0.7]], rtol=1e-12)
    assert np.isnan(points_mm[2]).all()


def test_no_spacing_means_no_millimeter_anywhere() -> None:
    result = make(**WITHOUT_SPACING)
    assert result.points_mm is None
    assert result.unit == "px"
    for landmark in result.to_dict()["landmarks"]:
        assert [landmark[key] for key in ("x_mm", "y_mm", "expected_error_mm")] == [None, None, None]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        WITHOUT_SPACING,
        {"confidence": None},
        PROMISED,
        PROMISED | {"region_radius_mm": None},
        {"names": (), "points_px": np.empty((0, 2)), "confidence": None, "expected_error_mm": None},
    ],
)
def test_json_round_trip_is_exact_and_follows_the_schema(changes: dict[str, object]) -> None:
    result = make(**changes)
    document = json.loads(result.to_json())
    jsonschema.Draft202012Validator(result_json_schema()).validate(document)
    back = LandmarkResult.from_json(result.to_json())
    assert back == result
    np.testing.assert_array_equal(back.points_px, result.points_px)
    assert document["disclaimer"] == "not for diagnosis"
    assert document["version"] == __version__


def test_documents_of_version_1_are_read_and_promise_nothing() -> None:
    document = make().to_dict()
    document["format_version"] = 1
    del document["guarantee"]
    for landmark in document["landmarks"]:
        del landmark["region_radius_mm"], landmark["refer"]
    old = LandmarkResult.from_dict(document)
    assert old == make() and old.guarantee is old.refer is old.region_radius_mm is None
    document["landmarks"][0]["refer"] = True  # version 1 had no such field
    with pytest.raises(DataError):
        LandmarkResult.from_dict(document)


def test_the_schema_itself_is_valid() -> None:
    schema = result_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == "urn:monai-landmark:landmark-result:2"


def _set(document: dict[str, object], path: str, value: object) -> None:
    *parents, last = path.split(".")
    node: object = document
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]  # type: ignore[index]
    if value is KeyError:
        del node[last]  # type: ignore[attr-defined]
    else:
        node[last] = value  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", "something else"),
        ("format_version", 3),
        ("film", ""),
        ("spacing_mm", [0.1]),
        ("spacing_mm", [0.1, 0]),
        ("spacing_mm", None),
        ("spacing_source", "guessed"),
        ("spacing_source", "none"),
        ("model.sha256", "abc"),
        ("landmarks.0.confidence", 1.1),
        ("landmarks.0.x_px", "12"),
        ("landmarks.0.x_px", 999.0),
        ("landmarks.0.x_px", None),
        ("landmarks.0.y_mm", 1.0),
        ("landmarks.1.name", "sella"),
        ("disclaimer", "safe for diagnosis"),
        ("patient_name", "Doe"),
        ("version", KeyError),
    ],
)
def test_from_json_refuses_what_does_not_follow(path: str, value: object) -> None:
    document = make().to_dict()
    _set(document, path, value)
    with pytest.raises(DataError):
        LandmarkResult.from_json(json.dumps(document), file="film-1.json")


def test_millimeters_without_spacing_are_refused_by_the_schema_alone() -> None:
    document = make(**WITHOUT_SPACING).to_dict()
    document["landmarks"][0]["x_mm"] = 3.0
    assert not jsonschema.Draft202012Validator(result_json_schema()).is_valid(document)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"x": NaN}', make().to_json().replace("100.25", "NaN")])
def test_text_that_is_no_result_names_the_file(text: str) -> None:
    with pytest.raises(DataError, match=r"broken\.json"):
        LandmarkResult.from_json(text, file="broken.json")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"points_px": POINTS[:2]}, "points_px"),
        ({"points_px": np.full((3, 2), np.inf)}, "points_px"),
        ({"points_px": [[1, np.nan], [1, 1], [1, 1]]}, "points_px"),
        ({"confidence": [0.1, -0.1, 0.5]}, "confidence"),
        ({"confidence": [0.1]}, "confidence"),
        ({"expected_error_mm": [1, -1, 1]}, "expected_error_mm"),
        ({"spacing_mm": None, "spacing_source": "none"}, "expected_error_mm"),
        (WITHOUT_SPACING | PROMISED, "region_radius_mm"),
        (PROMISED | {"guarantee": None}, "guarantee"),
        (PROMISED | {"guarantee": Guarantee(1.0, 4.0, 0.05)}, "guarantee"),
        (PROMISED | {"guarantee": Guarantee(0.9, 4.0, 0.0)}, "guarantee"),
        (PROMISED | {"guarantee": Guarantee(0.9, math.inf, 0.05)}, "guarantee"),
        (PROMISED | {"region_radius_mm": [1, -1, 1]}, "region_radius_mm"),
        (PROMISED | {"refer": [True, False]}, "refer"),
        ({"spacing_mm": None}, "spacing_source"),
        ({"spacing_source": "none"}, "spacing_source"),
        ({"spacing_mm": (0.1, math.nan)}, "spacing_mm"),
        ({"spacing_mm": (0.1, -0.1)}, "spacing_mm"),
        ({"names": ("a", "a", "b")}, "names"),
        ({"original_size": (0, 3)}, "original_size"),
        ({"model_sha256": "xyz"}, "model_sha256"),
        ({"film": ""}, "film"),
        ({"disclaimer": ""}, "disclaimer"),
    ],
)
def test_constructor_refuses_and_names_the_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(DataError) as caught:
        make(**changes)
    assert caught.value.field == field


def test_result_cannot_be_changed_in_place() -> None:
    points = POINTS.copy()
    result = make(points_px=points)
    points[0] = 0
    assert result.points_px[0, 0] == 100.25
    with pytest.raises(ValueError, match="read-only"):
        result.points_px[0] = 0


def test_csv_has_one_row_per_landmark_and_units_in_its_columns(tmp_path) -> None:
    path = write_csv([make(), make(film='b, "quoted"', **WITHOUT_SPACING)], tmp_path / "out" / "landmarks.csv")
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    assert [(row["film"], row["landmark"]) for row in rows] == [
        (f, n) for f in ("film-1", 'b, "quoted"') for n in NAMES
    ]
    assert {"x_px", "y_px", "x_mm", "y_mm", "expected_error_mm", "row_spacing_mm", "col_spacing_mm"} <= rows[0].keys()
    assert float(rows[1]["x_px"]) == 1 / 3
    assert float(rows[0]["y_mm"]) == pytest.approx(20.05)
    assert {row["refer"] for row in rows} == {""}
    (told, *_) = csv.DictReader(write_csv(make(**PROMISED), tmp_path / "told.csv").open(encoding="utf-8"))
    assert [told[key] for key in ("region_radius_mm", "refer", "region_level", "tolerance_mm", "risk")] == [
        *("1.5", "False", "0.9", "4.0", "0.05")
    ]
    assert rows[2]["x_px"] == rows[2]["x_mm"] == rows[3]["x_mm"] == rows[3]["row_spacing_mm"] == ""


@pytest.mark.parametrize("changes", [{}, WITHOUT_SPACING])
def test_slicer_markups_come_back(tmp_path, changes: dict[str, object]) -> None:
    result = make(**changes)
    path = write_markups(result, tmp_path / "film-1.mrk.json")
    (back,) = read_mrk_json(path, spacing=result.spacing_mm)
    assert back.names == NAMES
    np.testing.assert_allclose(back.landmarks, POINTS, rtol=1e-12)
    assert "not for diagnosis" in path.read_text(encoding="utf-8")


def test_save_and_load_one_many_and_a_folder(tmp_path) -> None:
    first, second = make(), make(film="film-2")
    save_results([first, second], tmp_path / "all.json")
    assert load_results(tmp_path / "all.json") == [first, second]
    folder = tmp_path / "each"
    save_results(second, folder / "b.json")
    save_results(first, folder / "a.json")
    write_markups(first, folder / "a.mrk.json")
    (folder / "metrics.json").write_text("{}", encoding="utf-8")
    assert load_results(folder) == [first, second]
    save_results([second], folder / "predictions.json")
    assert load_results(folder) == [second]


@pytest.mark.parametrize("make_path", [lambda root: root, lambda root: root / "absent.json"])
def test_load_says_when_nothing_is_there(tmp_path, make_path) -> None:
    with pytest.raises(DataError, match=tmp_path.name):
        load_results(make_path(tmp_path))
