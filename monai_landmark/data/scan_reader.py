"""The only door for scans: NIfTI files and DICOM series, one geometry, one error type.

Voxels stay as the file has them. An uncompressed NIfTI is mapped into memory, so that a slice costs what it weighs.
"""

from __future__ import annotations

import gzip
import math
import threading
import zlib
from collections import OrderedDict
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.dicom_series import read_dicom_series
from monai_landmark.data.scan import Scan, axial_view, check_affine, check_shape, grids_apart_mm
from monai_landmark.errors import AnnotationError, DataError, ScanError

__all__ = ["SCANS", "ScanCache", "find_scans", "is_scan", "read_labels", "read_scan"]

_SLAB = 2**24  # bytes that are unpacked at a time
_AIR_HU = -200.0
_LOOKED_AT = 9  # slices
_CLOSE_MM = 1e-3


def is_scan(path: Path) -> bool:
    """Whether a path looks like a scan: a NIfTI file, or a folder that holds files without any folder in it."""
    if path.is_file():
        return path.name.lower().endswith((".nii", ".nii.gz"))
    return path.is_dir() and any(_is_dicom(file) for file in path.iterdir() if file.is_file())


def find_scans(folder: str | PathLike[str]) -> list[dict[str, Any]]:
    """Scans of a folder: NIfTI files and folders of DICOM series, at any depth.

    Args:
        folder: where to look; or one scan.

    Returns:
        Items with ``image`` and ``id``, by name.

    Raises:
        ScanError: if there is none.
    """
    root = Path(folder)
    places = [root] if is_scan(root) else sorted(path for path in root.rglob("*") if is_scan(path))
    if not places:
        action = "give a NIfTI file, the folder of a DICOM series, or a folder of these"
        raise ScanError("there is no scan", file=folder, expected=".nii, .nii.gz or DICOM files", action=action)
    names = [place.relative_to(root).as_posix() if place != root else place.name for place in places]
    found = [{"image": str(place), "id": bare_name(name)} for place, name in zip(places, names, strict=True)]
    ids = [item["id"] for item in found]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise ScanError("two scans have one name", file=folder, value=twice[:3], action="rename one of them")
    return found


def bare_name(name: str) -> str:
    """A file's name without the suffix of a volume."""
    lower = name.lower()
    return name[: -len(".nii.gz")] if lower.endswith(".nii.gz") else name.removesuffix(".nii")


def read_scan(path: str | PathLike[str]) -> Scan:
    """Open a CT scan.

    Args:
        path: a NIfTI file (``.nii``, ``.nii.gz``), or the folder of one DICOM series.

    Returns:
        The scan.

    Raises:
        ScanError: broken, slices missing, unevenly spaced or of several series, an impossible geometry, or values that
            are not HU.
    """
    place = Path(path)
    scan = read_dicom_series(place) if place.is_dir() else _read_nifti(place)
    _check_hounsfield(scan)
    return scan


def read_labels(path: str | PathLike[str], scan: Scan) -> NDArray[Any]:
    """The label volume of a scan.

    Args:
        path: a NIfTI file.
        scan: what it belongs to.

    Returns:
        ``(I, J, K)`` whole numbers on the scan's grid, in its file's order.

    Raises:
        AnnotationError: broken, not whole numbers, or on another grid.
    """
    try:
        labels = _read_nifti(Path(path))
    except ScanError as error:
        raise AnnotationError(error.problem, file=path, field=error.field, value=error.value) from error
    apart = grids_apart_mm(labels.affine, scan.affine, scan.shape) if labels.shape == scan.shape else math.inf
    if apart > max(_CLOSE_MM, 1e-5 * float(np.abs(scan.affine[:3, 3]).max())):
        same = labels.shape == scan.shape
        raise AnnotationError(
            f"the labels do not lie on their scan {scan.file.name}",
            file=path,
            field="affine" if same else "shape",
            value=f"{apart:.3g} mm apart" if same else labels.shape,
            expected=f"the scan's own, within {_CLOSE_MM:g} mm" if same else str(scan.shape),
            action="resample the labels onto the scan (nearest neighbor), or name the right file",
        )
    if labels.stored.dtype.kind not in "ui" and not _whole(labels):
        raise AnnotationError(
            "labels are not whole numbers", file=path, field="voxels", action="save the labels as integers"
        )
    if (labels.slope, labels.intercept) != (1.0, 0.0):
        values = np.round(labels.stored * labels.slope + labels.intercept)
        return np.asarray(values, dtype=np.int32)
    return labels.stored


def _whole(labels: Scan) -> bool:
    """Slice by slice, so that a large volume is not copied."""
    return all(
        bool(np.array_equal(found, np.round(found))) for found in (labels.slice(index) for index in range(len(labels)))
    )


