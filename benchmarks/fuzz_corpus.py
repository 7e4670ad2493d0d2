"""Sound films in every format that can be written here, small, each with what a reader must say of it."""

from __future__ import annotations

import gzip
import importlib.util
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_partial
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from monai_landmark.data.synthetic import synthesize_film

__all__ = ["Base", "build_corpus", "dicom_elements"]

Span = tuple[int, int]
_SIZE = (288, 224)
_CR, _DX, _SC = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("1", "1.1", "7"))
# What says the spacing or the polarity of a DICOM film.
_MEANING = {
    *(0x00280030, 0x00280A02, 0x00181164, 0x00182010, 0x00181114),
    *(0x00280004, 0x20500020, 0x00283000, 0x00283010, 0x00281052, 0x00281053, 0x00281050, 0x00281051, 0x00281056),
    *(0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00080016, 0x00020010),
}


@dataclass(frozen=True)
class Base:
    """A sound film.

    Attributes:
        name: what it is.
        suffix: of its file.
        data: its bytes.
        kind: ``dicom``, or ``image``.
        elements: start, start of the value and end of each top-level DICOM element.
        meaning: bytes that state spacing or polarity.
        header: number of bytes before the pixels.
        size: (H, W).
    """

    name: str
    suffix: str
    data: bytes
    kind: str
    header: int
    elements: list[tuple[int, int, int]] = field(default_factory=list)
    meaning: list[Span] = field(default_factory=list)
    size: tuple[int, int] = (72, 56)


def dicom_elements(data: bytes) -> list[tuple[int, int, int, int]]:
    """Tag, start, start of the value, and end of each top-level element behind the file meta information."""
    found: list[tuple[int, int, int]] = []
    stream = DicomBytesIO(data)

    def note(tag: int, vr: str | None, length: int) -> bool:
        """Called by pydicom before each value."""
        head = 12 if vr in ("OB", "OW", "OD", "OF", "OL", "OV", "SQ", "UC", "UN", "UR", "UT", "SV", "UV") else 8
        found.append((int(tag), stream.tell() - head, stream.tell()))
        return False

    read_partial(stream, stop_when=note)
    ends = [start for _, start, _ in found[1:]] + [len(data)]
    return [(tag, start, value, end) for (tag, start, value), end in zip(found, ends, strict=True)]


def _dicom(name: str, data: bytes, size: tuple[int, int] = (72, 56)) -> Base:
    elements = dicom_elements(data)
    pixels = next((value for tag, _, value, _ in elements if tag == 0x7FE00010), len(data))
    meaning = [(start, end) for tag, start, _, end in elements if tag in _MEANING]
    first = elements[0][1]
    syntax = data.find(b"\x02\x00\x10\x00UI", 132, first)
    meaning.append((syntax, syntax + 8 + int.from_bytes(data[syntax + 6 : syntax + 8], "little")))
    return Base(name, ".dcm", data, "dicom", pixels, [e[1:] for e in elements], meaning, size)


