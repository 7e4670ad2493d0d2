"""Quantile binning: groups of predictions by any uncertainty, each with bounds on the error to be met in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from monai_landmark.errors import ConfigurationError

__all__ = ["QuantileBins"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class QuantileBins:
    """Bins of equal numbers of predictions, from the surest to the least sure (Schobs et al., IEEE TMI 2023).

    Attributes:
        edges: ``(Q - 1,)`` uncertainties between neighboring bins; a bin holds its upper edge.
        bounds_mm: ``(Q - 1,)`` error expected at each edge, never falling: bin q's errors are estimated to lie above
            ``bounds_mm[q - 1]`` (0 for the first bin) and up to ``bounds_mm[q]`` (no end for the last).
    """

    edges: FloatArray
    bounds_mm: FloatArray

    @classmethod
    def fit(cls, uncertainty: ArrayLike, errors_mm: ArrayLike, bins: int = 5) -> QuantileBins:
        """Fit edges and bounds on calibration films.

        Args:
            uncertainty: of any shape and unit, NaN = left out.
            errors_mm: same shape; what is not finite is left out.
            bins: number Q of bins.

        Returns:
            The bins.

        Raises:
            ConfigurationError: fewer than two bins, or fewer predictions than bins.
            ValueError: the shapes differ.
        """
        doubt, errors = _known(uncertainty, errors_mm)
        if not 2 <= bins <= len(doubt):
            raise ConfigurationError("bins do not fit", field="bins", value=bins, expected=f"within 2..{len(doubt)}")
        edges = np.quantile(doubt, np.arange(1, bins) / bins)
        # equal uncertainties share one value, whatever order they came in
        values, group, count = np.unique(doubt, return_inverse=True, return_counts=True)
        means = np.bincount(group, errors) / count
        rising = isotonic_regression(means, weights=count.astype(np.float64)).x
        return cls(edges, np.interp(edges, values, rising))

    def of(self, uncertainty: ArrayLike) -> NDArray[np.int64]:
        """Bin of each prediction, 0 for the surest.

        Args:
            uncertainty: of any shape.

        Returns:
            Same shape; the last bin for NaN.
        """
        return np.searchsorted(self.edges, np.asarray(uncertainty, dtype=np.float64), side="left")

    def accuracy(self, uncertainty: ArrayLike, errors_mm: ArrayLike) -> FloatArray:
        """Share of each bin's errors that lie within its bounds.

        Args:
            uncertainty: as for :meth:`fit`, of other films.
            errors_mm: same shape.

        Returns:
            ``(Q,)``; NaN for a bin without predictions.
        """
        doubt, errors = _known(uncertainty, errors_mm)
        group, size = self.of(doubt), len(self.edges) + 1
        low = np.concatenate([[-np.inf], self.bounds_mm])[group]
        high = np.concatenate([self.bounds_mm, [np.inf]])[group]
        inside = np.bincount(group, (errors > low) & (errors <= high), size)
        with np.errstate(invalid="ignore"):
            return np.asarray(inside / np.bincount(group, minlength=size), dtype=np.float64)

    def jaccard(self, uncertainty: ArrayLike, errors_mm: ArrayLike) -> FloatArray:
        """How alike the bins are to those that the errors themselves would make.

        Args:
            uncertainty: of other films.
            errors_mm: same shape; binned by their own quantiles.

        Returns:
            ``(Q,)`` shared predictions over all of either bin, 0 to 1.
        """
        doubt, errors = _known(uncertainty, errors_mm)
        size = len(self.edges) + 1
        by_doubt = self.of(doubt)
        by_error = np.searchsorted(np.quantile(errors, np.arange(1, size) / size), errors, side="left")
        both = [((by_doubt == q) & (by_error == q)).sum() for q in range(size)]
        either = [((by_doubt == q) | (by_error == q)).sum() for q in range(size)]
        with np.errstate(invalid="ignore"):
            return np.asarray(np.array(both) / np.array(either), dtype=np.float64)


def _known(uncertainty: ArrayLike, errors_mm: ArrayLike) -> tuple[FloatArray, FloatArray]:
    doubt, errors = (np.asarray(values, dtype=np.float64) for values in (uncertainty, errors_mm))
    if doubt.shape != errors.shape:
        raise ValueError(f"uncertainty and errors must have one shape, got {doubt.shape} and {errors.shape}")
    known = ~np.isnan(doubt) & np.isfinite(errors)
    return doubt[known], errors[known]
