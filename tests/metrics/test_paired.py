"""Paired differences against sums by hand, coverage on drawn films, and what cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from monai_landmark.metrics import paired_difference


def drawn(gain: float, films: int = 40, seed: int = 0, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    hard = generator.gamma(2.0, 1.0, (films, 1))  # films differ far more than detectors do
    first = hard + generator.normal(3.0, noise, (films, 5))
    return first, hard + generator.normal(3.0 - gain, noise, (films, 5))


def test_numbers_by_hand() -> None:
    first = [[[3.0, 5.0], [2.0, np.nan]], [[4.0, 4.0], [4.0, np.nan]]]
    second = [[[1.0, 2.0], [3.0, np.nan]], [[2.0, 3.0], [2.0, np.nan]]]
    found = paired_difference(first, second)
    films = np.array([(2 + 3 + 2 + 1) / 4, (-1 + 2) / 2])
    assert found.films == 2 and found.left_out == 0 and found.better == 1.0 and np.isnan(found.p_value)
    assert found.gain == pytest.approx(films.mean()) and found.effect == pytest.approx(films.mean() / films.std(ddof=1))


def test_pairing_sees_what_films_hide() -> None:
    first, second = drawn(0.2)
    found = paired_difference([first], [second])
    assert 0 < found.interval[0] < 0.2 < found.interval[1] and found.effect_interval[0] > 0 and found.p_value < 1e-3
    means = first.mean(1), second.mean(1)
    test = ttest_rel(*means)
    assert found.interval == pytest.approx(test.confidence_interval(0.95), abs=0.03)
    assert found.effect == pytest.approx(test.statistic / np.sqrt(len(first)))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(200):
        low, high = paired_difference(*([one] for one in drawn(0.2, seed=seed)), resamples=400).interval
        hits += low <= 0.2 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_turned_round_it_changes_its_sign() -> None:
    first, second = drawn(0.4)
    one, other = paired_difference([first], [second]), paired_difference([second], [first])
    assert other.gain == pytest.approx(-one.gain) and other.interval[0] == pytest.approx(-one.interval[1], abs=0.02)


def test_films_of_one_patient_are_drawn_together() -> None:
    first, second = drawn(0.2)
    copies = [f"{index // 2:02d}" for index in range(40)]  # in order, so that the draws are the same
    doubled = paired_difference([np.repeat(first[:20], 2, 0)], [np.repeat(second[:20], 2, 0)], patients=copies)
    once = paired_difference([first[:20]], [second[:20]])
    assert doubled.interval == pytest.approx(once.interval) and doubled.gain == pytest.approx(once.gain)
    assert doubled.films == 40 and doubled.p_value == pytest.approx(once.p_value)


def test_a_film_without_a_prediction_is_left_out_and_counted() -> None:
    first, second = drawn(0.2, films=10)
    second[3, 2] = np.inf
    found = paired_difference([first], [second])
    keep = np.arange(10) != 3
    assert found.left_out == 1 and found.films == 9
    assert found.gain == pytest.approx((first - second)[keep].mean())


def test_the_same_detector_twice() -> None:
    first, _ = drawn(0.2)
    found = paired_difference([first], [first])
    assert found.gain == 0 and found.interval == (0, 0) and found.better == 0
    assert np.isnan(found.p_value) and np.isnan(found.effect)


@pytest.mark.parametrize(
    ("first", "second"),
    [([np.ones((3, 2))], [np.ones((4, 2))]), ([np.ones((3, 2))] * 2, [np.ones((3, 2))]), ([np.ones(3)], [np.ones(3)])],
)
def test_what_is_no_pair_is_refused(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="S times"):
        paired_difference(first, second)


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="no film"):
        paired_difference([np.full((3, 2), np.nan)], [np.ones((3, 2))])
