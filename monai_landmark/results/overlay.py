"""The overlay picture: a film with its landmarks, readable at a glance and honest about scale and purpose."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import DataError
from monai_landmark.files import replace_file
from monai_landmark.results.canvas import (
    COLORS,
    Canvas,
    film_canvas,
    film_to_gray,
    font,
    landmark_title,
    measure_text,
    region_radii,
    region_text,
    scale_bar_mm,
    schema_segments,
    spacing_text,
)
from monai_landmark.results.labels import Box, place_labels
from monai_landmark.results.result import LandmarkResult

__all__ = ["draw_overlay", "write_overlay"]

FloatArray = NDArray[np.float64]

_INK, _STRIP, _QUIET = "#E8EDF2", "#0B0F14", "#93A1B0"
_SUPERSAMPLING = 3


def draw_overlay(
    film: ArrayLike,
    result: LandmarkResult,
    schema: LandmarkSchema | None = None,
    reference_px: ArrayLike | None = None,
    *,
    labels: bool = True,
    longest: int = 1600,
) -> Image.Image:
    """Draw the landmarks of one result on its film.

    Args:
        film: ``(H, W)`` the upright film, bright = dense.
        result: what to draw, as rings.
        schema: its lines are drawn faintly; None draws none.
        reference_px: ``(K, 2)`` reference points in film pixels, drawn as crosses with a line to the prediction.
        labels: write the landmark names.
        longest: largest side of the film in the picture; smaller films are magnified up to four times.

    Returns:
        An RGB picture: the film and below it a strip with the spacing, its source and "not for diagnosis".

    Raises:
        DataError: the film is not of the size that the result was made on.
    """
    gray = film_to_gray(film)
    if gray.shape != result.original_size:
        raise DataError(
            f"film {result.film!r} is not of the size that its result states",
            field="original_size",
            value=gray.shape,
            expected=str(result.original_size),
            action="give the upright film that the prediction was made on",
        )
    long_side = max(gray.shape)
    canvas = film_canvas(
        result.original_size,
        result.spacing_mm,
        longest=min(longest, max(1000, long_side)),
        magnify=4.0 if long_side < 1000 else 1.0,
    )
    unit = max(canvas.width, canvas.height, 750) / 1000.0
    points = canvas.place(result.points_px)
    reference = None if reference_px is None else canvas.place(reference_px)
    resized = Image.fromarray(gray).resize((canvas.width, canvas.height), Image.Resampling.LANCZOS)
    picture = resized.convert("RGB")
    boxes = _label_boxes(result.names, points, reference, canvas, unit) if labels else [None] * len(points)
    regions = region_radii(result, canvas)
    picture = _draw_marks(
        picture, result, (points, reference, regions), schema_segments(schema, result.names), boxes, unit
    )
    _draw_labels(picture, result.names, boxes, unit)
    _draw_scale_bar(picture, result.spacing_mm, canvas, unit)
    return _with_strip(picture, result, reference is not None, unit)


def write_overlay(
    path: str | PathLike[str],
    film: ArrayLike,
    result: LandmarkResult,
    schema: LandmarkSchema | None = None,
    reference_px: ArrayLike | None = None,
    *,
    labels: bool = True,
    longest: int = 1600,
) -> Path:
    """Write :func:`draw_overlay` as a PNG that holds pixels alone: no text chunk, time or profile.

    Args:
        path: the PNG file; its folder is made when absent.
        film: see :func:`draw_overlay`.
        result: see :func:`draw_overlay`.
        schema: see :func:`draw_overlay`.
        reference_px: see :func:`draw_overlay`.
        labels: see :func:`draw_overlay`.
        longest: see :func:`draw_overlay`.

    Returns:
        The path.

    Raises:
        DataError: see :func:`draw_overlay`.
    """
    picture = draw_overlay(film, result, schema, reference_px, labels=labels, longest=longest)
    path = Path(path)
    with replace_file(path) as stream:
        picture.save(stream, format="PNG", compress_level=3)
    return path


def _label_boxes(
    names: Sequence[str], points: FloatArray, reference: FloatArray | None, canvas: Canvas, unit: float
) -> list[Box | None]:
    texts = (measure_text(landmark_title(name), 12 * unit) for name in names)
    sizes = [(width + 4 * unit, height) for width, height in texts]
    return place_labels(points, sizes, (canvas.width, canvas.height), 8 * unit, reference)


def _draw_marks(
    picture: Image.Image,
    result: LandmarkResult,
    placed: tuple[FloatArray, FloatArray | None, FloatArray],
    segments: list[tuple[int, int]],
    boxes: Sequence[Box | None],
    unit: float,
) -> Image.Image:
    """Lines, regions, rings and crosses, drawn large and shrunk: Pillow itself draws without anti-aliasing."""
    factor = _SUPERSAMPLING
    points, reference, regions = placed
    layer = Image.new("RGBA", (picture.width * factor, picture.height * factor), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)

    def line(a: Sequence[float], b: Sequence[float], color: str, width: float) -> None:
        """Draw a line, unless an end is missing."""
        ends = [float(value) * factor for value in (*a, *b)]
        if all(map(math.isfinite, ends)):
            draw.line(ends, fill=color, width=max(1, round(width * unit * factor)))

    for start, end in segments:
        line(points[start], points[end], COLORS["line"] + "59", 1.2)
    for point, box in zip(points, boxes, strict=True):
        if box is not None:
            _leader(line, point, box, unit)
    if reference is not None:
        for point, truth in zip(points, reference, strict=True):
            line(point, truth, COLORS["error"], 1.6)
        _crosses(line, reference, 6.0 * unit)
    for point, radii, doubtful in zip(points, regions, result.referred, strict=True):
        _region(draw, point * factor, radii * factor, 1.2 * unit * factor, bool(doubtful))
    for x, y in points[~np.isnan(points).any(axis=1)]:
        _ring(draw, x * factor, y * factor, 5.5 * unit * factor, 1.8 * unit * factor)
    small = layer.resize(picture.size, Image.Resampling.BOX)
    return Image.alpha_composite(picture.convert("RGBA"), small).convert("RGB")


def _leader(line: Callable[..., None], point: FloatArray, box: Box, unit: float) -> None:
    """A thin line from a label that had to move away back to its point."""
    near = np.clip(point, box[:2], box[2:])
    offset = near - point
    distance = float(np.hypot(*offset))
    if distance > 16 * unit:
        line(point + offset * (8 * unit / distance), near, _INK + "8C", 0.9)


def _crosses(line: Callable[..., None], points: FloatArray, arm: float) -> None:
    for color, width in (("#000000B0", 3.6), (COLORS["reference"], 1.8)):
        for x, y in points:
            line((x - arm, y - arm), (x + arm, y + arm), color, width)
            line((x - arm, y + arm), (x + arm, y - arm), color, width)


def _ring(draw: Any, x: float, y: float, radius: float, width: float) -> None:
    for color, grow in (("#000000B0", width * 0.6), (COLORS["prediction"], 0.0)):
        reach = radius + grow
        box = [x - reach, y - reach, x + reach, y + reach]
        draw.ellipse(box, outline=color, width=max(1, round(width + 2 * grow)))


def _region(draw: Any, center: FloatArray, radii: FloatArray, width: float, refer: bool) -> None:
    """The ring that holds the landmark as often as promised; dashed where a person should look."""
    if not np.isfinite((*center, *radii)).all():
        return
    box = [*(center - radii), *(center + radii)]
    for color, grow in (("#00000080", width), (COLORS["refer" if refer else "prediction"], 0.0)):
        thick = max(1, round(width + 2 * grow))
        if not refer:
            draw.ellipse(box, outline=color, width=thick)
        for start in range(0, 360 if refer else 0, 20):
            draw.arc(box, start, start + 13, fill=color, width=thick)


def _draw_labels(picture: Image.Image, names: Sequence[str], boxes: Sequence[Box | None], unit: float) -> None:
    draw, face = ImageDraw.Draw(picture), font(max(6, round(12 * unit)))
    for name, box in zip(names, boxes, strict=True):
        if box is not None:
            place = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            stroke = max(1, round(1.2 * unit))
            draw.text(
                place,
                landmark_title(name),
                font=face,
                fill=_INK,
                anchor="mm",
                stroke_width=stroke,
                stroke_fill="#000000",
            )


def _draw_scale_bar(picture: Image.Image, spacing_mm: tuple[float, float] | None, canvas: Canvas, unit: float) -> None:
    """A bar of a round number of millimeters in the lower right corner; none without spacing."""
    if (bar := scale_bar_mm(canvas, spacing_mm)) is None:
        return
    length_mm, length = bar
    right, bottom = canvas.width - 18 * unit, canvas.height - 18 * unit
    left, top = right - length, bottom - 3 * unit
    draw = ImageDraw.Draw(picture)
    draw.rectangle([left - 1, top - 1, right + 1, bottom + 1], fill="#000000")
    draw.rectangle([left, top, right, bottom], fill=_INK)
    place, stroke = ((left + right) / 2, top - 3 * unit), max(1, round(1.2 * unit))
    face = font(max(6, round(12 * unit)))
    draw.text(place, f"{length_mm} mm", font=face, fill=_INK, anchor="mb", stroke_width=stroke, stroke_fill="#000000")


def _with_strip(picture: Image.Image, result: LandmarkResult, compared: bool, unit: float) -> Image.Image:
    """The picture with its strip: legend and film on top, scale and purpose below."""
    size = max(9, round(13 * unit))
    missing = int(np.isnan(result.points_px[:, 0]).sum())
    model = " ".join(part for part in (result.model_name, (result.model_sha256 or "")[:12]) if part)
    doubtful = int(result.referred.sum())
    lines = [
        [
            ("○ predicted", COLORS["prediction"], False),
            ("\N{MULTIPLICATION SIGN} reference" if compared else "", COLORS["reference"], False),
            (f"{missing} not found" if missing else "", COLORS["error"], False),
            (f"\N{DOTTED CIRCLE} {doubtful} to look at" if doubtful else "", COLORS["refer"], False),
            (region_text(result), COLORS["prediction"], False),
            (result.film, _INK, True),
            (model, _QUIET, False),
        ],
        [(spacing_text(result), _QUIET, False), ("NOT FOR DIAGNOSIS", COLORS["reference"], True)],
    ]
    return _append_text(picture, [[part for part in line if part[0]] for line in lines], size)


def _append_text(picture: Image.Image, lines: list[list[tuple[str, str, bool]]], size: int) -> Image.Image:
    """Lines of colored parts below a picture; a part that no longer fits starts a new line."""
    margin, spread, leading = round(size * 0.9), round(size * 1.6), round(size * 1.6)
    placed: list[tuple[float, int, str, str, bool]] = []
    row = 0
    for parts in lines:
        x = float(margin)
        for text, color, bold in parts:
            width = font(size, bold).getlength(text)
            if x > margin and x + width > picture.width - margin:
                x, row = float(margin), row + 1
            placed.append((x, row, text, color, bold))
            x += width + spread
        row += 1
    out = Image.new("RGB", (picture.width, picture.height + row * leading + margin), _STRIP)
    out.paste(picture, (0, 0))
    draw = ImageDraw.Draw(out)
    for x, line, text, color, bold in placed:
        y = picture.height + margin // 2 + line * leading + leading / 2
        draw.text((x, y), text, font=font(size, bold), fill=color, anchor="lm")
    return out
