"""Results beside their reference: per-axis errors of a set of films, in millimeters or, failing that, in pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_landmark.errors import DataError
from monai_landmark.results.result import LandmarkResult

__all__ = ["EvaluatedFilm", "Evaluation", "evaluate_results"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EvaluatedFilm:
    """One result and, where known, the landmarks that the target reader set.

    Args:
        result: the prediction.
        reference_px: ``(K, 2)`` (x, y) in pixels of the original film, NaN = not annotated; None = no reference.
        near_duplicates: ids of films in other splits that show (almost) the same picture.
    """

    result: LandmarkResult
    reference_px: FloatArray | None = None
    near_duplicates: tuple[str, ...] = ()

    def offsets(self, unit: str) -> FloatArray:
        """Prediction minus reference, each axis by its own spacing.

        Args:
            unit: ``mm`` or ``px``.

        Returns:
            ``(K, 2)`` (dx, dy); NaN where not annotated; inf where annotated and not found; all NaN without a reference
            or, for mm, without a spacing.
        """
        points = self.result.points_px
        if self.reference_px is None or (unit == "mm" and self.result.spacing_mm is None):
            return np.full_like(points, np.nan)
        row_mm, col_mm = self.result.spacing_mm if unit == "mm" and self.result.spacing_mm else (1.0, 1.0)
        offsets = (points - self.reference_px) * np.array([col_mm, row_mm])
        return np.where(np.isnan(points) & ~np.isnan(self.reference_px), np.inf, offsets)

    def errors(self, unit: str) -> FloatArray:
        """``(K,)`` radial errors in ``unit``; NaN and inf as in :meth:`offsets`."""
        return np.asarray(np.hypot(*self.offsets(unit).T), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A set of films that were predicted, and measured where a reference exists.

    Args:
        films: the films in report order.
        names: the K landmark names.
    """

    films: tuple[EvaluatedFilm, ...]
    names: tuple[str, ...]

    @cached_property
    def unit(self) -> str:
        """``mm`` as soon as one measured film has a spacing, else ``px``; the two are never pooled."""
        films = [film for film in self.films if film.reference_px is not None] or self.films
        return "mm" if any(film.result.spacing_mm is not None for film in films) else "px"

    @cached_property
    def offsets(self) -> FloatArray:
        """``(N, K, 2)`` (dx, dy) in :attr:`unit`, see :meth:`EvaluatedFilm.offsets`."""
        return np.stack([film.offsets(self.unit) for film in self.films])

    @cached_property
    def errors(self) -> FloatArray:
        """``(N, K)`` radial errors in :attr:`unit`: NaN = nothing to measure, inf = not found."""
        return np.hypot(self.offsets[..., 0], self.offsets[..., 1])

    @property
    def has_reference(self) -> bool:
        """Whether at least one landmark can be measured."""
        return bool((~np.isnan(self.errors)).any())

    @property
    def leak_free(self) -> NDArray[np.bool_]:
        """``(N,)`` True for the films without a near-duplicate in another split."""
        return np.array([not film.near_duplicates for film in self.films])

    @property
    def film_means(self) -> FloatArray:
        """``(N,)`` mean error of each film's found landmarks; NaN where there is none."""
        return np.array([_mean(row[np.isfinite(row)]) for row in self.errors])

    @property
    def unmeasured(self) -> list[str]:
        """Films that have a reference and no spacing while others have one: they cannot be given in mm."""
        return [
            film.result.film
            for film in self.films
            if film.reference_px is not None and self.unit == "mm" and film.result.spacing_mm is None
        ]


def evaluate_results(
    results: Sequence[LandmarkResult],
    references: Mapping[str, ArrayLike] | None = None,
    near_duplicates: Mapping[str, Sequence[str]] | None = None,
) -> Evaluation:
    """Put results and references together.

    Args:
        results: one per film, all with the same landmark names.
        references: film id -> ``(K, 2)`` (x, y) in original pixels, NaN = not annotated; films may be absent.
        near_duplicates: film id -> ids of films in other splits that show (almost) the same picture.

    Returns:
        The evaluation, films in the order of ``results``.

    Raises:
        DataError: no result, a film twice, other names or shapes than the first result's.
    """
    if not results:
        raise DataError("no result to evaluate", expected="at least one film", action="run predict first")
    names, seen = results[0].names, set[str]()
    for result in results:
        if result.film in seen:
            raise DataError("film occurs twice", field="film", value=result.film, expected="one result per film")
        if result.names != names:
            raise DataError(
                f"film {result.film!r} has other landmarks than film {results[0].film!r}",
                field="landmarks",
                value=result.names,
                expected=str(names),
                action="report each landmark schema by itself",
            )
        seen.add(result.film)
    films = (_evaluated(result, references or {}, near_duplicates or {}) for result in results)
    return Evaluation(tuple(films), names)


def _evaluated(
    result: LandmarkResult, references: Mapping[str, ArrayLike], near_duplicates: Mapping[str, Sequence[str]]
) -> EvaluatedFilm:
    reference = None
    if result.film in references:
        reference = np.asarray(references[result.film], dtype=np.float64)
        if reference.shape != result.points_px.shape:
            raise DataError(
                f"film {result.film!r}: reference does not fit the prediction",
                field="reference_px",
                value=reference.shape,
                expected=str(result.points_px.shape),
                action="use the landmark schema the model was trained with",
            )
        reference = np.where(np.isnan(reference).any(axis=1, keepdims=True), np.nan, reference)
    return EvaluatedFilm(result, reference, tuple(near_duplicates.get(result.film, ())))


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if values.size else float("nan")
