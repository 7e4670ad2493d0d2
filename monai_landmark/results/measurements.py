"""A schema's angles, distances and ratios on one film, and how far the landmarks' errors let them be trusted."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import DataError
from monai_landmark.files import write_text
from monai_landmark.results.result import LandmarkResult

__all__ = [
    "UNITS",
    "MeasuredValue",
    "kind_of",
    "measure_points",
    "measure_result",
    "measured_sd",
    "write_measurements_csv",
]

FloatArray = NDArray[np.float64]
Kind = Literal["angle", "distance", "ratio"]

#: UCUM unit of each kind.
UNITS: dict[Kind, str] = {"angle": "deg", "distance": "mm", "ratio": "1"}
CSV_COLUMNS = ("film", "measure", "kind", "value", "unit", "expected_sd", "spacing_source")
# Mean radius of an isotropic two-dimensional Gaussian, in its standard deviations per axis (Rayleigh distribution).
_MEAN_RADIUS = math.sqrt(math.pi / 2)
# Small beside a pixel, large beside the rounding of float64: derivatives are right to about 1e-7.
_STEP = 1e-5


@dataclass(frozen=True)
class MeasuredValue:
    """One measure of one film.

    Args:
        name: as the schema calls it.
        kind: ``angle``, ``distance`` or ``ratio``.
        value: in ``unit``; None where a landmark or, for a distance, the spacing is missing.
        unit: UCUM: ``deg``, ``mm`` or ``1``.
        expected_sd: standard deviation, in ``unit``, that the landmarks' own expected errors give it; None if unknown.
    """

    name: str
    kind: Kind
    value: float | None
    unit: str
    expected_sd: float | None = None


def kind_of(schema: LandmarkSchema, name: str) -> Kind:
    """Whether a measure of the schema is an angle, a distance or a ratio."""
    return "angle" if name in schema.angles else "distance" if name in schema.distances else "ratio"


def measure_points(
    points_px: ArrayLike,
    schema: LandmarkSchema,
    spacing_mm: tuple[float, float] | None,
    pixel_aspect: float = 1.0,
) -> dict[str, float]:
    """Every measure of one film.

    Args:
        points_px: ``(K, 2)`` (x, y) in pixels of the original film, NaN = missing.
        schema: says what is measured.
        spacing_mm: ``(row_mm, col_mm)``, or None.
        pixel_aspect: height of a pixel over its width. Only used without a spacing: angles and ratios need no
            millimeters, but they need the shape of a pixel. DICOM's PixelAspectRatio says it; absent means square.

    Returns:
        Measure name -> degrees, mm or a plain number; NaN where a landmark is missing, and for distances without
        a spacing.
    """
    measured = schema.measure(np.asarray(points_px, dtype=np.float64) * _steps(spacing_mm, pixel_aspect))
    if spacing_mm is None:
        measured |= dict.fromkeys(schema.distances, math.nan)
    return measured


def measured_sd(
    points_px: ArrayLike, schema: LandmarkSchema, spacing_mm: tuple[float, float], expected_error_mm: ArrayLike
) -> dict[str, float]:
    """Standard deviation of every measure, to first order in the landmarks' errors.

    Each landmark is taken to scatter as an isotropic Gaussian around its place, independently of the others, with the
    mean radius ``expected_error_mm = sigma * sqrt(pi / 2)``. Then ``sd^2 = sum_k sigma_k^2 |d measure / d point_k|^2``.
    Landmarks that err together (a whole film read too low) change lengths and angles less than this says. An angle near
    0 or 180 degrees, which cannot go beyond, scatters less as well.

    Args:
        points_px: ``(K, 2)`` (x, y) in pixels of the original film.
        schema: says what is measured.
        spacing_mm: ``(row_mm, col_mm)``.
        expected_error_mm: ``(K,)`` expected radial errors, NaN = unknown.

    Returns:
        Measure name -> standard deviation in the measure's unit; NaN where a landmark or its expected error is missing.
    """
    points = np.asarray(points_px, dtype=np.float64) * _steps(spacing_mm)
    sigma = np.asarray(expected_error_mm, dtype=np.float64) / _MEAN_RADIUS
    count = schema.count
    moved = np.zeros((2 * count, count, 2))
    moved[np.arange(2 * count), np.repeat(np.arange(count), 2), np.tile([0, 1], count)] = _STEP
    base, ahead, behind = (schema.measure_films(points + step) for step in (np.zeros((1, count, 2)), moved, -moved))
    found = {}
    for name, value in base.items():
        # The larger of both sides, so that an angle of exactly 0, where both sides rise, does not count as fixed.
        slope = np.maximum(abs(ahead[name] - value), abs(behind[name] - value)).reshape(count, 2) / _STEP
        used = np.nan_to_num(slope, nan=1.0).any(axis=1)
        found[name] = float(np.sqrt(np.square(sigma[used, None] * slope[used]).sum()))
    return found


def measure_result(
    result: LandmarkResult, schema: LandmarkSchema, pixel_aspect: float = 1.0
) -> tuple[MeasuredValue, ...]:
    """Every measure of a predicted film with its expected standard deviation.

    Args:
        result: the landmarks.
        schema: of the result.
        pixel_aspect: see :func:`measure_points`.

    Returns:
        The measures in the schema's order: angles, distances, ratios.

    Raises:
        DataError: the result has other landmarks than the schema.
    """
    if result.names != schema.landmarks:
        raise DataError(
            f"film {result.film!r}: the landmarks are not those of schema {schema.name}",
            field="names",
            value=result.names,
            expected=", ".join(schema.landmarks),
            action="measure with the schema that the model was trained with",
        )
    values = measure_points(result.points_px, schema, result.spacing_mm, pixel_aspect)
    spread: dict[str, float] = {}
    if result.spacing_mm is not None and result.expected_error_mm is not None:
        spread = measured_sd(result.points_px, schema, result.spacing_mm, result.expected_error_mm)
    measured = []
    for name, value in values.items():
        kind = kind_of(schema, name)
        measured.append(MeasuredValue(name, kind, _known(value), UNITS[kind], _known(spread.get(name, math.nan))))
    return tuple(measured)


def write_measurements_csv(
    results: Iterable[LandmarkResult], schema: LandmarkSchema, path: str | PathLike[str]
) -> Path:
    """Write one row per film and measure; what is unknown stays empty.

    Args:
        results: predicted films.
        schema: of the results.
        path: the CSV file.

    Returns:
        The path.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for result in results:
        for one in measure_result(result, schema):
            numbers = ["" if number is None else f"{number:.6g}" for number in (one.value, one.expected_sd)]
            writer.writerow([result.film, one.name, one.kind, numbers[0], one.unit, numbers[1], result.spacing_source])
    return write_text(path, buffer.getvalue())


def _steps(spacing_mm: tuple[float, float] | None, pixel_aspect: float = 1.0) -> FloatArray:
    """Length of one pixel along (x, y): mm, or pixel widths."""
    row, col = spacing_mm or (pixel_aspect, 1.0)
    return np.array([col, row])


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
