"""Two detectors on the same films: how much better one is, with intervals that respect films, patients and seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap, wilcoxon

__all__ = ["PairedDifference", "paired_difference"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
    """By how much the second detector's error is smaller than the first's.

    Attributes:
        films: films on which both were measured.
        left_out: films where either predicted nothing for an annotated landmark; no difference can be given there.
        gain: mean over films (patients) of first minus second, in the unit of the errors; above 0 the second is better.
        interval: of the gain, from a bootstrap over films (patients).
        effect: Cohen's d for pairs: the gain over its standard deviation between films (patients).
        effect_interval: of the effect, from the same bootstrap.
        better: share of films (patients) on which the second is better.
        p_value: Wilcoxon's signed-rank test; NaN below six films (patients).
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
        patients: N names; films of one name count as one.
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
    if patients is not None:
        groups = np.unique(np.asarray(patients)[kept], return_inverse=True)[1]
        gains = np.bincount(groups, gains) / np.bincount(groups)
    low, high = _interval(gains, np.mean, level, resamples, seed)
    effect_low, effect_high = _interval(gains, _effect, level, resamples, seed)
    return PairedDifference(
        films=int(kept.sum()),
        left_out=int((measured & ~found).sum()),
        gain=float(gains.mean()),
        interval=(low, high),
        effect=float(_effect(gains)),
        effect_interval=(effect_low, effect_high),
        better=float((gains > 0).mean()),
        p_value=float(wilcoxon(gains).pvalue) if len(gains) > 5 and gains.any() else float("nan"),
    )


def _effect(gains: FloatArray, axis: int = -1) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        effect: FloatArray = gains.mean(axis=axis) / gains.std(axis=axis, ddof=1)
    return effect


def _interval(gains: FloatArray, statistic: Callable[..., Any], level: float, resamples: int, seed: int) -> tuple[float, float]:
    """Percentile interval; NaN from one film, which says nothing about how films differ."""
    if len(gains) < 2:
        return float("nan"), float("nan")
    if not np.ptp(gains):  # every resample is the same
        return float(statistic(gains)), float(statistic(gains))
    found = bootstrap(
        (gains,), statistic, n_resamples=resamples, confidence_level=level, method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
