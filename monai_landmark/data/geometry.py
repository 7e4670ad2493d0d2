"""Film geometry: pixel indices, millimetres in the film plane, and the one place where axes are exchanged.

An image affine maps homogeneous pixel indices ``(row, col, 1)`` to ``(x_mm, y_mm, 1)``; landmarks are ``(x, y)``.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["film_affine", "grid_to_mm", "mm_to_grid", "spacing_of_affine", "swap_xy"]

FloatArray = NDArray[np.float64]
_Points = TypeVar("_Points", NDArray[Any], torch.Tensor)


def swap_xy(points: _Points) -> _Points:
    """Exchange (row, col) and (x, y); nothing else in the package swaps axes.

    Args:
        points: array or tensor whose last axis has length 2.

    Returns:
        The same points with the last axis reversed.
    """
    return torch.flip(points, (-1,)) if isinstance(points, torch.Tensor) else points[..., ::-1]


def film_affine(spacing_mm: tuple[float, float] | None) -> FloatArray:
    """Affine of an upright film whose origin is the centre of its top-left pixel.

    Args:
        spacing_mm: ``(row_mm, col_mm)``, or None for a film without spacing: the unit is then the pixel.

    Returns:
        ``(3, 3)`` matrix that maps ``(row, col, 1)`` to ``(x, y, 1)``.
    """
    row_mm, col_mm = (1.0, 1.0) if spacing_mm is None else spacing_mm
    return np.array([[0.0, col_mm, 0.0], [row_mm, 0.0, 0.0], [0.0, 0.0, 1.0]])


def _affine_2d(affine: Any) -> torch.Tensor:
    """``(3, 3)`` double affine from a ``(3, 3)`` one or from the ``(4, 4)`` that some MONAI transforms leave behind."""
    matrix = torch.as_tensor(affine, dtype=torch.float64)
    if matrix.shape[-1] == 4:
        keep = torch.tensor([0, 1, 3])
        matrix = matrix.index_select(-1, keep).index_select(-2, keep)
    return matrix


def grid_to_mm(points: torch.Tensor, affine: Any) -> torch.Tensor:
    """Landmarks on the pixel grid of an image -> millimetres in the film plane.

    Args:
        points: ``(..., K, 2)`` (x, y) in pixels of the image; NaN stays NaN.
        affine: ``(..., 3, 3)`` or ``(..., 4, 4)`` affine of that image.

    Returns:
        ``(..., K, 2)`` (x, y) in mm (pixels of the original film when it has no spacing), float64.
    """
    matrix = _affine_2d(affine)
    indices = swap_xy(points.to(torch.float64))
    return indices @ matrix[..., :2, :2].transpose(-1, -2) + matrix[..., None, :2, 2]


def mm_to_grid(points: torch.Tensor, affine: Any) -> torch.Tensor:
    """Landmarks in millimetres -> (x, y) pixels on the grid of an image; the inverse of :func:`grid_to_mm`.

    Args:
        points: ``(..., K, 2)`` (x, y) in mm; NaN stays NaN.
        affine: ``(..., 3, 3)`` or ``(..., 4, 4)`` affine of the image.

    Returns:
        ``(..., K, 2)`` (x, y) in pixels of that image, float64.
    """
    inverse = torch.linalg.inv(_affine_2d(affine))
    indices: torch.Tensor = points.to(torch.float64) @ inverse[..., :2, :2].transpose(-1, -2)
    indices = indices + inverse[..., None, :2, 2]
    return swap_xy(indices)


def spacing_of_affine(affine: Any) -> tuple[float, float]:
    """``(row_mm, col_mm)``: how far one step along the rows' and the columns' axis of the grid goes in the film plane.

    Args:
        affine: ``(3, 3)`` or ``(4, 4)`` affine of an image.

    Returns:
        The two step lengths in mm (or original pixels).
    """
    row_mm, col_mm = _affine_2d(affine)[:2, :2].norm(dim=0).tolist()
    return row_mm, col_mm
