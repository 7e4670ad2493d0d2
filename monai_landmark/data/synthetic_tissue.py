"""Soft tissue as the beam sees it: trunk, thighs, fat, muscle planes, bladder and gas, in mm along each ray."""

from __future__ import annotations

import numpy as np

from .synthetic_anatomy import Pelvis
from .synthetic_bones import enlarge, mottle
from .synthetic_curves import Grid, Raster, draw_ridges

__all__ = ["tissue_layers"]


def tissue_layers(pelvis: Pelvis, grid: Grid, random: np.random.Generator) -> dict[str, Raster]:
    """Thickness of lean tissue and of fat along each ray; gas is what the lean tissue lacks.

    Args:
        pelvis: the skeleton that the tissue surrounds.
        grid: the film's pixels.
        random: source of chance.

    Returns:
        ``lean`` and ``fat``, each ``(H, W)`` millimetres.
    """
    # Nothing here is finer than a few millimetres: every second pixel will do.
    half = Grid((grid.shape[0] // 2 + 2, grid.shape[1] // 2 + 2), (2 * grid.spacing_mm[0], 2 * grid.spacing_mm[1]))
    u, v = _body_frame(pelvis, half)
    stout = float(np.clip(random.normal(1.02, 0.1), 0.88, 1.3))
    skin = _envelope(u, v, stout, 0.0)
    muscle = np.minimum(_envelope(u, v, 1.0, 14.0 + 40.0 * (stout - 0.8)), skin)
    lean = np.maximum(muscle + np.float32(3) * mottle(random, half, 14.0, 60.0) * (muscle > 1) - 3, 0)
    bladder = float(random.uniform(2, 13))
    lean += bladder * np.exp(-((u / 42) ** 4) - ((v - 4) / 30) ** 4)
    lean += _planes(pelvis, half, random) - _gas(pelvis, half, random)
    layers = {"lean": np.maximum(lean, 0), "fat": np.maximum(skin - muscle, 0)}
    return {name: enlarge(layer.astype(np.float32), 2, grid.shape) for name, layer in layers.items()}


def _body_frame(pelvis: Pelvis, grid: Grid) -> tuple[Raster, Raster]:
    """Template (u, v) of each pixel: the inverse of the pelvis's own map to the film."""
    zero, right, down = pelvis.to_film([(0, 0), (1, 0), (0, 1)])
    inverse = np.linalg.inv(np.stack([right - zero, down - zero], axis=1)).astype(np.float32)
    x, y = grid.x - np.float32(zero[0]), grid.y - np.float32(zero[1])
    return inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y


def _envelope(u: Raster, v: Raster, stout: float, inset: float) -> Raster:
    """Thickness of trunk and thighs within the skin or, with an inset in mm, within the fat."""
    hips = 1 / (1 + np.exp(-(v + 60) / 45))
    width = stout * (164 + 30 * hips) - inset
    deep = 105 * stout - inset
    fade = 1 / (1 + np.exp((v - 84) / 14))
    trunk = 2 * deep * np.sqrt(np.maximum(1 - np.abs(u / width) ** 2.5, 0)) * fade
    thigh_width, thigh_deep = 88 * stout - inset - 0.05 * (v - 80), 88 * stout - inset
    # The thighs bulge from the buttocks, and touch in a stout person.
    apart = np.abs(u) - 95 * stout - 0.02 * (v - 80)
    thigh = 2 * thigh_deep * np.sqrt(np.maximum(1 - (apart / thigh_width) ** 2, 0)) * (1 - fade)
    return np.asarray(trunk + thigh, dtype=np.float32)


def _planes(pelvis: Pelvis, grid: Grid, random: np.random.Generator) -> Raster:
    """Fat planes between muscles: soft dark stripes beside the hip, along the psoas and over the bladder."""
    stripes = []
    for sign in (-1.0, 1.0):
        for plane in (
            [(138, -75), (135, -50), (133, -28), (137, -12)],
            [(150, -85), (152, -55), (151, -30)],
            [(38, -205), (52, -160), (66, -110), (78, -60), (84, -30)],
            [(76, 22), (68, 40), (74, 70), (82, 100)],
            [(120, 50), (112, 90), (104, 150), (98, 220)],
        ):
            jitter = random.normal(0, 2.0, (len(plane), 2))
            points = pelvis.to_film(np.array(plane) * (sign, 1.0) + jitter)
            stripes.append((points, -random.uniform(2, 6) * np.array([0.1, 1.0, 1.0, 0.1])))
    return draw_ridges(grid, stripes, 3.0)


def _gas(pelvis: Pelvis, grid: Grid, random: np.random.Generator) -> Raster:
    """Bowel gas: chains of rounded pockets; rectum in the midline, colon in the flanks, loops between."""
    field = np.zeros(grid.shape, np.float32)
    chains = [((0.0, 0.0), (random.normal(0, 8), random.uniform(-45, -10)), 12.0)] if random.uniform() < 0.8 else []
    for _ in range(random.integers(3, 7)):
        start = (random.uniform(-105, 105), random.uniform(-200, -60))
        chains.append((tuple(random.normal(0, 16, 2)), start, random.uniform(6, 13)))
    for step, start, size in chains:
        place = np.array(start, dtype=float)
        for _ in range(random.integers(3, 8)):
            radii = size * random.uniform(0.6, 1.25, 2) * pelvis.shape.scale
            center = pelvis.to_film(place[None])[0]
            window = grid.window(np.array([center - 2.4 * radii, center + 2.4 * radii]), 0.0)
            if 0 not in window.shape:
                across, down = (
                    (axis - float(c)) / float(r) for axis, c, r in zip((window.x, window.y), center, radii, strict=True)
                )
                field[window.slices] += random.uniform(0.7, 1.2) * np.exp(-(down**2)) * np.exp(-(across**2))
            place += np.array(step) * 0.5 + random.normal(0, 0.8 * size, 2)
    # A level set of a rough sum of bells: lobes that run into each other, with folds, and no outline.
    lobes = np.maximum(field + 0.13 * mottle(random, grid, 2.8, 9.0) - 0.5, 0)
    return np.asarray(34.0 * lobes**0.8 / (1 + 0.9 * lobes**0.8), dtype=np.float32)
