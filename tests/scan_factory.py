"""CT scans made by code: NIfTI files with any orientation, and DICOM series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SIZE = (10, 8, 6)
PLACES = [100.0, 102.5, 105.0, 107.5, 110.0]


def rotation(degrees: float) -> NDArray[np.float64]:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    about_z = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return np.asarray(about_x @ about_z)


def affine_of(
    axes: str, steps: tuple[float, float, float] = (0.8, 0.9, 2.5), oblique: float = 0.0
) -> NDArray[np.float64]:
    """Affine of a volume whose axes go towards the named directions, turned a little."""
    columns = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(oblique) @ (np.array([columns[axis] for axis in axes]).T * steps)
    matrix[:3, 3] = (11.0, -7.0, 31.0)
    return matrix


def write_nifti(path: Path, affine: NDArray[np.float64], voxels: NDArray[Any] | None = None) -> Path:
    random = np.random.default_rng(0)
    content = random.integers(-1000, 1500, SIZE).astype(np.int16) if voxels is None else voxels
    nibabel.save(nibabel.Nifti1Image(content, affine), path)
    return path


def write_series(folder: Path, places: list[float], **changes: Any) -> list[Path]:
    """Slices at the given heights; ``changes`` are attributes of the last one."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    random, files = np.random.default_rng(0), []
    for number, place in enumerate(places):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        slice_ = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.PatientName, slice_.PatientID, slice_.Modality = "Nobody", "0", "CT"
        slice_.PatientBirthDate = slice_.PatientSex = slice_.StudyDate = slice_.StudyTime = slice_.StudyID = ""
        slice_.AccessionNumber = slice_.ReferringPhysicianName = ""
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = study, series, frame
        slice_.SeriesNumber, slice_.InstanceNumber = 1, len(places) - number
        slice_.ImageOrientationPatient, slice_.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-20.0, -15.0, place]
        slice_.PixelSpacing, slice_.SliceThickness = [0.9, 0.8], 2.5
        slice_.Rows, slice_.Columns, slice_.SamplesPerPixel = SIZE[1], SIZE[0], 1
        slice_.PhotometricInterpretation, slice_.BitsAllocated, slice_.BitsStored = "MONOCHROME2", 16, 12
        slice_.HighBit, slice_.PixelRepresentation = 11, 0
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1024
        if number == len(places) - 1:
            for name, value in changes.items():
                setattr(slice_, name, value)
        pixels = random.integers(0, 3000, (slice_.Rows, slice_.Columns)).astype(np.uint16)
        pixels[0, 0] = place  # tells the slice
        slice_.PixelData = pixels.tobytes()
        files.append(folder / f"{number:03d}.dcm")
        slice_.save_as(files[-1], enforce_file_format=True)
    return files
