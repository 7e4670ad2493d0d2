"""What every picture of a film shares: gray values for the screen, true proportions, colors, fonts and wording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ImageFont

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import DataError
from monai_landmark.results.result import LandmarkResult

__all__ = [
    "COLORS",
    "Canvas",
    "film_canvas",
    "film_to_gray",
    "font",
    "landmark_title",
    "measure_text",
    "region_radii",
    "region_text",
    "scale_bar_mm",
    "schema_segments",
    "spacing_text",
]

FloatArray = NDArray[np.float64]

# Okabe and Ito's palette, which stays apart for color-blind readers; the shapes differ as well.
COLORS = {"prediction": "#56B4E9", "reference": "#E69F00", "error": "#F0E442", "line": "#FFFFFF"}
COLORS["refer"] = COLORS["reference"]  # apart by shape: a dashed ring, a cross


@dataclass(frozen=True)
class Canvas:
    """How a film is laid out in a picture: true proportions even where pixels are not square.

    Args:
        width: of the picture in its own pixels.
        height: of the picture.
        scale_x: picture pixels per film pixel along a row.
        scale_y: picture pixels per film pixel along a column.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float

    def place(self, points_px: ArrayLike) -> FloatArray:
        """Film pixels (centers at whole numbers) -> picture coordinates (top-left corner at 0); ``(..., 2)``."""
        placed = (np.asarray(points_px, dtype=np.float64) + 0.5) * (self.scale_x, self.scale_y)
        return np.asarray(placed, dtype=np.float64)


def film_canvas(
    size: tuple[int, int], spacing_mm: tuple[float, float] | None, *, longest: int, magnify: float = 1.0
) -> Canvas:
    """Choose the picture for a film: shrunk to ``longest``, small films magnified.

    Args:
        size: ``(H, W)`` of the film.
        spacing_mm: ``(row_mm, col_mm)``, which sets the proportions, or None for square pixels.
        longest: largest side of the picture.
        magnify: how much a small film may be magnified at most.

    Returns:
        The canvas.
    """
    height, width = size
    row_mm, col_mm = spacing_mm or (1.0, 1.0)
    tall, wide = height * row_mm / min(row_mm, col_mm), width * col_mm / min(row_mm, col_mm)
    scale = min(longest / max(tall, wide), magnify)
    out_width, out_height = max(1, round(wide * scale)), max(1, round(tall * scale))
    return Canvas(out_width, out_height, out_width / width, out_height / height)


def film_to_gray(film: ArrayLike) -> NDArray[np.uint8]:
    """A film for the screen: the middle 99 % of its values spread over 0..255, bright = dense.

    Args:
        film: ``(H, W)`` or ``(1, H, W)`` values of any range; what is not finite becomes black.

    Returns:
        ``(H, W)`` uint8.

    Raises:
        DataError: not one two-dimensional film.
    """
    values = np.asarray(film, dtype=np.float32)
    values = values[0] if values.ndim == 3 and values.shape[0] == 1 else values
    if values.ndim != 2 or not values.size:
        raise DataError("not a single film", field="film", value=values.shape, expected="an array (H, W)")
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(values[finite], (0.5, 99.5))
    high = high if high > low else low + 1.0
    gray = np.clip((np.where(finite, values, low) - low) / (high - low), 0.0, 1.0)
    return np.asarray(np.round(gray * 255), dtype=np.uint8)


def schema_segments(schema: LandmarkSchema | None, names: Sequence[str]) -> list[tuple[int, int]]:
    """Index pairs of a schema's lines, as far as both ends are among the names.

    Args:
        schema: the schema, or None for no line.
        names: the K landmark names of the points.

    Returns:
        (start, end) rows of the points.
    """
    rows = {name: index for index, name in enumerate(names)}
    ends = [] if schema is None else list(schema.lines.values())
    return [(rows[start], rows[end]) for start, end in ends if start in rows and end in rows]


def landmark_title(name: str) -> str:
    """A landmark's name for people: ``upper_lip`` -> ``upper lip``."""
    return name.replace("_", " ")


def scale_bar_mm(canvas: Canvas, spacing_mm: tuple[float, float] | None) -> tuple[int, float] | None:
    """A round length that takes at most a quarter of the picture's width.

    Args:
        canvas: the picture.
        spacing_mm: ``(row_mm, col_mm)`` of the film, or None.

    Returns:
        The length in mm and in picture pixels; None without spacing or when even 1 mm is too long.
    """
    if spacing_mm is None:
        return None
    per_mm = canvas.scale_x / spacing_mm[1]
    fitting = [length for length in (1, 2, 5, 10, 20, 50, 100) if length * per_mm <= canvas.width / 4]
    return (fitting[-1], fitting[-1] * per_mm) if fitting else None


def region_radii(result: LandmarkResult, canvas: Canvas) -> FloatArray:
    """Half axes of the regions in the picture: circles in mm, ellipses where a picture pixel is not square.

    Args:
        result: with regions in mm, or without.
        canvas: the picture of its film.

    Returns:
        ``(K, 2)`` (x, y) in picture pixels, NaN = no region.
    """
    if result.region_radius_mm is None or result.spacing_mm is None:
        return np.full((len(result.names), 2), np.nan)
    row_mm, col_mm = result.spacing_mm
    per_mm = np.array([canvas.scale_x / col_mm, canvas.scale_y / row_mm])
    return np.asarray(result.region_radius_mm[:, None] * per_mm, dtype=np.float64)


def region_text(result: LandmarkResult) -> str:
    """What the rings about the points promise, e.g. ``region holds its landmark in 90 % of cases``; empty without."""
    if result.guarantee is None or result.region_radius_mm is None:
        return ""
    return f"region holds its landmark in {result.guarantee.region_level:.0%} of cases".replace("%", " %")


def spacing_text(result: LandmarkResult) -> str:
    """One line on scale, e.g. ``0.100 x 0.100 mm per pixel (detector: mm at the detector, not in the patient)``."""
    if result.spacing_mm is None:
        return "no pixel spacing: distances in px"
    meaning = {
        "detector": "detector: mm at the detector, not in the patient",
        "uncalibrated": "uncalibrated: meaning of the mm unknown",
        "user": "stated by the user",
    }
    row_mm, col_mm = result.spacing_mm
    size = (
        f"{row_mm:.4g}" if row_mm == col_mm else f"{row_mm:.4g} (rows) \N{MULTIPLICATION SIGN} {col_mm:.4g} (columns)"
    )
    return f"{size} mm per pixel ({meaning.get(result.spacing_source, result.spacing_source)})"


def measure_text(text: str, size: float) -> tuple[float, float]:
    """(width, height) of a line of text in the pictures' font.

    Args:
        text: the line.
        size: font size in picture pixels.

    Returns:
        Its extent in picture pixels, ascenders and descenders included.
    """
    face = font(max(6, round(size)))
    ascent, descent = face.getmetrics()
    return float(face.getlength(text)), float(ascent + descent)


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans in one size, in picture pixels."""
    # matplotlib brings DejaVu, which covers far more scripts than Pillow's own font.
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
