"""Smooth curves in the film plane: exact points for landmarks, sub-pixel distances and ridges for drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
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

    def radius(self, center_mm: FloatArray) -> Raster:
        """``(H, W)`` distance in mm of each pixel to a point (x, y)."""
        across, down = self.x - np.float32(center_mm[0]), self.y - np.float32(center_mm[1])
        return np.asarray(np.hypot(across, down), dtype=np.float32)

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
    """Smooth (C2) cubic spline through control points, parametrized by the index of the control point.

    Args:
        points_mm: ``(N, 2)`` control points (x, y); the curve passes through each.
        closed: whether the last point joins the first; an open curve has natural ends.
    """

    def __init__(self, points_mm: Any, closed: bool = False) -> None:
        self.points: FloatArray = np.asarray(points_mm, dtype=np.float64)
        self.closed = closed
        start, stop, tangent, tangent_stop = _spline_pieces(self.points, closed)
        self.end = len(start)
        step = stop - start
        # Piece i is a + b t + c t^2 + d t^3 for t in 0..1; ``(4, pieces, 2)``.
        self._pieces = np.stack(
            [start, tangent, 3 * step - 2 * tangent - tangent_stop, tangent + tangent_stop - 2 * step]
        )

    def at(self, parameter: Any) -> FloatArray:
        """Points of the curve.

        Args:
            parameter: ``(M,)`` places between 0 and :attr:`end`.

        Returns:
            ``(M, 2)`` (x, y) in mm.
        """
        place = np.asarray(parameter, dtype=np.float64)
        piece = np.clip(place.astype(int), 0, self.end - 1)
        t = (place - piece)[..., None]
        a, b, c, d = self._pieces[:, piece]
        return np.asarray(a + t * (b + t * (c + t * d)))

    def samples(self, step_mm: float) -> FloatArray:
        """Points along the curve, no further apart than about ``step_mm``.

        Args:
            step_mm: wanted distance between neighbors.

        Returns:
            ``(M, 2)`` (x, y) in mm, from the first control point to the last (to the first again when closed).
        """
        polygon = np.vstack([self.points, self.points[:1]]) if self.closed else self.points
        chords = np.hypot(*np.diff(polygon, axis=0).T)
        counts = np.maximum(np.ceil(1.2 * chords / step_mm).astype(int), 2)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        within = (np.arange(counts.sum()) - first) / np.repeat(counts, counts)
        return self.at(np.append(np.repeat(np.arange(self.end), counts) + within, self.end))

    def farthest(self, direction: Any, between: tuple[float, float] | None = None) -> FloatArray:
        """The curve's extreme point along a direction: a root of the derivative in closed form, not a sample.

        Args:
            direction: (x, y) vector to go along.
            between: parameters to search in; the whole curve when None.

        Returns:
            ``(2,)`` (x, y) in mm.
        """
        start, stop = between or (0.0, float(self.end))
        unit = np.asarray(direction, dtype=np.float64)
        _, b, c, d = self._pieces @ unit
        with np.errstate(invalid="ignore", divide="ignore"):
            # b + 2 c t + 3 d t^2 = 0, in the form that does not cancel for small d.
            half = -(c + np.copysign(np.sqrt(c * c - 3 * b * d), c))
            roots = np.concatenate([half / (3 * d), b / half])
        inside = (roots >= 0) & (roots <= 1)
        places = (np.tile(np.arange(self.end), 2) + roots)[inside]
        places = np.append(places[(places >= start) & (places <= stop)], [start, stop])
        candidates = self.at(places)
        return np.asarray(candidates[np.argmax(candidates @ unit)])

    def crossing(self, origin: FloatArray, normal: FloatArray, between: tuple[int, int]) -> FloatArray:
        """Where a straight line cuts the curve.

        Args:
            origin: (x, y) of a point of the line.
            normal: vector at right angles to the line.
            between: indices of the control points between which the line cuts the curve.

        Returns:
            ``(2,)`` (x, y) in mm of the first cut.
        """
        sides = (self.points[between[0] : between[1] + 1] - origin) @ normal
        piece = between[0] + int(np.flatnonzero(sides[:-1] * sides[1:] <= 0)[0])
        a, b, c, d = self._pieces[:, piece] @ normal
        roots = np.roots([d, c, b, a - origin @ normal])
        real = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > -1e-9) & (roots.real < 1 + 1e-9)]
        return self.at(piece + real[0])


def _spline_pieces(points: FloatArray, closed: bool) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Start, stop and the tangents there of each piece; the tangents make the second derivative continuous."""
    count = len(points)
    system = 4.0 * np.eye(count) + np.eye(count, k=1) + np.eye(count, k=-1)
    right = 3.0 * (np.roll(points, -1, 0) - np.roll(points, 1, 0))
    if closed:
        system[0, -1] += 1
        system[-1, 0] += 1
        tangent = np.asarray(np.linalg.solve(system, right), dtype=np.float64)
        return points, np.roll(points, -1, 0), tangent, np.roll(tangent, -1, 0)
    system[0, 0] = system[-1, -1] = 2.0
    right[0], right[-1] = 3 * (points[1] - points[0]), 3 * (points[-1] - points[-2])
    tangent = np.asarray(np.linalg.solve(system, right), dtype=np.float64)
    return points[:-1], points[1:], tangent[:-1], tangent[1:]


