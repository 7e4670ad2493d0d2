"""Landmark detectors without training: what a trained network must beat at each number of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_landmark.data.datalist import landmarks_array
from monai_landmark.data.geometry import film_affine, grid_to_mm, mm_to_grid
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import AnnotationError, ConfigurationError
from monai_landmark.networks import FrozenFeatures
from monai_landmark.results.collect import landmark_result
from monai_landmark.results.result import LandmarkResult
from monai_landmark.study.dense_matching import DenseMatcher, Template
from monai_landmark.study.frozen_films import FilmReader
from monai_landmark.study.grid import BASELINES
from monai_landmark.transforms import LoadRadiographd

__all__ = ["BASELINES", "GRID", "MeanShape", "NearestFilm", "baseline_results"]

GRID = (640, 512)  # of NearestFilm; see there
TEMPLATES = 10
REACH = 0.05

FloatArray = NDArray[np.float64]
Item = Mapping[str, Any]


def baseline_results(
    baseline: str,
    labeled: Sequence[Item],
    films: Sequence[Item],
    schema: LandmarkSchema,
    network: FrozenFeatures | None = None,
    spatial_size: Sequence[int] = GRID,
    templates: int = TEMPLATES,
    reach: float = REACH,
) -> list[LandmarkResult]:
    """Landmarks of films from a few annotated ones, without training.

    Args:
        baseline: ``mean_shape``, see :class:`MeanShape`, or ``nearest_film``, see :class:`NearestFilm`.
        labeled: annotated items, see :func:`monai_landmark.data.datalist.load_datalist`.
        films: the items to find the landmarks of.
        schema: the landmarks' names.
        network: of ``nearest_film``: whose features are compared.
        spatial_size: of ``nearest_film``: (H, W) of the network's grid.
        templates: of ``nearest_film``: how many annotated films look for each landmark.
        reach: of ``nearest_film``: see :class:`~monai_landmark.study.dense_matching.DenseMatcher`.

    Returns:
        One result for each film, in their order, in pixels of the original film.

    Raises:
        ConfigurationError: if there is no such baseline, no annotated film, no network where one is needed, or a film
            is both annotated for the detector and to be measured.
        AnnotationError: if landmarks do not fit the schema.
        FilmError: if a film cannot be read truthfully.
    """
    if twice := sorted({str(item["image"]) for item in labeled} & {str(item["image"]) for item in films}):
        raise ConfigurationError(
            "a film cannot tell its own landmarks",
            field="labeled, films",
            value=", ".join(Path(name).name for name in twice),
            expected="films to measure that are not among the labelled ones",
        )
    detect: Callable[[Item], LandmarkResult]
    if baseline == "mean_shape":
        detect = MeanShape(labeled, schema)
    elif baseline == "nearest_film" and network is not None:
        detect = NearestFilm(labeled, schema, network, spatial_size, templates, reach)
    elif baseline == "nearest_film":
        raise ConfigurationError("nearest_film compares a network's features", field="network", action="give a network")
    else:
        expected = " | ".join(BASELINES)
        raise ConfigurationError("unknown baseline", field="baseline", value=baseline, expected=expected)
    return [detect(film) for film in films]


class MeanShape:
    """Puts the mean of the annotated films' landmarks on a film, as shares of its width and height.

    A landmark that is not annotated on some films is the mean of the others; one that is annotated on none is missing.

    Args:
        labeled: annotated items.
        schema: the landmarks' names.

    Raises:
        ConfigurationError: if there is no annotated film.
        AnnotationError: if landmarks do not fit the schema.
    """

    def __init__(self, labeled: Sequence[Item], schema: LandmarkSchema) -> None:
        self.schema, self._load = schema, LoadRadiographd("image")
        shares = np.stack([_share(item, self._size(item)) for item in _checked(labeled, schema)])
        annotated = np.isfinite(shares).all(axis=-1, keepdims=True)
        total = np.where(annotated, shares, 0).sum(axis=0)
        #: ``(K, 2)`` (x, y) as shares of the film's width and height, NaN where never annotated.
        self.share = np.where(annotated.any(axis=0), total / np.maximum(annotated.sum(axis=0), 1), np.nan)

    def _size(self, item: Item) -> tuple[int, int]:
        """(H, W) as the datalist says, else of the film."""
        size = item.get("size") or self._load({"image": item["image"]})["image"].shape[-2:]
        return int(size[0]), int(size[1])

    def __call__(self, film: Item) -> LandmarkResult:
        """Landmarks of one film.

        Args:
            film: its item.

        Returns:
            The result, without confidence.
        """
        meta = self._load({key: film[key] for key in ("image", "spacing", "spacing_source") if key in film})[
            "image"
        ].meta
        points = torch.from_numpy(_placed(self.share, meta))
        return landmark_result(film["id"], _mm(points, meta), None, meta, self.schema, {"architecture": "mean_shape"})


class NearestFilm:
    """Finds the landmarks of the most similar annotated films again, by features of a frozen network.

    The defaults were chosen on 30 ISBI films of 001-150, with 10 other films of 001-150 annotated, and
    ``tf_efficientnet_lite0`` from ImageNet: error 1.76 mm on a 640 x 512 grid (2.17 on 320 x 256) with 10 templates
    (2.40 with one, 1.93 with three); a reach of 0.03 or 0.07 changes it by less than 0.02 mm.

    Args:
        labeled: annotated items.
        schema: the landmarks' names.
        network: whose features are compared; levels that are too fine are left out.
        spatial_size: (H, W) of the network's grid.
        templates: how many annotated films, the most similar ones, look for each landmark.
        reach: see :class:`~monai_landmark.study.dense_matching.DenseMatcher`.

    Raises:
        ConfigurationError: if there is no annotated film, or ``templates`` or ``reach`` is not positive.
        AnnotationError: if landmarks do not fit the schema.
        FilmError: if a film cannot be read truthfully.
    """

    def __init__(
        self,
        labeled: Sequence[Item],
        schema: LandmarkSchema,
        network: FrozenFeatures,
        spatial_size: Sequence[int] = GRID,
        templates: int = TEMPLATES,
        reach: float = REACH,
    ) -> None:
        for name, value in (("templates", templates), ("reach", reach)):
            if value <= 0:
                raise ConfigurationError("must be positive", field=name, value=value)
        self.schema, self._read = schema, FilmReader(network, spatial_size)
        films = [self._read(item) for item in _checked(labeled, schema)]
        shares = [_share(film.item, film.image.meta["original_size"]) for film in films]
        self._shares = np.stack(shares)
        self._match = DenseMatcher(
            [Template.of(film, share) for film, share in zip(films, shares, strict=True)], templates, reach
        )

    def __call__(self, film: Item) -> LandmarkResult:
        """Landmarks of one film.

        Args:
            film: its item.

        Returns:
            The result; its confidence is the cosine between the landmark's features and those of the place found.
        """
        seen = self._read({key: value for key, value in film.items() if key != "landmarks"})
        meta, affine = seen.image.meta, seen.image.affine
        places = mm_to_grid(_mm(torch.from_numpy(_placed(self._shares, meta)), meta), affine)
        points, likeness = self._match(seen, places.numpy())
        card = {"architecture": "nearest_film"}
        return landmark_result(film["id"], grid_to_mm(points, affine), likeness, meta, self.schema, card)


def _checked(labeled: Sequence[Item], schema: LandmarkSchema) -> Sequence[Item]:
    """The annotated films, all of them with as many landmarks as the schema has."""
    if not labeled:
        raise ConfigurationError("no annotated film", field="labeled", value=0, expected="at least 1")
    for item in labeled:
        if len(landmarks_array(item)) != schema.count:
            raise AnnotationError(
                "landmarks do not fit the schema",
                file=item["image"],
                field="landmarks",
                value=len(landmarks_array(item)),
                expected=f"{schema.count}, as schema {schema.name} has",
            )
    return labeled


def _share(item: Item, size: Sequence[int]) -> FloatArray:
    """``(K, 2)`` landmarks as shares of width and height; a pixel's center lies half a pixel from its edge."""
    return (landmarks_array(item) + 0.5) / (size[1], size[0])


def _placed(share: FloatArray, meta: Mapping[str, Any]) -> FloatArray:
    """The inverse of :func:`_share` for a film: ``(..., K, 2)`` in its own pixels."""
    height, width = (int(n) for n in meta["original_size"])
    return share * (width, height) - 0.5


def _mm(points: torch.Tensor, meta: Mapping[str, Any]) -> torch.Tensor:
    """From pixels of the original film to mm (the same where it has no spacing)."""
    row_mm, col_mm = (float(step) for step in meta["spacing_mm"])
    return grid_to_mm(points, film_affine((row_mm, col_mm) if np.isfinite([row_mm, col_mm]).all() else None))
