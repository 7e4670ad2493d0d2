"""Smooth curves in the film plane: exact points for landmarks, sub-pixel distances and ridges for drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import distance_transform_edt, gaussian_filter

__all__ = ["Curve", "Grid", "draw_ridges", "signed_distance"]

FloatArray = NDArray[np.float64]
Raster = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """Pixel centers of a film, or of a window of it, in millimetres of the film plane.

    Args:
        shape: ``(H, W)``.
        spacing_mm: ``(row_mm, col_mm)``.
        first: ``(row, col)`` index on the whole film of the window's first pixel.
    """

    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    first: tuple[int, int] = (0, 0)

    @property
    def x(self) -> Raster:
        """``(1, W)`` x of the columns in mm."""
        return ((self.first[1] + np.arange(self.shape[1])) * self.spacing_mm[1]).astype(np.float32)[None, :]

    @property
    def y(self) -> Raster:
        """``(H, 1)`` y of the rows in mm."""
        return ((self.first[0] + np.arange(self.shape[0])) * self.spacing_mm[0]).astype(np.float32)[:, None]

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where this window lies in an array of the whole film."""
        (row, col), (height, width) = self.first, self.shape
        return slice(row, row + height), slice(col, col + width)

    def window(self, points_mm: FloatArray, margin_mm: float = 3.0) -> Grid:
        """The smallest window that holds some points and a margin; empty (zero rows or columns) off the film.

        Args:
            points_mm: ``(N, 2)`` (x, y) in mm.
            margin_mm: how far the window reaches beyond them.

        Returns:
            The window's grid.
        """
        step = np.array(self.spacing_mm)
        low = np.floor((points_mm.min(0) - margin_mm)[::-1] / step).astype(int)
        high = np.ceil((points_mm.max(0) + margin_mm)[::-1] / step).astype(int) + 1
        limit = np.array(self.shape)
        low, high = np.clip(low, 0, limit), np.clip(high, 0, limit)
        rows, cols = (int(n) for n in np.maximum(high - low, 0))
        return Grid((rows, cols), self.spacing_mm, (int(low[0]), int(low[1])))


class Curve:
    """Cubic spline through control points, parametrized by the index of the control point.

    Args:
        points_mm: ``(N, 2)`` control points (x, y); the curve passes through each.
        closed: whether the last point joins the first.
    """

    def __init__(self, points_mm: Any, closed: bool = False) -> None:
        self.points: FloatArray = np.asarray(points_mm, dtype=np.float64)
        knots = np.vstack([self.points, self.points[:1]]) if closed else self.points
        self.closed, self.end = closed, len(knots) - 1
        x, y = knots.T
        self._turn = 1.0 if x[:-1] @ y[1:] >= y[:-1] @ x[1:] else -1.0
        self._spline = CubicSpline(np.arange(len(knots)), knots, bc_type="periodic" if closed else "natural")

    def at(self, parameter: Any) -> FloatArray:
        """Points of the curve.

        Args:
            parameter: ``(M,)`` places between 0 and the number of spans.

        Returns:
            ``(M, 2)`` (x, y) in mm.
        """
        return np.asarray(self._spline(parameter), dtype=np.float64)

    def samples(self, step_mm: float) -> FloatArray:
        """Points along the curve, no further apart than ``step_mm`` (up to the curve's uneven speed).

        Args:
            step_mm: wanted distance between neighbors.

        Returns:
            ``(M, 2)`` (x, y) in mm.
        """
        polygon = np.vstack([self.points, self.points[:1]]) if self.closed else self.points
        chords = np.hypot(*np.diff(polygon, axis=0).T)
        counts = np.maximum(np.ceil(1.2 * chords / step_mm).astype(int), 2)
        places = np.concatenate([i + np.arange(n) / n for i, n in enumerate(counts)] + [[float(self.end)]])
        return self.at(places)

    def normals(self, points: FloatArray) -> FloatArray:
        """Inward unit normals of a closed, sampled curve.

        Args:
            points: ``(M, 2)`` samples of :meth:`samples`.

        Returns:
            ``(M, 2)`` unit vectors.
        """
        tangent = np.gradient(points, axis=0)
        tangent[[0, -1]] = points[1] - points[-2] if self.closed else tangent[[0, -1]]
        tangent /= np.maximum(np.hypot(*tangent.T), 1e-9)[:, None]
        return self._turn * np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)

    def farthest(self, direction: Any, between: tuple[float, float] | None = None) -> FloatArray:
        """The curve's extreme point along a direction: a root of the spline's derivative, not a sample.

        Args:
            direction: (x, y) vector to go along.
            between: parameters to search in; the whole curve when None.

        Returns:
            ``(2,)`` (x, y) in mm.
        """
        start, stop = between or (0.0, float(self.end))
        unit = np.asarray(direction, dtype=np.float64)
        speed = CubicSpline(self._spline.x, self._spline(self._spline.x) @ unit, bc_type=self._boundary).derivative()
        roots = speed.roots(extrapolate=False)
        places = np.concatenate([roots[(roots >= start) & (roots <= stop)], [start, stop]])
        candidates = self.at(places)
        return np.asarray(candidates[np.argmax(candidates @ unit)])

    @property
    def _boundary(self) -> str:
        return "periodic" if self.closed else "natural"

    def crossing(self, origin: FloatArray, normal: FloatArray, between: tuple[float, float]) -> FloatArray:
        """Where a straight line cuts the curve.

        Args:
            origin: (x, y) of a point of the line.
            normal: vector at right angles to the line.
            between: parameters to search in; the line must cut there.

        Returns:
            ``(2,)`` (x, y) in mm of the first cut.
        """
        heights = (self._spline(self._spline.x) - origin) @ normal
        roots = CubicSpline(self._spline.x, heights, bc_type=self._boundary).roots(extrapolate=False)
        return self.at(roots[(roots >= between[0]) & (roots <= between[1])][0])


