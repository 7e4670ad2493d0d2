"""Measures of a film in mm and degrees, and their expected spread against Monte Carlo."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from monai_landmark.data.schema import LandmarkSchema, shipped_schemas
from monai_landmark.errors import DataError
from monai_landmark.results import LandmarkResult
from monai_landmark.results.measurements import (
    MeasuredValue,
    measure_points,
    measure_result,
    measured_sd,
    write_measurements_csv,
)

SHAPE = LandmarkSchema(
    name="shape",
    title="Three points",
    landmarks=("a", "b", "c", "other"),
    lines={"ab": ("a", "b"), "bc": ("b", "c")},
    angles={"corner": ("a", "b", "c"), "cross": ("ab", "bc"), "gap": ("corner", "cross")},
    distances={"ab_length": ("a", "b"), "bc_length": ("b", "c")},
    ratios={"share": ("ab_length", "bc_length")},
)
POINTS = np.array([[10.0, 10.0], [10.0, 70.0], [90.0, 70.0], [50.0, 50.0]])


def result(points: object = POINTS, **changes: object) -> LandmarkResult:
    fields = {"spacing_mm": (0.5, 0.25), "spacing_source": "user"} | changes
    return LandmarkResult("film", (100, 100), SHAPE.landmarks, np.asarray(points, dtype=float), **fields)  # type: ignore[arg-type]


def named(measured: tuple[MeasuredValue, ...]) -> dict[str, MeasuredValue]:
    return {one.name: one for one in measured}


def test_values_on_a_film_with_oblong_pixels() -> None:
    # One pixel is 0.5 mm high and 0.25 mm wide: a-b is 60 rows = 30 mm, b-c 80 columns = 20 mm.
    found = named(measure_result(result(), SHAPE))
    assert found["ab_length"] == MeasuredValue("ab_length", "distance", 30.0, "mm")
    assert found["bc_length"].value == pytest.approx(20)
    assert found["share"] == MeasuredValue("share", "ratio", 1.5, "1")
    assert found["corner"] == MeasuredValue("corner", "angle", pytest.approx(90), "deg")  # type: ignore[arg-type]
    slanted = named(measure_result(result([[10, 10], [10, 70], [50, 10], [0, 0]]), SHAPE))
    assert slanted["corner"].value == pytest.approx(math.degrees(math.atan2(40 * 0.25, 60 * 0.5)))


def test_without_spacing_angles_need_the_shape_of_a_pixel_and_distances_are_unknown() -> None:
    points = np.array([[10.0, 10], [10, 70], [50, 10], [0, 0]])
    film = result(points, spacing_mm=None, spacing_source="none")
    square, oblong = named(measure_result(film, SHAPE)), named(measure_result(film, SHAPE, pixel_aspect=2.0))
    assert square["ab_length"].value is None and square["bc_length"].value is None
    assert square["corner"].value == pytest.approx(math.degrees(math.atan2(40, 60)))
    assert oblong["corner"].value == pytest.approx(math.degrees(math.atan2(20, 60)))
    assert oblong["share"].value == pytest.approx(60 / math.hypot(20, 60))
    assert oblong["corner"].value == named(measure_result(result(points), SHAPE))["corner"].value


def test_missing_landmarks_take_only_their_own_measures_away() -> None:
    points = POINTS.copy()
    points[2] = np.nan
    found = named(measure_result(result(points, expected_error_mm=np.ones(4)), SHAPE))
    assert found["ab_length"].value == 30 and found["ab_length"].expected_sd is not None
    for name in ("corner", "cross", "gap", "bc_length", "share"):
        assert (found[name].value, found[name].expected_sd) == (None, None)


def test_spread_of_a_distance_in_closed_form() -> None:
    # Mean radius sigma sqrt(pi / 2); along the line both ends add their variances.
    errors = np.array([1.0, 2.0, np.nan, np.nan])
    spread = measured_sd(POINTS, SHAPE, (0.5, 0.25), errors)
    assert spread["ab_length"] == pytest.approx(math.sqrt((1 + 4) * 2 / math.pi), rel=1e-6)
    assert math.isnan(spread["bc_length"]) and math.isnan(spread["corner"])


def test_no_expected_error_means_no_spread() -> None:
    assert all(one.expected_sd is None for one in measure_result(result(), SHAPE))


@pytest.mark.parametrize("name", shipped_schemas())
def test_spread_agrees_with_monte_carlo(name: str) -> None:
    schema = LandmarkSchema.load(name)
    random = np.random.default_rng(len(name))
    points, spacing = random.uniform(200, 1800, (schema.count, 2)), (0.1, 0.15)
    errors = random.uniform(0.2, 0.8, schema.count)
    spread = measured_sd(points, schema, spacing, errors)
    # Radii drawn with the stated mean, angles uniform: a Gaussian by another road (Rayleigh).
    draws = 20_000
    radius = random.rayleigh(errors / math.sqrt(math.pi / 2), (draws, schema.count))
    assert radius.mean(axis=0) == pytest.approx(errors, rel=0.02)
    turn = random.uniform(0, 2 * math.pi, radius.shape)
    moved = points * spacing[::-1] + radius[..., None] * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    values = schema.measure_films(moved)
    compared = 0
    for measure, sd in spread.items():
        values_at = measure_points(points, schema, spacing)[measure]
        if measure in schema.angles and not 5 * sd < abs(values_at) < 180 - 5 * sd:
            continue  # folded at 0 or 180 degrees
        assert values[measure].std() == pytest.approx(sd, rel=0.04), measure
        compared += 1
    assert compared >= 0.7 * len(spread)


def test_an_angle_of_exactly_zero_is_not_taken_as_fixed() -> None:
    flat = np.array([[0.0, 0.0], [40.0, 0.0], [80.0, 0.0], [5.0, 5.0]])
    assert measure_points(flat, SHAPE, (0.5, 0.5))["cross"] == 0
    assert measured_sd(flat, SHAPE, (0.5, 0.5), np.ones(4))["cross"] > 1


def test_csv_holds_every_measure(tmp_path: Path) -> None:
    films = [result(expected_error_mm=np.ones(4)), result(spacing_mm=None, spacing_source="none")]
    with open(write_measurements_csv(films, SHAPE, tmp_path / "m.csv"), newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    assert (rows[3]["measure"], rows[3]["value"], rows[3]["unit"]) == ("ab_length", "30", "mm")
    assert float(rows[3]["expected_sd"]) == pytest.approx(math.sqrt(4 / math.pi), rel=1e-5)
    assert (rows[9]["value"], rows[9]["spacing_source"]) == ("", "none")


def test_a_schema_of_other_landmarks_is_refused() -> None:
    with pytest.raises(DataError, match="schema isbi19"):
        measure_result(result(), LandmarkSchema.load("isbi19"))


def test_shipped_schemas_measure_what_clinics_ask_for() -> None:
    assert {"SNA", "SNB", "ANB"} <= LandmarkSchema.load("isbi19").angles.keys()
    assert "wrist_width" in LandmarkSchema.load("dha37").distances
    assert "thoracic_width_to_right_lung_height" in LandmarkSchema.load("chest6").ratios
