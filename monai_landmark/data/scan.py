"""A scan as the package sees it: a volume in its file's own order, looked at slice by slice as a radiologist does.

Axial slices run from the feet to the head; in a slice rows run from front to back and columns from the patient's right
to the left. A scan whose axes are oblique is cut along its own axis that is nearest to the body's. The way back is
never computed: slices are views of the volume, so what is written into a slice lies in the file's own order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from monai_landmark.errors import ScanError

__all__ = ["MAX_VOXELS", "Scan", "axial_view", "check_affine", "check_shape", "grids_apart_mm"]

#: A larger volume is refused before it is read: 2,048 slices of 1,024 x 1,024.
MAX_VOXELS = 2**31
_STEP_MM = (0.05, 20.0)
_SQUARE = 1e-3  # cosine between two axes above which they are not at right angles


@dataclass(frozen=True)
class Scan:
    """One volume.

    Args:
        file: the NIfTI file, or the folder of a DICOM series.
        stored: ``(I, J, K)`` voxels as the file has them, in memory or mapped into it.
        affine: ``(4, 4)``, voxel index -> mm towards the patient's right, front and head (RAS), as nibabel gives it.
        slope: stored value -> HU, with ``intercept``.
        intercept: see ``slope``.
        info: facts for reports; holds no patient data.
        files: of a DICOM series its files, in the order of the third axis.
    """

    file: Path
    stored: NDArray[Any]
    affine: NDArray[np.float64]
    slope: float = 1.0
    intercept: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(I, J, K)`` of the file."""
        first, second, third = self.stored.shape
        return first, second, third

    @cached_property
    def slices(self) -> NDArray[Any]:
        """``(D, H, W)`` view of the stored voxels, see :func:`axial_view`."""
        return axial_view(self.stored, self.affine)

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """``(row_mm, col_mm)`` of a slice."""
        steps, order = self._steps, _order(self.affine)[0]
        return steps[order[1]], steps[order[2]]

    @property
    def slice_mm(self) -> float:
        """From one slice to the next."""
        return self._steps[_order(self.affine)[0][0]]

    @property
    def _steps(self) -> list[float]:
        steps: list[float] = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return steps

    def __len__(self) -> int:
        return len(self.slices)

    def slice(self, index: int) -> NDArray[np.float32]:
        """One axial slice.

        Args:
            index: from the feet, 0 for the lowest.

        Returns:
            ``(H, W)`` in HU.

        Raises:
            ScanError: if a value is not a finite number.
        """
        pixels = np.ascontiguousarray(self.slices[index], dtype=np.float32) * self.slope + self.intercept
        if not np.isfinite(pixels).all():
            raise ScanError(
                "a voxel is not a finite number", file=self.file, field=f"slice {index}", action="export the scan again"
            )
        return np.asarray(pixels, dtype=np.float32)


def axial_view(volume: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """A volume as axial slices, without a copy: what is written into the view lands in the volume.

    Args:
        volume: ``(I, J, K)``.
        affine: ``(4, 4)`` to RAS.

    Returns:
        ``(D, H, W)``: slices from feet to head, rows from front to back, columns from the patient's right to the left.
    """
    order, reverse = _order(affine)
    return volume.transpose(order)[tuple(slice(None, None, -1 if turned else 1) for turned in reverse)]


def _order(affine: NDArray[np.float64]) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Axes of the volume that become slice, row and column, and which of them are walked backwards."""
    found = nibabel.io_orientation(affine)
    axis = {int(world): (place, sign > 0) for place, (world, sign) in enumerate(found)}
    (column, to_right), (row, to_front), (slices, to_head) = axis[0], axis[1], axis[2]
    return (slices, row, column), (not to_head, to_front, to_right)


def check_affine(affine: NDArray[np.float64], file: Path, field: str) -> None:
    """Refuse an impossible geometry.

    Args:
        affine: ``(4, 4)`` to RAS.
        file: the scan, for the message.
        field: where the geometry is written.

    Raises:
        ScanError: not finite, steps outside 0.05-20 mm, or axes that are not at right angles.
    """
    directions = affine[:3, :3]
    steps = np.linalg.norm(directions, axis=0)
    low, high = _STEP_MM
    if not np.isfinite(affine).all() or not ((steps >= low) & (steps <= high)).all():
        raise ScanError(
            "the voxel size is impossible",
            file=file,
            field=field,
            value=[round(float(step), 4) for step in steps],
            expected=f"three steps within {low:g}-{high:g} mm",
            action="export the scan again",
        )
    cosines = (directions / steps).T @ (directions / steps) - np.eye(3)
    if np.abs(cosines).max() > _SQUARE:
        raise ScanError(
            "the axes of the scan are not at right angles",
            file=file,
            field=field,
            value=f"cosine {np.abs(cosines).max():.4f}",
            expected=f"at most {_SQUARE:g}",
            action="resample the scan without shear (a tilted gantry leaves one)",
        )


def check_shape(shape: tuple[int, ...], file: Path, field: str) -> tuple[int, int, int]:
    """Refuse an impossible size by the header alone.

    Args:
        shape: of the volume.
        file: the scan, for the message.
        field: where the size is written.

    Returns:
        The three sides.

    Raises:
        ScanError: not three axes, one shorter than 2, or more than :data:`MAX_VOXELS` voxels.
    """
    sides = tuple(int(side) for side in shape)
    while len(sides) > 3 and sides[-1] == 1:
        sides = sides[:-1]
    if len(sides) != 3 or min(sides) < 2 or math.prod(sides) > MAX_VOXELS:
        raise ScanError(
            "this is not one volume",
            file=file,
            field=field,
            value=tuple(shape),
            expected=f"three axes of at least 2, at most {MAX_VOXELS} voxels",
            action="export one series as a volume",
        )
    return sides


def grids_apart_mm(one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """How far two grids of one shape lie apart.

    Args:
        one: ``(4, 4)`` affine.
        other: ``(4, 4)`` affine.
        shape: of both, ``(I, J, K)``.

    Returns:
        The largest distance between their corners, mm.
    """
    corners = np.array(np.meshgrid(*[(0, side - 1) for side in shape], [1], indexing="ij")).reshape(4, -1)
    return float(np.linalg.norm(((one - other) @ corners)[:3], axis=0).max())
