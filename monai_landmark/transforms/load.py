"""From a datalist item to a film with its affine and its landmarks in millimetres."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_landmark.data.geometry import grid_to_mm
from monai_landmark.data.reader import RadiographReader

__all__ = ["LoadRadiographD", "LoadRadiographDict", "LoadRadiographd"]


class LoadRadiographd(MapTransform):
    """Read films by :class:`RadiographReader`, each with the spacing that its datalist item states.

    A spacing whose source in the datalist is ``user`` overrules the file; any other is read from the file again, so
    that it keeps its source. Landmarks in the item, pixels of the original film, become millimetres.

    Args:
        keys: keys of the film's path; the film takes the path's place, ``(1, H, W)`` float32. Landmarks lie on the
            first.
        landmarks_key: key of ``(K, 2)`` landmarks (x, y) in pixels, None or NaN where not annotated; turned into mm
            where present.
        spacing_key: key of ``[row_mm, col_mm]`` or None.
        source_key: key of the spacing's source.
        allow_missing_keys: see :class:`monai.transforms.MapTransform`.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        landmarks_key: str = "landmarks",
        spacing_key: str = "spacing",
        source_key: str = "spacing_source",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.landmarks_key, self.spacing_key, self.source_key = landmarks_key, spacing_key, source_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load the film of one datalist item.

        Args:
            data: a datalist item.

        Returns:
            A dictionary with the film, and the landmarks in mm (float64 tensor ``(K, 2)``) where the item has some.
        """
        loaded = dict(data)
        spacing = loaded.pop(self.spacing_key, None)
        given = tuple(spacing) if spacing is not None and loaded.get(self.source_key, "user") == "user" else None
        reader = RadiographReader(spacing_mm=given)
        films: list[MetaTensor] = []
        for key in self.key_iterator(loaded):
            films.append(self._film(reader, loaded[key]))
            loaded[key] = films[-1]
        if films and self.landmarks_key in loaded:
            points = [[np.nan, np.nan] if p is None else p for p in loaded[self.landmarks_key]]
            pixels = torch.as_tensor(np.asarray(points, dtype=np.float64))
            loaded[self.landmarks_key] = grid_to_mm(pixels, films[0].affine)
        return loaded

    @staticmethod
    def _film(reader: RadiographReader, path: Any) -> MetaTensor:
        """``(1, H, W)``; without :class:`monai.transforms.LoadImage`, which sets up every reader it knows each time."""
        pixels, meta = reader.get_data(reader.read(path))
        film = MetaTensor(torch.from_numpy(pixels)[None], meta=meta)
        film.meta["filename_or_obj"] = str(path)
        return film


LoadRadiographD = LoadRadiographDict = LoadRadiographd
