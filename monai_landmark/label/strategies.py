"""Which film to label next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from monai_landmark.errors import ConfigurationError
from monai_landmark.study.selection import choose_films

__all__ = ["STRATEGIES", "next_film"]

#: Name -> what it does, as clients show it.
STRATEGIES = {
    "random": "any film without a label",
    "highest_expected_error": "the film on which the model expects the highest mean error",
    "diverse": "the film that looks least like all labelled ones",
    "mixed": "of the films with the highest expected errors, the one that looks least like all labelled ones",
}

_POOL = 64  # films whose features are compared at once: each costs a pass through the network
_SHORTLIST = 16  # of the mix

Vector = Callable[[str], NDArray[np.float64]]
Score = Callable[[str], float]


def next_film(
    strategy: str,
    unlabeled: Sequence[str],
    labeled: Sequence[str],
    scores: Mapping[str, float],
    score_of: Score,
    vector_of: Vector,
    rng: np.random.Generator,
) -> str | None:
    """Choose the film to label next.

    Large folders are drawn from: where more than 64 films would have to be read for one answer, 64 of them are, at
    random.

    Args:
        strategy: one of :data:`STRATEGIES`.
        unlabeled: ids of the films to choose from.
        labeled: ids of the films that have a label.
        scores: id -> expected error of the model in use, as far as it is known; the higher, the sooner labelled.
        score_of: the same for a film that ``scores`` lacks; asked only where no film to choose from has a score.
        vector_of: features of a film, see :class:`monai_landmark.study.frozen_films.FilmVectors`.
        rng: draws the films, and decides between equals.

    Returns:
        An id, or None where every film has a label.

    Raises:
        ConfigurationError: if the strategy is unknown.
    """
    if strategy not in STRATEGIES:
        raise ConfigurationError("no such strategy", field="strategy", expected=" | ".join(STRATEGIES))
    films = [unlabeled[index] for index in rng.permutation(len(unlabeled))]
    if not films or strategy == "random":
        return films[0] if films else None
    if strategy == "diverse":
        return _least_alike(films[:_POOL], _some(labeled, rng), vector_of)
    ranked = _ranked(films, scores, score_of)
    if strategy == "highest_expected_error":
        return ranked[0]
    return _least_alike(ranked[:_SHORTLIST], _some(labeled, rng), vector_of)


def _ranked(films: Sequence[str], scores: Mapping[str, float], score_of: Score) -> list[str]:
    """The highest score first; films without a score only where none has one."""
    known = {film: scores[film] for film in films if film in scores}
    known = known or {film: score_of(film) for film in films[:_SHORTLIST]}
    return sorted(known, key=lambda film: -known[film])


def _some(films: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [films[index] for index in rng.permutation(len(films))[:_POOL]]


def _least_alike(films: Sequence[str], labeled: Sequence[str], vector_of: Vector) -> str:
    """Of ``films``, the one least like all of ``labeled``; the first where nothing is labelled."""
    if not labeled or len(films) == 1:
        return films[0]
    vectors = np.stack([vector_of(film) for film in (*films, *labeled)])
    already = range(len(films), len(vectors))
    return films[choose_films(vectors, 1, "diverse", range(len(vectors)), already)[0].index]