def signed_distance(curve: Curve, grid: Grid) -> Raster:
    """Distance of each pixel to a closed curve, positive inside.

    The distance transform finds the nearest sample of the curve; the distance itself is then measured to the
    curve's tangent there, so it is good to a small fraction of a pixel.

    Args:
        curve: closed curve.
        grid: window to fill.

    Returns:
        ``(H, W)`` distances in mm; far outside where no part of the curve is near the window.
    """
    step = min(grid.spacing_mm)
    points = curve.samples(0.5 * step)
    normals = curve.normals(points).astype(np.float32)
    # One pixel of rim keeps the parts of the curve that run just outside the window.
    pad = 1
    rows = np.rint(points[:, 1] / grid.spacing_mm[0]).astype(int) - grid.first[0] + pad
    cols = np.rint(points[:, 0] / grid.spacing_mm[1]).astype(int) - grid.first[1] + pad
    height, width = grid.shape[0] + 2 * pad, grid.shape[1] + 2 * pad
    seen = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
    if not seen.any() or 0 in grid.shape:
        return np.full(grid.shape, -1e3, np.float32)
    nearest = np.full((height, width), -1, np.int32)
    nearest[rows[seen], cols[seen]] = np.flatnonzero(seen)
    index = distance_transform_edt(nearest < 0, grid.spacing_mm, return_distances=False, return_indices=True)
    owner = nearest[index[0], index[1]][pad:-pad, pad:-pad]
    nodes = points.astype(np.float32)
    across_x, across_y = grid.x - nodes[owner, 0], grid.y - nodes[owner, 1]
    height_mm = across_x * normals[owner, 0] + across_y * normals[owner, 1]
    straight = np.sqrt(across_x**2 + across_y**2)
    near = straight < 2.0 * step
    return np.where(near, height_mm, np.copysign(straight, height_mm)).astype(np.float32)


def draw_ridges(grid: Grid, ridges: list[tuple[Curve, FloatArray]], width_mm: float) -> Raster:
    """Soft lines along curves, drawn without a raster's steps: bilinear deposits, then one Gaussian.

    Args:
        grid: window to draw in.
        ridges: curves, each with its heights ``(M,)`` from start to end (interpolated between).
        width_mm: standard deviation of a line's cross-section.

    Returns:
        ``(H, W)`` map whose value on a line's crest is about its height.
    """
    height, width = grid.shape
    canvas = np.zeros((height + 1) * (width + 1), np.float64)
    row_mm, col_mm = grid.spacing_mm
    for curve, heights in ridges:
        points = curve.samples(0.5 * min(grid.spacing_mm))
        length = np.hypot(*np.gradient(points, axis=0).T)
        mass = np.interp(np.linspace(0, 1, len(points)), np.linspace(0, 1, len(heights)), heights) * length
        mass *= width_mm * np.sqrt(2 * np.pi) / (row_mm * col_mm)
        row, col = points[:, 1] / row_mm - grid.first[0], points[:, 0] / col_mm - grid.first[1]
        top, left = np.floor(row).astype(int), np.floor(col).astype(int)
        seen = (top >= 0) & (left >= 0) & (top < height) & (left < width)
        row, col, top, left, mass = row[seen] - top[seen], col[seen] - left[seen], top[seen], left[seen], mass[seen]
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            share = (row if down else 1 - row) * (col if right else 1 - col) * mass
            np.add.at(canvas, (top + down) * (width + 1) + left + right, share)
    lines = canvas.reshape(height + 1, width + 1)[:-1, :-1].astype(np.float32)
    return np.asarray(gaussian_filter(lines, (width_mm / row_mm, width_mm / col_mm), truncate=3.5), dtype=np.float32)
