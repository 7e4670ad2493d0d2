"""Copies of films that name no patient: new files, made of the pixels and of what this toolkit needs to know.

Nothing is taken out of the old file; a new one is made, into which go the pixels and a short list of attributes, each
held to the few words that it may hold. So what is not on the list cannot be forgotten: it goes further than the Basic
Profile of DICOM PS3.15, which lists what to remove, and keeps less. Pixels are stored uncompressed, for a compressed
image may hold comments. Text that is burned into the pixels stays, and
:func:`monai_landmark.data.burned_in.find_text` looks for it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from monai_landmark.data.dicom import read_stored
from monai_landmark.data.dicom_header import Header
from monai_landmark.data.film import Film
from monai_landmark.data.formats import is_dicom, read_film
from monai_landmark.data.spacing import SPACING_TAGS
from monai_landmark.errors import FilmError
from monai_landmark.files import replace_file

__all__ = ["check_copy", "deidentify_film"]

_SPACINGS = tuple(keyword for keyword in SPACING_TAGS if keyword != "PixelSpacingCalibrationType")
_GRAYSCALE = (
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "PixelPaddingValue", "PixelPaddingRangeLimit"),
)
_GRAYSCALE_WORDS = ("PresentationLUTShape", "VOILUTFunction")
_IMAGE = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
# Text is kept where it is one of the words that the standard knows; anything else could be a name.
_PARTS = (
    *("ABDOMEN", "ANKLE", "ARM", "BREAST", "CERVICAL SPINE", "CSPINE", "CHEST", "CLAVICLE", "ELBOW", "EXTREMITY"),
    *("FEMUR", "FINGER", "FOOT", "FOREARM", "HAND", "HEAD", "HIP", "HUMERUS", "JAW", "KNEE", "LEG", "LSPINE", "LUMBAR"),
    *("MANDIBLE", "NECK", "PANORAMIC", "PELVIS", "RIB", "SCAPULA", "SHOULDER", "SKULL", "SPINE", "SSPINE", "TEETH"),
    *("THIGH", "TOE", "TSPINE", "WRIST", "WHOLEBODY"),
)
_VIEWS = ("AP", "PA", "LL", "RL", "LLO", "RLO", "RLD", "LLD", "LAT", "LATERAL", "CC", "MLO", "ML", "LM")
_WORDS = {
    "Modality": ("CR", "DX", "MG", "IO", "PX", "RG", "XC", "OT"),
    "BodyPartExamined": _PARTS,
    "ViewPosition": _VIEWS,
    "ImageLaterality": ("L", "R", "U", "B"),
    "PresentationLUTShape": ("IDENTITY", "INVERSE"),
    "VOILUTFunction": ("LINEAR", "LINEAR_EXACT", "SIGMOID"),
    "PixelSpacingCalibrationType": ("FIDUCIAL", "GEOMETRY"),
}
_LUTS = ("ModalityLUTSequence", "VOILUTSequence")
_DESCRIPTOR = re.compile(r"US|HU|OD|MGML|Z_EFF|ED|EDW|HU_MOD|PCT")


def deidentify_film(film: Path, target: Path, name: str, salt: str) -> Path:
    """Write a copy of a film that names no patient.

    Args:
        film: a film of any format.
        target: the copy, without suffix: DICOM stays DICOM; others become PNG, or MetaImage where they have a spacing
            or values that a PNG cannot hold.
        name: the film's new id; it stands as patient in the copy of a DICOM film.
        salt: a secret that new UIDs are made from.

    Returns:
        Path of the copy.

    Raises:
        FilmError: the film cannot be read.
    """
    if is_dicom(film):
        return _write_dicom(film, target.with_name(target.name + ".dcm"), name, salt)
    return _write_plain(read_film(film), target)


def _write_dicom(film: Path, target: Path, name: str, salt: str) -> Path:
    header, codes = read_stored(film)
    copy = _empty(header, name, salt)
    copy.Rows, copy.Columns = codes.shape
    copy.SamplesPerPixel = 1
    photometric = header.text("PhotometricInterpretation")
    gray = photometric.startswith("MONOCHROME")
    copy.PhotometricInterpretation = photometric if gray else "MONOCHROME2"
    for keyword in (*_IMAGE, *_SPACINGS, *(_GRAYSCALE if gray else ())):
        value = header.value(keyword)
        if value is not None:
            setattr(copy, keyword, value)
    for keyword, words in _WORDS.items():
        if (text := header.text(keyword).upper()) in words and (gray or keyword not in _GRAYSCALE_WORDS):
            setattr(copy, keyword, text)
    for keyword in _LUTS if gray else ():
        if items := header.value(keyword):
            setattr(copy, keyword, [_lut(items[0], header.dataset.original_encoding[1])])
    copy.PixelData = codes.astype(codes.dtype.newbyteorder("<")).tobytes() + b"\0" * (codes.nbytes % 2)
    copy["PixelData"].VR = "OW" if codes.itemsize == 2 else "OB"
    with replace_file(target) as stream:
        copy.save_as(stream, enforce_file_format=True)
    return target


def _empty(header: Header, name: str, salt: str) -> FileDataset:
    """A data set of the same kind, with ids made of the new name, and what the modules require left empty."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = header.text("SOPClassUID")
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[salt, name, "image"])
    copy = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    copy.SOPClassUID, copy.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    copy.StudyInstanceUID = generate_uid(entropy_srcs=[salt, name, "study"])
    copy.SeriesInstanceUID = generate_uid(entropy_srcs=[salt, name, "series"])
    copy.PatientID = copy.PatientName = name
    for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
        setattr(copy, keyword, "")
    copy.ReferringPhysicianName, copy.Manufacturer, copy.SeriesNumber, copy.InstanceNumber = "", "", "1", "1"
    copy.PatientIdentityRemoved = "YES"
    copy.DeidentificationMethod = "made anew of pixels and geometry by monai_landmark"
    copy.LongitudinalTemporalInformationModified = "REMOVED"
    return copy


