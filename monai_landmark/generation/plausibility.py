"""Whether drawn films hold an anatomy that occurs: the shape that a landmark detector finds on them, against real ones.

A detector puts its landmarks somewhere on any film. On one whose parts lie as in no body, some land far from where the
others say (:class:`~monai_landmark.transforms.LandmarkShape`). The reference is the same detector on real films, so
that its own errors are on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_landmark.errors import ConfigurationError
from monai_landmark.transforms import LandmarkShape

__all__ = ["shape_misfit", "shape_plausibility"]

_USUAL = 95  # percentile of real films up to which a shape is plausible


def shape_misfit(points: ArrayLike, shape: LandmarkShape) -> float:
    """How far a film's landmarks lie from where the others put them.

    Args:
        points: ``(K, 2)`` (x, y); NaN where not found.
        shape: of annotated films.

    Returns:
        Root mean square distance, in the distances that are usual for each landmark; infinite where too few were found.
    """
    given = np.asarray(points, dtype=np.float64)
    expected = shape.expected(given)
    if expected is None:
        return float("inf")
    places, usual = expected
    squared = ((given - places) ** 2).sum(axis=-1) / usual**2
    return float(np.sqrt(np.nanmean(squared)))


def shape_plausibility(drawn: Iterable[ArrayLike], real: Iterable[ArrayLike], shape: LandmarkShape) -> dict[str, Any]:
    """Share of drawn films whose shape occurs among real films.

    Args:
        drawn: ``(K, 2)`` landmarks that a detector found on each drawn film.
        real: likewise on real films that the detector was not trained on.
        shape: of the detector's annotated films.

    Returns:
        ``plausible``: share of drawn films that fit as well as 95 of 100 real ones; ``threshold``; the median misfit as
        ``drawn`` and ``reference``; ``n``, drawn and real.

    Raises:
        ConfigurationError: if there is no film on one side.
    """
    made, seen = (_misfits(points, shape) for points in (drawn, real))
    if not len(made) or not len(seen):
        raise ConfigurationError(
            "nothing to compare", field="drawn, real", value=(len(made), len(seen)), expected="at least one film each"
        )
    threshold = float(np.percentile(seen, _USUAL, method="higher"))
    return {
        "plausible": round(float((made <= threshold).mean()), 4),
        "threshold": round(threshold, 3),
        "drawn": round(float(np.median(made)), 3),
        "reference": round(float(np.median(seen)), 3),
        "n": [len(made), len(seen)],
    }


def _misfits(films: Iterable[ArrayLike], shape: LandmarkShape) -> NDArray[np.float64]:
    return np.array([shape_misfit(points, shape) for points in films], dtype=np.float64)
