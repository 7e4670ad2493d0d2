"""Which films to label first: those that the others look most like, those that differ most, or any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_landmark.errors import ConfigurationError

__all__ = ["STRATEGIES", "Choice", "choose_films"]

STRATEGIES = ("random", "representative", "diverse")

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """A film to label.

    Attributes:
        index: which film.
        gained: by how much it raises the coverage; NaN where nothing is known about the films' features. Coverage is
            the mean over all films of their similarity to the most similar chosen one, from 0 to 1, where the
            similarity is (1 + cosine) / 2.
    """

    index: int
    gained: float


def choose_films(
    vectors: ArrayLike | None, budget: int, strategy: str, order: Sequence[int], already: Sequence[int] = ()
) -> list[Choice]:
    """Rank films, the first to label first: a smaller budget gives the beginning of what a larger one gives.

    ``representative`` is greedy facility location: each step takes the film that raises the coverage most, which
    reaches at least 1 - 1/e of the best coverage possible (Nemhauser, Wolsey, Fisher, Mathematical Programming 1978).
    ``diverse`` is greedy k-center: each step takes the film least like all chosen ones (Gonzalez, Theoretical Computer
    Science 1985); of no chosen ones the first in ``order``. ``random`` takes them in ``order``.

    Args:
        vectors: ``(N, D)`` features of the films, compared by their cosine; None will do for ``random``.
        budget: how many films to choose.
        strategy: one of :data:`STRATEGIES`.
        order: the films that may be chosen; among equals the first is taken.
        already: films that count as chosen.

    Returns:
        The choices, best first.

    Raises:
        ConfigurationError: if the strategy is unknown or has no features, or there are fewer films than the budget.
    """
    candidates = [index for index in order if index not in set(already)]
    if strategy not in STRATEGIES or (vectors is None and strategy != "random"):
        expected = " | ".join(STRATEGIES if vectors is not None else ("random (the others need features)",))
        raise ConfigurationError("not a possible strategy", field="strategy", value=strategy, expected=expected)
    if not 0 < budget <= len(candidates):
        raise ConfigurationError(
            "so many films cannot be chosen", field="budget", value=budget, expected=f"1 to {len(candidates)}"
        )
    if vectors is None:
        return [Choice(index, float("nan")) for index in candidates[:budget]]
    similarity = _similarity(np.asarray(vectors, dtype=np.float64))
    covered = similarity[list(already)].max(axis=0, initial=0.0)
    choices: list[Choice] = []
    for _ in range(budget):
        best = candidates.pop(int(np.argmax(_scores(strategy, similarity, covered, candidates))))
        after = np.maximum(covered, similarity[best])
        choices.append(Choice(best, float((after - covered).mean())))
        covered = after
    return choices


def _similarity(vectors: FloatArray) -> FloatArray:
    """``(N, N)`` from 0 (opposite) to 1 (alike)."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.clip((1 + unit @ unit.T) / 2, 0, 1))


def _scores(strategy: str, similarity: FloatArray, covered: FloatArray, candidates: Sequence[int]) -> FloatArray:
    """``(len(candidates),)``; the highest is chosen."""
    if strategy == "representative":
        return np.asarray(np.maximum(similarity[candidates], covered).sum(axis=1))
    return -covered[candidates] if strategy == "diverse" else np.zeros(len(candidates))
