"""The only door for films: every supported format, one orientation, one spacing policy, one error type.

MONAI's stock readers transpose films, lose or mistake the pixel size of radiographs, and disagree on MONOCHROME1
depending on which optional package is installed; :class:`RadiographReader` is what ``LoadImaged`` should be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys
from numpy.typing import NDArray

from monai_landmark.data.film import Film
from monai_landmark.data.formats import FILM_SUFFIXES, is_film, read_film
from monai_landmark.data.geometry import film_affine
from monai_landmark.errors import FilmError

__all__ = ["FILM_SUFFIXES", "Film", "RadiographReader", "is_film", "read_film"]


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
