"""Which format a film is of, and the one function that reads them all; without MONAI, so that it starts at once."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from monai_landmark.data.dicom import read_dicom
from monai_landmark.data.film import Film, check_film_file
from monai_landmark.data.raster import read_raster
from monai_landmark.data.volumes import read_metaimage, read_nifti, read_nrrd
from monai_landmark.errors import FilmError

__all__ = ["FILM_SUFFIXES", "FilmReader", "is_dicom", "is_film", "read_film", "read_films_by"]

#: Suffixes of files that claim to be films; DICOM files may also have none.
FILM_SUFFIXES = (
    *(".dcm", ".dicom", ".dic", ".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".tif", ".tiff", ".bmp"),
    *(".mha", ".nrrd", ".nii", ".nii.gz"),
)

#: Reads a film of any format: ``(path, spacing_mm, apply_voi)``.
FilmReader = Callable[[Path, Any, bool], Film]
_Read = Callable[[Path, Any], Film]
_DICOM_MARK = b"DICM"
# First bytes of each format; what a file is counts, not what its suffix claims.
_SIGNATURES: tuple[tuple[int, bytes, _Read], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", read_raster),
    (0, b"\xff\xd8\xff", read_raster),
    (0, b"II*\x00", read_raster),
    (0, b"MM\x00*", read_raster),
    (0, b"II+\x00", read_raster),
    (0, b"MM\x00+", read_raster),
    (0, b"\x00\x00\x00\x0cjP  ", read_raster),
    (0, b"\xff\x4f\xff\x51", read_raster),
    (0, b"NRRD", read_nrrd),
    (0, b"ObjectType", read_metaimage),
    (0, b"NDims", read_metaimage),
    (344, b"n+1\x00", read_nifti),
    (4, b"n+2\x00", read_nifti),
    (0, b"BM", read_raster),
)


def read_film(path: str | PathLike[str], spacing_mm: Any = None, *, apply_voi: bool = True) -> Film:
    """Read one film of any supported format.

    Args:
        path: the film; its content decides the format, not its suffix.
        spacing_mm: ``(row_mm, col_mm)`` of the upright film, known to the user; overrules the file.
        apply_voi: DICOM only, show the film through its own VOI LUT or window.

    Returns:
        The film, upright ``(H, W)``, bright = dense.

    Raises:
        FilmError: with file, field, value and what to do, whatever is wrong.
    """
    return _reader(Path(path), spacing_mm, apply_voi)


def read_films_by(reader: FilmReader | None) -> None:
    """Choose who reads the films of this process from now on.

    Args:
        reader: such as :meth:`monai_landmark.data.sandbox.FilmSandbox.read`; None: this process itself.
    """
    global _reader
    _reader = reader or _read_here


def _read_here(path: Path, spacing_mm: Any, apply_voi: bool) -> Film:
    file = check_film_file(path)
    try:
        return _read_format(file, spacing_mm, apply_voi)
    except MemoryError:
        problem, action = "the film needs more memory than there is", "export the film at a smaller size"
        raise FilmError(problem, file=file, action=action) from None


def _read_format(file: Path, spacing_mm: Any, apply_voi: bool) -> Film:
    with file.open("rb") as stream:
        head = stream.read(352)
    if head[128:132] == _DICOM_MARK:
        return read_dicom(file, spacing_mm, apply_voi)
    for offset, mark, read in _SIGNATURES:
        if head[offset:].startswith(mark):
            return read(file, spacing_mm)
    if head.startswith(b"\x1f\x8b") and file.name.lower().endswith(".nii.gz"):
        return read_nifti(file, spacing_mm)
    if file.suffix.lower() == ".mha":  # a MetaImage may begin with any of its keys
        return read_metaimage(file, spacing_mm)
    raise FilmError(
        "the content is of no format that this package reads",
        file=file,
        field="first bytes",
        value=head[:8],
        expected="DICOM Part 10 (DICM after 128 bytes), PNG, JPEG, JPEG 2000, TIFF, BMP, MHA, NRRD or NIfTI",
        action="export the film again, or leave this file out",
    )


_reader: FilmReader = _read_here


def is_film(path: str | PathLike[str]) -> bool:
    """Whether a file in a folder should be read as a film.

    A film's suffix is enough, so that a broken film is reported and not overlooked; without one the DICOM mark decides.

    Args:
        path: a file; hidden files, folders and DICOMDIR are no films.

    Returns:
        True when :func:`read_film` should be asked.
    """
    file = Path(path)
    if file.name.startswith(".") or file.name.upper() == "DICOMDIR" or not file.is_file():
        return False
    if file.name.lower().endswith(FILM_SUFFIXES):
        return True
    return is_dicom(file)


def is_dicom(path: str | PathLike[str]) -> bool:
    """Whether a file has the mark of DICOM Part 10.

    Args:
        path: a file.

    Returns:
        False, too, where it cannot be opened.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read(132)[128:] == _DICOM_MARK
    except OSError:
        return False