class ScanCache:
    """Opened scans and their labels, the least recently used ones closed when they take too much memory.

    Args:
        megabytes: that the voxels may take; a mapped file takes none. One scan is kept whatever its size.
    """

    def __init__(self, megabytes: int = 2048) -> None:
        self.megabytes = megabytes
        self._open: OrderedDict[tuple[str, str | None], Any] = OrderedDict()
        self._lock = threading.RLock()

    def scan(self, path: str | PathLike[str]) -> Scan:
        """See :func:`read_scan`."""
        found: Scan = self._get((str(path), None), lambda: read_scan(path))
        return found

    def labels(self, path: str | PathLike[str], scan: Scan) -> NDArray[Any]:
        """``(D, H, W)`` axial view of the labels, see :func:`read_labels`."""
        stored: NDArray[Any] = self._get((str(scan.file), str(path)), lambda: read_labels(path, scan))
        return axial_view(stored, scan.affine)

    def clear(self) -> None:
        """Close all."""
        with self._lock:
            self._open.clear()

    def _get(self, key: tuple[str, str | None], make: Any) -> Any:
        with self._lock:
            if key not in self._open:
                self._open[key] = make()
            self._open.move_to_end(key)
            while len(self._open) > 1 and sum(map(_bytes, self._open.values())) > self.megabytes * 2**20:
                self._open.popitem(last=False)
            return self._open[key]


def _bytes(opened: Any) -> int:
    stored = opened.stored if isinstance(opened, Scan) else opened
    return 0 if isinstance(stored, np.memmap) else int(stored.nbytes)


#: What the transforms of this process share.
SCANS = ScanCache()


def _read_nifti(file: Path) -> Scan:
    if not file.is_file():
        raise ScanError("there is no such file", file=file, action="give a NIfTI file or the folder of a DICOM series")
    try:
        image = nibabel.load(file)
        header = image.header
        shape = check_shape(image.shape, file, "dim")
        dtype = header.get_data_dtype()
        codes = int(header["sform_code"]), int(header["qform_code"])
        affine = np.asarray(image.affine, dtype=np.float64) @ np.diag([1.0, 1.0, 1.0, 1.0])
        affine[:3] *= {"meter": 1000.0, "micron": 0.001}.get(header.get_xyzt_units()[0], 1.0)
        slope, intercept = (float(number) for number in (image.dataobj.slope, image.dataobj.inter))
        offset = int(image.dataobj.offset)
    except DataError:
        raise
    except Exception as error:  # nibabel passes on whatever gzip, zlib and numpy raise
        raise _broken(file, error) from None
    if not any(codes):
        raise ScanError(
            "the file does not say how the scan lies in the patient",
            file=file,
            field="sform_code, qform_code",
            value=codes,
            expected="at least one above 0",
            action="convert the scan anew from DICOM",
        )
    check_affine(affine, file, "affine")
    if dtype.kind not in "uif":
        action = "save the scan as one number a voxel"
        raise ScanError("voxels are not plain numbers", file=file, field="datatype", value=str(dtype), action=action)
    try:
        stored = _voxels(file, shape, dtype, offset)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _broken(file, error) from None
    return Scan(file, stored, affine, slope, intercept, {"format": "nifti"})


def _voxels(file: Path, shape: tuple[int, int, int], dtype: np.dtype[Any], offset: int) -> NDArray[Any]:
    """Voxels in their own type, but never wider than 32 bits a number."""
    length = math.prod(shape) * dtype.itemsize
    if file.suffix.lower() != ".gz":
        if file.stat().st_size < offset + length:
            raise ValueError(f"{file.stat().st_size} bytes in place of {offset + length}")
        return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape, order="F")
    narrow = np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")
    flat = np.empty(math.prod(shape), dtype=narrow)
    with gzip.open(file) as stream:
        stream.seek(offset)
        filled, slab = 0, _SLAB - _SLAB % dtype.itemsize
        while filled < len(flat):
            content = stream.read(min(slab, (len(flat) - filled) * dtype.itemsize))
            if not content or len(content) % dtype.itemsize:
                raise ValueError("cut short")
            numbers = np.frombuffer(content, dtype=dtype)
            flat[filled : filled + len(numbers)] = numbers
            filled += len(numbers)
        stream.read()  # to the checksum
    return flat.reshape(shape, order="F")


def _broken(file: Path, error: Exception) -> ScanError:
    problem = f"the file is broken or cut short ({type(error).__name__})"
    return ScanError(problem, file=file, action="copy or export the scan again")


def _check_hounsfield(scan: Scan) -> None:
    """Refuse values that are not HU: every CT shows air, in the body or around it.

    Raises:
        ScanError: no voxel of some slices is as dark as air.
    """
    looked_at = np.linspace(0, len(scan) - 1, min(_LOOKED_AT, len(scan))).astype(int)
    darkest = min(float(scan.slice(int(index)).min()) for index in looked_at)
    if darkest > _AIR_HU:
        raise ScanError(
            "the values are not Hounsfield units",
            file=scan.file,
            field="darkest voxel",
            value=darkest,
            expected=f"air, below {_AIR_HU:g} HU",
            action="apply the rescale slope and intercept of the original scan, and do not scale or clip it further",
        )


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
