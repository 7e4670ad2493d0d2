"""Regions and referrals that hold for new films of the same kind, whatever the network is: conformal prediction."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_landmark.errors import ConfigurationError

__all__ = ["check_share", "conformal_quantile", "fewest_films", "referral_threshold"]

FloatArray = NDArray[np.float64]


def conformal_quantile(scores: ArrayLike, level: float) -> FloatArray:
    """The score that a new film does not exceed with a probability of at least ``level``.

    The ``ceil((n + 1) level)``-th smallest of n scores, and infinity where that is beyond the n-th: split conformal
    prediction (Vovk et al., Algorithmic learning in a random world, 2005; Lei et al., JASA 2018). The probability is
    over calibration films and the new film together (marginal), all drawn alike (exchangeable).

    Args:
        scores: ``(N,)`` or ``(N, K)``, one column a landmark; NaN = not annotated, left out; inf = not found.
        level: between 0 and 1.

    Returns:
        ``()`` or ``(K,)``; inf where there are too few scores for the level, see :func:`fewest_films`.

    Raises:
        ConfigurationError: the level is not between 0 and 1.
    """
    check_share("level", level)
    values = np.sort(np.asarray(scores, dtype=np.float64), axis=0)  # NaN goes last
    columns = values.reshape(len(values), math.prod(values.shape[1:]))
    found = []
    for column in columns.T:
        count = int((~np.isnan(column)).sum())
        rank = _rank(count, level)
        found.append(column[rank - 1] if rank <= count else math.inf)
    return np.array(found).reshape(values.shape[1:])


def fewest_films(level: float) -> int:
    """How many calibration films a finite region needs: the smallest n with ``ceil((n + 1) level) <= n``.

    Args:
        level: between 0 and 1.

    Returns:
        9 for 0.9, 19 for 0.95.
    """
    check_share("level", level)
    count = 1
    while _rank(count, level) > count:
        count += 1
    return count


def _rank(count: int, level: float) -> int:
    """``ceil((n + 1) level)``; rounded first, for 30 * 0.9 must not become 28."""
    return math.ceil(round((count + 1) * level, 9))


def referral_threshold(errors_mm: ArrayLike, expected_mm: ArrayLike, tolerance_mm: float, risk: float) -> float:
    """From which expected error on a landmark is referred, so that few gross errors pass.

    Conformal risk control (Angelopoulos et al., ICLR 2024) with films as units: a film's loss is the share of its
    annotated landmarks that pass (expected error below the threshold) although they are off by more than the tolerance.
    The largest threshold with ``(sum of losses + 1) / (n + 1) <= risk`` keeps a new film's expected loss within the
    risk. Landmarks of one film err together, which costs the guarantee nothing.

    Args:
        errors_mm: ``(N, K)`` of calibration films; NaN = not annotated, inf = not found.
        expected_mm: ``(N, K)`` expected errors; NaN is always referred.
        tolerance_mm: errors above it are gross.
        risk: between 0 and 1.

    Returns:
        The threshold; inf: nothing needs to be referred; 0: everything must be, for gross errors cannot be told from
        the others or the films are too few (fewer than ``1 / risk - 1``).

    Raises:
        ConfigurationError: a risk or tolerance that cannot be.
        ValueError: shapes that differ.
    """
    check_share("risk", risk)
    if not (math.isfinite(tolerance_mm) and tolerance_mm > 0):
        raise ConfigurationError("no tolerance", field="tolerance_mm", value=tolerance_mm, expected="a number above 0")
    errors, expected = (np.asarray(values, dtype=np.float64) for values in (errors_mm, expected_mm))
    if errors.shape != expected.shape or errors.ndim != 2:
        raise ValueError(f"errors and expected errors must both be (N, K), got {errors.shape} and {expected.shape}")
    annotated = (~np.isnan(errors)).sum(axis=1)
    errors, expected, annotated = errors[annotated > 0], expected[annotated > 0], annotated[annotated > 0]
    allowed = risk * (len(errors) + 1) - 1.0
    if allowed < 0:
        return 0.0
    gross = (errors > tolerance_mm) & ~np.isnan(expected)
    values = expected[gross]
    losses = np.broadcast_to(1.0 / annotated[:, None], errors.shape)[gross]
    order = np.argsort(values, kind="stable")
    too_many = np.cumsum(losses[order]) > allowed + 1e-9
    return float(values[order][np.argmax(too_many)]) if too_many.any() else math.inf


def check_share(field: str, value: float) -> float:
    """Refuse a level or risk that is not between 0 and 1.

    Args:
        field: its name.
        value: to check.

    Returns:
        The value.

    Raises:
        ConfigurationError: it is not.
    """
    if not 0 < value < 1:
        raise ConfigurationError("not a share", field=field, value=value, expected="between 0 and 1")
    return float(value)
