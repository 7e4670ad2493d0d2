"""Where a point of landmarker's grid lies on the film: the inverse of how it places landmarks there."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

GRID = (512, 512)


def to_film(points: ArrayLike, size: tuple[int, int], padding: ArrayLike) -> NDArray[np.float64]:
    """Points of the grid in the film's own pixels.

    landmarker pads a film to the grid's shape and multiplies (y, x) by grid over padded film, without the half pixel by
    which a resized picture is shifted. The network learns points that were placed like that, so the way back is exact
    without it too.

    Args:
        points: ``(K, 2)`` (y, x) on the grid.
        size: ``(H, W)`` of the film.
        padding: (rows, columns) added on each side.

    Returns:
        ``(K, 2)`` (x, y) in pixels of the film.
    """
    margin = np.asarray(padding, dtype=np.float64)
    padded = np.asarray(size, dtype=np.float64) + 2 * margin
    return np.asarray(np.asarray(points, dtype=np.float64) * padded / GRID - margin)[:, ::-1].copy()
