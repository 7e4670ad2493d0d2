"""Places for landmark names beside their points, so that no two names and no point are covered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Box", "place_labels"]

Box = tuple[float, float, float, float]
"""left, top, right, bottom."""

# Beside the point first, then above or below it: the order in which a reader looks for a name.
_DIRECTIONS = [math.radians(degrees) for degrees in (0, 180, -35, 35, -145, 145, -90, 90, -60, 60, -120, 120)]


def place_labels(
    points: NDArray[np.float64],
    sizes: Sequence[tuple[float, float]],
    canvas: tuple[float, float],
    gap: float,
    obstacles: NDArray[np.float64] | None = None,
) -> list[Box | None]:
    """Find a free box for every label, near its point.

    Greedy, the most crowded points first; each label takes the first free place on rings of growing distance.

    Args:
        points: ``(K, 2)`` (x, y) on the canvas; NaN = no point, no label.
        sizes: K (width, height) of the labels.
        canvas: (width, height); boxes stay inside.
        gap: clear distance around a point, about the radius of its mark.
        obstacles: ``(N, 2)`` further points to leave uncovered, NaN = none.

    Returns:
        K boxes, None where there is no point or no room within a third of the canvas.
    """
    boxes: list[Box | None] = [None] * len(points)
    known = [index for index in range(len(points)) if not np.isnan(points[index]).any()]
    marks = points if obstacles is None else np.concatenate([points, obstacles])
    taken: list[Box] = [_around(mark, gap) for mark in marks if not np.isnan(mark).any()]
    for index in sorted(known, key=lambda i: _room(points, i)):
        for box in _candidates(points[index], sizes[index], canvas, gap):
            if not any(_overlap(box, other) for other in taken):
                boxes[index] = box
                taken.append(box)
                break
    return boxes


def _candidates(
    point: NDArray[np.float64], size: tuple[float, float], canvas: tuple[float, float], gap: float
) -> Iterator[Box]:
    """Boxes inside the canvas, on rings around the point from near to far."""
    width, height = size
    reach = 1.3 * gap
    while reach < max(canvas) / 3:
        for angle in _DIRECTIONS:
            x = point[0] + math.cos(angle) * (reach + width / 2)
            y = point[1] + math.sin(angle) * (reach + height / 2)
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            if box[0] >= 0 and box[1] >= 0 and box[2] <= canvas[0] and box[3] <= canvas[1]:
                yield box
        reach += max(height, gap) * 0.6


def _room(points: NDArray[np.float64], index: int) -> float:
    """Distance to the nearest other point: the crowded ones choose first."""
    distances = np.hypot(*(np.delete(points, index, axis=0) - points[index]).T)
    known = distances[~np.isnan(distances)]
    return float(known.min()) if known.size else math.inf


def _around(point: NDArray[np.float64], gap: float) -> Box:
    return (float(point[0]) - gap, float(point[1]) - gap, float(point[0]) + gap, float(point[1]) + gap)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
