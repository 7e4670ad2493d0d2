"""Landmarks of annotated films found again on another film by what their places look like to a frozen network.

After FM-OSD (Miao et al., MICCAI 2024), which matches features of a frozen network from coarse to fine, without its
trained decoders. A false match is told by the other landmarks, as in :mod:`monai_landmark.transforms.shape`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from monai_landmark.data.geometry import mm_to_grid
from monai_landmark.study.frozen_films import FilmMaps, pooled_vector
from monai_landmark.transforms import DecodeHeatmap, LandmarkShape

__all__ = ["DenseMatcher", "Template", "matching_levels", "similarity_maps"]

FloatArray = NDArray[np.float64]
Maps = dict[str, torch.Tensor]

_FINEST = 160  # cells along the film's longer side; finer maps show texture, not anatomy
_STAGES = 3
_SHARPNESS = 30.0  # of the similarity, as the inverse temperature of a soft-max
_WINDOW = 2.0  # cells; of the local soft-argmax
_GATE = 3.0  # how many times its usual distance a landmark may be off before the others are believed
_USUAL = 0.1  # that distance where no films tell it, as a share of the shape's size
_SUREST = 0.5  # pixels of the grid; the least of it


def matching_levels(levels: Mapping[str, torch.Tensor]) -> Maps:
    """Maps that places are compared by: all that are not too fine, normalized.

    Each channel gets mean 0 and deviation 1 over the film, then each cell length 1, so that a product of two cells is
    a cosine and no channel outshouts the others.

    Args:
        levels: level -> ``(C, h, w)``.

    Returns:
        Level -> ``(C, h, w)``; the coarsest where all are too fine.
    """
    sizes = {max(maps.shape[-2:]) for maps in levels.values()}
    finest = max([size for size in sizes if size <= _FINEST], default=min(sizes))
    normalized = {}
    for level, maps in levels.items():
        if max(maps.shape[-2:]) <= finest:
            spread, mean = torch.std_mean(maps, dim=(-2, -1), keepdim=True)
            normalized[level] = functional.normalize((maps - mean) / spread.clamp_min(1e-6), dim=0)
    return normalized


def similarity_maps(looks: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """How like each landmark every cell looks.

    Args:
        looks: ``(K, C)``.
        maps: ``(C, h, w)``.

    Returns:
        ``(K, h, w)`` cosines where both are of length 1.
    """
    return torch.einsum("kc,chw->khw", looks, maps)


@dataclass(frozen=True, eq=False)
class Template:
    """What is kept of an annotated film.

    Attributes:
        vector: ``(D,)``, see :func:`pooled_vector`.
        share: ``(K, 2)`` landmarks (x, y) as a share of the film's width and height; NaN where not annotated.
        on_grid: ``(K, 2)`` the same in pixels of the grid.
        looks: level -> ``(K, C)`` the feature vector at each landmark, of length 1; 0 where not annotated.
    """

    vector: FloatArray
    share: FloatArray
    on_grid: FloatArray
    looks: Maps

    @classmethod
    def of(cls, film: FilmMaps, share: FloatArray) -> Template:
        """The template of a film.

        Args:
            film: with landmarks.
            share: ``(K, 2)``, see above.

        Returns:
            The template.
        """
        points = mm_to_grid(torch.as_tensor(film.landmarks_mm), film.image.affine)
        height, width = film.image.shape[-2:]
        looks = {
            level: _looks_at(points, maps, (height, width)) for level, maps in matching_levels(film.levels).items()
        }
        return cls(pooled_vector(film.levels), share, points.numpy(), looks)


def _looks_at(points: torch.Tensor, maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """``(K, C)`` bilinear between cells; 0 where there is no point."""
    annotated = points.isfinite().all(-1)
    extent = points.new_tensor([size[1], size[0]])
    where = torch.where(annotated[:, None], 2 * (points + 0.5) / extent - 1, 0.0).to(maps)
    sampled = functional.grid_sample(maps[None], where[None, None], padding_mode="border", align_corners=False)
    return functional.normalize(sampled[0, :, 0].T, dim=-1) * annotated[:, None]


class DenseMatcher:
    """Finds the landmarks of the most similar annotated films on another film, from coarse to fine.

    Each of the last three resolutions is a stage. A stage adds up the similarity at its own and all coarser levels,
    believes it less the farther a place lies from where the stage before (first: the templates) put the landmark, and
    decodes it. Between stages a landmark that lies far from where the others put it starts from there instead.
    With several templates the similarity is their mean, which is the vote of all of them.

    Args:
        templates: the annotated films.
        used: how many of them, the most similar ones, look for each landmark.
        reach: standard deviation of a landmark's place as a share of the film's diagonal, halved from stage to stage.
    """

    def __init__(self, templates: Sequence[Template], used: int, reach: float) -> None:
        self.templates, self.used, self.reach = list(templates), used, reach
        self._vectors = np.stack([template.vector for template in templates])
        self._shares = np.stack([template.share for template in templates])
        self._decode = DecodeHeatmap(from_logits=True, window_px=_WINDOW)
        shape = LandmarkShape.fit([template.on_grid for template in templates])
        # films annotated alike to the digit would make a landmark surer than any person is
        self._shape = None if shape is None else LandmarkShape(shape.mean, np.maximum(shape.residual, _SUREST))

    def __call__(self, film: FilmMaps, place: FloatArray) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the landmarks.

        Args:
            film: the film.
            place: ``(T, K, 2)`` where the landmarks of each template would lie on the film, in pixels of its grid.

        Returns:
            ``(K, 2)`` (x, y) in pixels of the grid, NaN for a landmark that no film has annotated, and ``(K,)``
            likeness in [0, 1]: the cosine at the place that was found, 0 without a place.
        """
        chosen = self._chosen(film)
        maps = matching_levels(film.levels)
        looks = {level: self._mean_looks(level, chosen) for level in maps}
        found = torch.from_numpy(_weighted(place, chosen))
        shape = self._shape or _shape_of_few(_weighted(np.stack([t.on_grid for t in self.templates]), chosen))
        size, widths = film.image.shape[-2:], sorted({maps_.shape[-1] for maps_ in maps.values()})[-_STAGES:]
        deviation, likeness = self.reach * math.hypot(*size), torch.zeros(len(found))
        for stage, width in enumerate(widths):
            start = found if stage == 0 else _believable(found, shape)
            level_maps = {level: level_maps for level, level_maps in maps.items() if level_maps.shape[-1] <= width}
            similarity = _similarity(looks, level_maps)
            found, likeness = self._found(similarity, start, (size[0], size[1]), deviation / 2**stage)
        return found, likeness

    def _chosen(self, film: FilmMaps) -> FloatArray:
        """``(T, K)`` weights: equal for the most similar films among those that have the landmark, 0 for the others."""
        order = np.argsort(-(self._vectors @ pooled_vector(film.levels)), kind="stable")
        annotated = np.isfinite(self._shares[order]).all(axis=-1)
        weights = np.zeros(self._shares.shape[:2])
        weights[order] = np.where(annotated, annotated.cumsum(axis=0) <= self.used, 0)
        return weights

    def _mean_looks(self, level: str, weights: FloatArray) -> torch.Tensor:
        every = torch.stack([template.looks[level] for template in self.templates])
        chosen = torch.from_numpy(weights).to(every)[..., None]
        return (every * chosen).sum(0) / chosen.sum(0).clamp_min(1)

    def _found(
        self, similarity: torch.Tensor, start: torch.Tensor, size: tuple[int, int], deviation: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points in pixels of the grid, and the similarity there, from ``(K, h, w)`` maps."""
        rows, cols = similarity.shape[-2:]
        step = start.new_tensor([size[1] / cols, size[0] / rows])
        x, y = (torch.arange(count) for count in (cols, rows))
        offset_x = (x + 0.5) * step[0] - 0.5 - start[:, 0, None]
        offset_y = (y + 0.5) * step[1] - 0.5 - start[:, 1, None]
        log_prior = -(offset_x[:, None, :] ** 2 + offset_y[:, :, None] ** 2) / (2 * deviation**2)
        cells = self._decode(_SHARPNESS * similarity.double() + log_prior)
        seen = cells.isfinite().all(-1)
        nearest = torch.where(seen[:, None], cells, 0.0).round().long()
        column, row = nearest[:, 0].clamp(0, cols - 1), nearest[:, 1].clamp(0, rows - 1)
        likeness = similarity[torch.arange(len(similarity)), row, column].clamp(0, 1)
        return (cells + 0.5) * step - 0.5, torch.where(seen, likeness, 0.0)


def _weighted(points: FloatArray, weights: FloatArray) -> FloatArray:
    """``(K, 2)`` mean of ``(T, K, 2)`` points, NaN where no weight is."""
    total = weights.sum(axis=0)[:, None]
    summed = (np.nan_to_num(points) * weights[..., None]).sum(axis=0)
    return np.where(total > 0, summed / np.maximum(total, 1), np.nan)


def _shape_of_few(points: FloatArray) -> LandmarkShape:
    """The shape where there are too few films to learn one: that of these, every landmark as sure as the others."""
    centered = points - np.nanmean(points, axis=0)
    size = np.sqrt(np.nanmean((centered**2).sum(axis=-1)))
    return LandmarkShape(centered, np.full(len(points), _USUAL * size))


def _believable(points: torch.Tensor, shape: LandmarkShape) -> torch.Tensor:
    """The points, but those far from where the others put them lie there."""
    expected = shape.expected(points.numpy())
    if expected is None:
        return points
    places, usual = (torch.from_numpy(values).to(points) for values in expected)
    far = torch.linalg.vector_norm(points - places, dim=-1) > _GATE * usual
    return torch.where(far[:, None], places, points)


def _similarity(looks: Mapping[str, torch.Tensor], maps: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """``(K, h, w)`` mean similarity over levels, on the finest of their grids."""
    size = max((level_maps.shape[-2:] for level_maps in maps.values()), key=math.prod)
    every = []
    for level, level_maps in maps.items():
        similarity = similarity_maps(looks[level], level_maps)
        if similarity.shape[-2:] != size:
            similarity = functional.interpolate(similarity[None], size=size, mode="bilinear", align_corners=False)[0]
        every.append(similarity)
    return torch.stack(every).mean(0)
