"""An elastic warp that moves film and landmarks together; MONAI's elastic warps leave points 1-10 px behind."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch.nn import functional

from monai_landmark.data.geometry import swap_xy

__all__ = ["RandElasticLandmarksd", "displaced_points", "warp_by_displacement"]

_FIXED_POINT_STEPS = 60
_REACH_CELLS = 0.15  # bicubic splines through values of +-0.15 cells change by less than 0.9 pixels per pixel


def _at(field: torch.Tensor, points: torch.Tensor, mode: str = "bilinear", padding: str = "border") -> torch.Tensor:
    """Values of ``(C, H, W)`` at ``(N, M, 2)`` (x, y) pixels -> ``(C, N, M)``."""
    size = swap_xy(torch.tensor(field.shape[-2:], dtype=points.dtype, device=points.device))
    normalized = 2.0 * points / (size - 1.0) - 1.0
    sampled = functional.grid_sample(
        field[None].to(points.dtype), normalized[None], mode=mode, padding_mode=padding, align_corners=True
    )
    return sampled[0]


def warp_by_displacement(image: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Sample an image at every pixel plus a displacement: ``out(p) = image(p + u(p))``.

    Args:
        image: ``(C, H, W)``.
        displacement: ``(2, H, W)``, (x, y) in pixels.

    Returns:
        ``(C, H, W)``, edges repeated beyond the border.
    """
    rows, cols = (torch.arange(n, dtype=displacement.dtype) for n in image.shape[-2:])
    y, x = torch.meshgrid(rows, cols, indexing="ij")
    return _at(image, torch.stack([x, y], dim=-1) + displacement.permute(1, 2, 0)).to(image.dtype)


def displaced_points(points: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Where points of the image lie after :func:`warp_by_displacement`: the q with ``q + u(q) = p``.

    Solved by the fixed point q <- p - u(q), which contracts while u changes by less than a pixel per pixel.

    Args:
        points: ``(K, 2)`` (x, y) pixels; NaN stays NaN.
        displacement: ``(2, H, W)``, (x, y) in pixels.

    Returns:
        ``(K, 2)`` (x, y) pixels of the warped image.
    """
    found = points.clone()
    for _ in range(_FIXED_POINT_STEPS):
        found = points - _at(displacement, found[None].nan_to_num())[:, 0].T
    return found


class RandElasticLandmarksd(RandomizableTransform, MapTransform):
    """Bend a film smoothly and take its landmarks along exactly.

    Displacements are drawn on a coarse grid and interpolated by bicubic splines. The images' affine is not true after
    it, so it comes last among the spatial transforms, when landmarks are pixels of the grid already.

    Args:
        keys: keys of the images.
        landmarks_key: key of ``(K, 2)`` landmarks, (x, y) in pixels of the images' grid.
        cells: cells of the coarse grid along the longer side.
        magnitude_px: standard deviation of the coarse displacements, in pixels; none is longer than 0.15 cells along
            an axis, so that the warp never folds.
        prob: how often.
    """

    def __init__(
        self,
        keys: KeysCollection,
        landmarks_key: str = "landmarks",
        cells: int = 5,
        magnitude_px: float = 3.0,
        prob: float = 0.5,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.landmarks_key, self.cells, self.magnitude_px = landmarks_key, cells, magnitude_px
        self._coarse: torch.Tensor | None = None

    def randomize(self, size: tuple[int, int]) -> None:
        """Decide whether to bend, and draw the coarse displacements.

        Args:
            size: ``(H, W)`` of the grid.
        """
        super().randomize(None)
        cell = max(size) / self.cells
        shape = (2, *(max(2, round(n / cell)) + 1 for n in size))
        drawn = self.R.normal(0.0, self.magnitude_px, size=shape)
        # neighbors may not cross: the warp stays invertible while displacements change by less than a pixel per pixel
        self._coarse = torch.from_numpy(drawn.clip(-_REACH_CELLS * cell, _REACH_CELLS * cell))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bend one item, or leave it.

        Args:
            data: an item with images and landmarks on their grid.

        Returns:
            The item, bent or not.
        """
        bent = dict(data)
        size = tuple(bent[self.keys[0]].shape[-2:])
        self.randomize(size)
        if not self._do_transform or self._coarse is None:
            return bent
        displacement = functional.interpolate(self._coarse[None], size, mode="bicubic", align_corners=True)[0]
        for key in self.keys:
            plain = convert_to_tensor(bent[key], track_meta=False)
            warped = warp_by_displacement(plain, displacement.to(torch.float32))
            bent[key] = convert_to_dst_type(warped, bent[key])[0]  # the film that came in stays as it was
        points = torch.as_tensor(bent[self.landmarks_key], dtype=torch.float64)
        bent[self.landmarks_key] = displaced_points(points, displacement)
        return bent
