"""Which films to label first, against brute force on a few points."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from monai_landmark.errors import ConfigurationError
from monai_landmark.study.selection import choose_films


def points(count: int = 6, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(count, 3))


def likeness(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return (1 + first @ second / np.sqrt((first @ first) * (second @ second))) / 2


def coverage(vectors: NDArray[np.float64], chosen: list[int]) -> float:
    """By its definition: how like the most similar chosen film each film is, on average."""
    return float(np.mean([max([0.0, *(likeness(film, vectors[one]) for one in chosen)]) for film in vectors]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("already", [[], [4], [1, 3]])
def test_representative_is_greedy_facility_location(seed: int, already: list[int]) -> None:
    vectors = points(seed=seed)
    found = choose_films(vectors, 3, "representative", range(6), already)
    chosen = list(already)
    for choice in found:
        rest = [film for film in range(6) if film not in chosen]
        best = max(rest, key=lambda film: coverage(vectors, [*chosen, film]))
        assert choice.index == best
        assert choice.gained == pytest.approx(coverage(vectors, [*chosen, best]) - coverage(vectors, chosen))
        chosen.append(best)
    if not already:
        optimum = max(coverage(vectors, list(films)) for films in itertools.combinations(range(6), 3))
        assert coverage(vectors, chosen) >= (1 - 1 / np.e) * optimum


@pytest.mark.parametrize("already", [[], [5]])
def test_diverse_is_greedy_k_center(already: list[int]) -> None:
    vectors, order = points(), [2, 0, 1, 3, 4, 5]
    chosen = list(already)
    for choice in choose_films(vectors, 4, "diverse", order, already):
        rest = [film for film in order if film not in chosen]
        nearest = [max((likeness(vectors[film], vectors[one]) for one in chosen), default=0.0) for film in rest]
        assert choice.index == rest[int(np.argmin(nearest))]
        chosen.append(choice.index)
    assert already or chosen[0] == 2


def test_one_film_of_every_group() -> None:
    groups = np.repeat(np.eye(3), 4, axis=0) + np.random.default_rng(0).normal(size=(12, 3)) * 0.05
    found = choose_films(groups, 3, "representative", range(12))
    assert sorted(choice.index // 4 for choice in found) == [0, 1, 2]


@pytest.mark.parametrize("strategy", ["random", "representative", "diverse"])
def test_smaller_budgets_are_the_beginning_of_larger_ones(strategy: str) -> None:
    order = np.random.default_rng(3).permutation(9).tolist()
    found = choose_films(points(9), 9, strategy, order)
    assert sorted(choice.index for choice in found) == list(range(9))
    assert sum(choice.gained for choice in found) == pytest.approx(1.0)
    for budget in (1, 4):
        assert choose_films(points(9), budget, strategy, order) == found[:budget]


def test_random_is_the_order_and_needs_no_features() -> None:
    found = choose_films(None, 3, "random", [4, 0, 2, 1], already=[0])
    assert [choice.index for choice in found] == [4, 2, 1] and np.isnan(found[0].gained)


@pytest.mark.parametrize(
    ("vectors", "budget", "strategy", "said"),
    [
        (points(), 2, "best", "representative"),
        (None, 2, "diverse", "need features"),
        (points(), 0, "random", "1 to 5"),
        (points(), 6, "random", "1 to 5"),
    ],
)
def test_impossible_requests(vectors: NDArray[np.float64], budget: int, strategy: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        choose_films(vectors, budget, strategy, range(6), already=[2])
