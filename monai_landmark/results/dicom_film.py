"""What a DICOM object about a film must take over from the film: whose it is, and how it is referred to.

The only module of ``results`` that imports pydicom. Unlike the reader of pixels it reads the patient's attributes,
since an archive files an object under its patient and study; they go nowhere but into that object.
"""

from __future__ import annotations

import importlib
import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag
from pydicom.valuerep import PersonName, validate_value

from monai_landmark.errors import ConfigurationError, DataError, FilmError
from monai_landmark.files import replace_file
from monai_landmark.results.result import LandmarkResult

__all__ = [
    "DicomFilm",
    "equipment",
    "film_points",
    "import_highdicom",
    "is_dicom",
    "read_dicom_film",
    "read_dicom_slices",
    "save_dicom",
]

#: Without these nothing can refer to a film (type 1).
_REFERENCE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
#: Type 2 of Patient and General Study: empty when the film does not say.
_FILED_UNDER = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
_OPTIONAL = ("IssuerOfPatientID", "StudyDescription")
_DISPLAY = (
    *("PixelAspectRatio", "PhotometricInterpretation", "SamplesPerPixel", "NumberOfFrames", "RescaleSlope"),
    *("RescaleIntercept", "RescaleType", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTSequence"),
    *("VOILUTFunction", "WindowCenterWidthExplanation", "BitsStored", "PixelRepresentation", "PixelSpacing"),
)


@dataclass(frozen=True)
class DicomFilm:
    """A film's header as far as objects about it need it.

    Args:
        header: a pydicom data set in UTF-8 without pixels: references, patient and study, size and display.
        left_empty: keywords of attributes that the film has with an impossible value; they are empty in the header.
    """

    header: Any
    left_empty: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """``(H, W)``: Rows and Columns."""
        return int(self.header.Rows), int(self.header.Columns)

    @property
    def pixel_aspect(self) -> float:
        """Height of a pixel over its width; absent means square (PS3.3 C.7.6.3.1.7)."""
        ratio = self.header.get("PixelAspectRatio")
        return 1.0 if ratio is None else float(ratio[0]) / float(ratio[1])


def is_dicom(path: str | PathLike[str]) -> bool:
    """Whether a file is DICOM Part 10, by its mark."""
    with open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def read_dicom_film(path: str | PathLike[str]) -> DicomFilm:
    """Read what a structured report or presentation state takes over from a film.

    Args:
        path: a DICOM radiograph.

    Returns:
        The film's header. Attributes of type 2 that are absent or impossible are empty: nothing is invented.

    Raises:
        FilmError: not DICOM, broken, or without the UIDs that refer to it.
    """
    keywords = [*_REFERENCE, *_FILED_UNDER, *_OPTIONAL, *_DISPLAY, "Modality", "Rows", "Columns"]
    with warnings.catch_warnings():
        # pydicom's warnings quote the values of attributes
        warnings.simplefilter("ignore")
        try:
            film = dcmread(path, stop_before_pixels=True, specific_tags=keywords)
        except (InvalidDicomError, OSError):
            raise FilmError(
                "only a DICOM film can have a DICOM result",
                file=path,
                expected="a DICOM Part 10 file",
                action="predict films of other formats without --dicom",
            ) from None
        return _header(film, Path(path))


def read_dicom_slices(files: Sequence[str | PathLike[str]]) -> list[Any]:
    """Headers of a series, as highdicom takes them for what an object about the series refers to.

    Args:
        files: of the series.

    Returns:
        pydicom data sets without pixels, in the order of the files.

    Raises:
        FilmError: one is not DICOM or broken.
    """
    found = []
    for file in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found.append(dcmread(file, stop_before_pixels=True))
            except (InvalidDicomError, OSError):
                raise FilmError("not a DICOM file", file=file, action="export the series again") from None
    return found


def import_highdicom() -> Any:
    """The optional package that writes structured reports and presentation states.

    Raises:
        ConfigurationError: it is not installed.
    """
    # Its log quotes patients' attributes.
    logging.getLogger("highdicom").setLevel(logging.CRITICAL)
    try:
        return importlib.import_module("highdicom")
    except ImportError as error:
        raise ConfigurationError(
            "highdicom is not installed", value=str(error), action="pip install 'monai_landmark[sr]'"
        ) from error


def film_points(film: DicomFilm, result: LandmarkResult) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Landmarks in the film's own image space, as DICOM counts it.

    The reader never turns or mirrors a DICOM film, so columns and rows are those of the file. DICOM's coordinates begin
    at the corner of the top-left pixel (PS3.3 C.18.6, C.10.5), a result's at its center: half a pixel apart.

    Args:
        film: see :func:`read_dicom_film`.
        result: its landmarks.

    Returns:
        Name -> (column, row) of what lies on the film, and sentences on what is left out.

    Raises:
        DataError: the result is of a film of another size, or nothing was found on it.
    """
    if film.size != result.original_size:
        raise DataError(
            f"film {result.film!r}: the DICOM file is not the film that was predicted",
            field="Rows x Columns",
            value=film.size,
            expected=str(result.original_size),
        )
    height, width = film.size
    corner = result.points_px + 0.5
    found = ~np.isnan(corner[:, 0])
    inside = found & (corner >= 0).all(axis=1) & (corner[:, 0] <= width) & (corner[:, 1] <= height)
    names = np.array(result.names)
    if not inside.any():
        raise DataError(f"film {result.film!r}: no landmark was found on it, there is nothing to write")
    lost = {"Landmarks not found": names[~found], "Landmarks outside the film": names[found & ~inside]}
    sentences = [f"{what}, left out: {', '.join(which)}." for what, which in lost.items() if len(which)]
    return {
        str(name): (float(x), float(y)) for name, (x, y) in zip(names[inside], corner[inside], strict=True)
    }, sentences


def equipment(result: LandmarkResult) -> dict[str, Any]:
    """Series and equipment attributes of an object made from a result, as highdicom's classes take them."""
    return {
        "series_instance_uid": import_highdicom().UID(),
        "sop_instance_uid": import_highdicom().UID(),
        "instance_number": 1,
        "manufacturer": "monai_landmark",
        "manufacturer_model_name": result.model_name or "monai_landmark",
        "software_versions": result.version,
        "series_description": f"Landmarks, {result.disclaimer}",
        "specific_character_set": "ISO_IR 192",
    }


def save_dicom(dataset: Any, path: str | PathLike[str]) -> Path:
    """Write a DICOM object; a reader sees the old file or the new one, never half of it."""
    with replace_file(path) as stream:
        dataset.save_as(stream, enforce_file_format=True)
    return Path(path)


def _header(film: Any, file: Path) -> DicomFilm:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _REFERENCE:
        value = str(_value(film, keyword) or "")
        if not re.fullmatch(r"[0-9.]{1,64}", value):
            raise FilmError(
                "the film cannot be referred to",
                file=file,
                field=f"{keyword} {Tag(keyword)}",
                value=value or None,
                expected="a unique identifier",
                action="export the film again from the archive, with its study",
            )
        setattr(header, keyword, value)
    left_empty = [keyword for keyword in _FILED_UNDER if not _take_over(film, header, keyword)]
    for keyword in _OPTIONAL:
        if _value(film, keyword) is not None and not _take_over(film, header, keyword):
            delattr(header, keyword)
            left_empty.append(keyword)
    for keyword in (*_DISPLAY, "Modality", "Rows", "Columns"):
        if _value(film, keyword) is not None:
            header[keyword] = film[keyword]
    return DicomFilm(header, tuple(left_empty))


def _value(film: Any, keyword: str) -> Any:
    """The value; None when absent, empty or not convertible."""
    try:
        value = film.get(keyword)
    except Exception:
        return None
    return None if value is None or value == "" or value == [] else value


def _take_over(film: Any, header: Any, keyword: str) -> bool:
    """Copy one text attribute, empty when absent; False when it has a value that DICOM does not allow."""
    setattr(header, keyword, "")
    if keyword not in film or not film.get_item(keyword).value:
        return True
    value = _value(film, keyword)
    text = str(value) if isinstance(value, (str, PersonName)) else ""
    try:
        validate_value(dictionary_VR(keyword), text, RAISE)
        setattr(header, keyword, text)
    except (ValueError, TypeError):
        setattr(header, keyword, "")
        return False
    allowed = keyword != "PatientSex" or text in ("", "M", "F", "O")
    if not allowed:
        setattr(header, keyword, "")
    return bool(text) and allowed