def _film(pixels: NDArray[Any], syntax: str, uid: str, number: int, **tags: Any) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = uid, f"1.2.3.{number}"
    implicit, big = syntax == ImplicitVRLittleEndian, syntax == ExplicitVRBigEndian
    film = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=implicit, is_little_endian=not big)
    film.SOPClassUID, film.SOPInstanceUID = uid, f"1.2.3.{number}"
    film.StudyDate, film.AccessionNumber, film.Modality = "20200229", "A1234", "DX"
    film.Manufacturer, film.PatientName, film.PatientID = "Maker", "Doe^Jane", "P-17"
    film.BodyPartExamined, film.ImageLaterality, film.ViewPosition = "PELVIS", "U", "AP"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-15000", "SRT", "Pelvis"
    film.AnatomicRegionSequence = [code]
    film.KVP, film.ExposureTime, film.InstanceNumber = "70.5", "12", "1"
    film.Rows, film.Columns = pixels.shape[:2]
    film.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    film.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        film.PlanarConfiguration = 0
    film.BitsAllocated = pixels.itemsize * 8
    film.BitsStored = 12 if pixels.itemsize == 2 else 8
    film.HighBit, film.PixelRepresentation = film.BitsStored - 1, 0
    for keyword, value in tags.items():
        setattr(film, keyword, value)
    film.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    film["PixelData"].VR = "OW" if pixels.itemsize == 2 else "OB"
    block = film.private_block(0x0029, "SOME MAKER", create=True)
    block.add_new(0x01, "LO", "a private note")
    _compress(film, pixels, syntax)
    stream = io.BytesIO()
    film.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _compress(film: FileDataset, pixels: NDArray[Any], syntax: str) -> None:
    if syntax == JPEGBaseline8Bit:
        picture = io.BytesIO()
        Image.fromarray(pixels).save(picture, "JPEG", quality=95)
        frame = picture.getvalue()
    elif syntax == JPEGLosslessSV1:
        frame = _lossless_encoder()(pixels, film.BitsStored)
    elif syntax in (RLELossless, JPEG2000Lossless, JPEG2000, JPEGLSLossless, JPEGLSNearLossless):
        options = {JPEG2000: {"j2k_cr": [4]}, JPEGLSNearLossless: {"jls_error": 2}}.get(syntax, {})
        film.compress(syntax, generate_instance_uid=False, **options)
        return
    else:
        film.file_meta.TransferSyntaxUID = syntax
        return
    film.file_meta.TransferSyntaxUID = syntax
    film.PixelData = encapsulate([frame])
    film["PixelData"].VR, film["PixelData"].is_undefined_length = "OB", True


def _lossless_encoder() -> Any:
    """JPEG Lossless, for which no installed package has an encoder; the tests bring one."""
    file = Path(__file__).resolve().parents[1] / "tests" / "data" / "jpeg_lossless.py"
    spec = importlib.util.spec_from_file_location("jpeg_lossless", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.encode_jpeg_lossless


def _lut(entries: NDArray[Any]) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 2**16, 0, 16])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    item.ModalityLUTType = "US"
    return item


