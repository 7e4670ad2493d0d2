"""Two detectors on the same films: how much better one is, with intervals that respect films, patients and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import wilcoxon

__all__ = ["PairedDifference", "paired_difference"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
    """By how much the second detector's error is smaller than the first's.

    Attributes:
        films: films on which both were measured.
        left_out: films where either predicted nothing for an annotated landmark; no difference can be given there.
        gain: mean over films of first minus second, in the unit of the errors; above 0 the second is better.
        interval: of the gain, from a bootstrap that draws whole patients; NaN of one patient.
        effect: Cohen's d for pairs: the gain over its standard deviation between films; NaN or inf where that is 0.
        effect_interval: of the effect, from the same bootstrap.
        better: share of films on which the second is better.
        p_value: Wilcoxon's signed-rank test over patients; NaN below six of them.
    """

    films: int
    left_out: int
    gain: float
    interval: tuple[float, float]
    effect: float
    effect_interval: tuple[float, float]
    better: float
    p_value: float


def paired_difference(
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    patients: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two detectors film by film.

    A film's difference is the mean over its landmarks and over the seeds, which differ in labelled films, augmentation
    and start, and are paired: the first's seed 0 with the second's. The interval tells what other films of the same
    kind would have given with these very networks; how much seeds differ is told by their spread.

    Args:
        first: for every seed ``(N, K)`` errors of the same films: NaN = not annotated, inf = not predicted.
        second: the same of the other detector.
        patients: N names; films of one name are drawn together. By default every film is a patient's own.
        level: coverage of the intervals.
        resamples: number of bootstrap draws.
        seed: of the draws.

    Returns:
        The difference.

    Raises:
        ValueError: shapes or numbers of seeds differ, or there is no film to compare.
    """
    before, after = (np.stack([np.asarray(one, dtype=np.float64) for one in errors]) for errors in (first, second))
    if before.shape != after.shape or before.ndim != 3:
        raise ValueError(f"errors must be S times (N, K) for both, got {before.shape} and {after.shape}")
    annotated = ~np.isnan(before) & ~np.isnan(after)
    measured = annotated.any(axis=(0, 2))
    found = np.isfinite(np.where(annotated, before + after, 0.0)).all(axis=(0, 2))
    kept = measured & found
    if not kept.any():
        raise ValueError("no film on which both were measured")
    gains = np.nanmean(np.where(annotated, before - after, np.nan)[:, kept], axis=(0, 2))
    names = np.arange(before.shape[1]) if patients is None else np.asarray(patients)
    groups = np.unique(names[kept], return_inverse=True)[1]
    count = np.bincount(groups)
    sums = np.stack([count, np.bincount(groups, gains), np.bincount(groups, gains**2)])
    means, effects = _mean_and_effect(sums.sum(1))
    drawn = np.random.default_rng(seed).integers(len(count), size=(resamples, len(count)))
    drawn_means, drawn_effects = _mean_and_effect(sums[:, drawn].sum(2))
    sides = [(1 - level) / 2, (1 + level) / 2]
    by_patient = sums[1] / count
    return PairedDifference(
        films=int(kept.sum()),
        left_out=int((measured & ~found).sum()),
        gain=float(means),
        interval=_interval(drawn_means, sides, len(count)),
        effect=float(effects),
        effect_interval=_interval(drawn_effects, sides, len(count)),
        better=float((gains > 0).mean()),
        p_value=float(wilcoxon(by_patient).pvalue) if len(count) > 5 and gains.any() else float("nan"),
    )


def _mean_and_effect(sums: FloatArray) -> tuple[FloatArray, FloatArray]:
    """From count, sum and sum of squares: the mean, and the mean over the standard deviation."""
    count, total, squares = sums
    mean = total / count
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.maximum(squares - total * mean, 0.0) / (count - 1)
        return mean, mean / np.sqrt(variance)


def _interval(values: FloatArray, sides: Sequence[float], patients: int) -> tuple[float, float]:
    """Percentiles; NaN of one patient, who says nothing about how patients differ."""
    known = values[np.isfinite(values)]
    if patients < 2 or not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, sides)
    return float(low), float(high)