def signed_distance(curve: Curve, grid: Grid) -> Raster:
    """Distance of each pixel to a closed curve, positive inside.

    The distance transform finds the nearest sample of the curve; the distance is then measured to the
    tangent there: good to a few hundredths of a pixel at the curve, to half a pixel far from it.

    Args:
        curve: closed curve.
        grid: window to fill.

    Returns:
        ``(H, W)`` distances in mm; far outside where no part of the curve is near the window.
    """
    row_mm, col_mm = grid.spacing_mm
    step = min(row_mm, col_mm)
    points = curve.samples(0.5 * step)
    rows, cols = points[:, 1] / row_mm - grid.first[0], points[:, 0] / col_mm - grid.first[1]
    # One pixel of rim keeps the parts of the curve that run just outside the window.
    high, wide = grid.shape[0] + 2, grid.shape[1] + 2
    row, col = np.rint(rows).astype(int) + 1, np.rint(cols).astype(int) + 1
    seen = (row >= 0) & (row < high) & (col >= 0) & (col < wide)
    if not seen.any() or 0 in grid.shape:
        return np.full(grid.shape, -1e3, np.float32)
    nearest = np.full((high, wide), -1, np.int32)
    nearest[row[seen], col[seen]] = np.flatnonzero(seen)
    index = distance_transform_edt(nearest < 0, grid.spacing_mm, return_distances=False, return_indices=True)
    owner = nearest[index[0], index[1]][1:-1, 1:-1]
    nodes, normals = points.astype(np.float32), _inward_normals(points)
    across_x, across_y = grid.x - nodes[owner, 0], grid.y - nodes[owner, 1]
    height = across_x * normals[owner, 0] + across_y * normals[owner, 1]
    # A sample stands for its pixel's piece of curve: the perpendicular's foot may slide that far along the tangent.
    aside = np.maximum(np.abs(across_x * normals[owner, 1] - across_y * normals[owner, 0]) - np.float32(1.5 * step), 0)
    distance = np.hypot(height, aside)
    outline = Image.new("L", (grid.shape[1], grid.shape[0]))
    ImageDraw.Draw(outline).polygon(np.stack([cols, rows], 1).ravel().tolist(), fill=1)
    # A polygon fill is good to about a pixel; next to the curve its normal tells the side.
    inside = np.where(distance < 2.5 * step, height > 0, np.asarray(outline) > 0)
    return np.asarray(np.where(inside, distance, -distance), dtype=np.float32)


def _inward_normals(points: FloatArray) -> Raster:
    """Unit normals of a closed polygon whose last point repeats the first."""
    ahead, behind = np.vstack([points[1:], points[1:2]]), np.vstack([points[-2:-1], points[:-1]])
    tangent = ahead - behind
    tangent /= np.maximum(np.hypot(*tangent.T), 1e-9)[:, None]
    x, y = points.T
    turn = 1.0 if x[:-1] @ y[1:] >= y[:-1] @ x[1:] else -1.0
    return np.asarray(turn * np.stack([-tangent[:, 1], tangent[:, 0]], axis=1), dtype=np.float32)


def draw_ridges(grid: Grid, ridges: Sequence[tuple[Any, Any]], width_mm: float) -> Raster:
    """Soft lines along smooth curves, drawn without a raster's steps: bilinear deposits, then one Gaussian.

    Args:
        grid: window to draw in.
        ridges: control points ``(N, 2)`` of each curve with its heights ``(M,)`` from start to end.
        width_mm: standard deviation of a line's cross-section.

    Returns:
        ``(H, W)`` map whose value on a line's crest is about its height.
    """
    (height, width), (row_mm, col_mm) = grid.shape, grid.spacing_mm
    deposits = [_deposit(Curve(points), np.asarray(heights), 0.6 * min(row_mm, col_mm)) for points, heights in ridges]
    points, mass = np.vstack([d[0] for d in deposits]), np.concatenate([d[1] for d in deposits])
    row, col = points[:, 1] / row_mm - grid.first[0], points[:, 0] / col_mm - grid.first[1]
    seen = (row >= 0) & (col >= 0) & (row < height) & (col < width)
    row, col, mass = row[seen], col[seen], mass[seen] * width_mm * np.sqrt(2 * np.pi) / (row_mm * col_mm)
    top, left = row.astype(int), col.astype(int)
    row, col = row - top, col - left
    near, shares = top * (width + 1) + left, [(1 - row) * (1 - col), (1 - row) * col, row * (1 - col), row * col]
    place = np.concatenate([near, near + 1, near + width + 1, near + width + 2])
    weights = np.concatenate([share * mass for share in shares])
    canvas = np.bincount(place, weights=weights, minlength=(height + 1) * (width + 1))
    lines = canvas.reshape(height + 1, width + 1)[:-1, :-1].astype(np.float32)
    return np.asarray(gaussian_filter(lines, (width_mm / row_mm, width_mm / col_mm), truncate=3.0), dtype=np.float32)


def _deposit(curve: Curve, heights: FloatArray, step_mm: float) -> tuple[FloatArray, FloatArray]:
    """Samples of a curve and what each carries: height times the length it stands for."""
    points = curve.samples(step_mm)
    pieces = np.hypot(*np.diff(points, axis=0).T)
    length = 0.5 * (np.append(pieces, 0.0) + np.insert(pieces, 0, 0.0))
    way = np.linspace(0, 1, len(points))
    return points, np.interp(way, np.linspace(0, 1, len(heights)), heights) * length
