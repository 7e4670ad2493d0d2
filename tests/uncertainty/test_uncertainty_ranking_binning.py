"""Risk and coverage, AUROC, referral and quantile bins, each against a count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from monai_landmark.errors import ConfigurationError
from monai_landmark.uncertainty import QuantileBins, auroc, referral, risk_coverage, spearman


def sample(seed: int = 0, films: int = 30, landmarks: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Uncertainties with ties, and errors that follow them, some not annotated."""
    random = np.random.default_rng(seed)
    doubt = random.gamma(2.0, 1.0, (films, landmarks)).round(1)
    errors = random.rayleigh(doubt + 0.1)
    errors[random.uniform(size=errors.shape) < 0.1] = np.nan
    return doubt, errors


def test_auroc_equals_the_count_of_pairs() -> None:
    doubt, errors = sample()
    known = [(u, e) for u, e in zip(doubt.ravel(), errors.ravel(), strict=True) if not math.isnan(e)]
    gross, small = [u for u, e in known if e > 4], [u for u, e in known if e <= 4]
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in gross for b in small)
    assert auroc(doubt, errors, 4.0) == pytest.approx(wins / (len(gross) * len(small)), rel=1e-12)


def test_not_found_is_the_least_certain_and_the_largest_error() -> None:
    assert auroc([1.0, 2.0, np.nan], [1.0, 1.0, np.inf], 4.0) == 1.0
    assert spearman([1.0, 2.0, np.nan], [1.0, 2.0, np.inf]) == pytest.approx(1.0)
    assert math.isnan(auroc([1.0, 2.0], [1.0, 2.0], 4.0)) and math.isnan(auroc([1.0, 2.0], [5.0, 9.0], 4.0))


def test_spearman_is_scipys() -> None:
    doubt, errors = sample(1)
    known = ~np.isnan(errors)
    assert spearman(doubt, errors) == pytest.approx(spearmanr(doubt[known], errors[known]).statistic, rel=1e-12)
    assert math.isnan(spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])) and math.isnan(spearman([1.0, 2.0], [1.0, 2.0]))


def test_risk_coverage_equals_means_of_what_is_kept() -> None:
    doubt, errors = sample(2)
    coverage, risk = risk_coverage(doubt, errors)
    known = ~np.isnan(errors)
    limits = np.unique(doubt[known])
    assert len(coverage) == len(limits) and coverage[-1] == 1.0
    for share, mean, limit in zip(coverage, risk, limits, strict=True):
        kept = known & (doubt <= limit)
        assert share == pytest.approx(kept.sum() / known.sum()) and mean == pytest.approx(errors[kept].mean())


def test_referral_of_landmarks_and_of_films() -> None:
    doubt = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0], [6.0, 7.0], [0.5, 9.0]])
    errors = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 1.0], [9.0, np.nan], [1.0, 30.0]])
    whole = np.nanmean(errors)
    by_landmark = referral(doubt, errors, 0.8)
    assert by_landmark.coverage == 8 / 9 and by_landmark.mean_before == pytest.approx(whole)
    assert by_landmark.mean_after == pytest.approx(np.nanmean(np.where(doubt <= 6.0, errors, np.nan)))
    by_film = referral(doubt, errors, 0.8, "film")  # mean uncertainties 1.5, 3.5, 2.5, 6 (one annotated), 4.75
    kept = errors[[0, 1, 2, 4]]
    assert by_film.coverage == 0.8 and by_film.mean_after == pytest.approx(kept.mean())
    assert by_film.gain == pytest.approx(1 - kept.mean() / whole)
    assert referral(doubt, errors, 1.0).gain == pytest.approx(0.0)


def test_films_with_a_landmark_not_found_are_referred_first() -> None:
    doubt, errors = np.ones((5, 2)), np.ones((5, 2))
    doubt[3, 1], errors[3, 1] = np.nan, np.inf
    found = referral(doubt, errors, 0.8, "film")
    assert found.mean_before == math.inf and found.mean_after == 1.0


def test_refusals() -> None:
    for coverage in (0.0, 1.1, math.nan):
        with pytest.raises(ConfigurationError, match="coverage"):
            referral(np.ones((2, 2)), np.ones((2, 2)), coverage)
    with pytest.raises(ConfigurationError, match="by"):
        referral(np.ones((2, 2)), np.ones((2, 2)), by="patient")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing"):
        auroc([1.0], [np.nan], 4.0)
    with pytest.raises(ValueError, match="one shape"):
        risk_coverage([1.0], [1.0, 2.0])


def naive_isotonic(values: np.ndarray) -> np.ndarray:
    """The min-max formula of isotonic least squares: no pooling, all pairs of ends."""
    size = range(len(values))
    return np.array([max(min(values[a : b + 1].mean() for b in size[i:]) for a in size[: i + 1]) for i in size])


def test_bins_have_equal_numbers_and_isotonic_bounds() -> None:
    random = np.random.default_rng(3)
    doubt = random.permutation(np.linspace(0, 1, 60))
    errors = random.rayleigh(doubt + 0.2)
    bins = QuantileBins.fit(doubt, errors, bins=5)
    assert np.bincount(bins.of(doubt)).tolist() == [12] * 5
    order = np.argsort(doubt)
    expected = np.interp(bins.edges, doubt[order], naive_isotonic(errors[order]))
    np.testing.assert_allclose(bins.bounds_mm, expected, rtol=1e-9)
    assert (np.diff(bins.bounds_mm) >= 0).all() and bins.of([np.nan, -1.0]).tolist() == [4, 0]


def test_equal_uncertainties_do_not_depend_on_their_order() -> None:
    doubt, errors = sample(4)
    shuffled = np.random.default_rng(0).permutation(doubt.size)
    one = QuantileBins.fit(doubt, errors)
    other = QuantileBins.fit(doubt.ravel()[shuffled], errors.ravel()[shuffled])
    np.testing.assert_allclose(one.bounds_mm, other.bounds_mm, rtol=1e-9)


def test_accuracy_and_jaccard_by_hand() -> None:
    bins = QuantileBins(np.array([1.0, 2.0]), np.array([0.5, 1.5]))
    doubt, errors = np.array([0.5, 1.0, 1.5, 2.5, 2.5, 3.0]), np.array([0.4, 0.6, 1.0, 1.4, 1.6, np.nan])
    np.testing.assert_allclose(bins.accuracy(doubt, errors), [0.5, 1.0, 0.5])
    perfect = QuantileBins.fit(np.arange(30.0), np.arange(30.0), bins=3)
    np.testing.assert_array_equal(perfect.jaccard(np.arange(30.0), np.arange(30.0)), [1.0, 1.0, 1.0])
    assert perfect.jaccard(np.arange(30.0), np.arange(30.0)[::-1])[0] == 0.0


def test_bins_refuse_too_few_predictions() -> None:
    for count in (1, 5):
        with pytest.raises(ConfigurationError, match="bins"):
            QuantileBins.fit([1.0, 2.0, 3.0, np.nan], [1.0, 2.0, 3.0, 4.0], bins=count)
