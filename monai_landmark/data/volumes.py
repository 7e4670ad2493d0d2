"""MetaImage, NRRD and NIfTI files that hold one flat film -> :class:`Film`, by SimpleITK and nibabel.

These formats know no upright direction for a projection: rows and columns are kept as stored (columns run along x, rows
along y, as ITK writes a picture) and the direction in the header is not applied.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.film import Film, check_film_file, check_film_size, merge_equal_channels
from monai_landmark.data.spacing import FilmSpacing, spacing_from_header
from monai_landmark.errors import FilmError

__all__ = ["read_metaimage", "read_nifti", "read_nrrd"]

_HEADER_BYTES = 2**16
_LONGEST_LINE = 1000  # the NRRD reader of ITK crashes on lines of some thousand characters
_NO_TEXT = re.compile(rb"[^\t\n\r -~]|\r(?!\n)")
# NIfTI's unit of length -> mm; a writer that states none means mm in practice, and the source says "uncalibrated"
_UNIT_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


def read_metaimage(path: str | PathLike[str], spacing_mm: Any = None) -> Film:
    """Read a MetaImage (``.mha``) whose pixels are in the file itself.

    Args:
        path: the film.
        spacing_mm: ``(row_mm, col_mm)`` known to the user; overrules the header.

    Returns:
        The film; for its spacing see :func:`monai_landmark.data.spacing.spacing_from_header`.

    Raises:
        FilmError: broken, too large, not one flat gray film, or pixels in another file.
    """
    return _read_itk(check_film_file(path), "MetaImageIO", spacing_mm)


def read_nrrd(path: str | PathLike[str], spacing_mm: Any = None) -> Film:
    """Read an NRRD whose pixels are in the file itself.

    Args:
        path: the film.
        spacing_mm: ``(row_mm, col_mm)`` known to the user; overrules the header.

    Returns:
        The film; for its spacing see :func:`monai_landmark.data.spacing.spacing_from_header`.

    Raises:
        FilmError: broken, too large, not one flat gray film, or pixels in another file.
    """
    return _read_itk(check_film_file(path), "NrrdImageIO", spacing_mm)


def _read_itk(file: Path, image_io: str, spacing_mm: Any) -> Film:
    import SimpleITK as sitk  # takes half a second, and most films do not need it

    header = _attached_header(file, image_io)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
        size = _flat(reader.GetSize(), file, _itk_pixel_bytes(reader))
        spacing = spacing_from_header(reader.GetSpacing()[1::-1], file=file, field="spacing", user_mm=spacing_mm)
        pixels = sitk.GetArrayFromImage(reader.Execute())
        if image_io == "MetaImageIO":
            _check_metaimage(header, reader.GetSpacing(), file)
        _check_stored(file, header, pixels.nbytes)
    except FilmError:
        raise
    except Exception as error:  # ITK's own are RuntimeErrors; text that is not UTF-8 is another kind
        raise _broken(file, error) from None
    channels = reader.GetNumberOfComponents()
    return _film(pixels.reshape(*size, channels) if channels > 1 else pixels.reshape(size), spacing, file)


def _itk_pixel_bytes(reader: Any) -> int:
    """All channels together; ITK names a type by its bits, such as ``16-bit unsigned integer``."""
    import SimpleITK as sitk

    bits = re.match(r"(?:vector of )?(\d+)-bit", sitk.GetPixelIDValueAsString(reader.GetPixelID()))
    return int(reader.GetNumberOfComponents()) * (int(bits[1]) // 8 if bits else 8)


def _attached_header(file: Path, image_io: str) -> bytes:
    """The header, which must not name another file: the reader could be made to open anything on the machine."""
    with file.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    if image_io == "NrrdImageIO":
        found = re.search(rb"\r?\n\r?\n", head)
        attached = found is not None and not re.search(rb"(?im)^\s*data\s*file\s*:", head[: found.start()])
    else:
        found = re.search(rb"(?im)^\s*ElementDataFile\s*[=:]\s*(\S+)[ \t]*\r?\n", head)
        attached = found is not None and found[1] == b"LOCAL"
    header = head[: found.end()] if found else head
    if not attached or _NO_TEXT.search(header) or max(map(len, header.splitlines())) > _LONGEST_LINE:
        raise FilmError(
            "the pixels are in another file, or the header is broken",
            file=file,
            field="header",
            expected="pixels in the same file",
            action="save the film as one file",
        )
    return header


def _check_metaimage(header: bytes, spacing: tuple[float, ...], file: Path) -> None:
    """Every line is a key with a value, and ITK has found the spacing: it takes a missing one as 1 mm.

    Raises:
        FilmError: the header states no spacing, which a damaged one does not either.
        ValueError: the header is damaged.
    """
    if not all(re.fullmatch(rb"\s*[A-Za-z][\w.|-]*\s*[=:].*|\s*", line) for line in header.splitlines()):
        raise ValueError("a line is no key with a value")
    stated = re.findall(rb"(?im)^\s*Element(?:Spacing|Size)\s*[=:]([^\r\n]*)", header)
    if not stated:
        action = "write ElementSpacing into the header, 1 1 where it is not known"
        raise FilmError("the header states no spacing", file=file, field="ElementSpacing", action=action)
    if not any(np.allclose([float(word) for word in values.split()], spacing, rtol=1e-6) for values in stated):
        raise ValueError("the spacing is not the one stated")


def _check_stored(file: Path, header: bytes, expected: int) -> None:
    """The pixels fill the film: ITK takes those that are missing as 0, and leaves out those that are too many.

    Raises:
        ValueError: they do not.
    """
    compressed = rb"(?im)^\s*CompressedData\s*[=:]\s*T|^\s*encoding\s*:\s*(gz|gzip)\s*$"
    plain = rb"(?im)^\s*ElementDataFile\s*[=:]|^\s*encoding\s*:\s*raw\s*$"
    with file.open("rb") as stream:
        stream.seek(len(header))
        if re.search(compressed, header):
            unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # zlib or gzip, whose checksums ITK leaves unread
            found = len(unpacker.decompress(stream.read(), expected + 1))
            complete = unpacker.eof
        elif re.search(plain, header):
            found, complete = file.stat().st_size - len(header), True
        else:
            return
    if not complete or found != expected:
        raise ValueError(f"{found} bytes of pixels in place of {expected}")


def read_nifti(path: str | PathLike[str], spacing_mm: Any = None) -> Film:
    """Read a flat NIfTI (``.nii``, ``.nii.gz``); its first axis is x, its second y.

    Args:
        path: the film.
        spacing_mm: ``(row_mm, col_mm)`` known to the user; overrules the header.

    Returns:
        The film; for its spacing see :func:`monai_landmark.data.spacing.spacing_from_header`.

    Raises:
        FilmError: broken, too large, or not one flat gray film.
    """
    import nibabel

    file = check_film_file(path)
    try:
        header = _raw_nifti_header(file)
        unit = header.get_xyzt_units()[0]
        zooms = [float(zoom) * _UNIT_MM[unit] for zoom in header["pixdim"][2:0:-1]]
        image = nibabel.load(file)
        size = _flat(image.shape, file, header.get_data_dtype().itemsize)
        spacing = spacing_from_header(zooms, file=file, field=f"pixdim ({unit})", user_mm=spacing_mm)
        pixels = np.asanyarray((_unpacked(image, file) if file.suffix.lower() == ".gz" else image).dataobj)
    except FilmError:
        raise
    except Exception as error:
        # nibabel passes on whatever gzip, zlib and numpy raise
        raise _broken(file, error) from None
    if pixels.dtype.names:  # RGB24 is a record of three bytes
        pixels = np.stack([pixels[name] for name in pixels.dtype.names], axis=-1)
        return _film(pixels.reshape(*size[::-1], -1).transpose(1, 0, 2), spacing, file)
    return _film(pixels.reshape(size[::-1]).T, spacing, file)


def _raw_nifti_header(file: Path) -> Any:
    """The header as it is; nibabel mends the one that it gives with a film: a pixel size of 0 becomes 1 there."""
    import nibabel

    with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
        head = stream.read(544)
    kind = nibabel.Nifti2Header if head[4:8] == b"n+2\0" else nibabel.Nifti1Header
    return kind(head[: kind.template_dtype.itemsize], check=False)


def _unpacked(image: Any, file: Path) -> Any:
    """The same image read to the end of its gzip stream, whose checksum nibabel would leave unread."""
    header = image.header
    length = int(header["vox_offset"]) + math.prod(image.shape) * header.get_data_dtype().itemsize
    with gzip.open(file) as stream:
        data = stream.read(length + _HEADER_BYTES)
        if stream.read(1):
            raise ValueError("more data than the header says")
    return type(image).from_bytes(data)


def _flat(shape: tuple[int, ...], file: Path, pixel_bytes: int) -> tuple[int, int]:
    """``(H, W)`` of a file's ``(x, y, 1, ...)`` shape, checked before the pixels are read."""
    if len(shape) < 2 or any(length != 1 for length in shape[2:]):
        raise FilmError(
            "this is not one flat film",
            file=file,
            field="dimensions",
            value=tuple(shape),
            expected="(x, y) or (x, y, 1)",
            action="export a single film",
        )
    columns, rows = int(shape[0]), int(shape[1])
    stored = file.stat().st_size
    check_film_size(rows, columns, file=file, field="dimensions", pixel_bytes=pixel_bytes, stored_bytes=stored)
    return rows, columns


def _broken(file: Path, error: Exception) -> FilmError:
    return FilmError(
        f"the file is broken or cut short ({type(error).__name__})", file=file, action="copy or export the film again"
    )


def _film(pixels: NDArray[Any], spacing: FilmSpacing, file: Path) -> Film:
    if pixels.ndim == 3:
        if pixels.shape[-1] != 3 or pixels.dtype.kind != "u":
            raise FilmError(
                "the film is not gray",
                file=file,
                field="channels",
                value=pixels.shape[-1],
                expected="1, or 3 equal ones",
                action="export it as gray",
            )
        pixels = merge_equal_channels(pixels, file=file, field="channels")
    if pixels.dtype.kind not in "uif" or not np.isfinite(pixels).all():
        raise FilmError("a pixel is not a finite number", file=file, field="pixels", action="export the film again")
    suffix = "nii.gz" if file.name.lower().endswith(".nii.gz") else file.suffix.lower().lstrip(".")
    return Film(np.ascontiguousarray(pixels, dtype=np.float32), spacing, {"format": suffix})
