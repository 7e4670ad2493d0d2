"""How well an uncertainty tells large errors from small ones: risk and coverage, AUROC, the gain of referral."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, spearmanr

from monai_landmark.errors import ConfigurationError

__all__ = ["Referral", "auroc", "referral", "risk_coverage", "spearman"]

FloatArray = NDArray[np.float64]


def risk_coverage(uncertainty: ArrayLike, errors: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Mean error of what is kept, when the least certain predictions are referred first (Geifman & El-Yaniv, 2017).

    Args:
        uncertainty: of any shape; NaN = no prediction, referred first.
        errors: same shape; NaN = not annotated, left out; inf = not found.

    Returns:
        ``(n,)`` coverage, the share that is kept, rising to 1, and ``(n,)`` mean error of that share. Predictions of
        equal uncertainty are kept or referred together: only the last of them has a point of its own, so the curve may
        have fewer than n points.

    Raises:
        ValueError: the shapes differ, or nothing is annotated.
    """
    doubt, values = _annotated(uncertainty, errors)
    order = np.argsort(doubt, kind="stable")
    last = np.append(np.diff(doubt[order]) > 0, True)
    kept = np.arange(1, len(order) + 1)
    return (kept / len(order))[last], (np.cumsum(values[order]) / kept)[last]


def auroc(uncertainty: ArrayLike, errors: ArrayLike, threshold: float) -> float:
    """Probability that a prediction with an error above the threshold is less certain than one without; ties half.

    Args:
        uncertainty: of any shape; NaN = no prediction, the least certain.
        errors: same shape; NaN = not annotated, left out; inf = not found.
        threshold: errors above it are the ones to be told.

    Returns:
        Area under the ROC curve (Mann-Whitney U over the number of pairs); NaN when all errors are on one side.

    Raises:
        ValueError: the shapes differ, or nothing is annotated.
    """
    doubt, values = _annotated(uncertainty, errors)
    gross = values > threshold
    above, below = int(gross.sum()), int((~gross).sum())
    if not above or not below:
        return float("nan")
    return float((rankdata(doubt)[gross].sum() - above * (above + 1) / 2) / (above * below))


def spearman(uncertainty: ArrayLike, errors: ArrayLike) -> float:
    """Spearman's rank correlation of uncertainty and error.

    Args:
        uncertainty: of any shape; NaN = no prediction, the least certain.
        errors: same shape; NaN = not annotated, left out; inf = not found, the largest.

    Returns:
        -1 to 1; NaN when one of the two is constant or there are fewer than three.

    Raises:
        ValueError: the shapes differ, or nothing is annotated.
    """
    doubt, values = (rankdata(array) for array in _annotated(uncertainty, errors))
    if len(doubt) < 3 or not np.ptp(doubt) or not np.ptp(values):
        return float("nan")
    return float(spearmanr(doubt, values).statistic)


@dataclass(frozen=True)
class Referral:
    """What referring the least certain predictions is worth.

    Attributes:
        by: what is referred, single landmarks or whole films.
        coverage: share that is kept, at least what was asked for where ties allow no less.
        mean_before: mean error of all landmarks.
        mean_after: mean error of those kept.
        gain: ``1 - mean_after / mean_before``.
    """

    by: Literal["landmark", "film"]
    coverage: float
    mean_before: float
    mean_after: float

    @property
    def gain(self) -> float:
        """By which share the mean error falls; NaN where no share can be given."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(1.0 - np.float64(self.mean_after) / np.float64(self.mean_before))


def referral(
    uncertainty: ArrayLike, errors: ArrayLike, coverage: float = 0.8, by: Literal["landmark", "film"] = "landmark"
) -> Referral:
    """Mean error with and without the least certain predictions.

    Args:
        uncertainty: ``(N, K)`` of N films; NaN = no prediction, the least certain.
        errors: ``(N, K)``; NaN = not annotated, left out; inf = not found.
        coverage: share to keep, above 0 and at most 1.
        by: ``landmark``: single landmarks are referred, all films pooled; ``film``: whole films, by the mean
            uncertainty of their annotated landmarks.

    Returns:
        Means over landmarks in both cases.

    Raises:
        ConfigurationError: a coverage or ``by`` that is not possible.
        ValueError: the shapes differ, or nothing is annotated.
    """
    if by not in ("landmark", "film"):
        raise ConfigurationError("unknown unit of referral", field="by", value=by, expected="landmark or film")
    if not 0 < coverage <= 1:
        raise ConfigurationError("not a share", field="coverage", value=coverage, expected="above 0, at most 1")
    doubt, values = (np.asarray(array, dtype=np.float64) for array in (uncertainty, errors))
    everything = _annotated(doubt, values)[1]
    if by == "film":
        measured = ~np.isnan(values).all(axis=1)
        doubt, values = doubt[measured], values[measured]
        units = np.nanmean(np.where(np.isnan(values), np.nan, np.nan_to_num(doubt, nan=np.inf)), axis=1)
        kept = units <= _limit(units, coverage)
        share, left = float(kept.mean()), values[kept]
    else:
        units, values = _annotated(doubt, values)
        kept = units <= _limit(units, coverage)
        share, left = float(kept.mean()), values[kept]
    return Referral(by, share, float(everything.mean()), float(left[~np.isnan(left)].mean()))


def _limit(doubt: FloatArray, coverage: float) -> float:
    """The uncertainty of the last prediction that is kept."""
    return float(np.sort(doubt)[int(np.ceil(round(coverage * len(doubt), 9))) - 1])


def _annotated(uncertainty: ArrayLike, errors: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Flat uncertainties, inf for no prediction, and errors, of what is annotated."""
    doubt, values = (np.asarray(array, dtype=np.float64) for array in (uncertainty, errors))
    if doubt.shape != values.shape:
        raise ValueError(f"uncertainty and errors must have one shape, got {doubt.shape} and {values.shape}")
    known = ~np.isnan(values)
    if not known.any():
        raise ValueError("nothing is annotated")
    return np.where(np.isnan(doubt), np.inf, doubt)[known], values[known]
