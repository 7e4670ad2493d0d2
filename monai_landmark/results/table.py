"""The numbers of a report: summaries, one row per landmark and per film, and their machine-readable files."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_landmark.metrics import summarize_errors
from monai_landmark.results.evaluation import EvaluatedFilm, Evaluation

__all__ = ["Measurement", "Row", "errors_csv", "jsonable"]

FloatArray = NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """An evaluation together with how it is to be counted.

    Args:
        evaluation: films, predictions and references.
        thresholds: radii of the success detection rates, in the evaluation's unit.
        inclusive: True: an error equal to the radius is a success (``<=``).
        patients: film id -> patient, so that intervals draw whole patients; films that are absent are their own.
    """

    evaluation: Evaluation
    thresholds: tuple[float, ...] = (2.0, 2.5, 3.0, 4.0)
    inclusive: bool = True
    patients: Mapping[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """``mm`` or ``px``."""
        return self.evaluation.unit

    @property
    def comparison(self) -> str:
        """``<=`` or ``<``."""
        return "<=" if self.inclusive else "<"

    def summary(self, keep: NDArray[np.bool_] | None = None) -> Row:
        """Headline numbers of the films in ``keep`` (default: all), keys ending in the unit.

        Args:
            keep: ``(N,)`` True for the films to count.

        Returns:
            What :func:`monai_landmark.metrics.summarize_errors` gives, with ``_mm`` replaced by the unit; ``films``
            counts measured films only; ``mre_found_<unit>`` (also ``_per_film``) leaves landmarks not found out.
        """
        keep = np.ones(len(self.evaluation.films), dtype=bool) if keep is None else keep
        keep = keep & (~np.isnan(self.evaluation.errors)).any(axis=1)
        errors = self.evaluation.errors[keep]
        if not len(errors):
            return {"films": 0, "n": 0, "missing": 0}
        ids = [film.result.film for film, kept in zip(self.evaluation.films, keep, strict=True) if kept]
        patients = [self.patients.get(film, f"film {film}") for film in ids]
        summary = summarize_errors(errors, self.thresholds, self.inclusive, patients)
        row = {key.replace("_mm", f"_{self.unit}"): value for key, value in summary.items()}
        means = self.evaluation.film_means[keep]
        found = {f"mre_found_{self.unit}": _mean_found(errors), f"mre_found_{self.unit}_per_film": _mean_found(means)}
        return row | {"films": len(errors)} | found

    def landmark_rows(self) -> list[Row]:
        """One row per landmark: ``landmark, n, missing, not_annotated``, mean, median, P95, SDR; None = no points."""
        return [self._landmark_row(index) for index in range(len(self.evaluation.names))]

    def _landmark_row(self, index: int) -> Row:
        errors = self.evaluation.errors[:, index]
        measured = [film.reference_px is not None for film in self.evaluation.films]
        points = errors[~np.isnan(errors)]
        found = points[np.isfinite(points)]
        row: Row = {
            "landmark": self.evaluation.names[index],
            "n": int(points.size),
            "missing": int(points.size - found.size),
            "not_annotated": int(np.isnan(errors[measured]).sum()),
            f"mre_{self.unit}": _mean_found(points),
            f"median_{self.unit}": _quantile(points, 0.5),
            f"p95_{self.unit}": _quantile(points, 0.95),
        }
        offsets = self.evaluation.offsets[:, index]
        for axis, name in enumerate(("dx", "dy")):
            row[f"mean_{name}_{self.unit}"] = _mean_found(offsets[:, axis])
        return row | {f"sdr{threshold:g}": self._rate(points, threshold) for threshold in self.thresholds}

    def _rate(self, points: FloatArray, threshold: float) -> float | None:
        hits = points <= threshold if self.inclusive else points < threshold
        return 100.0 * float(hits.mean()) if points.size else None

    def film_rows(self) -> list[Row]:
        """One row per film: counts, mean and largest error, confidence, referrals, spacing and near-duplicates."""
        films, errors = self.evaluation.films, self.evaluation.errors
        return [self._film_row(film, row) for film, row in zip(films, errors, strict=True)]

    def _film_row(self, film: EvaluatedFilm, errors: FloatArray) -> Row:
        found = np.isfinite(errors)
        worst = int(np.nanargmax(np.where(found, errors, np.nan))) if found.any() else None
        result = film.result
        return {
            "film": result.film,
            "landmarks": len(self.evaluation.names),
            "found": int((~np.isnan(result.points_px[:, 0])).sum()),
            "n": int((~np.isnan(errors)).sum()),
            "missing": int(np.isinf(errors).sum()),
            f"mean_{self.unit}": _mean_found(errors),
            f"max_{self.unit}": None if worst is None else float(errors[worst]),
            "worst_landmark": None if worst is None else self.evaluation.names[worst],
            "confidence": None if result.confidence is None else _mean_found(result.confidence),
            "refer": None if result.refer is None else int(result.refer.sum()),
            "spacing_mm": None if result.spacing_mm is None else list(result.spacing_mm),
            "spacing_source": result.spacing_source,
            "near_duplicates": list(film.near_duplicates),
            "warnings": list(result.warnings),
        }

    def spacing_rows(self) -> list[Row]:
        """How many films got their spacing from which source, and the range of spacings: most frequent first."""
        results = [film.result for film in self.evaluation.films]
        rows = []
        for source, count in Counter(result.spacing_source for result in results).most_common():
            values = [
                v for r in results if r.spacing_source == source and r.spacing_mm is not None for v in r.spacing_mm
            ]
            ends = [min(values), max(values)] if values else None
            rows.append({"spacing_source": source, "films": count, "range_mm": ends})
        return rows


def errors_csv(evaluation: Evaluation) -> str:
    """One row per film and annotated landmark; the mm columns stay empty for films without spacing.

    Args:
        evaluation: films, predictions and references.

    Returns:
        CSV text with columns ``film, landmark, dx_mm, dy_mm, error_mm, dx_px, dy_px, error_px, near_duplicate``;
        a landmark that was not found has empty numbers.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    header = [f"{value}_{unit}" for unit in ("mm", "px") for value in ("dx", "dy", "error")]
    writer.writerow(["film", "landmark", *header, "near_duplicate"])
    for film in evaluation.films:
        blocks = [np.column_stack([film.offsets(unit), film.errors(unit)]) for unit in ("mm", "px")]
        values = np.concatenate(blocks, axis=1)
        for index, name in enumerate(evaluation.names):
            if not np.isnan(values[index, 3]):
                numbers = [f"{value:.6g}" if math.isfinite(value) else "" for value in values[index]]
                writer.writerow([film.result.film, name, *numbers, int(bool(film.near_duplicates))])
    return buffer.getvalue()


def jsonable(value: Any) -> Any:
    """The same value for strict JSON: numbers that are not finite become None, keys become text, tuples lists.

    Args:
        value: dicts, sequences, numpy or plain numbers, text.

    Returns:
        Plain JSON types.
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [jsonable(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def _mean_found(values: FloatArray) -> float | None:
    found = values[np.isfinite(values)]
    return float(found.mean()) if found.size else None


def _quantile(points: FloatArray, level: float) -> float | None:
    """Quantile in which a landmark that was not found is infinitely far away."""
    if not points.size:
        return None
    # The stand-in keeps the interpolation from meeting inf - inf.
    value = float(np.quantile(np.where(np.isinf(points), 1e300, points), level))
    return math.inf if value > 1e200 else value
