"""Temperature scaling of heatmaps, and how far stated probabilities are from what happens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from monai_landmark.errors import ConfigurationError

__all__ = ["PEAK_BINS", "PROBABILITY_BINS", "expected_calibration_error", "fit_temperatures"]

FloatArray = NDArray[np.float64]

PEAK_BINS = tuple(np.linspace(0.0, 0.15, 11).tolist())
"""Edges for the probability of a map's peak: ten bins on [0, 0.15], the last one open (McCouat & Voiculescu)."""
PROBABILITY_BINS = tuple(np.linspace(0.0, 1.0, 11).tolist())
"""Edges for a probability that may be anything: ten equal bins on [0, 1]."""

_HOTTEST = 20.0  # a map that needs more is no map; its inverse bounds the other side


def fit_temperatures(logits: Sequence[torch.Tensor], points_px: Sequence[torch.Tensor]) -> FloatArray:
    """One temperature for each landmark, which makes the reference points of the films most probable.

    Minimizes the negative log-likelihood ``mean_n [logsumexp(z_n / T) - z_n(y_n) / T]`` (Guo et al., On calibration of
    modern neural networks, ICML 2017; for heatmaps McCouat & Voiculescu, CVPR 2022), ``y_n`` the pixel nearest to the
    reference. It is convex in ``1 / T``, so the root of its derivative, ``mean_n [E_T z_n - z_n(y_n)]``, is the answer.

    Args:
        logits: ``(K, H, W)`` of each film; all are held in memory.
        points_px: ``(K, 2)`` reference (x, y) on the same grids; NaN, or off the grid: the film says nothing there.

    Returns:
        ``(K,)`` temperatures within 1/20 and 20; 1 for a landmark that no film says anything of.

    Raises:
        ValueError: no film, or shapes that do not fit together.
    """
    if not logits or len(logits) != len(points_px):
        raise ValueError(f"as many points as films, and at least one: {len(logits)} films, {len(points_px)} points")
    landmarks = len(logits[0])
    for maps, points in zip(logits, points_px, strict=True):
        if maps.ndim != 3 or maps.shape[0] != landmarks or points.shape != (landmarks, 2):
            raise ValueError(f"logits (K, H, W) and points (K, 2) do not fit: {(*maps.shape,)}, {(*points.shape,)}")
    return np.array([_temperature(*_landmark_maps(logits, points_px, index)) for index in range(landmarks)])


def _landmark_maps(
    logits: Sequence[torch.Tensor], points_px: Sequence[torch.Tensor], index: int
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """One landmark's flat maps, logits relative to the maximum, and each map's value at the reference."""
    maps, targets = [], []
    for film, points in zip(logits, points_px, strict=True):
        height, width = film.shape[-2:]
        x, y = points[index].tolist()
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):  # NaN compares False
            continue
        flat = film[index].detach().cpu().flatten().double()
        flat = flat - flat.max()
        maps.append(flat)
        targets.append(flat[round(y) * width + round(x)])
    return maps, targets


def _temperature(maps: list[torch.Tensor], targets: list[torch.Tensor]) -> float:
    if not maps:
        return 1.0
    observed = float(torch.stack(targets).mean())

    def slope(inverse: float) -> float:
        """Derivative of the negative log-likelihood by 1 / T: rises, for its own derivative is a variance."""
        return float(np.mean([float((torch.softmax(m * inverse, 0) * m).sum()) for m in maps])) - observed

    low, high = 1.0 / _HOTTEST, _HOTTEST
    if slope(low) >= 0:
        return _HOTTEST
    if slope(high) <= 0:
        return 1.0 / _HOTTEST
    return 1.0 / float(brentq(slope, low, high, xtol=1e-12, rtol=1e-10))


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, edges: Sequence[float] = PROBABILITY_BINS
) -> float:
    """Expected calibration error: ``sum_b n_b / n |share correct in b - mean confidence in b|``.

    Args:
        confidence: probabilities of any shape, NaN = left out.
        correct: same shape, whether what was stated came true.
        edges: of the bins, rising; a bin holds its lower edge, the last one is open above.

    Returns:
        Within 0 and 1; NaN when nothing is left.

    Raises:
        ValueError: the shapes differ.
        ConfigurationError: the edges do not rise, or a confidence lies below the first.
    """
    stated, true = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if stated.shape != true.shape:
        raise ValueError(f"confidence and correct must have one shape, got {stated.shape} and {true.shape}")
    bounds = np.asarray(edges, dtype=np.float64)
    if bounds.size < 2 or (np.diff(bounds) <= 0).any():
        raise ConfigurationError("not bins", field="edges", value=list(edges), expected="two or more rising numbers")
    known = ~np.isnan(stated)
    stated, true = stated[known], true[known]
    if (stated < bounds[0]).any():
        raise ConfigurationError("confidence below the bins", field="edges", value=bounds[0], expected="a lower edge")
    if not stated.size:
        return float("nan")
    bins = np.minimum(np.searchsorted(bounds, stated, side="right"), bounds.size - 1) - 1
    gaps = np.bincount(bins, true, bounds.size - 1) - np.bincount(bins, stated, bounds.size - 1)
    return float(np.abs(gaps).sum() / stated.size)
