"""DICOM radiographs made by code: every tag and every compression that the reader must meet."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from jpeg_lossless import encode_jpeg_lossless
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, FileDataset, FileMetaDataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

CLASSES = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "IO": "1.2.840.10008.5.1.4.1.1.1.3",
    "SC": "1.2.840.10008.5.1.4.1.1.7",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
}
SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big": ExplicitVRBigEndian,
    "rle": RLELossless,
    "j2k": JPEG2000Lossless,
    "jpegls": JPEGLSLossless,
    "lossless": JPEGLosslessSV1,
    "baseline": JPEGBaseline8Bit,
}


def ramp(rows: int = 64, columns: int = 96, bits: int = 12) -> NDArray[np.uint16]:
    """Film without symmetry, from 0 to the largest value that ``bits`` can hold; flips and turns show."""
    values = np.linspace(0, 2**bits - 1, rows * columns).reshape(rows, columns)
    return np.rint(values).astype(np.uint16)


def make_film(
    pixels: NDArray[Any] | None = None,
    *,
    kind: str = "CR",
    syntax: str = "explicit",
    bits_stored: int | None = None,
    raw: dict[str, str] | None = None,
    **tags: Any,
) -> FileDataset:
    """A data set with one film.

    Args:
        pixels: ``(rows, columns)`` or ``(rows, columns, 3)``; a 12-bit ramp by default.
        kind: key of ``CLASSES``.
        syntax: key of ``SYNTAXES``.
        bits_stored: the type's own bits by default.
        raw: by keyword, bytes to be written as they are, however wrong.
        tags: further attributes by keyword; None deletes one.
    """
    pixels = ramp() if pixels is None else pixels
    uid = SYNTAXES[syntax]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CLASSES[kind]
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = uid
    encoding = {"is_implicit_VR": syntax == "implicit", "is_little_endian": syntax != "big"}
    film = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128, **encoding)
    film.SOPClassUID, film.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    film.Modality = {"SC": "OT"}.get(kind, kind)
    film.Rows, film.Columns = pixels.shape[:2]
    film.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    film.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        film.PlanarConfiguration = 0
    film.BitsAllocated = pixels.dtype.itemsize * 8
    film.BitsStored = bits_stored or film.BitsAllocated
    film.HighBit = film.BitsStored - 1
    film.PixelRepresentation = int(pixels.dtype.kind == "i")
    _set_pixels(film, pixels, syntax)
    for keyword, value in tags.items():
        if value is None:
            delattr(film, keyword)
        else:
            setattr(film, keyword, value)
    for keyword, text in (raw or {}).items():
        tag = Tag(tag_for_keyword(keyword))
        data = text.encode() + b" " * (len(text) % 2)
        film[tag] = RawDataElement(tag, dictionary_VR(tag), len(data), data, 0, False, True)
    return film


def write_film(path: Path, pixels: NDArray[Any] | None = None, **options: Any) -> Path:
    """Write what :func:`make_film` makes; returns the path."""
    film = make_film(pixels, **options)
    film.save_as(path, enforce_file_format=True)
    return path


def lut_item(first: int, entries: NDArray[Any], bits: int, vr: str = "US") -> Dataset:
    """Item of a Modality or VOI LUT sequence with entries written as words."""
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    item.ModalityLUTType = "US"
    return item


def _set_pixels(film: FileDataset, pixels: NDArray[Any], syntax: str) -> None:
    film.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == "big" else "<")).tobytes()
    if len(film.PixelData) % 2:
        film.PixelData += b"\0"
    film["PixelData"].VR = "OW" if film.BitsAllocated == 16 else "OB"
    if syntax in ("rle", "j2k", "jpegls"):
        film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        film.compress(SYNTAXES[syntax], generate_instance_uid=False)
    elif syntax == "lossless":
        film.PixelData = encapsulate([encode_jpeg_lossless(pixels, film.BitsStored)])
    elif syntax == "baseline":
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
        film.PixelData = encapsulate([stream.getvalue()])
    if film.file_meta.TransferSyntaxUID.is_encapsulated:
        film["PixelData"].VR = "OB"
        film["PixelData"].is_undefined_length = True
