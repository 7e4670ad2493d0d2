"""DICOM radiographs -> :class:`Film`. The only module of ``data`` that imports pydicom.

Only the attributes in :data:`monai_landmark.data.dicom_header.ATTRIBUTES` are read from the file: patient, study and
institution never enter the process.
"""

from __future__ import annotations

import logging
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import UID, RLELossless

from monai_landmark.data.codestream import codestream_size
from monai_landmark.data.dicom_gray import grayscale_of
from monai_landmark.data.dicom_header import ATTRIBUTES, Header
from monai_landmark.data.dicom_structure import read_attributes
from monai_landmark.data.film import MAX_PIXELS_PER_BYTE, Film, check_film_file, check_film_size, merge_equal_channels
from monai_landmark.data.grayscale import LookupTable, Window, render_gray
from monai_landmark.data.spacing import SPACING_TAGS, spacing_from_tags
from monai_landmark.errors import FilmError

__all__ = ["STORAGE_CLASSES", "TRANSFER_SYNTAXES", "read_dicom", "read_stored"]

_CLASS = "1.2.840.10008.5.1.4.1.1."
#: SOP classes that hold one radiograph; others are refused by name.
STORAGE_CLASSES = {
    _CLASS + "1": "Computed Radiography",
    _CLASS + "1.1": "Digital X-Ray, for presentation",
    _CLASS + "1.1.1": "Digital X-Ray, for processing",
    _CLASS + "1.2": "Digital Mammography X-Ray, for presentation",
    _CLASS + "1.2.1": "Digital Mammography X-Ray, for processing",
    _CLASS + "1.3": "Digital Intra-Oral X-Ray, for presentation",
    _CLASS + "1.3.1": "Digital Intra-Oral X-Ray, for processing",
    _CLASS + "7": "Secondary Capture",
    _CLASS + "7.2": "Multi-frame Grayscale Byte Secondary Capture (one frame)",
    _CLASS + "7.3": "Multi-frame Grayscale Word Secondary Capture (one frame)",
}

_SYNTAX = "1.2.840.10008.1.2"
#: Transfer syntaxes with a decoder among the package's dependencies. The deflated ones are left out on purpose: they
#: can only be unpacked whole, without a limit on what comes out.
TRANSFER_SYNTAXES = {
    _SYNTAX: "Implicit VR Little Endian",
    _SYNTAX + ".1": "Explicit VR Little Endian",
    _SYNTAX + ".2": "Explicit VR Big Endian",
    _SYNTAX + ".4.50": "JPEG Baseline",
    _SYNTAX + ".4.51": "JPEG Extended",
    _SYNTAX + ".4.57": "JPEG Lossless",
    _SYNTAX + ".4.70": "JPEG Lossless SV1",
    _SYNTAX + ".4.80": "JPEG-LS Lossless",
    _SYNTAX + ".4.81": "JPEG-LS Near-Lossless",
    _SYNTAX + ".4.90": "JPEG 2000 Lossless",
    _SYNTAX + ".4.91": "JPEG 2000",
    _SYNTAX + ".5": "RLE Lossless",
}

# Decoders in order of preference, the fastest that is right first. The order is fixed here, and not left to pydicom, so
# that an unrelated package that brings a decoder along changes no pixel.
_DECODERS = ("pyjpegls", "pylibjpeg", "gdcm", "pydicom")
_DECODERS_OF = {
    _SYNTAX + ".4.50": ("pillow", *_DECODERS),
    # CharLS, behind pyjpegls, can work ten seconds on three damaged kilobytes
    _SYNTAX + ".4.80": ("pylibjpeg", *_DECODERS),
    _SYNTAX + ".4.81": ("pylibjpeg", *_DECODERS),
}

_FACTS = {
    "modality": "Modality",
    "body_part": "BodyPartExamined",
    "view_position": "ViewPosition",
    "laterality": "ImageLaterality",
    "photometric": "PhotometricInterpretation",
}
# Lossless JPEG spends a bit on every pixel at least (ISO 10918-1, H.1.2.2).
_DENSEST = {_SYNTAX + ".4.57": 8, _SYNTAX + ".4.70": 8}

# Its messages quote the values of attributes, and tell again what is raised.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
_CONVERT = "convert it to Explicit VR Little Endian with the archive's own tool, or export it again"


def read_dicom(path: str | PathLike[str], spacing_mm: Any = None, apply_voi: bool = True) -> Film:
    """Read one radiograph truthfully, or say why not.

    Films are stored upright; PatientOrientation and ViewPosition never turn or flip them. RGB is taken when its
    channels are equal. For polarity, LUTs and windows see :func:`monai_landmark.data.dicom_gray.grayscale_of`.

    Args:
        path: a DICOM file of one of :data:`STORAGE_CLASSES` in one of :data:`TRANSFER_SYNTAXES`; any or no suffix.
        spacing_mm: ``(row_mm, col_mm)`` known to the user; overrules the tags.
        apply_voi: apply the first VOI LUT, else the first window, as the film was meant to be seen.

    Returns:
        The film; see :mod:`monai_landmark.data.spacing` for its spacing.

    Raises:
        FilmError: not DICOM, not one gray radiograph, a broken file, or an impossible tag.
    """
    file = check_film_file(path)
    with warnings.catch_warnings():
        # pydicom's warnings quote the values of attributes
        warnings.simplefilter("ignore")
        return _read(file, spacing_mm, apply_voi)


