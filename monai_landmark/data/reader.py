"""The only door for films: every supported format, one orientation, one spacing policy, one error type.

MONAI's stock readers transpose films, lose or mistake the pixel size of radiographs, and disagree on MONOCHROME1
depending on which optional package is installed; :class:`RadiographReader` is what ``LoadImaged`` should be given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys
from numpy.typing import NDArray

from monai_landmark.data.dicom import read_dicom
from monai_landmark.data.film import Film, check_film_file
from monai_landmark.data.geometry import film_affine
from monai_landmark.data.raster import read_raster
from monai_landmark.data.volumes import read_metaimage, read_nifti, read_nrrd
from monai_landmark.errors import FilmError

__all__ = ["FILM_SUFFIXES", "Film", "RadiographReader", "is_film", "read_film"]

#: Suffixes of files that claim to be films; DICOM files may also have none.
FILM_SUFFIXES = (
    *(".dcm", ".dicom", ".dic", ".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".tif", ".tiff", ".bmp"),
    *(".mha", ".nrrd", ".nii", ".nii.gz"),
)

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
    file = check_film_file(path)
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
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == _DICOM_MARK
    except OSError:
        return False


class RadiographReader(ImageReader):  # type: ignore[misc]  # monai is untyped
    """MONAI reader for radiographs: ``LoadImaged("image", reader=RadiographReader(), ensure_channel_first=True)``.

    Gives ``(1, H, W)``, upright, with the ``(3, 3)`` affine that maps (row, col) to (x_mm, y_mm), and meta keys
    ``spacing_mm`` (two numbers, NaN when unknown), ``spacing_source``, ``original_size`` (H, W). Meta holds no None, so
    it collates, and no patient data beyond the file's own path.

    Args:
        spacing_mm: ``(row_mm, col_mm)`` of every film read, when the user knows better than the files.
        apply_voi: show DICOM films through their own VOI LUT or window.
    """

    def __init__(self, spacing_mm: Sequence[float] | None = None, apply_voi: bool = True) -> None:
        super().__init__()
        self.spacing_mm, self.apply_voi = spacing_mm, apply_voi

    def verify_suffix(self, filename: Any) -> bool:
        """Whether all files look like films (see :func:`is_film`), so DICOM files without suffix are taken."""
        return all(is_film(name) for name in _names(filename))

    def read(self, data: Any, **kwargs: Any) -> list[Path]:
        """Only note which file to read; :meth:`get_data` opens it.

        MONAI's ``LoadImage`` takes an error raised here as "try the next reader", and the stock readers would then
        load a film that this one refuses, with a wrong pixel size.

        Args:
            data: one path, or a list of paths.
            kwargs: ignored.

        Returns:
            The paths.
        """
        return [Path(name) for name in _names(data)]

    def get_data(self, img: Sequence[Path]) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Read the film.

        Args:
            img: what :meth:`read` returned.

        Returns:
            ``(H, W)`` float32 and its meta dictionary.

        Raises:
            FilmError: the film cannot be read truthfully, or several were asked for at once.
        """
        if len(img) != 1:
            raise FilmError(
                "films cannot be stacked as channels",
                field="image",
                value=[str(path) for path in img],
                expected="one path",
                action="give one film per item",
            )
        film = read_film(img[0], self.spacing_mm, apply_voi=self.apply_voi)
        affine = film_affine(film.spacing.mm)
        meta = {
            MetaKeys.AFFINE.value: affine,
            MetaKeys.ORIGINAL_AFFINE.value: affine.copy(),
            MetaKeys.SPATIAL_SHAPE.value: np.asarray(film.size),
            MetaKeys.ORIGINAL_CHANNEL_DIM.value: float("nan"),
            "spacing_mm": np.asarray(film.spacing.mm or (np.nan, np.nan)),
            "spacing_source": film.spacing.source,
            "original_size": np.asarray(film.size),
        }
        return film.pixels, meta


def _names(data: Any) -> tuple[Any, ...]:
    return (data,) if isinstance(data, (str, PathLike)) else tuple(data)
