"""A folder of DICOM slices -> :class:`Scan`, by SimpleITK, after a look at every slice's place.

SimpleITK reads a series with missing slices, or of uneven distances, as if it were even: anatomy is then squeezed and
every volume in mm is wrong. So the places are read first, and such a series is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.scan import Scan, check_affine, check_shape
from monai_landmark.errors import ScanError

__all__ = ["read_dicom_series"]

FloatArray = NDArray[np.float64]
_MODALITY = "0008|0060"
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM and ITK count towards the patient's left and back
_EVEN = 0.02  # share of the distance by which slices may be off; real tables move by some hundredths of a millimeter
_EVEN_MM = 0.02


@dataclass(frozen=True)
class _Slice:
    """Header of one file."""

    file: Path
    size: tuple[int, int]
    origin: FloatArray
    steps: FloatArray  # (3, 2): mm along a column index and a row index

    @property
    def normal(self) -> FloatArray:
        """Unit vector across the slice."""
        across = np.cross(self.steps[:, 0], self.steps[:, 1])
        return np.asarray(across / np.linalg.norm(across))


def read_dicom_series(folder: Path) -> Scan:
    """Read the one CT series of a folder.

    Args:
        folder: holds its files, and no other series.

    Returns:
        The scan; its third axis runs along the series.

    Raises:
        ScanError: no series, several, not CT, slices of different size or direction, missing, double or unevenly
            spaced ones, a tilted gantry, or a broken file.
    """
    files = _files_of_one_series(folder)
    slices = [_header(file) for file in files]
    slices = _ordered(slices, folder)
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, :2] = first.steps
    affine[:3, 2] = (last.origin - first.origin) / (len(slices) - 1)
    affine[:3, 3] = first.origin
    affine = _TO_RAS @ affine
    check_affine(affine, folder, "Image Position (Patient) (0020,0032)")
    shape = check_shape((*first.size, len(slices)), folder, "Columns, Rows, files")
    return Scan(folder, _voxels(slices, shape), affine, 1.0, 0.0, {"format": "dicom"}, tuple(s.file for s in slices))


def _files_of_one_series(folder: Path) -> list[Path]:
    import SimpleITK as sitk  # takes half a second

    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        raise ScanError(
            "not one DICOM series" if series else "no DICOM series",
            file=folder,
            field="Series Instance UID (0020,000E)",
            value=f"{len(series)} series",
            expected="the files of one series",
            action="put every series into a folder of its own" if series else "give the folder of a series",
        )
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    if len(names) < 2:
        action = "give the folder of a whole series; enhanced multi-frame files must be converted first"
        raise ScanError("a single file is no scan", file=folder, field="files", value=len(names), action=action)
    return [Path(name) for name in names]


def _reader(file: Path) -> Any:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    return reader


def _header(file: Path) -> _Slice:
    reader = _reader(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ScanError("a slice is broken", file=file, action="copy or export the series again") from error
    modality = reader.GetMetaData(_MODALITY).strip() if reader.HasMetaDataKey(_MODALITY) else None
    if modality != "CT":
        action = "give a CT series; other modalities have no Hounsfield units"
        raise ScanError(
            "not a CT slice", file=file, field="Modality (0008,0060)", value=modality, expected="CT", action=action
        )
    frames = reader.GetSize()[2] if len(reader.GetSize()) > 2 else 1
    if frames != 1 or reader.GetNumberOfComponents() != 1:
        raise ScanError(
            "a file holds several frames or colors",
            file=file,
            field="Number of Frames (0028,0008)",
            value=frames,
            expected="one slice a file",
            action="convert the series to single-frame DICOM or NIfTI",
        )
    direction = np.array(reader.GetDirection()).reshape(3, 3)
    steps = direction[:, :2] * np.array(reader.GetSpacing()[:2])
    columns, rows = (int(side) for side in reader.GetSize()[:2])
    return _Slice(file, (columns, rows), np.array(reader.GetOrigin()), steps)


def _ordered(slices: Sequence[_Slice], folder: Path) -> list[_Slice]:
    """By their place along the normal, once they are known to be one even stack."""
    first = slices[0]
    for other in slices[1:]:
        if other.size != first.size or not np.allclose(other.steps, first.steps, atol=1e-4):
            same = other.size == first.size
            raise ScanError(
                "slices of one series differ in direction or spacing" if same else "slices differ in size",
                file=other.file,
                field="Image Orientation (0020,0037), Pixel Spacing (0028,0030)" if same else "Columns, Rows",
                value=np.round(other.steps, 4).tolist() if same else other.size,
                expected=f"as of {first.file.name}",
                action="put what does not belong to the stack (a scout view?) into another folder",
            )
    places = np.array([one.origin @ first.normal for one in slices])
    order = np.argsort(places, kind="stable")
    ordered = [slices[index] for index in order]
    _check_even(np.diff(places[order]), ordered)
    drift = np.cross(ordered[-1].origin - ordered[0].origin, first.normal)
    if np.linalg.norm(drift) > 1e-3 * np.ptp(places) + _EVEN_MM:
        raise ScanError(
            "the slices are not stacked at right angles (a tilted gantry)",
            file=folder,
            field="Image Position (Patient) (0020,0032)",
            value=f"{np.linalg.norm(drift):.2f} mm to the side",
            expected="0",
            action="resample the series without shear first",
        )
    return ordered


def _check_even(gaps: FloatArray, ordered: Sequence[_Slice]) -> None:
    usual = float(np.median(gaps))
    wrong = np.flatnonzero(np.abs(gaps - usual) > max(_EVEN_MM, _EVEN * usual))
    if usual > _EVEN_MM and not len(wrong):
        return
    index = int(wrong[0]) if len(wrong) else 0
    gap = float(gaps[index])
    missing = round(gap / usual) - 1 if usual > _EVEN_MM else 0
    if gap <= _EVEN_MM:
        problem, action = "two slices lie at one place", "keep one of them (two reconstructions in one series?)"
    elif missing > 0 and abs(gap - (missing + 1) * usual) <= max(_EVEN_MM, _EVEN * usual):
        problem, action = f"slices are missing: {missing}", "export the whole series"
    else:
        problem, action = (
            "slices are not evenly spaced",
            "resample the series to even slices, or export each part alone",
        )
    raise ScanError(
        problem,
        file=ordered[index + 1].file,
        field="Image Position (Patient) (0020,0032)",
        value=f"{gap:.3f} mm after {ordered[index].file.name}",
        expected=f"{usual:.3f} mm, as elsewhere in the series",
        action=action,
    )


def _voxels(slices: Sequence[_Slice], shape: tuple[int, int, int]) -> NDArray[Any]:
    """HU of all slices, file by file; SimpleITK applies each slice's own rescale."""
    import SimpleITK as sitk

    stored: NDArray[Any] | None = None
    for index, one in enumerate(slices):
        try:
            pixels = sitk.GetArrayFromImage(_reader(one.file).Execute()).reshape(shape[1], shape[0])
        except RuntimeError as error:
            raise ScanError("a slice is broken", file=one.file, action="copy or export the series again") from error
        whole = pixels.dtype.kind in "ui" or bool((pixels == np.round(pixels)).all())
        small = whole and np.abs(pixels.astype(np.float64)).max() < 2**15
        if stored is None:
            stored = np.empty(shape, dtype=np.int16 if small else np.float32, order="F")
        elif stored.dtype == np.int16 and not small:
            stored = stored.astype(np.float32, order="F")
        stored[:, :, index] = pixels.T
    if stored is None:
        raise ScanError("no slices", file=slices[0].file if slices else None)
    return stored
