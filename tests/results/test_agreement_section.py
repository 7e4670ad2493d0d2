"""Measurements in the report: what is compared with what, and the same numbers in page and metrics.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.metrics import bland_altman, intraclass_correlation
from monai_landmark.results import LandmarkResult
from monai_landmark.results.agreement import two_readers
from monai_landmark.results.report import write_report

SCHEMA = LandmarkSchema(
    "shape",
    "Three points",
    ("a", "b", "c"),
    angles={"corner <b>": ("a", "b", "c")},
    distances={"a_to_b": ("a", "b")},
    ratios={},
)
SPACING = (0.5, 0.25)


def cohort(count: int = 30, **changes: Any) -> tuple[list[LandmarkResult], dict[str, Any], dict[str, Any]]:
    """Predictions, references and two readers of films whose true points are known."""
    random = np.random.default_rng(0)
    fields = {"spacing_mm": SPACING, "spacing_source": "user"} | changes
    results, references, readers = [], {}, {}
    for index in range(count):
        name = f"film-{index}"
        truth = np.array([[100.0, 100], [100, 400], [500, 400]]) + random.normal(0, 15, (3, 2))
        one, other = truth + random.normal(0, 2, (3, 2)), truth + random.normal(0, 2, (3, 2)) + [4, 0]
        references[name], readers[name] = (one + other) / 2, (one, other)
        results.append(
            LandmarkResult(name, (500, 600), SCHEMA.landmarks, truth + random.normal(0, 3, (3, 2)), **fields)
        )  # type: ignore[arg-type]
    return results, references, readers


def written(tmp_path: Path, *args: Any, **options: Any) -> tuple[str, list[dict[str, Any]]]:
    path = write_report(tmp_path / "report.html", *args, **options)
    return path.read_text(encoding="utf-8"), json.loads((tmp_path / "metrics.json").read_text())["measurements"]


def test_numbers_are_those_of_the_metrics_on_measured_films(tmp_path: Path) -> None:
    results, references, readers = cohort()
    page, rows = written(tmp_path, results, references, SCHEMA, readers=readers)
    assert [(row["measure"], row["unit"]) for row in rows] == [("corner <b>", "deg"), ("a_to_b", "mm")]

    def length(points: np.ndarray) -> float:
        return float(np.hypot((points[1, 0] - points[0, 0]) * SPACING[1], (points[1, 1] - points[0, 1]) * SPACING[0]))

    predicted = [length(result.points_px) for result in results]
    reference = [length(references[result.film]) for result in results]
    found, expected = rows[1]["prediction"], bland_altman(reference, predicted)
    assert (found["n"], found["bias"], found["sd"]) == pytest.approx((30, expected.bias, expected.sd))
    assert found["limits"] == pytest.approx([expected.lower, expected.upper])
    assert found["icc"] == pytest.approx(intraclass_correlation(np.stack([reference, predicted], 1)).value)
    pairs = [[length(points) for points in readers[result.film]] for result in results]
    assert rows[1]["readers"]["bias"] == pytest.approx(np.mean(np.diff(pairs)))
    assert f"{expected.bias:.2f} mm" in page and f"{expected.lower:.2f} to {expected.upper:.2f}" in page
    assert "Reader against reader" in page and "corner &lt;b&gt;" in page and "corner <b>" not in page
    assert page.count('class="plot agreement"') == 2


def test_expected_spread_stands_beside_the_actual_one(tmp_path: Path) -> None:
    # Errors of 3 px per axis are 0.75 and 1.5 mm; isotropic 1.5 mm is right for the distance, which runs along y.
    results, references, _ = cohort(expected_error_mm=np.full(3, 1.5 * np.sqrt(np.pi / 2)))
    page, rows = written(tmp_path, results, references, SCHEMA)
    assert rows[1]["expected_sd"] == pytest.approx(1.5 * np.sqrt(2), rel=0.01)
    assert "Expected SD" in page and "Held %" in page and "Reader against reader" not in page
    assert rows[1]["readers"] is None
    assert 86 <= rows[1]["held_percent"] <= 100  # 95 of 100 are expected; 30 films


def test_a_network_too_sure_of_itself_holds_too_few(tmp_path: Path) -> None:
    results, references, _ = cohort(expected_error_mm=np.full(3, 0.15 * np.sqrt(np.pi / 2)))
    _, rows = written(tmp_path, results, references, SCHEMA)
    assert 2 <= rows[1]["held_percent"] <= 40  # 1.96 tenths of a standard deviation hold 15.5 %


def test_films_without_spacing_have_no_distances(tmp_path: Path) -> None:
    results, references, _ = cohort(spacing_mm=None, spacing_source="none")
    page, rows = written(tmp_path, results, references, SCHEMA)
    assert [row["measure"] for row in rows] == ["corner <b>"]
    assert "Measurements" in page and "Expected SD" not in page


def test_nothing_to_measure_leaves_the_section_out(tmp_path: Path) -> None:
    results, references, readers = cohort(3)
    for schema, reference in ((None, references), (LandmarkSchema.load("chest6"), references), (SCHEMA, {})):
        page, rows = written(tmp_path, results, reference, schema, readers=readers)
        assert rows == [] and ">Measurements<" not in page


def test_two_readers_of_a_datalist() -> None:
    by = {"junior": [[1, 2], None], "senior": [[3, 4], [5, 6]], "third": [[0, 0], [0, 0]]}
    items = [{"id": "one", "readers": by}, {"id": "two", "readers": {"junior": [[1, 2], [3, 4]]}}, {"id": "three"}]
    found = two_readers(items)
    assert list(found) == ["one"]
    first, second = found["one"]
    np.testing.assert_array_equal(first, [[1, 2], [np.nan, np.nan]])
    np.testing.assert_array_equal(second, [[3, 4], [5, 6]])
    assert two_readers(items[1:]) == {}
