"""A film of any size onto the network's grid, without squashing it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Resize, ResizeWithPadOrCrop, Transform

__all__ = ["FitFilm", "FitFilmD", "FitFilmDict", "FitFilmd"]


class FitFilm(Transform):
    """Scale a film onto a grid without squashing it: all of it, its edge repeated evenly around it, or the grid full.

    Pixels are averaged over area, so nothing aliases; the affine follows every step. Spacing that differs between
    rows and columns is evened out: a step on the grid is the same length both ways.

    Args:
        spatial_size: ``(H, W)`` of the grid.
        mode: ``"area"``, or ``"nearest-exact"`` for labels, which must not be mixed.
        cover: fill the grid and cut off evenly what of the film stands out, instead of padding.
    """

    def __init__(self, spatial_size: tuple[int, int], mode: str = "area", cover: bool = False) -> None:
        self.spatial_size, self.mode, self.cover = tuple(spatial_size), mode, cover
        self._pad = ResizeWithPadOrCrop(self.spatial_size, mode="edge")

    def __call__(self, film: MetaTensor) -> MetaTensor:
        """Fit one film.

        Args:
            film: ``(C, H, W)`` with its affine.

        Returns:
            ``(C, *spatial_size)``.
        """
        rows_mm, cols_mm = film.affine[:2, :2].norm(dim=0).tolist()
        extent = film.shape[-2] * rows_mm, film.shape[-1] * cols_mm
        steps = [length / size for length, size in zip(extent, self.spatial_size, strict=True)]
        step = min(steps) if self.cover else max(steps)
        size = [max(1, round(length / step)) for length in extent]
        fitted: MetaTensor = self._pad(Resize(size, mode=self.mode)(film))
        return fitted


class FitFilmd(MapTransform):
    """Dictionary form of :class:`FitFilm`.

    Args:
        keys: keys of the films.
        spatial_size: ``(H, W)`` of the grid.
        mode: see :class:`FitFilm`.
        cover: likewise.
        allow_missing_keys: see :class:`monai.transforms.MapTransform`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: tuple[int, int],
        mode: str = "area",
        cover: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.fit = FitFilm(spatial_size, mode, cover)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Fit the films of one item.

        Args:
            data: an item with films under the keys.

        Returns:
            The item with the films on the grid.
        """
        fitted = dict(data)
        for key in self.key_iterator(fitted):
            fitted[key] = self.fit(fitted[key])
        return fitted


FitFilmD = FitFilmDict = FitFilmd