def _read(file: Path, spacing_mm: Any, apply_voi: bool) -> Film:
    syntax = _check_syntax(file)
    header = Header(_parse(file, syntax), file)
    _check_kind(header)
    grayscale = grayscale_of(header, apply_voi)
    tags = {} if spacing_mm is not None else {keyword: header.value(keyword) for keyword in SPACING_TAGS}
    spacing = spacing_from_tags(tags, file=file, user_mm=spacing_mm)
    codes = _decode(header, syntax)
    pixels, padding = render_gray(codes, grayscale)
    if padding == 1.0:
        raise header.error("every pixel is padding, there is no film", "PixelPaddingValue")
    facts = {name: header.text(keyword) for name, keyword in _FACTS.items()}
    info = {
        "format": "dicom",
        "storage_class": STORAGE_CLASSES[header.text("SOPClassUID")],
        "transfer_syntax": TRANSFER_SYNTAXES[syntax],
        "bits_stored": grayscale.bits_stored,
        "signed": grayscale.signed,
        "inverted": grayscale.inverted,
        "voi": {LookupTable: "lut", Window: "window"}.get(type(grayscale.voi), "none"),
        "padding_fraction": padding,
    }
    return Film(pixels, spacing, info | {name: fact for name, fact in facts.items() if fact})


def read_stored(path: str | PathLike[str]) -> tuple[Header, NDArray[Any]]:
    """Read one radiograph as it is stored, for those who write it again.

    Args:
        path: a DICOM file that :func:`read_dicom` reads.

    Returns:
        Its attributes, and ``(H, W)`` pixels as stored: before sign, look-up tables, window and polarity.

    Raises:
        FilmError: as :func:`read_dicom`.
    """
    file = check_film_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_dicom(file)
        syntax = _check_syntax(file)
        header = Header(_parse(file, syntax), file)
        return header, _decode(header, syntax)


def _check_syntax(file: Path) -> str:
    """Transfer syntax of the file; refused before the data set is opened when it has no decoder."""
    try:
        syntax = str(read_file_meta_info(file).get("TransferSyntaxUID", ""))
    except InvalidDicomError:
        raise FilmError(
            "this is not a DICOM file (no DICM mark after 128 bytes)",
            file=file,
            expected="a DICOM Part 10 file",
            action="export the film again as DICOM, or give it the suffix of what it is",
        ) from None
    except Exception as error:
        raise _broken(file, error) from None
    if syntax not in TRANSFER_SYNTAXES:
        raise FilmError(
            "the film is stored in a transfer syntax that this package does not read",
            file=file,
            field="TransferSyntaxUID (0002,0010)",
            value=f"{syntax} ({UID(syntax).name})" if syntax else "",
            expected="one of " + ", ".join(TRANSFER_SYNTAXES.values()),
            action=_CONVERT,
        )
    return syntax


def _parse(file: Path, syntax: str) -> Dataset:
    try:
        return read_attributes(file, ATTRIBUTES, implicit=syntax == _SYNTAX)
    except Exception as error:
        raise _broken(file, error) from None


def _broken(file: Path, error: Exception) -> FilmError:
    # the cause's text may quote values of other attributes, so only its kind is told
    return FilmError(
        f"the DICOM file is broken or cut short ({type(error).__name__})",
        file=file,
        action="copy or export the film again",
    )


def _check_kind(header: Header) -> None:
    """One frame, gray or RGB, 8 or 16 bits, of possible size, with pixels."""
    uid = header.text("SOPClassUID")
    if uid not in STORAGE_CLASSES:
        found = f"{uid} ({UID(uid).name})" if uid else ""
        expected = "one of " + ", ".join(STORAGE_CLASSES.values())
        raise header.error(
            "this DICOM object is not a radiograph", "SOPClassUID", found, expected, "leave it out, or export a film"
        )
    frames = header.integer("NumberOfFrames", 1)
    if frames != 1:
        action = "export the one frame that is the film"
        raise header.error("the file holds several frames", "NumberOfFrames", frames, "1", action)
    rows, columns = header.integer("Rows"), header.integer("Columns")
    field = "Rows (0028,0010) x Columns (0028,0011)"
    check_film_size(rows, columns, file=header.file, field=field)
    photometric, samples = header.text("PhotometricInterpretation"), header.integer("SamplesPerPixel", 1)
    gray = photometric in ("MONOCHROME1", "MONOCHROME2")
    if samples != (1 if gray else 3) or not (gray or photometric == "RGB" or photometric.startswith("YBR_")):
        found = f"{photometric} with {samples} sample(s)"
        expected = "MONOCHROME1 or MONOCHROME2 with 1 sample, or RGB/YBR with 3 equal ones"
        raise header.error("the film is not gray", "PhotometricInterpretation", found, expected, "export it as gray")
    _check_bits(header)
    pixel_bytes = samples * header.integer("BitsAllocated") // 8
    check_film_size(rows, columns, file=header.file, field=field, pixel_bytes=pixel_bytes)
    if header.value("PixelData") is None:
        raise header.error(
            "the file has no pixels, or is cut short before them", "PixelData", None, "an image", "copy the film again"
        )