def _dicom_films(gray12: NDArray[Any], gray8: NDArray[Any]) -> list[tuple[str, bytes]]:
    both = {"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.143, 0.143]}
    window = {"WindowCenter": "2000", "WindowWidth": "3000"}
    lut = np.linspace(0, 65535, 4096)
    rgb = np.repeat(gray8[..., None], 3, axis=2)
    inverse = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
    wanted: list[tuple[str, NDArray[Any], str, str, dict[str, Any]]] = [
        ("implicit", gray12, ImplicitVRLittleEndian, _CR, {"PixelSpacing": [0.143, 0.15]}),
        ("explicit", gray12, ExplicitVRLittleEndian, _DX, both),
        ("explicit-inverse", gray12, ExplicitVRLittleEndian, _DX, {**inverse, "ImagerPixelSpacing": [0.2, 0.1]}),
        ("explicit-window", gray12, ExplicitVRLittleEndian, _CR, {**window, **both}),
        (
            "explicit-voi",
            gray12,
            ExplicitVRLittleEndian,
            _CR,
            {"VOILUTSequence": [_lut(lut)], "PixelSpacing": [0.2] * 2},
        ),
        ("explicit-modality", gray12, ExplicitVRLittleEndian, _CR, {"ModalityLUTSequence": [_lut(lut)]}),
        ("explicit-padding", gray12, ExplicitVRLittleEndian, _SC, {"PixelPaddingValue": 0, "PixelSpacing": [0.3, 0.3]}),
        ("explicit-rgb", rgb, ExplicitVRLittleEndian, _SC, {"NominalScannedPixelSpacing": [0.1, 0.1]}),
        ("big", gray12, ExplicitVRBigEndian, _CR, {"PixelSpacing": [0.143, 0.15]}),
        ("rle", gray12, RLELossless, _DX, both),
        ("j2k", gray12, JPEG2000Lossless, _DX, {**inverse, **both}),
        ("j2k-lossy", gray12, JPEG2000, _CR, both),
        ("jpegls", gray12, JPEGLSLossless, _CR, both),
        ("jpegls-near", gray12, JPEGLSNearLossless, _CR, both),
        ("lossless", gray12, JPEGLosslessSV1, _CR, {**both, "PhotometricInterpretation": "MONOCHROME1"}),
        ("baseline", gray8, JPEGBaseline8Bit, _SC, {"PixelSpacing": [0.25, 0.25]}),
    ]
    return [(name, _film(px, syntax, uid, n, **tags)) for n, (name, px, syntax, uid, tags) in enumerate(wanted)]


def _picture(pixels: NDArray[Any], kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def _photometric(data: bytes) -> list[Span]:
    """Entry of a little-endian TIFF's directory that says whether 0 is white (tag 262)."""
    directory = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[directory : directory + 2], "little")
    entries = range(directory + 2, directory + 2 + 12 * count, 12)
    return [(at, at + 12) for at in entries if int.from_bytes(data[at : at + 2], "little") == 262]


def _pictures(gray16: NDArray[Any], gray8: NDArray[Any], work: Path) -> list[Base]:
    bases = []

    def add(name: str, suffix: str, data: bytes, header: int = 128, words: tuple[bytes, ...] = ()) -> None:
        spans = [(at, at + 64) for word in words if (at := data.find(word)) >= 0]
        spans += _photometric(data) if suffix == ".tif" else []
        bases.append(Base(name, suffix, data, "image", min(header, len(data)), [], spans))

    add("png8", ".png", _picture(gray8, "PNG", dpi=(300, 300)))
    add("png16", ".png", _picture(gray16, "PNG"))
    add("jpeg", ".jpg", _picture(gray8, "JPEG", quality=95), 400)
    add("jpeg-progressive", ".jpg", _picture(gray8, "JPEG", progressive=True), 400)
    add("jp2", ".jp2", _picture(gray8, "JPEG2000"), 200)
    add("bmp", ".bmp", _picture(gray8, "BMP"), 1100)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        add(f"tiff-{compression}", ".tif", _picture(gray16, "TIFF", compression=compression), 200)
    white = _picture(gray8, "TIFF", tiffinfo={262: 0})
    add("tiff-white-is-zero", ".tif", white, 200)
    image = sitk.GetImageFromArray(gray16)
    image.SetSpacing((0.15, 0.2))
    for suffix, word in (("mha", b"ElementSpacing"), ("nrrd", b"space directions")):
        for packed in (False, True):
            file = work / f"film.{suffix}"
            sitk.WriteImage(image, str(file), packed)
            add(f"{suffix}-{'packed' if packed else 'raw'}", f".{suffix}", file.read_bytes(), 400, (word, b"spacings"))
    nifti = nibabel.Nifti1Image(gray16.T.astype(np.int16), np.diag([0.15, 0.2, 1, 1]))
    nifti.header.set_xyzt_units("mm")
    data = nifti.to_bytes()
    spans = [(40, 56), (70, 108), (112, 120), (123, 124)]  # dim, datatype and pixdim, slope, units
    bases.append(Base("nifti", ".nii", data, "image", 352, [], spans))
    bases.append(Base("nifti-gz", ".nii.gz", gzip.compress(data, mtime=0), "image", 100))
    return bases


def build_corpus(work: Path, real: Path | None = None) -> list[Base]:
    """All sound films.

    Args:
        work: a folder for temporary files.
        real: folder with real DICOM films, or None.

    Returns:
        The films, the same ones each time.
    """
    film = synthesize_film(0, size=_SIZE).pixels[::4, ::4].astype(np.float64)
    film = (film - film.min()) / np.ptp(film)
    gray8, gray12, gray16 = (np.rint(film * (2**b - 1)).astype(t) for b, t in ((8, "u1"), (12, "u2"), (15, "u2")))
    bases = [_dicom(name, data) for name, data in _dicom_films(gray12, gray8)]
    bases += _pictures(gray16, gray8, work)
    for path in sorted((real / "dicom").glob("*.dcm")) if real is not None else []:
        data = path.read_bytes()
        head = dcmread(path, stop_before_pixels=True)
        bases.append(_dicom(f"real-{path.stem}", data, (head.Rows, head.Columns)))
    return bases