def _lut(item: Dataset, little: bool) -> Dataset:
    """A look-up table without its explanation; its entries are words in the film's own byte order."""
    copy = Dataset()
    for keyword in ("LUTDescriptor", "LUTData"):
        copy[keyword] = item[keyword]
    if isinstance(copy.LUTData, bytes) and not little:
        copy.LUTData = np.frombuffer(copy.LUTData, ">u2").astype("<u2").tobytes()
    kind = str(item.get("ModalityLUTType", "US"))
    copy.ModalityLUTType = kind if _DESCRIPTOR.fullmatch(kind) else "US"
    return copy


def _write_plain(film: Film, target: Path) -> Path:
    pixels, codes = film.pixels, _whole(film.pixels)
    if codes is None or film.spacing.mm is not None:
        import SimpleITK as sitk

        image = sitk.GetImageFromArray(pixels if codes is None else codes)
        image.SetSpacing(film.spacing.mm[::-1] if film.spacing.mm is not None else (1.0, 1.0))
        path = target.with_name(target.name + ".mha")
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(path), True)
        return path
    path = target.with_name(target.name + ".png")
    with replace_file(path) as stream:
        Image.fromarray(codes).save(stream, "PNG")  # of an array: no chunk but the pixels
    return path


def _whole(pixels: NDArray[np.float32]) -> NDArray[Any] | None:
    """The pixels as 8 or 16 bits, where these hold them."""
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 65535 or not np.array_equal(pixels, np.rint(pixels)):
        return None
    return pixels.astype(np.uint8 if high <= 255 else np.uint16)


def check_copy(film: Path, copy: Path) -> None:
    """Hold a copy against its film.

    Raises:
        FilmError: pixels or spacing are not the same.
    """
    old, new = read_film(film), read_film(copy)
    if not np.array_equal(old.pixels, new.pixels) or old.spacing.mm != new.spacing.mm:
        raise FilmError("the copy differs from the film", file=film, action="tell us, with the film's format")
