"""Conformal quantiles against the definition, and what they promise by simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from monai_landmark.errors import ConfigurationError
from monai_landmark.uncertainty import conformal_quantile, fewest_films, referral_threshold


@pytest.mark.parametrize("level", ["0.5", "0.8", "0.9", "0.95"])
@pytest.mark.parametrize("count", [1, 4, 9, 10, 19, 29, 49, 99])
def test_is_the_score_of_the_stated_rank(level: str, count: int) -> None:
    scores = np.random.default_rng(count).permutation(np.arange(1.0, count + 1))  # the r-th smallest is r
    rank = math.ceil((count + 1) * Fraction(level))
    expected = float(rank) if rank <= count else math.inf
    assert float(conformal_quantile(scores, float(level))) == expected
    assert (count >= fewest_films(float(level))) == math.isfinite(expected)


def test_landmarks_are_apart_and_what_is_not_annotated_counts_nowhere() -> None:
    scores = np.arange(1.0, 31.0)[:, None] * [1.0, 10.0, 1.0, 1.0]
    scores[5:, 2] = np.nan  # five films are too few for 0.9
    scores[-4:, 3] = np.inf  # not found
    found = conformal_quantile(scores, 0.9)
    np.testing.assert_array_equal(found, [28.0, 280.0, np.inf, np.inf])


def test_regions_cover_what_they_promise() -> None:
    """2,000 calibrations of 40 films, one new film each: 3 standard errors of a share of 0.9 are 0.02."""
    random, level, trials, films = np.random.default_rng(0), 0.9, 2000, 40
    width = random.gamma(2.0, 1.0, (trials, films + 1))
    errors = random.rayleigh(width)
    factors = conformal_quantile((errors / width)[:, :films].T, level)
    fixed = conformal_quantile(errors[:, :films].T, level)
    promised = math.ceil(41 * level) / 41  # exact for scores without ties: 37 / 41
    for radius in (factors * width[:, -1], fixed):
        covered = float((errors[:, -1] <= radius).mean())
        assert abs(covered - promised) <= 3 * math.sqrt(promised * (1 - promised) / trials)


def naive_threshold(errors: np.ndarray, expected: np.ndarray, tolerance: float, risk: float) -> float:
    """The largest candidate at which the corrected mean loss keeps to the risk, by trying all of them."""
    best = 0.0
    for candidate in [*np.unique(expected[~np.isnan(expected)]), math.inf]:
        losses = []
        for error, doubt in zip(errors, expected, strict=True):
            annotated = [i for i, value in enumerate(error) if not math.isnan(value)]
            if annotated:
                losses.append(sum(error[i] > tolerance and doubt[i] < candidate for i in annotated) / len(annotated))
        if (sum(losses) + 1) / (len(losses) + 1) <= risk + 1e-12:
            best = float(candidate)
    return best


@pytest.mark.parametrize("risk", [0.02, 0.05, 0.1, 0.2, 0.6])
def test_referral_threshold_equals_trying_all(risk: float) -> None:
    random = np.random.default_rng(7)
    expected = random.gamma(2.0, 1.0, (40, 5)).round(1)  # with ties
    errors = random.rayleigh(1.3 * expected)
    errors[random.uniform(size=errors.shape) < 0.1] = np.nan
    errors[3], expected[4, 1], errors[4, 1] = np.nan, np.nan, np.inf
    found = referral_threshold(errors, expected, 4.0, risk)
    assert found == naive_threshold(errors, expected, 4.0, risk)
    assert (found == 0.0) == (risk == 0.02)  # 40 films allow no risk below 1 / 41


def test_passed_gross_errors_keep_to_the_risk() -> None:
    """1,500 calibrations, 60 films whose landmarks err together; new films' mean loss within 3 standard errors."""
    random, risk, losses = np.random.default_rng(1), 0.1, []
    for _ in range(1500):
        expected = random.gamma(2.0, 1.0, (61, 1)) * random.uniform(0.5, 1.5, (61, 6))
        errors = random.rayleigh(expected)
        threshold = referral_threshold(errors[:60], expected[:60], 3.0, risk)
        losses.append(((errors[60] > 3.0) & (expected[60] < threshold)).mean())
    margin = 3 * np.std(losses) / math.sqrt(len(losses))
    assert risk - 2 / 61 - margin <= np.mean(losses) <= risk + margin  # and it is not wasteful either


def test_nothing_gross_refers_nothing_and_too_few_films_refer_everything() -> None:
    assert referral_threshold(np.ones((30, 4)), np.ones((30, 4)), 4.0, 0.05) == math.inf
    assert referral_threshold(np.ones((18, 4)), np.ones((18, 4)), 4.0, 0.05) == 0.0
    assert referral_threshold(np.ones((19, 4)), np.ones((19, 4)), 4.0, 0.05) == math.inf


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, math.nan])
def test_refuses_shares_that_are_none(share: float) -> None:
    with pytest.raises(ConfigurationError, match="level"):
        conformal_quantile(np.ones(5), share)
    with pytest.raises(ConfigurationError, match="level"):
        fewest_films(share)
    with pytest.raises(ConfigurationError, match="risk"):
        referral_threshold(np.ones((5, 2)), np.ones((5, 2)), 4.0, share)


def test_refuses_shapes_and_tolerances() -> None:
    with pytest.raises(ConfigurationError, match="tolerance"):
        referral_threshold(np.ones((5, 2)), np.ones((5, 2)), 0.0, 0.1)
    with pytest.raises(ValueError, match="must both be"):
        referral_threshold(np.ones((5, 2)), np.ones((5, 3)), 4.0, 0.1)
