"""Soft tissue as the beam sees it: trunk, thighs, fat, muscle planes, bladder and bowel gas, in millimetres along each ray."""

from __future__ import annotations

import numpy as np

from .synthetic_anatomy import Pelvis
from .synthetic_bones import mottle
from .synthetic_curves import Curve, Grid, Raster, draw_ridges

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
    u, v = _body_frame(pelvis, grid)
    stout = float(np.clip(random.normal(1.0, 0.14), 0.75, 1.35))
    skin = _envelope(u, v, stout, 0.0)
    lean_share = _envelope(u, v, 1.0, 14.0 + 26.0 * (stout - 0.75))
    lean = np.minimum(lean_share, skin) - 3.0
    lean += 6.0 * mottle(random, grid, 14.0, 60.0) * (skin > 1)
    lean = np.minimum(np.maximum(lean, 0), skin)
    lean += _planes(pelvis, grid, random)
    lean += 16.0 * np.exp(-((u / 42) ** 4) - ((v - 4) / 30) ** 4)
    lean -= _gas(pelvis, grid, random)
    lean = np.maximum(lean, 0)
    return {"lean": lean.astype(np.float32), "fat": np.maximum(skin - lean_share, 0).astype(np.float32)}


def _body_frame(pelvis: Pelvis, grid: Grid) -> tuple[Raster, Raster]:
    """Template (u, v) of each pixel: the inverse of the pelvis's own map to the film."""
    zero, right, down = pelvis.to_film([(0, 0), (1, 0), (0, 1)])
    inverse = np.linalg.inv(np.stack([right - zero, down - zero], axis=1)).astype(np.float32)
    x, y = grid.x - np.float32(zero[0]), grid.y - np.float32(zero[1])
    return inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y


def _envelope(u: Raster, v: Raster, stout: float, inset: float) -> Raster:
    """Thickness of trunk and thighs within the skin or, with an inset in mm, within the fat."""
    hips = 1 / (1 + np.exp(-(v + 60) / 45))
    width = stout * (158 + 24 * hips) - inset
    deep = 105 * stout - inset
    fade = 1 / (1 + np.exp((v - 78) / 13))
    trunk = 2 * deep * np.sqrt(np.maximum(1 - (u / width) ** 2, 0)) * fade
    thigh_width, thigh_deep = 84 * stout - inset - 0.06 * (v - 80), 92 * stout - inset
    # The thighs bulge from the buttocks, and touch in a stout person.
    apart = np.abs(u) - 92 * stout - 0.02 * (v - 80)
    thigh = 2 * thigh_deep * np.sqrt(np.maximum(1 - (apart / thigh_width) ** 2, 0)) * (1 - fade)
    return np.sqrt(trunk**2 + thigh**2)


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
            stripes.append((Curve(points), -random.uniform(3, 9) * np.array([0.1, 1.0, 1.0, 0.1])))
    return draw_ridges(grid, stripes, 2.2)


def _gas(pelvis: Pelvis, grid: Grid, random: np.random.Generator) -> Raster:
    """Bowel gas: chains of rounded pockets; rectum in the midline, colon in the flanks, loops between."""
    gas = np.zeros(grid.shape, np.float32)
    chains = [((0.0, 0.0), (random.normal(0, 6), random.uniform(-45, -15)), 13.0)] if random.uniform() < 0.8 else []
    for _ in range(random.integers(2, 6)):
        start = np.array([random.uniform(-100, 100), random.uniform(-190, -50)])
        chains.append((tuple(random.normal(0, 14, 2)), tuple(start), random.uniform(7, 15)))
    for step, start, size in chains:
        place = np.array(start, dtype=float)
        for _ in range(random.integers(2, 6)):
            radii = size * random.uniform(0.6, 1.25, 2) * pelvis.shape.scale
            center = pelvis.to_film(place[None])[0]
            window = grid.window(np.array([center - radii.max(), center + radii.max()]), 5.0)
            if 0 not in window.shape:
                q = ((window.x - center[0]) / radii[0]) ** 2 + ((window.y - center[1]) / radii[1]) ** 2
                pocket = 1.7 * size * np.sqrt(np.maximum(1 - q, 0))
                gas[window.slices] = np.sqrt(gas[window.slices] ** 2 + pocket**2)
            place += np.array(step) * 0.6 + random.normal(0, 0.75 * size, 2)
    return gas
