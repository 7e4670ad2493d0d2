"""Films without annotations, learned from by what another detector predicts on them (Lee, ICML workshops 2013)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from os import PathLike
from typing import Any

import numpy as np

from monai_landmark.data.datalist import Datalist, load_datalist
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import AnnotationError, ConfigurationError
from monai_landmark.results.files import load_results
from monai_landmark.results.result import LandmarkResult

__all__ = ["draw_weights", "pseudo_labeled_films"]

_LOGGER = logging.getLogger(__name__)

Item = dict[str, Any]


def pseudo_labeled_films(
    datalist: str | PathLike[str],
    predictions: str | PathLike[str] | None,
    leave_out: Collection[str] = (),
    trust: float = 0.8,
) -> list[Item]:
    """Films of a datalist with another detector's landmarks in place of a reader's.

    Args:
        datalist: the datalist JSON; every section but ``test`` is learned from, and a warning says when test films are
            passed over.
        predictions: ``predictions.json`` of ``infer``, ``predict`` or ``evaluate``, or its folder; None: no film.
        leave_out: ids of films that are not wanted, those with a reader's landmarks, say.
        trust: share of each landmark's predictions that is believed, the most confident ones; the others, and what was
            not found, count as not annotated. Where there is no confidence, all are believed.

    Returns:
        The items, in the predictions' order, ``landmarks`` in pixels of the original film, without ``readers``.

    Raises:
        ConfigurationError: if ``trust`` is not above 0 and at most 1.
        AnnotationError: if a predicted film is not in the datalist or of another size, or the landmarks are others.
        DataError: if the predictions cannot be read.
    """
    if not 0 < trust <= 1:
        raise ConfigurationError("not a share", field="pseudo_trust", value=trust, expected="above 0, at most 1")
    if predictions is None:
        return []
    present = Datalist.load(datalist)
    names = LandmarkSchema.load(str(present.schema)).landmarks
    films = {item["id"]: item for section in present.sections for item in load_datalist(datalist, section)}
    results = [result for result in load_results(predictions) if result.film not in leave_out]
    for result in results:
        _check(result, films, names, predictions)
    tested = {item["id"] for item in present.sections.get("test", [])}
    if kept_out := sum(result.film in tested for result in results):
        _LOGGER.warning("%d test films among the pseudo-labels of %s are not trained on", kept_out, predictions)
    results = [result for result in results if result.film not in tested]
    believed = _believed(results, trust)
    return [
        _labelled(films[result.film], np.where(mask[:, None], result.points_px, np.nan))
        for result, mask in zip(results, believed, strict=True)
    ]


def draw_weights(labeled: int, pseudo: int, share: float) -> list[float] | None:
    """How often each film is drawn, for :class:`monai_landmark.engines.DrawSampler`.

    Args:
        labeled: number of films with a reader's landmarks; they come first.
        pseudo: number of those with pseudo-labels.
        share: of the draws that the latter take.

    Returns:
        One weight for each film; None, all alike, where there are no pseudo-labels.

    Raises:
        ConfigurationError: if the share is not above 0 and below 1.
    """
    if not pseudo:
        return None
    if not 0 < share < 1:
        raise ConfigurationError("not a share", field="pseudo_share", value=share, expected="between 0 and 1")
    return [(1 - share) / labeled] * labeled + [share / pseudo] * pseudo


def _check(
    result: LandmarkResult, films: dict[str, Item], names: Sequence[str], predictions: str | PathLike[str]
) -> None:
    """A prediction is of a film of the datalist, and of its landmarks."""
    if result.film not in films:
        raise AnnotationError(
            "no film of the datalist",
            file=predictions,
            field="film",
            value=result.film,
            expected="the id of a film in the datalist",
            action="predict the films that `prepare` listed, from the same folder",
        )
    if result.names != tuple(names):
        raise AnnotationError(
            "other landmarks than the datalist's",
            file=predictions,
            field=f"{result.film}, landmarks",
            value=result.names,
            expected=", ".join(names),
        )
    size = films[result.film].get("size")
    if size and tuple(size) != result.original_size:
        raise AnnotationError(
            "another film of the same id",
            file=predictions,
            field="original_size",
            value=result.original_size,
            expected=str(tuple(size)),
        )


def _believed(results: Sequence[LandmarkResult], trust: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """``(films, K)``: which predictions are among the most confident of their landmark."""
    unknown = [np.full(len(result.names), np.nan) for result in results]
    confidence = np.array(
        [none if one.confidence is None else one.confidence for one, none in zip(results, unknown, strict=True)]
    )
    if not np.isfinite(confidence).any():
        return np.ones(confidence.shape, dtype=bool)
    ranked = np.where(np.isfinite(confidence), confidence, -1.0)
    return np.asarray(ranked >= np.quantile(ranked, 1 - trust, axis=0))


def _labelled(film: Item, landmarks: np.ndarray[Any, np.dtype[np.float64]]) -> Item:
    item = {key: value for key, value in film.items() if key not in ("readers", "visibility")}
    return {**item, "landmarks": landmarks.tolist()}
