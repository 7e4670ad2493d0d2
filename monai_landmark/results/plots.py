"""Inline SVG for the report: cumulative error curve, error roses and films with their landmarks.

Colors and stroke widths are classes of the report's style sheet, so one drawing serves light, dark and print.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.results.canvas import (
    Canvas,
    film_canvas,
    film_to_gray,
    landmark_title,
    measure_text,
    region_radii,
    scale_bar_mm,
    schema_segments,
)
from monai_landmark.results.evaluation import EvaluatedFilm
from monai_landmark.results.labels import Box, place_labels
from monai_landmark.results.result import LandmarkResult

__all__ = ["cumulative_curve", "error_rose", "film_picture", "rose_radius"]

FloatArray = NDArray[np.float64]

_LABEL_SIZE = 15.0
_MARK_RADIUS = 6.0


def cumulative_curve(
    curves: Mapping[str, FloatArray], thresholds: Sequence[float], unit: str, marker: tuple[float, str] | None = None
) -> str:
    """Share of landmarks within a distance, against the distance.

    Args:
        curves: name -> errors (inf = not found, NaN = not annotated); the first is drawn on top.
        thresholds: distances marked by vertical lines.
        unit: of errors and thresholds.
        marker: a further distance and its name, e.g. that between two readers.

    Returns:
        An ``<svg>`` element.
    """
    width, height, left, right, top, bottom = 720, 340, 52, 16, 16, 46
    points = {name: np.sort(errors[~np.isnan(errors)]) for name, errors in curves.items()}
    end = _axis_end(np.concatenate(list(points.values())), thresholds)

    def at(distance: float, share: float) -> tuple[float, float]:
        """Place in the picture of a share of landmarks within a distance."""
        x = left + (width - left - right) * min(distance / end, 1.0)
        return x, top + (height - top - bottom) * (1.0 - share)

    parts = [f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="Cumulative error curve">']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = at(0, share)
        parts.append(f'<path class="grid" d="M{x:.1f},{y:.1f}H{width - right}"/>')
        parts.append(f'<text class="tick" x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    step = _tick_step(end)
    for distance in np.arange(0.0, end + step / 2, step):
        x, y = at(distance, 0)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{distance:g}</text>')
    label = f"radial error in {unit}"
    parts.append(f'<text class="axis" x="{width / 2}" y="{height - 8}" text-anchor="middle">{label}</text>')
    for threshold in thresholds:
        (x, y0), (_, y1) = at(threshold, 0), at(threshold, 1)
        if threshold <= end:
            parts.append(f'<path class="threshold" d="M{x:.1f},{y0:.1f}V{y1:.1f}"/>')
    if marker is not None and marker[0] <= end:
        (x, y0), (_, y1) = at(marker[0], 0), at(marker[0], 1)
        parts.append(f'<path class="readers" d="M{x:.1f},{y0:.1f}V{y1:.1f}"/>')
        parts.append(f'<text class="readers-text" x="{x + 5:.1f}" y="{y0 - 8:.1f}">{escape(marker[1])}</text>')
    for index, (_, errors) in reversed(list(enumerate(points.items()))):
        parts.append(f'<path class="curve c{index}" d="{_steps(errors, at, end)}"/>')
    return "".join(parts) + "</svg>"


def _steps(errors: FloatArray, at: Callable[[float, float], tuple[float, float]], end: float) -> str:
    """Path of an empirical distribution function, thinned to what a screen can show."""
    grid = np.linspace(0.0, end, 361)
    shares = np.searchsorted(errors, grid, side="right") / max(1, len(errors))
    return "M" + "L".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in zip(grid, shares, strict=True))


def _axis_end(errors: FloatArray, thresholds: Sequence[float]) -> float:
    """A round distance that shows the thresholds and 99 % of the landmarks, unless some are very far."""
    found = errors[np.isfinite(errors)]
    wanted = max(1.25 * max(thresholds), float(np.quantile(found, 0.99)) if found.size else 0.0)
    wanted = min(wanted, 3.0 * max(thresholds))
    step = _tick_step(wanted)
    return math.ceil(wanted / step) * step


def _tick_step(end: float) -> float:
    return next((step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if end / step <= 10), end / 5)


def rose_radius(offsets: FloatArray, threshold: float) -> float:
    """Common scale of all roses: at least twice the threshold, at most five times, and 98 % of the landmarks.

    Args:
        offsets: ``(N, K, 2)`` (dx, dy), NaN or inf where there is nothing to draw.
        threshold: radius of the circle in each rose.

    Returns:
        Radius of the drawing in the unit of the offsets.
    """
    errors = np.hypot(offsets[..., 0], offsets[..., 1])
    found = errors[np.isfinite(errors)]
    wanted = float(np.quantile(found, 0.98)) if found.size else 0.0
    return float(np.clip(wanted, 2.0 * threshold, 5.0 * threshold))


def error_rose(offsets: FloatArray, threshold: float, radius: float, label: str) -> str:
    """Where the predictions of one landmark fall around its reference, as seen on the film.

    Args:
        offsets: ``(N, 2)`` (dx, dy) prediction minus reference; what is not finite is left out.
        threshold: radius of the shaded circle.
        radius: half the side of the drawing; what lies farther sits on the rim as a hollow dot.
        label: name for screen readers.

    Returns:
        An ``<svg>`` element.
    """
    found = offsets[np.isfinite(offsets).all(axis=1)]
    scale = 46.0 / radius
    lengths = np.hypot(*found.T)
    inside = lengths <= radius
    rim = found[~inside] * (radius / lengths[~inside])[:, None] if (~inside).any() else found[:0]
    parts = [f'<svg class="rose" viewBox="-50 -50 100 100" role="img" aria-label="{escape(label)}">']
    parts.append(f'<circle class="within" r="{threshold * scale:.1f}"/>')
    parts.append('<circle class="rim" r="46"/><path class="cross" d="M-46,0H46M0,-46V46"/>')
    # A path of empty strokes with round caps: ten bytes a dot, so that a thousand films stay a small file.
    parts.append(f'<path class="dots" d="{_dots(found[inside] * scale)}"/>')
    if len(rim):
        parts.append(f'<path class="far" d="{_dots(rim * scale)}"/>')
    if inside.any():
        x, y = found.mean(axis=0) * scale
        size = math.hypot(x, y)
        x, y = (x, y) if size <= 46 else (x * 46 / size, y * 46 / size)
        parts.append(f'<path class="mean" d="M{x - 4:.1f},{y:.1f}h8M{x:.1f},{y - 4:.1f}v8"/>')
    return "".join(parts) + "</svg>"


def _dots(points: FloatArray) -> str:
    return "".join(f"M{x:.1f},{y:.1f}h0" for x, y in points)


def film_picture(
    film: EvaluatedFilm,
    pixels: NDArray[np.float32] | None,
    schema: LandmarkSchema | None = None,
    *,
    longest: int = 1100,
    widest: int = 900,
) -> str:
    """A film as a JPEG with its landmarks as vector graphics above it, crisp at every size.

    Args:
        film: the result, and its reference if there is one.
        pixels: ``(H, W)`` the upright film; None draws the landmarks on black.
        schema: its lines are drawn faintly.
        longest: largest side of the JPEG.
        widest: largest width of the JPEG.

    Returns:
        An ``<svg>`` element with groups ``prediction``, ``region``, ``reference``, ``error``, ``lines``, ``labels``.
    """
    result = film.result
    aspect = result.original_size[0] / result.original_size[1]
    longest = round(min(longest, widest * max(1.0, aspect)))
    canvas = film_canvas(result.original_size, result.spacing_mm, longest=longest, magnify=8.0)
    points = canvas.place(result.points_px)
    reference = None if film.reference_px is None else canvas.place(film.reference_px)
    names = [landmark_title(name) for name in result.names]
    boxes = _boxes(names, points, reference, canvas)
    parts = [f'<svg class="film" viewBox="0 0 {canvas.width} {canvas.height}" role="img"']
    parts.append(f' aria-label="{escape(result.film)}" data-width="{canvas.width}" data-height="{canvas.height}">')
    parts.append(f'<rect class="black" width="{canvas.width}" height="{canvas.height}"/>')
    if pixels is not None:
        data = _jpeg(pixels, canvas)
        parts.append(f'<image href="{data}" width="{canvas.width}" height="{canvas.height}"/>')
    parts.append(_line_group("lines", [(points[a], points[b]) for a, b in schema_segments(schema, result.names)]))
    parts.append(_region_group(result, points, region_radii(result, canvas)))
    if reference is not None:
        parts.append(_line_group("error", list(zip(points, reference, strict=True))))
        parts.append(_mark_group("reference", reference, names, 'path d="M-6.5,-6.5L6.5,6.5M-6.5,6.5L6.5,-6.5"'))
    texts = _point_texts(film, names)
    parts.append(_mark_group("prediction", points, texts, f'circle r="{_MARK_RADIUS}"'))
    parts.append(_label_group(names, points, boxes))
    if bar := scale_bar_mm(canvas, result.spacing_mm):
        right, y = canvas.width - 18, canvas.height - 18
        parts.append(f'<g class="bar"><path d="M{right - bar[1]:.1f},{y}H{right}"/>')
        parts.append(f'<text x="{right - bar[1] / 2:.1f}" y="{y - 9}" text-anchor="middle">{bar[0]} mm</text></g>')
    return "".join(parts) + "</svg>"


def _jpeg(pixels: NDArray[np.float32], canvas: Canvas) -> str:
    """Data URI of the film as the canvas shows it; made from gray values alone, so it carries no metadata."""
    image = Image.fromarray(film_to_gray(pixels)).resize((canvas.width, canvas.height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=84, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _boxes(names: list[str], points: FloatArray, reference: FloatArray | None, canvas: Canvas) -> list[Box | None]:
    # Browsers draw in their own font: leave a little more room than ours needs.
    texts = [measure_text(name, _LABEL_SIZE) for name in names]
    sizes = [(1.05 * width + 4, height) for width, height in texts]
    return place_labels(points, sizes, (canvas.width, canvas.height), 1.5 * _MARK_RADIUS, reference)


def _point_texts(film: EvaluatedFilm, names: list[str]) -> list[str]:
    """What a pointer over a landmark tells: its name, its error and its confidence."""
    unit = film.result.unit
    errors, confidence = film.errors(unit), film.result.confidence
    texts = []
    for index, name in enumerate(names):
        text = name if not math.isfinite(errors[index]) else f"{name}: {errors[index]:.2f} {unit}"
        if confidence is not None and math.isfinite(confidence[index]):
            text += f", confidence {confidence[index]:.2f}"
        texts.append(text)
    return texts


def _line_group(kind: str, lines: Sequence[tuple[FloatArray, FloatArray]]) -> str:
    known = [(a, b) for a, b in lines if np.isfinite(a).all() and np.isfinite(b).all()]
    path = "".join(f"M{a[0]:.1f},{a[1]:.1f}L{b[0]:.1f},{b[1]:.1f}" for a, b in known)
    return f'<path class="{kind}" d="{path}"/>' if path else ""


def _region_group(result: LandmarkResult, points: FloatArray, radii: FloatArray) -> str:
    kinds = {False: "", True: ' class="refer"'}
    rings = [
        f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{rx:.1f}" ry="{ry:.1f}"{kinds[bool(doubtful)]}/>'
        for (x, y), (rx, ry), doubtful in zip(points, radii, result.referred, strict=True)
        if np.isfinite((x, y, rx, ry)).all()
    ]
    return f'<g class="region">{"".join(rings)}</g>' if rings else ""


def _mark_group(kind: str, points: FloatArray, texts: Sequence[str], shape: str) -> str:
    """Each mark in a group of its own, so that the style sheet can scale it without moving it, on a dark halo."""
    drawn = f'<{shape} class="halo"/><{shape}/>'
    marks = [
        f'<g transform="translate({x:.1f} {y:.1f})"><title>{escape(text)}</title><g class="mark">{drawn}</g></g>'
        for (x, y), text in zip(points, texts, strict=True)
        if math.isfinite(x)
    ]
    return f'<g class="{kind}">' + "".join(marks) + "</g>"


def _label_group(names: Sequence[str], points: FloatArray, boxes: Sequence[Box | None]) -> str:
    parts = ['<g class="labels">']
    for name, point, box in zip(names, points, boxes, strict=True):
        if box is None:
            continue
        # Zooming shrinks a label towards its point, so that it keeps its size and its place beside it.
        parts.append(f'<g class="label" style="transform-origin:{point[0]:.1f}px {point[1]:.1f}px">')
        near = np.clip(point, box[:2], box[2:])
        distance = float(np.hypot(*(near - point)))
        if distance > 2.6 * _MARK_RADIUS:
            start = point + (near - point) * (1.3 * _MARK_RADIUS / distance)
            parts.append(f'<path d="M{start[0]:.1f},{start[1]:.1f}L{near[0]:.1f},{near[1]:.1f}"/>')
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}">{escape(name)}</text></g>')
    return "".join(parts) + "</g>"
