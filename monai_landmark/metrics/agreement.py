"""Do two readers, or a detector and a reader, measure the same: ICC(2,1) and Bland-Altman."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f as f_distribution
from scipy.stats import norm
from scipy.stats import t as t_distribution

__all__ = ["BlandAltman", "IntraclassCorrelation", "bland_altman", "intraclass_correlation"]

FloatArray = NDArray[np.float64]
Interval = tuple[float, float]
_NOTHING = (float("nan"), float("nan"))


@dataclass(frozen=True)
class IntraclassCorrelation:
    """Share of the variance between readings that is between the films.

    Attributes:
        value: at most 1; below 0 when readers differ more than films; NaN when it is not defined.
        interval: confidence interval; NaN when it is not defined, e.g. for readings that agree exactly.
        films: films that all readers measured.
        readers: their number.
    """

    value: float
    interval: Interval
    films: int
    readers: int


def intraclass_correlation(readings: ArrayLike, level: float = 0.95) -> IntraclassCorrelation:
    """ICC(2,1): two-way random effects, absolute agreement, single reading (Shrout & Fleiss, Psychol Bull 1979;86:420).

    The interval is that of McGraw & Wong (Psychol Methods 1996;1:30), case 2A, which Shrout & Fleiss give as well. It
    takes films as independent, so several films of one patient make it too narrow.

    Args:
        readings: ``(N, R)`` of N films by R readers; films with a NaN are left out.
        level: coverage of the interval.

    Returns:
        The correlation; NaN for fewer than two films or without any variance.

    Raises:
        ValueError: not ``(N, R)`` with at least two readers.
    """
    table = np.asarray(readings, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"readings must be (N, R) with at least two readers, got {table.shape}")
    table = table[np.isfinite(table).all(axis=1)]
    n, k = table.shape
    if n < 2:
        return IntraclassCorrelation(float("nan"), _NOTHING, n, k)
    between, readers, rest = _mean_squares(table)
    total = between + (k - 1) * rest + k * (readers - rest) / n
    if not total > 0:
        return IntraclassCorrelation(float("nan"), _NOTHING, n, k)
    value = (between - rest) / total
    interval = _icc_interval(value, between, readers, rest, n, k, level) if rest > 0 else _NOTHING
    return IntraclassCorrelation(float(value), interval, n, k)


def _mean_squares(table: FloatArray) -> tuple[float, float, float]:
    """Mean squares of a two-way analysis of variance without repetition: between films, between readers, the rest."""
    n, k = table.shape
    by_film, by_reader, mean = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True), table.mean()
    between = k * np.square(by_film - mean).sum() / (n - 1)
    readers = n * np.square(by_reader - mean).sum() / (k - 1)
    rest = np.square(table - by_film - by_reader + mean).sum() / ((n - 1) * (k - 1))
    return float(between), float(readers), float(rest)


def _icc_interval(value: float, between: float, readers: float, rest: float, n: int, k: int, level: float) -> Interval:
    """McGraw & Wong, table 7, with Satterthwaite's degrees of freedom."""
    ratio, spread = readers / rest, n * (1 + (k - 1) * value) - k * value
    freedom = (k - 1) * (n - 1) * (k * value * ratio + spread) ** 2
    freedom /= (n - 1) * (k * value * ratio) ** 2 + spread**2
    side = (1 + level) / 2
    low, high = f_distribution.ppf(side, n - 1, freedom), f_distribution.ppf(side, freedom, n - 1)
    noise = k * readers + (k * n - k - n) * rest
    lower = n * (between - low * rest) / (low * noise + n * between)
    upper = n * (high * between - rest) / (noise + n * high * between)
    return float(lower), float(upper)


@dataclass(frozen=True)
class BlandAltman:
    """Differences between two ways to measure.

    Attributes:
        films: pairs of readings.
        bias: mean of second minus first.
        bias_interval: its confidence interval.
        sd: standard deviation of the differences.
        lower: limit of agreement, ``bias - 1.96 sd``; 95 % of differences lie between both, if they are normal.
        lower_interval: its confidence interval.
        upper: limit of agreement, ``bias + 1.96 sd``.
        upper_interval: its confidence interval.
    """

    films: int
    bias: float
    bias_interval: Interval
    sd: float
    lower: float
    lower_interval: Interval
    upper: float
    upper_interval: Interval


def bland_altman(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> BlandAltman:
    """Bias and limits of agreement (Bland & Altman, Lancet 1986;i:307; intervals: Stat Methods Med Res 1999;8:135).

    Differences are taken as independent and about normal. The variance of a limit is
    ``sd^2 (1 / n + 1.96^2 / (2 (n - 1)))``.

    Args:
        first: ``(N,)`` readings, NaN = none.
        second: ``(N,)`` readings of the same films.
        level: coverage of the confidence intervals; the limits themselves are always those of 95 %.

    Returns:
        The agreement; for one pair without spread, for none without anything (NaN).

    Raises:
        ValueError: not as many first as second readings.
    """
    before, after = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if before.shape != after.shape or before.ndim != 1:
        raise ValueError(f"readings must be (N,) for both, got {before.shape} and {after.shape}")
    difference = (after - before)[np.isfinite(before) & np.isfinite(after)]
    n = len(difference)
    bias = float(difference.mean()) if n else float("nan")
    if n < 2:
        return BlandAltman(n, bias, _NOTHING, float("nan"), float("nan"), _NOTHING, float("nan"), _NOTHING)
    sd, wide, t = (
        float(difference.std(ddof=1)),
        float(norm.ppf(0.975)),
        float(t_distribution.ppf((1 + level) / 2, n - 1)),
    )
    of_bias, of_limit = t * sd / n**0.5, t * sd * (1 / n + wide**2 / (2 * (n - 1))) ** 0.5
    lower, upper = bias - wide * sd, bias + wide * sd
    return BlandAltman(
        films=n,
        bias=bias,
        bias_interval=(bias - of_bias, bias + of_bias),
        sd=sd,
        lower=lower,
        lower_interval=(lower - of_limit, lower + of_limit),
        upper=upper,
        upper_interval=(upper - of_limit, upper + of_limit),
    )
