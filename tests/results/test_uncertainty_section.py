"""The report's part on uncertainty: its numbers against counts by hand, and when it is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monai_landmark.results import LandmarkResult
from monai_landmark.results.evaluation import evaluate_results
from monai_landmark.results.report import ReportInfo, write_report
from monai_landmark.results.result import Guarantee
from monai_landmark.results.table import Measurement
from monai_landmark.results.uncertainty_section import uncertainty_numbers, uncertainty_section

ERRORS = np.array([[1.0, 5.0], [2.0, 3.0], [0.5, 9.0], [1.5, np.nan]])
EXPECTED = np.array([[1.0, 4.0], [2.5, 1.5], [0.4, 8.0], [6.0, 1.0]])
PROMISE = Guarantee(region_level=0.9, tolerance_mm=4.0, risk=0.05)


def films(calibrated: bool = True, spacing: bool = True) -> tuple[list[LandmarkResult], dict[str, np.ndarray]]:
    """Four films of two landmarks whose errors are known; regions are 1.2 times what is expected."""
    results, references = [], {}
    for index, (error, expected) in enumerate(zip(ERRORS, EXPECTED, strict=True)):
        truth = np.array([[40.0, 50.0], [80.0, 20.0]])
        references[f"f{index}"] = np.where(np.isnan(error)[:, None], np.nan, truth)
        points = truth + np.stack([np.nan_to_num(error) / 0.5, np.zeros(2)], axis=-1)
        words: dict[str, object] = {"spacing_mm": (0.25, 0.5), "spacing_source": "user", "expected_error_mm": expected}
        if calibrated:
            words |= {"region_radius_mm": 1.2 * expected, "refer": expected >= 5.0, "guarantee": PROMISE}
        result = LandmarkResult(f"f{index}", (100, 120), ("a", "b"), points, **(words if spacing else {}))
        results.append(result)
    return results, references


def measurement(**words: bool) -> Measurement:
    return Measurement(evaluate_results(*films(**words)))


def test_numbers_by_hand() -> None:
    numbers = uncertainty_numbers(measurement())
    assert numbers is not None
    assert (numbers["films"], numbers["n"], numbers["gross"], numbers["tolerance_mm"]) == (4, 7, 2, 4.0)
    # gross: expected 4 and 8; small: 1, 2.5, 1.5, 0.4, 6: nine of ten pairs in order
    assert numbers["auroc"] == pytest.approx(9 / 10)
    # 1 of 1.2, 5 of 4.8, 2 of 3, 3 of 1.8, 0.5 of 0.48, 9 of 9.6, 1.5 of 7.2
    assert numbers["covered_percent"] == pytest.approx(100 * 4 / 7)
    assert numbers["referred_percent"] == pytest.approx(100 * 2 / 7)  # expected 8 and 6
    assert numbers["passed_gross_percent"] == pytest.approx(100 * np.mean([0.5, 0, 0, 0]))
    landmark, film = numbers["referral"]
    assert (landmark["by"], film["by"]) == ("landmark", "film")
    assert landmark["mean_after"] == pytest.approx(np.mean([1, 5, 2, 3, 0.5, 1.5]))  # 6 of 7 are 80 % or more
    assert numbers["landmarks"][1]["covered_percent"] == pytest.approx(100 / 3)


def test_films_that_were_calibrated_on_are_left_out() -> None:
    numbers = uncertainty_numbers(measurement(), calibrated_on={"f0", "f2", "elsewhere"})
    assert numbers is not None and (numbers["films"], numbers["left_out"], numbers["n"]) == (2, 2, 3)
    assert uncertainty_numbers(measurement(), calibrated_on={"f0", "f1", "f2", "f3"}) is None


def test_without_calibration_only_the_ranking_is_told() -> None:
    numbers = uncertainty_numbers(measurement(calibrated=False))
    assert numbers is not None and numbers["guarantee"] is None and "covered_percent" not in numbers
    html = uncertainty_section(measurement(calibrated=False), numbers)
    assert "0.900" in html and "In region" not in html


def test_without_millimeters_there_is_nothing_to_tell() -> None:
    assert uncertainty_numbers(measurement(spacing=False)) is None
    assert uncertainty_section(measurement(spacing=False), None) == ""


def test_report_tells_promise_and_what_was_met(tmp_path: Path) -> None:
    results, references = films()
    path = write_report(tmp_path / "report.html", results, references, info=ReportInfo(calibrated_on=("f1",)))
    page, metrics = path.read_text(), json.loads((tmp_path / "metrics.json").read_text())
    assert "Expected errors, regions and referral" in page and "Risk against coverage" in page
    assert "1 films that the regions were fitted on" in page and "promised: at most 5.0 %" in page
    assert metrics["uncertainty"]["left_out"] == 1 and metrics["uncertainty"]["films"] == 3
    assert metrics["info"]["calibrated_on"] == ["f1"]
    without = write_report(tmp_path / "b" / "report.html", results)
    assert "Expected errors, regions" not in without.read_text()
