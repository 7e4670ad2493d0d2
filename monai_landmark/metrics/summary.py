"""The numbers of a results table from the errors of a test set, with intervals that respect the films."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from monai_landmark.metrics.success_detection import within

__all__ = ["summarize_errors"]

_MISSING = 1e300  # stands in for inf while ranks are interpolated, where inf - inf would give NaN


def _quantiles(errors: NDArray[np.float64], levels: Sequence[float]) -> list[float]:
    """Quantiles of errors that may be infinite; infinite where a missing prediction enters the interpolation."""
    values = np.quantile(np.where(np.isinf(errors), _MISSING, errors), levels) if errors.size else np.nan * np.ones(2)
    return [float("inf") if value > 1e200 else float(value) for value in values]


def _film_bootstrap(
    values: NDArray[np.float64], films: NDArray[np.int64], level: float, resamples: int, seed: int
) -> list[float]:
    """Percentile interval of the pooled mean when whole films (or patients) are drawn with replacement."""
    known = np.isfinite(values)
    groups = int(films.max()) + 1
    total = np.bincount(films, np.where(known, values, 0.0).sum(1), groups)
    count = np.bincount(films, known.sum(1), groups)
    total, count = total[count > 0], count[count > 0]
    if len(count) < 2:
        return [float("nan"), float("nan")]  # one film says nothing about how films differ
    draws = np.random.default_rng(seed).integers(len(count), size=(resamples, len(count)))
    means = total[draws].sum(1) / count[draws].sum(1)
    return [float(v) for v in np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])]


def summarize_errors(
    errors_mm: ArrayLike | torch.Tensor,
    thresholds_mm: Sequence[float] = (2.0, 2.5, 3.0, 4.0),
    inclusive: bool = True,
    patients: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Count, means, quantiles and success rates of a test set's radial errors.

    The landmarks of one film err together, so the intervals come from a bootstrap that draws whole films (patients,
    where ``patients`` says that several films are one person's), not single points.

    Args:
        errors_mm: ``(N, K)`` errors of N films, as ``RadialErrorMetric.errors()`` gives them: NaN = not annotated,
            inf = annotated but not predicted.
        thresholds_mm: radii of the success detection rates.
        inclusive: ``<=``, else ``<``.
        patients: N names; films of one name are drawn together.
        level: coverage of the intervals.
        resamples: number of bootstrap draws.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        ``films``, ``n`` (annotated points), ``missing`` (of them, not predicted), ``comparison``, ``mre_mm`` (pooled),
        ``mre_mm_interval``, ``mre_mm_per_film`` (mean of the films' means), ``sd_mm``, ``median_mm``, ``p95_mm``,
        ``max_mm``, and for each threshold ``sdr2`` (percent, pooled) and ``sdr2_interval``, named like ``sdr2.5``.
        With missing predictions the means are inf, their interval and ``sd_mm`` describe the predicted points alone,
        and the rates count the missing ones as failures. Without points every number is NaN.

    Raises:
        ValueError: the errors are not ``(N, K)`` with N at least 1, or negative, or the patients are not N.
    """
    errors = np.array(errors_mm, dtype=np.float64)  # a copy: PyTorch takes no array that cannot be written to
    if errors.ndim != 2 or len(errors) == 0:
        raise ValueError(f"errors_mm must be (N, K) with at least one film, got {errors.shape}")
    if (errors < 0).any():
        raise ValueError("a radial error is negative")
    if patients is not None and len(patients) != len(errors):
        raise ValueError(f"{len(errors)} films but {len(patients)} patients")
    names: Sequence[Any] = range(len(errors)) if patients is None else patients
    films = np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)

    points = errors[~np.isnan(errors)]
    found = points[np.isfinite(points)]
    by_film = [row[~np.isnan(row)].mean() for row in errors if not np.isnan(row).all()]
    median, p95 = _quantiles(points, (0.5, 0.95))
    summary: dict[str, Any] = {
        "films": len(errors),
        "n": int(points.size),
        "missing": int(points.size - found.size),
        "comparison": "<=" if inclusive else "<",
        "mre_mm": float(points.mean()) if points.size else float("nan"),
        "mre_mm_interval": _film_bootstrap(errors, films, level, resamples, seed),
        "mre_mm_per_film": float(np.mean(by_film)) if by_film else float("nan"),
        "sd_mm": float(found.std(ddof=1)) if found.size > 1 else float("nan"),
        "median_mm": median,
        "p95_mm": p95,
        "max_mm": float(points.max()) if points.size else float("nan"),
    }
    hits = 100.0 * within(torch.from_numpy(errors), thresholds_mm, inclusive).numpy()
    for threshold, hit in zip(thresholds_mm, hits, strict=True):
        summary[f"sdr{threshold:g}"] = float(np.nanmean(hit)) if points.size else float("nan")
        summary[f"sdr{threshold:g}_interval"] = _film_bootstrap(hit, films, level, resamples, seed)
    return summary
