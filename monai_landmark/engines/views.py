"""Test-time augmentation with exact inverse: a film is seen turned and scaled, and the maps are turned back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch.nn import functional

from monai_landmark.engines.precision import PrecisionInferer

__all__ = ["ViewInferer", "view_matrix"]


def view_matrix(rotation_deg: float, scale: float, size: tuple[int, int]) -> torch.Tensor:
    """Affine of one view about the center of the grid, in :func:`torch.nn.functional.affine_grid`'s coordinates.

    Args:
        rotation_deg: by how much the film is turned.
        scale: above 1 the film is seen smaller.
        size: ``(H, W)`` of the grid; angles are true on a grid that is not square.

    Returns:
        ``(3, 3)``.
    """
    height, width = size
    cos, sin = (scale * f(math.radians(rotation_deg)) for f in (math.cos, math.sin))
    return torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0], [0.0, 0.0, 1.0]])


class ViewInferer(Inferer):
    """Average the logits of several views of a film, each map warped back onto the film's own grid.

    A mean of logits is the geometric mean of the views' probabilities, up to a constant that normalization takes out.

    Args:
        views: ``(rotation in degrees, scale)`` of each; a single ``(0, 1)`` is the plain network.
        inferer: runs the network on a batch.
    """

    def __init__(self, views: Sequence[Sequence[float]] = ((0.0, 1.0),), inferer: Inferer | None = None) -> None:
        super().__init__()
        self.views = [(float(rotation), float(scale)) for rotation, scale in views]
        self.inferer = inferer or PrecisionInferer()

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the network on every view.

        Args:
            inputs: ``(B, C, H, W)``.
            network: a landmark network.
            *args: passed on.
            **kwargs: passed on.

        Returns:
            ``(B, K, H, W)`` logits.
        """
        film = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs
        size = (int(film.shape[-2]), int(film.shape[-1]))
        mean = torch.zeros(())
        for view in self.views:  # one at a time: on a CPU half again as fast as all in one batch, and small in memory
            there = view_matrix(*view, size).to(film)
            plain = view == (0.0, 1.0)
            maps = self.inferer(film if plain else _warp(film, there), network, *args, **kwargs)
            mean = mean.to(maps) + (maps if plain else _warp(maps, torch.linalg.inv(there))) / len(self.views)
        return mean


def _warp(image: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Sample ``(B, C, H, W)`` under one ``(3, 3)`` affine, edges repeated."""
    grid = functional.affine_grid(matrix[None, :2].expand(len(image), -1, -1), list(image.shape), align_corners=False)
    return functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
