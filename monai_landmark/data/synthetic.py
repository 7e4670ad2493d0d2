"""Synthetic X-ray films of a pelvis with hips, whose landmarks are known exactly: the default of demo, docs and tests.

The anatomy is drawn from a low-dimensional population (:mod:`.synthetic_shape`, :mod:`.synthetic_anatomy`),
rendered as thickness of bone and soft tissue (:mod:`.synthetic_bones`, :mod:`.synthetic_tissue`) and exposed
(:mod:`.synthetic_physics`). Landmarks come from the curves, never from the raster.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_landmark.errors import ConfigurationError
from monai_landmark.files import file_sha256

from .datalist import Datalist, landmarks_json, save_datalist
from .spacing import check_spacing
from .synthetic_anatomy import LANDMARK_NAMES, Pelvis, build_pelvis
from .synthetic_bones import bone_layers, mottle
from .synthetic_curves import FloatArray, Grid, Raster
from .synthetic_physics import Exposure, draw_exposure, expose
from .synthetic_shape import draw_shape
from .synthetic_tissue import tissue_layers

__all__ = ["LANDMARK_NAMES", "SyntheticFilm", "render_layers", "synthesize_film", "write_synthetic_dataset"]

DEFAULT_SIZE = (640, 512)
# What a film must hold around the point between the femoral heads: to the sides, above, below.
_REACH_MM = (174.0, 172.0, 150.0)
_LEAST_SIZE = (200, 216)


@dataclass(frozen=True)
class SyntheticFilm:
    """A film and the truth about it.

    Args:
        pixels: ``(H, W)`` uint16, upright, bright = dense.
        landmarks_mm: ``(K, 2)`` (x, y) in mm from the center of the top-left pixel, NaN outside the exposed field.
        spacing_mm: ``(row_mm, col_mm)``.
        seed: what the film was made from.
        marker: lead letter on the film, "L" or "R", on that side of the patient.
        ball_mm: (x, y) of a calibration ball between the thighs, or None.
    """

    pixels: NDArray[np.uint16]
    landmarks_mm: FloatArray
    spacing_mm: tuple[float, float]
    seed: int
    marker: str
    ball_mm: tuple[float, float] | None

    @property
    def landmarks_px(self) -> FloatArray:
        """``(K, 2)`` (x, y) in pixels of the film."""
        return self.landmarks_mm / self.spacing_mm[::-1]


@dataclass(frozen=True)
class _Scene:
    grid: Grid
    pelvis: Pelvis
    exposure: Exposure
    tissue_seed: Any
    noise_seed: Any


def synthesize_film(
    seed: int, size: tuple[int, int] = DEFAULT_SIZE, spacing_mm: tuple[float, float] | None = None
) -> SyntheticFilm:
    """Make a film.

    Args:
        seed: the same seed, size and spacing give the same film.
        size: ``(H, W)`` in pixels.
        spacing_mm: ``(row_mm, col_mm)``; when None, drawn so that pelvis and hips fit.

    Returns:
        The film with its landmarks.

    Raises:
        ConfigurationError: the size is too small to hold a pelvis with pixels of 2 mm or less.
        FilmError: a given spacing is not two numbers within 0.01..2 mm.
    """
    scene = _scene(seed, size, spacing_mm)
    layers = _scene_layers(scene)
    image = expose(layers, scene.exposure, scene.grid, np.random.default_rng(scene.noise_seed))
    landmarks = scene.pelvis.landmarks_mm.copy()
    landmarks[~_on_film(landmarks, scene)] = np.nan
    return SyntheticFilm(
        pixels=np.rint(np.clip(image, 0, 1) * 65535).astype(np.uint16),
        landmarks_mm=landmarks,
        spacing_mm=scene.grid.spacing_mm,
        seed=seed,
        marker=scene.exposure.marker,
        ball_mm=scene.exposure.ball_mm,
    )


def render_layers(
    seed: int, size: tuple[int, int] = DEFAULT_SIZE, spacing_mm: tuple[float, float] | None = None
) -> dict[str, Raster]:
    """The noise-free layers under a film, for tests and figures.

    Args:
        seed: as for :func:`synthesize_film`.
        size: ``(H, W)`` in pixels.
        spacing_mm: ``(row_mm, col_mm)``. The anatomy depends on the seed and its place on the size of the field in
            mm, so the same field at two resolutions shows the same pelvis at the same place.

    Returns:
        ``pelvis_right``, ``pelvis_left``, ``femur_right``, ``femur_left``, ``spine`` (mm of compact bone), ``(H, W)``.

    Raises:
        ConfigurationError, FilmError: see :func:`synthesize_film`.
    """
    scene = _scene(seed, size, spacing_mm)
    return bone_layers(scene.pelvis, scene.grid)


def _scene(seed: int, size: tuple[int, int], spacing_mm: tuple[float, float] | None) -> _Scene:
    anatomy, geometry, taking, tissue, noise = np.random.SeedSequence(seed).spawn(5)
    shape = draw_shape(np.random.default_rng(anatomy))
    random = np.random.default_rng(geometry)
    aside, lift, astray = random.normal(0, 4.0), random.normal(0, 5.0), random.uniform()
    reach = [shape.scale * mm for mm in _REACH_MM]
    mm = _draw_spacing(random, reach, size) if spacing_mm is None else check_spacing(spacing_mm, field="spacing_mm")
    grid = Grid((int(size[0]), int(size[1])), mm)
    height, width = size[0] * mm[0], size[1] * mm[1]
    spare = max(height - reach[1] - reach[2], 0.0)
    # Now and then the patient lies too high on the film and the iliac crests are cut off.
    above = reach[1] - (22.0 + 250.0 * astray if astray < 0.1 else -0.4 * spare)
    origin = (float(width / 2 + aside), float(above + lift))
    exposure = draw_exposure(np.random.default_rng(taking), grid, origin)
    return _Scene(grid, build_pelvis(shape, origin), exposure, tissue, noise)


def _draw_spacing(random: np.random.Generator, reach: list[float], size: tuple[int, int]) -> tuple[float, float]:
    """Pixels just large enough to hold pelvis and hips; not quite square on every fifth film."""
    if size[0] < _LEAST_SIZE[0] or size[1] < _LEAST_SIZE[1]:
        raise ConfigurationError(
            "a film too small for a pelvis in pixels of 2 mm",
            field="size",
            value=size,
            expected=f"at least {_LEAST_SIZE[0]} x {_LEAST_SIZE[1]} (H x W)",
            action="make larger films and resize them, or give spacing_mm for a part of the pelvis",
        )
    pitch = max(2 * reach[0] / size[1], (reach[1] + reach[2]) / size[0]) * random.uniform(1.0, 1.06)
    uneven = random.uniform(0.97, 1.03) if random.uniform() < 0.2 else 1.0
    return round(pitch, 4), round(pitch * uneven, 4)


def _scene_layers(scene: _Scene) -> dict[str, Raster]:
    random = np.random.default_rng(scene.tissue_seed)
    bone = np.asarray(sum(bone_layers(scene.pelvis, scene.grid).values()), dtype=np.float32)
    grain = 0.07 * mottle(random, scene.grid, 0.45) + 0.05 * mottle(random, scene.grid, 2.2, 6.0)
    layers = tissue_layers(scene.pelvis, scene.grid, random)
    return {**layers, "bone": bone + np.minimum(bone, 9) * grain}


def _on_film(landmarks: FloatArray, scene: _Scene) -> NDArray[np.bool_]:
    """Which landmarks lie on the film and in its exposed field."""
    limit = (np.array(scene.grid.shape) - 1)[::-1] * scene.grid.spacing_mm[::-1]
    on_film = ((landmarks >= 0) & (landmarks <= limit)).all(1)
    return np.asarray(on_film & (scene.exposure.inside(landmarks) > 0))


def write_synthetic_dataset(
    folder: str | PathLike[str],
    *,
    training: int = 10,
    test: int = 20,
    unlabelled: int = 60,
    seed: int = 0,
    size: tuple[int, int] = DEFAULT_SIZE,
    bits: Literal[8, 16] = 8,
) -> Path:
    """Write films as PNG and the datalist that names them.

    Args:
        folder: where to write; made when absent.
        training: number of annotated films to learn from.
        test: number of annotated films to be judged by.
        unlabelled: number of films without landmarks.
        seed: the same seed gives the same data set.
        size: ``(H, W)`` of every film.
        bits: depth of the PNG.

    Returns:
        Path of ``datalist.json``.
    """
    folder = Path(folder)
    (folder / "films").mkdir(parents=True, exist_ok=True)
    counts = {"training": training, "test": test, "unlabelled": unlabelled}
    sections: dict[str, list[dict[str, Any]]] = {}
    number = 0
    for section, count in counts.items():
        sections[section] = []
        for _ in range(count):
            number += 1
            film_seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
            film = synthesize_film(film_seed, size)
            sections[section].append(_write_film(folder, number, film, bits, section != "unlabelled"))
    datalist = Datalist(name="synthetic", schema="synthetic", root=folder, sections=sections, reader="exact")
    save_datalist(datalist, folder / "datalist.json")
    return folder / "datalist.json"


def _write_film(folder: Path, number: int, film: SyntheticFilm, bits: int, annotated: bool) -> dict[str, Any]:
    """One PNG and its item for the datalist."""
    name = f"synthetic-{number:04d}"
    path = folder / "films" / f"{name}.png"
    pixels = film.pixels if bits == 16 else np.rint(film.pixels / 257.0).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    item: dict[str, Any] = {
        "image": f"films/{name}.png",
        "id": name,
        "patient": name,
        "size": list(film.pixels.shape),
        "spacing": list(film.spacing_mm),
        "spacing_source": "user",
        "sha256": file_sha256(path),
    }
    if annotated:
        item["landmarks"] = landmarks_json(film.landmarks_px)
        item["visibility"] = [0 if point is None else 2 for point in item["landmarks"]]
    return item