def _check_bits(header: Header) -> None:
    allocated = header.integer("BitsAllocated")
    stored = header.integer("BitsStored")
    if allocated not in (8, 16):
        raise header.error("the pixel size is not readable", "BitsAllocated", allocated, "8 or 16", _CONVERT)
    if not 2 <= stored <= allocated:
        raise header.error("the stored bits are impossible", "BitsStored", stored, f"2 to {allocated}", _CONVERT)
    if (high := header.integer("HighBit", stored - 1)) != stored - 1:
        raise header.error("the value is not in the lowest bits", "HighBit", high, str(stored - 1), _CONVERT)
    if (sign := header.integer("PixelRepresentation", 0)) not in (0, 1):
        raise header.error("the sign is not stated", "PixelRepresentation", sign, "0 or 1", _CONVERT)


def _decode(header: Header, syntax: str) -> NDArray[Any]:
    """``(H, W)`` pixels as stored."""
    size = header.integer("Rows"), header.integer("Columns")
    uid = UID(syntax)
    plugin = _decoder(header, uid)
    try:
        if not uid.is_encapsulated:
            _check_native_length(header, size)
        elif uid != RLELossless:
            _check_codestream(header, size, syntax)
        codes: NDArray[Any] = pixel_array(header.dataset, decoding_plugin=plugin)
    except (FilmError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the decoder in Rust is no Exception
        problem = f"the pixels cannot be decoded, the file is broken or cut short ({type(error).__name__})"
        action = "copy or export the film again"
        raise header.error(problem, "PixelData", TRANSFER_SYNTAXES[syntax], None, action) from None
    if codes.ndim == 3 and codes.shape[-1] == 3:
        field = f"PhotometricInterpretation {ATTRIBUTES['PhotometricInterpretation']}"
        codes = merge_equal_channels(codes, file=header.file, field=field)
    if codes.shape != size:
        raise header.error("the pixels have another size than the header says", "PixelData", codes.shape, str(size))
    native: NDArray[Any] = codes.astype(codes.dtype.newbyteorder("="), copy=False)
    return native


def _check_native_length(header: Header, size: tuple[int, int]) -> None:
    """Uncompressed pixels fill the film: a row or column too much means that Rows or Columns is wrong."""
    pixel_bytes = header.integer("SamplesPerPixel", 1) * header.integer("BitsAllocated") // 8
    expected, found = size[0] * size[1] * pixel_bytes, len(header.dataset.PixelData)
    if not header.text("PhotometricInterpretation").endswith("_422") and not 0 <= found - expected < max(
        min(size) * pixel_bytes, 2
    ):
        problem = "the pixels are of another size than Rows and Columns say, or are cut short"
        raise header.error(problem, "PixelData", f"{found} bytes", f"{expected} bytes", "copy or export the film again")


def _check_codestream(header: Header, size: tuple[int, int], syntax: str) -> None:
    """The compressed image states its size too, and a decoder would believe that one."""
    frame = get_frame(header.dataset.PixelData, 0, number_of_frames=1)
    sizes = {"stored_bytes": len(frame), "pixels_per_byte": _DENSEST.get(syntax, MAX_PIXELS_PER_BYTE)}
    check_film_size(*size, file=header.file, field=f"PixelData {ATTRIBUTES['PixelData']}", **sizes)
    stated = codestream_size(frame)
    if stated != size:
        problem = "the compressed image is broken, or of another size than Rows and Columns say"
        raise header.error(problem, "PixelData", stated, str(size), "copy or export the film again")


def _decoder(header: Header, syntax: UID) -> str:
    """Name of pydicom's plugin for a compressed film, empty for an uncompressed one."""
    if not syntax.is_encapsulated:
        return ""
    available = get_decoder(syntax).available_plugins
    for name in _DECODERS_OF.get(str(syntax), _DECODERS):
        if name in available:
            return name
    action = "install pylibjpeg, pylibjpeg-libjpeg, pylibjpeg-openjpeg, pylibjpeg-rle and pyjpegls"
    raise header.error("no decoder is installed for this compression", "PixelData", syntax.name, None, action)
