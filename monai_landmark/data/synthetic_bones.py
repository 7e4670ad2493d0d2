"""Bone as the beam sees it: millimetres of compact bone along each ray.

Every bone is a rounded solid with a compact shell and a spongy filling: the shell seen edge-on gives the bright rim, so
no outline is ever drawn. Ridges (roof of the socket, pelvic lines, sacral foramina) are shells that the beam meets
tangentially.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from .synthetic_anatomy import Hip, Pelvis
from .synthetic_curves import Curve, FloatArray, Grid, Raster, draw_ridges, signed_distance

__all__ = ["bone_layers", "mottle"]

# Template anchors (u, v) of the half pelvis: half thickness of the solid and thickness of its shell in mm, share of
# bone in the filling, how far it fades behind the sacrum.
_PELVIS_ANCHORS = np.array(
    [
        *[(63, -148, 6.5, 1.5, 0.20, 0), (100, -138, 6.5, 1.5, 0.20, 0), (125, -110, 7.0, 1.6, 0.22, 0)],
        *[(130, -95, 8.0, 1.6, 0.22, 0), (62, -122, 3.0, 1.0, 0.12, 0), (90, -115, 3.2, 1.0, 0.10, 0)],
        *[(105, -95, 4.0, 1.1, 0.14, 0), (78, -95, 4.0, 1.0, 0.12, 0), (24, -112, 2.5, 0.8, 0.12, 1)],
        *[(30, -80, 4.0, 0.9, 0.16, 1), (45, -100, 7.0, 1.0, 0.16, 0.6), (36, -132, 4.0, 1.0, 0.16, 0.5)],
        *[(62, -60, 9.0, 1.8, 0.24, 0), (85, -62, 8.0, 1.4, 0.22, 0), (112, -65, 8.0, 1.5, 0.22, 0)],
        *[(80, -38, 12.0, 1.6, 0.30, 0), (103, -36, 11.0, 1.7, 0.30, 0), (64, -20, 9.0, 1.7, 0.20, 0)],
        *[(66, 12, 9.0, 1.5, 0.20, 0), (100, 5, 8.0, 1.4, 0.16, 0), (84, 30, 12.0, 1.6, 0.18, 0)],
        *[(68, 60, 13.0, 1.4, 0.18, 0), (55, 80, 10.0, 1.3, 0.16, 0), (30, 66, 6.0, 1.4, 0.16, 0)],
        *[(40, 20, 9.0, 1.6, 0.18, 0), (10, 42, 11.0, 1.5, 0.18, 0), (45, 10, 8.0, 1.6, 0.18, 0)],
        *[(90, 0, 8.0, 1.3, 0.14, 0)],
    ]
)
# Femur anchors in the frame of the meeting point of neck and shaft (outwards, down the shaft), without the last column.
_FEMUR_ANCHORS = np.array(
    [
        *[(-41, -32, 24, 0.9, 0.21), (-26, -20, 17, 1.4, 0.23), (-26, 0, 17, 3.0, 0.26), (-10, -8, 18, 1.6, 0.18)],
        *[(-22, 20, 17, 4.2, 0.22), (0, 15, 19, 1.8, 0.17), (12, -22, 16, 1.2, 0.17), (20, 0, 17, 1.6, 0.18)],
        *[(-22, 38, 12, 2.2, 0.2), (18, 35, 17, 3.2, 0.13), (0, 40, 18, 3.6, 0.10), (-16, 70, 15.5, 6.0, 0.05)],
        *[(16, 70, 15.5, 5.6, 0.05), (0, 110, 15.5, 6.6, 0.03), (0, 200, 15.5, 6.8, 0.03), (0, 300, 15.5, 6.8, 0.03)],
    ]
)


def mottle(random: np.random.Generator, grid: Grid, fine_mm: float, coarse_mm: float | None = None) -> Raster:
    """Band-limited noise of unit variance.

    Args:
        random: source of chance.
        grid: pixels to fill.
        fine_mm: smallest feature size (standard deviation of the inner Gaussian).
        coarse_mm: largest feature size; no limit when None.

    Returns:
        ``(H, W)`` texture.
    """
    step = max(1, int(fine_mm / max(grid.spacing_mm)))
    rows, cols = (-(-n // step) + 2 for n in grid.shape)
    white = random.standard_normal((rows, cols), dtype=np.float32)
    band = gaussian_filter(white, [fine_mm / (step * mm) for mm in grid.spacing_mm], truncate=3)
    if coarse_mm is not None:
        band -= gaussian_filter(white, [coarse_mm / (step * mm) for mm in grid.spacing_mm], truncate=3)
    return enlarge(band / band.std(), step, grid.shape)


def enlarge(coarse: Raster, step: int, shape: tuple[int, int]) -> Raster:
    """Bilinear enlargement by a whole factor; first pixels coincide, and the coarse raster reaches beyond ``shape``."""
    if step == 1:
        return coarse[: shape[0], : shape[1]]
    for axis in (0, 1):
        coarse = coarse.swapaxes(0, axis)
        rise = (coarse[1:] - coarse[:-1]) / np.float32(step)
        fine = np.empty((step * len(rise), coarse.shape[1]), np.float32)
        for k in range(step):
            fine[k::step] = coarse[:-1] + np.float32(k) * rise
        coarse = fine.swapaxes(0, axis)
    return coarse[: shape[0], : shape[1]]


def bone_layers(pelvis: Pelvis, grid: Grid) -> dict[str, Raster]:
    """Noise-free thickness of compact bone along each ray, bone by bone.

    Args:
        pelvis: outlines in the film plane.
        grid: the film's pixels.

    Returns:
        Layer name (``pelvis_right``, ``femur_right``, ..., ``spine``) -> ``(H, W)`` millimetres of compact bone.
    """
    density = 1.12 - 0.4 * pelvis.shape.age
    layers = {}
    for side, hip in pelvis.hips.items():
        layers[f"pelvis_{side}"] = _pelvis_half(pelvis, hip, grid, density, 1.0 if side == "left" else -1.0)
        layers[f"femur_{side}"] = _femur(hip, grid, density)
    layers["spine"] = _spine(pelvis, grid, density)
    return layers


def _soft(distance: Raster, grid: Grid) -> Raster:
    """max(distance, 0) rounded over about half a pixel, so that edges do not alias."""
    rounded = 0.5 * (distance + np.sqrt(distance**2 + (0.6 * max(grid.spacing_mm)) ** 2))
    return np.asarray(rounded, dtype=np.float32)


def _solid(distance: Raster, half: Any, shell: Any, filling: Any, grid: Grid) -> Raster:
    """Compact-bone thickness of a rounded solid: chord 2 sqrt(d (2 w - d)) of the whole less that of its inside."""
    deep = np.minimum(_soft(distance, grid), half)
    outer = 2 * np.sqrt(deep * (2 * half - deep))
    hollow = np.maximum(half - shell, 0.3)
    deep = np.minimum(_soft(distance - shell, grid), hollow)
    inner = np.minimum(2 * np.sqrt(deep * (2 * hollow - deep)), outer)
    return np.asarray(outer - (1 - filling) * inner, dtype=np.float32)


def _fields(points: FloatArray, values: FloatArray, grid: Grid, reach_mm: float) -> list[Raster]:
    """Smooth maps through values given at points: normalized Gaussian weights, separable, hence matrix products."""
    across = np.exp(-0.5 * ((grid.x - points[:, :1].astype(np.float32)) / reach_mm) ** 2)
    down = np.exp(-0.5 * ((grid.y - points[:, 1].astype(np.float32)) / reach_mm) ** 2)
    weight = down @ across + np.float32(1e-20)
    return [
        ((down * column.astype(np.float32)) @ across + np.float32(1e-20 * column.mean())) / weight
        for column in values.T
    ]


def _add(film: Raster, window: Grid, part: Raster) -> None:
    film[window.slices] += part


def _carve(distance: Raster, window: Grid, hole: Grid, inside: Raster) -> None:
    """Take a hole out of a solid, in place; ``hole`` is a window that may reach beyond ``window``."""
    if 0 in hole.shape:
        return
    (row, col), (top, left) = hole.first, window.first
    first = max(row, top), max(col, left)
    last = min(row + hole.shape[0], top + window.shape[0]), min(col + hole.shape[1], left + window.shape[1])
    mine = distance[first[0] - top : last[0] - top, first[1] - left : last[1] - left]
    np.minimum(mine, -inside[first[0] - row : last[0] - row, first[1] - col : last[1] - col], out=mine)


def _pelvis_half(pelvis: Pelvis, hip: Hip, grid: Grid, density: float, sign: float) -> Raster:
    layer = np.zeros(grid.shape, np.float32)
    window = grid.window(hip.outline.samples(4.0), 6.0)
    if 0 in window.shape:
        return layer
    scale = pelvis.shape.scale
    anchors = pelvis.to_film(_PELVIS_ANCHORS[:, :2] * (sign * pelvis.shape.width, pelvis.shape.height))
    half, shell, filling, behind = _fields(anchors, _PELVIS_ANCHORS[:, 2:], window, 12.0 * scale)
    distance = signed_distance(hip.outline, window)
    hole = grid.window(hip.foramen.samples(4.0), 16.0 * scale)
    _carve(distance, window, hole, signed_distance(hip.foramen, hole))
    solid = _solid(distance, half * scale, shell * (0.8 + 0.2 * density), filling * density, window)
    # Behind the sacrum the ilium thins out, and its inner edge with it.
    solid *= 1 - 0.65 * behind
    # The socket is hollow: of the bone over the head only the front and back walls remain.
    socket = hip.head_mm + hip.shape.joint_space_mm * scale
    radius = window.radius(hip.head)
    hollow = 1 / (1 + np.exp(np.clip((radius - socket) / 0.45, -30, 30)))
    solid *= 1 - 0.62 * hollow
    _add(layer, window, solid + _pelvic_lines(hip, window))
    return layer


def _pelvic_lines(hip: Hip, window: Grid) -> Raster:
    lines = hip.lines
    up, fade = np.array([0.3, 1.0, 1.0, 0.3]), np.array([0.0, 0.6, 1.0, 0.8, 0.2])
    thin = [(lines["teardrop"], 4.5 * np.array([0.2, 0.8, 1, 1, 1, 0.8, 0.3])), (lines["inner_rim"], 3.0 * fade)]
    thin += [(lines["ilioischial"], 3.4 * np.array([0.2, 1, 1, 0.8, 0.2])), (lines["floor"], 2.5 * up)]
    thin += [(lines["back_wall"], 2.2 * up), (lines["front_wall"], 1.5 * up), (lines["crest"], 1.5 * fade)]
    thin += [(lines["joint_front"], 2.4 * fade), (lines["joint_back"], 1.8 * fade), (lines["roof"], 4.0 * up)]
    broad = [(lines["sclerosis"], 4.5 * np.array([0.2, 0.8, 1.0, 1.0, 0.8, 0.3])), (lines["inner_rim"], 2.0 * fade)]
    scale = hip.scale
    return draw_ridges(window, thin, 0.55 * scale) + draw_ridges(window, broad, 2.6 * scale)


def _femur(hip: Hip, grid: Grid, density: float) -> Raster:
    layer = np.zeros(grid.shape, np.float32)
    extent = np.vstack([hip.femur.samples(4.0), hip.head - 1.1 * hip.head_mm, hip.head + 1.1 * hip.head_mm])
    window = grid.window(extent)
    if 0 in window.shape:
        return layer
    across = np.array([hip.axis[1], -hip.axis[0]])
    across *= np.sign(across @ hip.lateral)
    places = hip.intersection + hip.scale * (_FEMUR_ANCHORS[:, :1] * across + _FEMUR_ANCHORS[:, 1:2] * hip.axis)
    half, shell, filling = _fields(places, _FEMUR_ANCHORS[:, 2:], window, 9.0 * hip.scale)
    body = signed_distance(hip.femur, window)
    ball = hip.head_mm - window.radius(hip.head)
    blend = 5.0 * hip.scale
    # Polynomial union: differs from the plain maximum only where the two surfaces lie within `blend` of each other.
    union = np.maximum(body, ball) + np.maximum(blend - np.abs(body - ball), 0) ** 2 / (4 * blend)
    _add(layer, window, _solid(union, half * hip.scale, shell * (0.75 + 0.25 * density), filling * density, window))
    frame = np.stack([across, hip.axis]) * hip.scale
    _add(layer, window, density * draw_ridges(window, _trabeculae(hip, frame), 0.7 * hip.scale))
    return layer


def _trabeculae(hip: Hip, frame: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    """Bundles of the neck: pressure rays from the inner cortex to the head, tension arcs from the outer one."""
    center = np.linalg.solve(frame.T, hip.head - hip.intersection)
    radius = 0.86 * hip.shape.head_mm
    bundles = []
    for k in np.linspace(0, 1, 8):
        low, top = np.array([-21 + 4 * k, 16 - 20 * k]), center + radius * np.array([0.62 * k - 0.42, -0.9 + 0.05 * k])
        bundles.append((np.array([low, 0.5 * (low + top) + (2.0, 1.0), top]), 1.6))
    for k in np.linspace(0, 1, 6):
        end = center + radius * np.array([-0.75, 0.15 + 0.5 * k])
        middle = np.array([-11 - 3 * k, -19 + 9 * k])
        bundles.append((np.array([(20 - 2 * k, 22 - 14 * k + 12 * k * k), (8 - 3 * k, -8 + 6 * k), middle, end]), 1.1))
    rise = np.array([0.2, 1.0, 0.9, 0.7, 0.2])
    return [(hip.intersection + points @ frame, height * rise) for points, height in bundles]


def _spine(pelvis: Pelvis, grid: Grid, density: float) -> Raster:
    layer = np.zeros(grid.shape, np.float32)
    scale = pelvis.shape.scale
    window = grid.window(pelvis.sacrum.samples(4.0), 6.0)
    if 0 in window.shape:
        return layer
    top, tip = pelvis.project([(0, -104, -32), (0, -6, -84)])
    way = (
        (window.x - float(top[0])) * float(tip[0] - top[0]) + (window.y - float(top[1])) * float(tip[1] - top[1])
    ) / (float((tip - top) @ (tip - top)))
    thin = 1 - 0.55 * np.clip(way, 0, 1)
    solid = _solid(signed_distance(pelvis.sacrum, window), 9.0 * scale * thin, 0.75 * thin, 0.20 * density, window)
    rims: list[tuple[FloatArray, FloatArray]] = []
    for level, (u, down, size) in enumerate([(22, -84, 6.5), (19.5, -65, 5.8), (16.5, -48, 5.0), (13, -33, 4.0)]):
        for sign in (-1.0, 1.0):
            center = pelvis.project([(sign * u, down, -60.0 - 8 * level)])[0]
            radius = window.radius(center) / (size * scale)
            solid *= 1 - 0.45 * np.exp(-np.minimum(radius**4, 50))
            arc = np.linspace(-2.6, -0.4, 7)
            rims.append((center + 1.05 * size * scale * np.stack([np.cos(arc), np.sin(arc)], 1), _ARCH))
    lines = draw_ridges(window, rims, 0.8 * scale)
    crest = pelvis.project([(0, v, -95.0) for v in (-96, -80, -62, -45, -28)])
    tail = pelvis.project([(0.0, v, z) for v, z in ((-6, -84), (3, -80), (11, -72), (17, -64))])
    knobs = [(crest, np.array([3, 1, 3, 0.5, 2.5, 0.5, 1.0])), (tail, np.array([3.0, 3.5, 1, 3.2, 0.8, 2.4, 0.3]))]
    _add(layer, window, solid + lines + draw_ridges(window, knobs, 2.0 * scale))
    for level, v in enumerate(_VERTEBRAE):
        _vertebra(layer, pelvis, grid, v, density, 1.0 - 0.03 * level)
    _pedicles(layer, pelvis, grid)
    return layer


_VERTEBRAE = (-123.0, -159.0, -195.0)
_ARCH = 2.6 * np.array([0.0, 0.8, 1.0, 0.8, 0.0])


def _vertebra(layer: Raster, pelvis: Pelvis, grid: Grid, v: float, density: float, wide: float) -> None:
    """One lumbar vertebra: body with bright endplates, transverse processes, spinous process."""
    scale = pelvis.shape.scale
    lip = 1.5 * pelvis.shape.age
    body = [(-24 - lip, -13), (-12, -13.6), (0, -12.8), (12, -13.6), (24 + lip, -13), (23, -7), (22.4, 0), (23, 7)]
    body += [(25 + lip, 13), (12, 14), (0, 13.2), (-12, 14), (-25 - lip, 13), (-23, 7), (-22.4, 0), (-23, -7)]
    body = [(wide * a, b) for a, b in body]
    process = [(18, -5), (30, -8), (44, -10), (47, -6), (43, -3), (30, -1), (18, 4)]
    outlines = [(body, 10.0, 1.1, 0.18)]
    outlines += [([(sign * a, b) for a, b in process], 4.0, 1.0, 0.15) for sign in (-1, 1)]
    outlines += [([(-3, -2), (3, -2), (4.5, 9), (3.5, 17), (0, 19.5), (-3.5, 17), (-4.5, 9)], 5.0, 1.3, 0.22)]
    for points, half, shell, filling in outlines:
        curve = Curve(pelvis.project([(a, v + b, -35.0) for a, b in points]), closed=True)
        window = grid.window(curve.samples(4.0))
        if 0 not in window.shape:
            distance = signed_distance(curve, window)
            _add(layer, window, _solid(distance, half * scale, shell, filling * density, window))


def _pedicles(layer: Raster, pelvis: Pelvis, grid: Grid) -> None:
    """Pedicles seen end-on: a pair of rings on each vertebra."""
    turn = np.linspace(0, 2 * np.pi, 13)
    ring = np.stack([4.2 * np.cos(turn), 5.6 * np.sin(turn), 0 * turn], 1)
    rings = [pelvis.project(ring + np.array([17.0 * sign, v - 5, -45.0])) for sign in (-1, 1) for v in _VERTEBRAE]
    window = grid.window(np.vstack(rings), 6.0)
    if 0 not in window.shape:
        scale = pelvis.shape.scale
        _add(layer, window, draw_ridges(window, [(points, np.array([3.5, 3.5])) for points in rings], 0.8 * scale))
