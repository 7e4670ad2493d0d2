"""The part of a report that says whether the expected errors, regions and referrals can be relied on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from html import escape
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from monai_landmark.metrics import summarize_errors
from monai_landmark.results.canvas import landmark_title
from monai_landmark.results.html import DASH, Cell, definitions, number, percent, section, table
from monai_landmark.results.table import Measurement, Row
from monai_landmark.uncertainty import auroc, referral, risk_coverage, spearman

__all__ = ["uncertainty_numbers", "uncertainty_section"]

FloatArray = NDArray[np.float64]

_TOLERANCE_MM = 4.0  # where no calibration states another
_COVERAGE = 0.8
_UNITS: tuple[Literal["landmark"], Literal["film"]] = ("landmark", "film")


class _Told:
    """What the results of the measured films say of themselves: ``(N, K)`` arrays in mm, NaN where nothing is said."""

    def __init__(self, measurement: Measurement, calibrated_on: Collection[str]) -> None:
        evaluation = measurement.evaluation
        stated = np.array([film.result.expected_error_mm is not None for film in evaluation.films])
        measured = (~np.isnan(evaluation.errors)).any(axis=1)
        rows = [int(row) for row in np.flatnonzero(stated & measured)]
        self.used_before = sum(evaluation.films[row].result.film in calibrated_on for row in rows)
        rows = [row for row in rows if evaluation.films[row].result.film not in calibrated_on]
        self.results = [evaluation.films[row].result for row in rows]
        self.errors: FloatArray = evaluation.errors[rows]
        self.expected = self._stack("expected_error_mm")
        self.regions = self._stack("region_radius_mm")
        self.refer = self._stack("refer")
        self.patients = [measurement.patients.get(result.film, f"film {result.film}") for result in self.results]
        self.names = evaluation.names
        self.guarantees = {result.guarantee for result in self.results}

    def _stack(self, field: str) -> FloatArray:
        unknown = np.full(self.errors.shape[1], np.nan)
        values = [getattr(result, field) for result in self.results]
        return np.array([unknown if value is None else value for value in values], dtype=np.float64)


def uncertainty_numbers(measurement: Measurement, calibrated_on: Collection[str] = ()) -> Row | None:
    """How well expected errors tell true ones, and whether regions and referrals keep what they promise.

    Args:
        measurement: the films, measured in mm.
        calibrated_on: ids of films that regions were fitted on; they are left out.

    Returns:
        The numbers, or None where no film that is left has both an expected and a true error in mm.
    """
    if measurement.unit != "mm":
        return None
    told = _Told(measurement, calibrated_on)
    if not told.results:
        return None
    (guarantee,) = told.guarantees if len(told.guarantees) == 1 else (None,)
    tolerance = _TOLERANCE_MM if guarantee is None else guarantee.tolerance_mm
    known = ~np.isnan(told.errors)
    numbers: Row = {
        "films": len(told.results),
        "n": int(known.sum()),
        "left_out": told.used_before,
        "tolerance_mm": tolerance,
        "gross": int((told.errors > tolerance).sum()),
        "auroc": auroc(told.expected, told.errors, tolerance),
        "spearman": spearman(told.expected, told.errors),
        "mean_expected_mm": _mean(told.expected[known]),
        "referral": [
            asdict(found) | {"gain": found.gain}
            for found in (referral(told.expected, told.errors, _COVERAGE, by) for by in _UNITS)
        ],
        "guarantee": None if guarantee is None else guarantee._asdict(),
        "landmarks": [_landmark(told, index) for index in range(len(told.names))],
    }
    return numbers | ({} if guarantee is None else _kept(told, tolerance))


def _kept(told: _Told, tolerance: float) -> Row:
    """Coverage of the regions and what passed."""
    known = ~np.isnan(told.errors)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(known & (told.regions > 0), told.errors / told.regions, np.nan)
    held = summarize_errors(ratio, (1.0,), True, told.patients)
    passed_gross = (told.errors > tolerance) & (told.refer == 0)
    return {
        "covered_percent": held["sdr1"],
        "covered_percent_interval": held["sdr1_interval"],
        "without_region": int((known & np.isnan(told.regions)).sum()),
        "mean_radius_mm": _mean(told.regions[known]),
        "referred_percent": 100.0 * _mean(told.refer[known]),
        "passed_gross_percent": 100.0 * float(np.mean(passed_gross.sum(axis=1) / known.sum(axis=1))),
        "passed_mean_mm": _mean(told.errors[known & (told.refer == 0)]),
    }


def _landmark(told: _Told, index: int) -> Row:
    errors, regions = told.errors[:, index], told.regions[:, index]
    known = ~np.isnan(errors)
    given = known & ~np.isnan(regions)
    return {
        "landmark": told.names[index],
        "n": int(known.sum()),
        "mean_mm": _mean(errors[known]),
        "expected_mm": _mean(told.expected[known, index]),
        "median_radius_mm": float(np.median(regions[given])) if given.any() else None,
        "covered_percent": 100.0 * float((errors[given] <= regions[given]).mean()) if given.any() else None,
        "referred_percent": None if not known.any() else 100.0 * _mean(told.refer[known, index]),
    }


def _mean(values: FloatArray) -> float:
    found = values[np.isfinite(values)]
    return float(found.mean()) if found.size else float("nan")


def uncertainty_section(measurement: Measurement, numbers: Row | None, calibrated_on: Collection[str] = ()) -> str:
    """Risk and coverage as a picture, the promises beside what was met, and one row per landmark.

    Args:
        measurement: the films.
        numbers: :func:`uncertainty_numbers` of the same.
        calibrated_on: as there.

    Returns:
        HTML; empty where there are no numbers.
    """
    if numbers is None:
        return ""
    told = _Told(measurement, calibrated_on)
    curves = {
        "expected error": risk_coverage(told.expected, told.errors),
        "true error, the best there can be": risk_coverage(told.errors, told.errors),
    }
    legend = " ".join(f'<span><span class="key-line c{i}"></span>{name}</span>' for i, name in enumerate(curves))
    plot = f'<p class="legend">{legend}</p>{_plot(curves)}'
    html = f'<div class="split"><div>{plot}</div><div>{definitions(_entries(numbers))}</div></div>'
    hint = (
        "Mean error of the landmarks that are kept when those with the largest expected error are referred to a person "
        "first."
    )
    return section("Expected errors, regions and referral", html + _landmark_table(numbers), hint=hint, kind="long")


def _entries(numbers: Row) -> list[tuple[str, str]]:
    tolerance = f"{numbers['tolerance_mm']:g} mm"
    entries = [
        ("Measured", f"{numbers['films']} films, {numbers['n']} landmarks"),
        ("Left out", f"{numbers['left_out']} films that the regions were fitted on" if numbers["left_out"] else ""),
        (f"Errors > {tolerance}", str(numbers["gross"])),
        ("AUROC for these", number(numbers["auroc"], 3)),
        ("Rank correlation", number(numbers["spearman"], 3)),
    ]
    for row in numbers["referral"]:
        change = f"{number(row['mean_before'])} to {number(row['mean_after'])} mm, {percent(100 * row['gain'])} less"
        entries.append((f"{100 - 100 * row['coverage']:.0f} % of {row['by']}s referred", change))
    if promise := numbers["guarantee"]:
        low, high = numbers["covered_percent_interval"]
        entries += [
            (
                f"Regions of level {promise['region_level']:g}",
                f"hold {percent(numbers['covered_percent'])} of the landmarks (95 % CI {number(low, 1)}{DASH}"
                f"{number(high, 1)}), mean radius {number(numbers['mean_radius_mm'])} mm",
            ),
            ("Referred", f"{percent(numbers['referred_percent'])} of the landmarks"),
            (
                f"Passed, > {tolerance}",
                f"{percent(numbers['passed_gross_percent'])} of a film's landmarks; promised: at most "
                f"{percent(100 * promise['risk'])}",
            ),
        ]
    return [(escape(term), escape(text)) for term, text in entries if text]


def _landmark_table(numbers: Row) -> str:
    heads = ["Landmark", "Films", "Mean error mm", "Expected mm"]
    calibrated = numbers["guarantee"] is not None
    heads += ["Median region mm", "In region", "Referred"] if calibrated else []
    rows = []
    for row in numbers["landmarks"]:
        name = escape(landmark_title(row["landmark"]))
        cells = [Cell(name, row["landmark"], kind="text"), Cell(str(row["n"]), row["n"])]
        cells += [Cell(number(row[key]), row[key]) for key in ("mean_mm", "expected_mm")]
        if calibrated:
            cells.append(Cell(number(row["median_radius_mm"]), row["median_radius_mm"]))
            cells += [Cell(percent(row[key]), row[key]) for key in ("covered_percent", "referred_percent")]
        rows.append(cells)
    return f'<div class="scroll">{table(heads, rows, text_columns=[0], kind="sortable")}</div>'


def _plot(curves: Mapping[str, tuple[FloatArray, FloatArray]]) -> str:
    """Mean error of what is kept against the share that is kept."""
    width, height, left, right, top, bottom = 560, 320, 52, 16, 16, 46
    finite: list[Any] = [risk[np.isfinite(risk)] for _, risk in curves.values()]
    highest = 1.1 * max((float(risk.max()) for risk in finite if risk.size), default=1.0) or 1.0

    def at(share: float, error: float) -> tuple[float, float]:
        """Place in the picture."""
        across = left + (width - left - right) * share
        return across, top + (height - top - bottom) * (1.0 - error / highest)

    parts = [f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="Risk against coverage">']
    for step in range(5):
        x, y = at(0, highest * step / 4)
        parts.append(f'<path class="grid" d="M{x:.1f},{y:.1f}H{width - right}"/>')
        parts.append(f'<text class="tick" x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">')
        parts.append(f"{highest * step / 4:.2f}</text>")
        x, y = at(step / 4, 0)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{step / 4:.0%}</text>')
    label = "share kept; mean error in mm"
    parts.append(f'<text class="axis" x="{width / 2}" y="{height - 8}" text-anchor="middle">{label}</text>')
    for index, (coverage, risk) in reversed(list(enumerate(curves.values()))):
        shown = np.flatnonzero(np.isfinite(risk))
        shown = shown[np.unique(np.linspace(0, len(shown) - 1, 400).round().astype(int))] if len(shown) else shown
        if len(shown):
            path = "L".join("{:.1f},{:.1f}".format(*at(coverage[i], risk[i])) for i in shown)
            parts.append(f'<path class="curve c{index}" d="M{path}"/>')
    return "".join(parts) + "</svg>"
