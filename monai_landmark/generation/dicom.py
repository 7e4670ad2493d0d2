"""A drawn film as a DICOM object that says what it is: synthetic, derived, and of nobody.

The only module of ``generation`` that imports pydicom.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

import monai_landmark
from monai_landmark.files import replace_file

__all__ = ["write_synthetic_dicom"]


def write_synthetic_dicom(path: str | PathLike[str], picture: NDArray[np.uint8], model: str, seed: int) -> Path:
    """Write a secondary capture whose conversion type is ``SYN``, with Synthetic Data (0008,001C) set to ``YES``.

    The same model and seed give the same UIDs, so a film that is drawn again replaces itself in an archive. All films
    of a model are one series. There is no date: nothing was examined.

    Args:
        path: the file.
        picture: ``(H, W)`` gray values.
        model: hash of the model.
        seed: of the film.

    Returns:
        The path.
    """
    film = Dataset()
    film.SOPClassUID = SecondaryCaptureImageStorage
    film.SOPInstanceUID = generate_uid(entropy_srcs=[model, str(seed), "instance"])
    film.StudyInstanceUID = generate_uid(entropy_srcs=[model, "study"])
    film.SeriesInstanceUID = generate_uid(entropy_srcs=[model, "series"])
    film.SpecificCharacterSet = "ISO_IR 192"
    film.PatientName = film.PatientID = film.PatientBirthDate = film.PatientSex = ""
    film.PatientIdentityRemoved = "YES"
    film.DeidentificationMethod = "Synthetic: drawn by a model, shows nobody"
    film.StudyDate = film.StudyTime = film.StudyID = film.AccessionNumber = film.ReferringPhysicianName = ""
    film.Modality, film.ConversionType = "OT", "SYN"
    film.ImageType = ["DERIVED", "SECONDARY"]
    film.SyntheticData = "YES"
    film.DerivationDescription = (
        f"Drawn by a diffusion model, sha256 {model[:16]}, seed {seed}; not a film of a patient"
    )
    film.SeriesNumber, film.InstanceNumber = 1, seed % 2**31
    film.SeriesDescription = "Synthetic films, research only"
    film.Laterality = film.PatientOrientation = ""
    film.Manufacturer = "monai_landmark"
    film.SecondaryCaptureDeviceManufacturer = "monai_landmark"
    film.SecondaryCaptureDeviceSoftwareVersions = monai_landmark.__version__
    film.BurnedInAnnotation = "NO"
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.Rows, film.Columns = picture.shape
    film.BitsAllocated = film.BitsStored = 8
    film.HighBit, film.PixelRepresentation = 7, 0
    pixels = np.ascontiguousarray(picture).tobytes()
    film.PixelData = pixels + b"\0" * (len(pixels) % 2)
    film["PixelData"].VR = "OW"
    film.file_meta = FileMetaDataset()
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with replace_file(path) as stream:
        film.save_as(stream, enforce_file_format=True)
    return Path(path)
