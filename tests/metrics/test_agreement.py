"""ICC(2,1) and Bland-Altman against published tables, an analysis of variance written out, and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest

from monai_landmark.metrics import bland_altman, intraclass_correlation

# Shrout & Fleiss 1979, table 2: four judges rate six targets.
JUDGES = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)
# Bland & Altman 1986, table 1: peak flow of 17 people by two meters, first reading of each, in l/min.
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_icc_of_the_published_table() -> None:
    found = intraclass_correlation(JUDGES)
    assert found.value == pytest.approx(0.29, abs=0.005)  # the paper's table 4
    assert found.interval == pytest.approx((0.019, 0.761), abs=0.001)  # R's psych::ICC on the same table
    assert (found.films, found.readers) == (6, 4)


def test_icc_equals_an_analysis_of_variance_by_hand() -> None:
    table = np.random.default_rng(0).normal(size=(12, 3)) + np.arange(12)[:, None] * 0.4 + np.array([0.0, 0.5, -0.2])
    n, k = table.shape
    grand = sum(table[i][j] for i in range(n) for j in range(k)) / (n * k)
    films = [sum(table[i]) / k for i in range(n)]
    readers = [sum(table[i][j] for i in range(n)) / n for j in range(k)]
    of_films = sum(k * (mean - grand) ** 2 for mean in films)
    of_readers = sum(n * (mean - grand) ** 2 for mean in readers)
    total = sum((table[i][j] - grand) ** 2 for i in range(n) for j in range(k))
    bms, jms = of_films / (n - 1), of_readers / (k - 1)
    ems = (total - of_films - of_readers) / ((n - 1) * (k - 1))
    expected = (bms - ems) / (bms + (k - 1) * ems + k * (jms - ems) / n)
    assert intraclass_correlation(table).value == pytest.approx(expected, abs=1e-12)


def test_icc_counts_a_constant_bias_as_disagreement() -> None:
    readings = np.arange(10.0)
    assert intraclass_correlation(np.stack([readings, readings], 1)).value == pytest.approx(1)
    # Between 2 * 9.1667, readers 10 * 4.5 = 45, rest 0: (18.33 - 0) / (18.33 + 0 + 2 * 45 / 10)
    biased = intraclass_correlation(np.stack([readings, readings + 3], 1))
    assert biased.value == pytest.approx(18.3333 / (18.3333 + 9), abs=1e-4)
    assert np.isnan(biased.interval).all()


def test_icc_leaves_out_films_that_one_reader_has_not() -> None:
    holed = np.vstack([JUDGES, [np.nan, 3, 4, 5]])
    assert intraclass_correlation(holed) == intraclass_correlation(JUDGES)


@pytest.mark.parametrize("table", [np.zeros((5, 2)), np.zeros((1, 2)), np.full((4, 2), np.nan)])
def test_icc_without_variance_is_not_a_number(table: np.ndarray) -> None:
    assert np.isnan(intraclass_correlation(table).value)


def test_icc_interval_covers_the_truth() -> None:
    random, hits = np.random.default_rng(1), 0
    for _ in range(400):  # variances 4 between films, 0.25 between readers, 1 rest: ICC 4 / 5.25
        table = random.normal(0, 2, (30, 1)) + random.normal(0, 0.5, (1, 3)) + random.normal(0, 1, (30, 3))
        low, high = intraclass_correlation(table).interval
        hits += low <= 4 / 5.25 <= high
    assert 0.92 <= hits / 400 <= 0.98  # three readers say little about readers; Satterthwaite is an approximation


def test_bland_altman_of_the_published_table() -> None:
    found = bland_altman(MINI, WRIGHT)
    assert found.films == 17
    assert found.bias == pytest.approx(-2.1, abs=0.05)
    assert found.sd == pytest.approx(38.8, abs=0.05)
    # The paper takes 2 for 1.96: limits -79.7 and 75.5, and 16.3 as the standard error of a limit, from 3 / n.
    assert (found.lower, found.upper) == pytest.approx((-2.118 - 1.96 * 38.765, -2.118 + 1.96 * 38.765), abs=0.01)
    assert found.bias_interval == pytest.approx((-22.1, 17.8), abs=0.1)
    half = (found.upper_interval[1] - found.upper_interval[0]) / 2
    assert half == pytest.approx(2.12 * 16.3, rel=0.01)
    assert found.lower_interval[1] - found.lower == pytest.approx(half)


def test_bland_altman_intervals_cover_the_truth() -> None:
    random, limits, biases = np.random.default_rng(2), 0, 0
    for _ in range(1000):
        first = random.normal(80, 5, 40)
        found = bland_altman(first, first + random.normal(1, 2, 40))
        biases += found.bias_interval[0] <= 1 <= found.bias_interval[1]
        limits += found.upper_interval[0] <= 1 + 1.959964 * 2 <= found.upper_interval[1]
    assert 0.93 <= biases / 1000 <= 0.97
    assert 0.92 <= limits / 1000 <= 0.97


def test_bland_altman_of_too_few_pairs_says_so() -> None:
    one = bland_altman([1.0, np.nan], [3.0, 4.0])
    assert (one.films, one.bias) == (1, 2.0) and np.isnan([one.sd, one.lower, *one.upper_interval]).all()
    none = bland_altman([], [])
    assert none.films == 0 and np.isnan(none.bias)


def test_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two readers"):
        intraclass_correlation(np.zeros((5, 1)))
    with pytest.raises(ValueError, match=r"\(N,\)"):
        bland_altman([1.0, 2.0], [1.0])
