"""From thickness to film: attenuation, scatter, heel effect, collimator, metal, blur, quantum noise, display tone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar, cast

import numpy as np
from scipy.ndimage import gaussian_filter

from .synthetic_bones import enlarge
from .synthetic_curves import FloatArray, Grid, Raster

__all__ = ["Exposure", "draw_exposure", "expose"]

_Array = TypeVar("_Array", Raster, FloatArray)
# Effective linear attenuation, 1/mm, near 70 keV: muscle, fat, and compact bone less the muscle it displaces.
_LEAN, _FAT, _BONE = 0.0192, 0.0172, 0.040


@dataclass(frozen=True)
class Exposure:
    """How one film was taken.

    Args:
        field_mm: ``(4,)`` left, top, right, bottom of the exposed rectangle before it is turned.
        field_deg: how far the collimator is turned.
        marker: lead letter, "L" or "R".
        marker_mm: (x, y) of the letter's center.
        marker_deg: how far the letter is turned.
        ball_mm: (x, y) of a steel calibration ball, or None.
        clips_mm: ``(N, 4)`` ends (x, y, x, y) of metal clips.
        photons: mean number of quanta in a pixel under the unattenuated beam.
        scatter: scattered over primary signal.
        grid_lines: amplitude of the anti-scatter grid's shadow.
        heel: relative fall of the beam from one end to the other.
        shutter: whether the field outside is masked black, as most systems do.
        gamma: display curve.
    """

    field_mm: tuple[float, float, float, float]
    field_deg: float
    marker: str
    marker_mm: tuple[float, float]
    marker_deg: float
    ball_mm: tuple[float, float] | None
    clips_mm: tuple[tuple[float, float, float, float], ...]
    photons: float
    scatter: float
    grid_lines: float
    heel: float
    shutter: bool
    gamma: float

    def inside(self, points_mm: FloatArray) -> FloatArray:
        """How far points lie inside the exposed field.

        Args:
            points_mm: ``(N, 2)`` (x, y).

        Returns:
            ``(N,)`` mm, negative outside.
        """
        return np.asarray(_field_depth(self, points_mm[:, 0], points_mm[:, 1]))


def draw_exposure(random: np.random.Generator, grid: Grid, origin_mm: tuple[float, float]) -> Exposure:
    """Draw how a film is taken.

    Args:
        random: source of chance.
        grid: the film's pixels.
        origin_mm: (x, y) of the point midway between the femoral heads.

    Returns:
        The exposure.
    """
    width, height = grid.shape[1] * grid.spacing_mm[1], grid.shape[0] * grid.spacing_mm[0]
    tight = random.uniform() < 0.3
    border = np.abs(random.normal(0, 4.0, 4)) + (random.uniform(0, 14, 4) if tight else 0) - 2.0
    marker = "L" if random.uniform() < 0.5 else "R"
    side = 1.0 if marker == "L" else -1.0
    level = random.uniform(0.84, 0.93) if random.uniform() < 0.7 else random.uniform(0.05, 0.12)
    spot = (width / 2 + side * (width / 2 - border.max() - random.uniform(11, 16)), level * height)
    ball = (origin_mm[0] + float(random.normal(0, 5)), origin_mm[1] + 105 + float(random.normal(0, 8)))
    clips = []
    for _ in range(int(random.integers(2, 6)) if random.uniform() < 0.2 else 0):
        x, y = origin_mm[0] + random.normal(0, 45), origin_mm[1] + random.normal(-40, 35)
        angle, half = random.uniform(0, np.pi), random.uniform(2.0, 3.5)
        dx, dy = half * np.cos(angle), half * np.sin(angle)
        clips.append((float(x - dx), float(y - dy), float(x + dx), float(y + dy)))
    return Exposure(
        field_mm=(float(border[0]), float(border[1]), float(width - border[2]), float(height - border[3])),
        field_deg=float(random.normal(0, 0.9)),
        marker=marker,
        marker_mm=(float(spot[0]), float(spot[1])),
        marker_deg=float(random.normal(0, 7)),
        ball_mm=ball if random.uniform() < 0.25 else None,
        clips_mm=tuple(clips),
        photons=float(np.exp(random.uniform(np.log(6e4), np.log(3e5)))),
        scatter=float(random.uniform(0.15, 0.45)),
        grid_lines=float(random.uniform(0.004, 0.012)) if random.uniform() < 0.35 else 0.0,
        heel=float(random.normal(0, 0.12)),
        shutter=bool(random.uniform() < 0.75),
        gamma=float(random.uniform(0.85, 1.15)),
    )


def _field_depth(exposure: Exposure, x: _Array, y: _Array) -> _Array:
    """How far places lie inside the turned rectangle, in mm; negative outside."""
    left, top, right, bottom = exposure.field_mm
    # Plain floats, so that a float32 raster stays one.
    cos, sin = math.cos(math.radians(exposure.field_deg)), math.sin(math.radians(exposure.field_deg))
    dx, dy = x - (left + right) / 2, y - (top + bottom) / 2
    across, down = cos * dx + sin * dy, cos * dy - sin * dx
    return cast(_Array, np.minimum((right - left) / 2 - np.abs(across), (bottom - top) / 2 - np.abs(down)))


def _blur(image: Raster, grid: Grid, sigma_mm: float) -> Raster:
    """Gaussian blur; wide ones on a coarser raster."""
    step = max(1, int(0.4 * sigma_mm / max(grid.spacing_mm)))
    if step > 1:
        rows, cols = (-(-n // step) * step for n in image.shape)
        padded = np.pad(image, ((0, rows - image.shape[0]), (0, cols - image.shape[1])), mode="edge")
        image = padded.reshape(rows // step, step, cols // step, step).mean((1, 3))
    soft = gaussian_filter(image, [sigma_mm / (step * mm) for mm in grid.spacing_mm], mode="nearest", truncate=3)
    if step == 1:
        return np.asarray(soft)
    # Block means sit half a block further in than the first pixel.
    soft = np.pad(soft, ((1, 2), (1, 2)), mode="edge")
    large = enlarge(soft, step, (grid.shape[0] + step + step // 2, grid.shape[1] + step + step // 2))
    first = step - (step - 1) // 2
    return large[first : first + grid.shape[0], first : first + grid.shape[1]]


def _capsule(grid: Grid, ends: tuple[float, ...], radius: float) -> Raster:
    """Inside depth in mm of a rounded bar."""
    ax, ay, bx, by = (np.float32(value) for value in ends)
    px, py, dx, dy = grid.x - ax, grid.y - ay, bx - ax, by - ay
    along = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, 1e-6), 0, 1)
    return np.asarray(radius - np.hypot(px - along * dx, py - along * dy), dtype=np.float32)


_STROKES: dict[str, list[list[tuple[float, float]]]] = {
    "L": [[(-4, -7), (-4, 7), (4, 7)]],
    "R": [
        [(-4, 7), (-4, -7), (1, -7), (3.4, -6), (4.2, -3.6), (3.4, -1.2), (1, -0.2), (-4, -0.2)],
        [(0.4, -0.2), (4.4, 7)],
    ],
}


def _metal(exposure: Exposure, grid: Grid) -> Raster:
    """Path through lead and steel as an attenuation exponent."""
    metal = np.zeros(grid.shape, np.float32)
    angle = np.deg2rad(exposure.marker_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    bars: list[tuple[tuple[float, ...], float, float]] = []
    for stroke in _STROKES[exposure.marker]:
        points = np.array(stroke) @ turn.T + exposure.marker_mm
        bars += [((*a, *b), 1.15, 5.5) for a, b in pairwise(points)]
    bars += [(clip, 0.5, 2.2) for clip in exposure.clips_mm]
    if exposure.ball_mm is not None:
        bars.append(((*exposure.ball_mm, *exposure.ball_mm), 14.0, 5.0))
    for ends, radius, strength in bars:
        window = grid.window(np.array(ends).reshape(2, 2), radius + 2)
        if 0 not in window.shape:
            cover = np.clip(_capsule(window, ends, radius) / max(grid.spacing_mm) + 0.5, 0, 1)
            metal[window.slices] = np.maximum(metal[window.slices], strength * cover)
    return metal


def expose(layers: dict[str, Raster], exposure: Exposure, grid: Grid, random: np.random.Generator) -> Raster:
    """Take the film.

    Args:
        layers: ``lean``, ``fat`` and ``bone``, ``(H, W)`` millimetres along each ray.
        exposure: beam, collimator, metal and display.
        grid: the film's pixels.
        random: source of the quantum noise.

    Returns:
        ``(H, W)`` float32 in 0..1, bright = dense.
    """
    exponent = _LEAN * layers["lean"] + _FAT * layers["fat"] + _BONE * layers["bone"] + _metal(exposure, grid)
    height, width = (n * mm for n, mm in zip(grid.shape, grid.spacing_mm, strict=True))
    heel = 1 - exposure.heel * (grid.y / height - 0.5) - 0.05 * (grid.x / width - 0.5) ** 2
    depth = _field_depth(exposure, grid.x, grid.y)
    beam = heel / (1 + np.exp(np.clip(-depth / 0.7, -20, 20)))
    primary = beam * np.exp(-exponent)
    signal = primary + exposure.scatter * np.minimum(_blur(primary, grid, 28.0), 0.05) + 2e-4
    signal = _blur(signal.astype(np.float32), grid, 0.28)
    if exposure.grid_lines:
        signal *= 1 + exposure.grid_lines * np.sin(2 * np.pi * grid.x / (3.1 * grid.spacing_mm[1]))
    # Thousands of quanta in a pixel: the Poisson law is a normal one; the detector's own blur correlates its noise.
    noise = random.standard_normal(grid.shape, dtype=np.float32)
    signal = signal + 1.6 * np.sqrt(signal / exposure.photons) * _blur(noise, grid, 0.35 * max(grid.spacing_mm))
    return _tone(-np.log(np.maximum(signal, 1e-4)).astype(np.float32), depth, exposure, grid)


def _tone(density: Raster, depth: Raster, exposure: Exposure, grid: Grid) -> Raster:
    """Display processing of a digital system: broad contrast reduced, detail kept, window, curve, shutter."""
    broad = _blur(np.minimum(density, 6.0), grid, 22.0)
    image = density - 0.4 * broad
    # The histogram of the body, without bare beam and without metal, sets the window.
    body = ((depth > 2) & (density > 1.2) & (density < 6.5))[::5, ::5]
    dark, middle, bright = (float(p) for p in np.percentile(image[::5, ::5][body], [4, 50, 99.3]))
    low, high = dark - 0.30 * (bright - dark), bright + 0.25 * (bright - middle)
    image = np.clip((image - low) / (high - low), 0, 1)
    power = exposure.gamma * math.log(0.42) / math.log((middle - low) / (high - low))
    image **= np.float32(power)
    if exposure.shutter:
        image *= np.clip(depth / max(grid.spacing_mm) + 0.5, 0, 1)
    return image.astype(np.float32)
