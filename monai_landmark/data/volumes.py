"""MetaImage, NRRD and NIfTI files that hold one flat film -> :class:`Film`, by SimpleITK and nibabel.

These formats know no upright direction for a projection: rows and columns are kept as stored (columns run along x, rows
along y, as ITK writes a picture) and the direction in the header is not applied.
"""

from __future__ import annotations

import gzip
import math
import re
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

    _refuse_detached(file, image_io)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
        size = _flat(reader.GetSize(), file)
        spacing = spacing_from_header(reader.GetSpacing()[1::-1], file=file, field="spacing", user_mm=spacing_mm)
        pixels = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise _broken(file, error) from None
    channels = reader.GetNumberOfComponents()
    return _film(pixels.reshape(*size, channels) if channels > 1 else pixels.reshape(size), spacing, file)


def _refuse_detached(file: Path, image_io: str) -> None:
    """A header that names another file could make the reader open anything on the machine."""
    with file.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    if image_io == "NrrdImageIO":
        header, complete, _ = head.replace(b"\r\n", b"\n").partition(b"\n\n")
        attached = bool(complete) and not re.search(rb"(?im)^\s*data\s*file\s*:", header)
    else:
        link = re.search(rb"(?im)^\s*ElementDataFile\s*[=:]\s*(\S+)", head)
        attached = link is not None and link[1] == b"LOCAL"
        header = head[: link.start()] if link else head
    if not attached or re.search(rb"\r(?!\n)", header):
        raise FilmError(
            "the pixels are in another file, or the header is broken",
            file=file,
            field="header",
            expected="pixels in the same file",
            action="save the film as one file",
        )


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
        image = nibabel.load(file)
        size = _flat(image.shape, file)
        unit = image.header.get_xyzt_units()[0]
        zooms = [float(zoom) * _UNIT_MM[unit] for zoom in image.header["pixdim"][2:0:-1]]
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


def _unpacked(image: Any, file: Path) -> Any:
    """The same image read to the end of its gzip stream, whose checksum nibabel would leave unread."""
    header = image.header
    length = int(header["vox_offset"]) + math.prod(image.shape) * header.get_data_dtype().itemsize
    with gzip.open(file) as stream:
        data = stream.read(length + _HEADER_BYTES)
        if stream.read(1):
            raise ValueError("more data than the header says")
    return type(image).from_bytes(data)


def _flat(shape: tuple[int, ...], file: Path) -> tuple[int, int]:
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
    check_film_size(rows, columns, file=file, field="dimensions")
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
