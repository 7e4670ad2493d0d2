"""CT scans of invented bodies: ellipsoid organs in a trunk on a bed, with noise; known labels, nobody's data."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.organs import FLARE2022
from monai_landmark.data.scan_list import ScanList
from monai_landmark.files import file_sha256

__all__ = ["SyntheticBody", "synthetic_body", "write_synthetic_bodies"]

_AIR, _FAT, _MUSCLE, _BONE, _LUNG, _BED = -1000.0, -100.0, 45.0, 500.0, -820.0, 60.0


@dataclass(frozen=True)
class _Ellipsoid:
    """Center and half axes as shares of the trunk, towards the patient's left, back and head."""

    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    hounsfield: float


_ORGANS: dict[str, _Ellipsoid] = {
    "liver": _Ellipsoid((-0.40, -0.05, 0.20), (0.42, 0.55, 0.42), 105.0),
    "spleen": _Ellipsoid((0.62, 0.35, 0.30), (0.20, 0.28, 0.26), 125.0),
    "right_kidney": _Ellipsoid((-0.42, 0.50, -0.45), (0.15, 0.20, 0.30), 165.0),
    "left_kidney": _Ellipsoid((0.42, 0.50, -0.40), (0.15, 0.20, 0.30), 165.0),
    "stomach": _Ellipsoid((0.38, -0.30, 0.22), (0.24, 0.28, 0.26), 10.0),
    "aorta": _Ellipsoid((0.06, 0.42, 0.0), (0.09, 0.12, 3.0), 210.0),
}
"""A body has these organs of FLARE 2022; the numbers are the challenge's."""
_SPINE = _Ellipsoid((0.0, 0.72, 0.0), (0.16, 0.20, 3.0), _BONE)
_LUNGS = [_Ellipsoid((side * 0.45, 0.05, 1.15), (0.38, 0.60, 0.50), _LUNG) for side in (-1.0, 1.0)]


@dataclass(frozen=True)
class SyntheticBody:
    """A scan and its labels.

    Attributes:
        hounsfield: ``(I, J, K)`` int16, first axis towards the patient's left, then back, then head.
        labels: ``(I, J, K)`` uint8, numbers of FLARE 2022.
        affine: ``(4, 4)`` to RAS, mm.
    """

    hounsfield: NDArray[np.int16]
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]


def synthetic_body(seed: int, size: tuple[int, int, int] = (96, 80, 40), slice_mm: float = 6.0) -> SyntheticBody:
    """Make a body.

    Args:
        seed: of its shape and noise.
        size: voxels towards the left, the back and the head.
        slice_mm: distance of slices; in the plane voxels are such that the trunk fills the picture.

    Returns:
        The body.
    """
    random = np.random.default_rng(seed)
    pixel_mm = 420.0 / size[0]
    half = np.array([165.0, 115.0, 0.5 * size[2] * slice_mm]) * random.uniform(0.92, 1.08, 3)
    axes = [
        (np.arange(count) - (count - 1) / 2) * step
        for count, step in zip(size, (pixel_mm, pixel_mm, slice_mm), strict=True)
    ]
    axes[1] = axes[1] + 8.0  # the trunk lies above the bed
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)

    def inside(shape: _Ellipsoid, wobble: float) -> NDArray[np.bool_]:
        """Voxels of an ellipsoid, moved and stretched a little."""
        center = (np.array(shape.center) + random.uniform(-wobble, wobble, 3)) * half
        radii = np.array(shape.radii) * random.uniform(1 - 2 * wobble, 1 + 2 * wobble, 3) * half
        parts = [((axis - c) / r) ** 2 for axis, c, r in zip((x, y, z), center, radii, strict=True)]
        return np.asarray(parts[0] + parts[1] + parts[2] < 1)

    trunk = (x / half[0]) ** 2 + (y / half[1]) ** 2 < 1
    wall = (x / (0.92 * half[0])) ** 2 + (y / (0.90 * half[1])) ** 2 < 1
    body = np.where(np.broadcast_to(wall, size), _MUSCLE, np.where(np.broadcast_to(trunk, size), _FAT, _AIR))
    body = np.where(np.broadcast_to((y > 1.08 * 115) & (y < 1.08 * 115 + 12) & (abs(x) < 200), size), _BED, body)
    labels = np.zeros(size, dtype=np.uint8)
    for lung in _LUNGS:
        body[inside(lung, 0.03) & wall] = _LUNG
    body[inside(_SPINE, 0.01)] = _BONE
    for name, organ in _ORGANS.items():
        place = inside(organ, 0.04) & wall & (labels == 0) & (body != _BONE)
        body[place] = organ.hounsfield + random.uniform(-8, 8)
        labels[place] = FLARE2022.index(name) + 1
    noisy = body + random.normal(0, 18, size)
    affine = np.diag([-pixel_mm, -pixel_mm, slice_mm, 1.0])
    affine[:3, 3] = [210.0, 175.0, -0.5 * size[2] * slice_mm]
    return SyntheticBody(noisy.clip(-1024, 3071).round().astype(np.int16), labels, affine)


def write_synthetic_bodies(
    folder: str | PathLike[str],
    training: int = 4,
    test: int = 2,
    unlabelled: int = 2,
    size: tuple[int, int, int] = (96, 80, 40),
    seed: int = 0,
) -> Path:
    """Write bodies as NIfTI files with their list of scans.

    Args:
        folder: where to; made if absent.
        training: bodies to train on.
        test: bodies to measure.
        unlabelled: bodies whose labels are not written.
        size: see :func:`synthetic_body`.
        seed: of the first body; the others follow.

    Returns:
        Path of the list, ``datalist.json``.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    sections = ["training"] * training + ["test"] * test + ["unlabelled"] * unlabelled
    organs = tuple(organ for organ in FLARE2022 if organ in _ORGANS)
    numbers = {FLARE2022.index(organ) + 1: organ for organ in organs}
    found = ScanList("synthetic bodies", root, organs, numbers, reader="by construction")
    for index, section in enumerate(sections):
        body, name = synthetic_body(seed + index, size), f"body-{seed + index:03d}"
        nibabel.save(nibabel.Nifti1Image(body.hounsfield, body.affine), root / f"{name}.nii.gz")
        item = {"image": f"{name}.nii.gz", "id": name, "patient": name, "slices": size[2]}
        item["sha256"] = file_sha256(root / f"{name}.nii.gz")
        if section != "unlabelled":
            nibabel.save(nibabel.Nifti1Image(body.labels, body.affine), root / f"{name}_label.nii.gz")
            shown = [len(np.setdiff1d(body.labels[:, :, k], [0])) for k in range(size[2])]
            item |= {"label": f"{name}_label.nii.gz", "shown": shown}
        found.sections.setdefault(section, []).append(item)
    return found.save(root / "datalist.json")
