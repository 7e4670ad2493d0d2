"""Films as a frozen network sees them: maps to match landmarks in, and one vector for the film as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRangePercentilesd
from numpy.typing import NDArray
from torch.nn import functional

from monai_landmark.errors import ConfigurationError
from monai_landmark.networks import FrozenFeatures
from monai_landmark.transforms import FitFilmd, LoadRadiographd

__all__ = ["FilmMaps", "FilmReader", "FilmVectors", "pooled_vector"]

Item = dict[str, Any]
Maps = dict[str, torch.Tensor]

_POOLED = 4  # cells along each side: where things lie tells more about a film than what is on it, see pooled_vector
_COARSEST = 2  # resolutions


@dataclass(frozen=True, eq=False)
class FilmMaps:
    """A film and its feature maps.

    Attributes:
        item: the datalist item.
        image: ``(1, H, W)`` on the grid, with its affine.
        landmarks_mm: ``(K, 2)`` (x, y) in mm, NaN where not annotated; None where the item has none.
        levels: level -> ``(C, h, w)`` float32 on the CPU.
    """

    item: Mapping[str, Any]
    image: MetaTensor
    landmarks_mm: torch.Tensor | None
    levels: Maps


class FilmReader:
    """From a datalist item to feature maps, by the transforms that the bundle's evaluation uses.

    Args:
        network: the frozen network.
        spatial_size: (H, W) of its grid.

    Raises:
        ConfigurationError: if the grid is not two positive integers.
    """

    def __init__(self, network: FrozenFeatures, spatial_size: Sequence[int]) -> None:
        if len(spatial_size) != 2 or any(int(n) != n or n < 1 for n in spatial_size):
            raise ConfigurationError(
                "the grid needs a size", field="spatial_size", value=spatial_size, expected="two positive integers H, W"
            )
        self.network, self.spatial_size = network, (int(spatial_size[0]), int(spatial_size[1]))
        self._transforms = (
            LoadRadiographd("image"),
            FitFilmd("image", self.spatial_size),
            ScaleIntensityRangePercentilesd("image", lower=0.5, upper=99.5, b_min=-1.0, b_max=1.0, clip=True),
        )

    def __call__(self, item: Mapping[str, Any]) -> FilmMaps:
        """Read one film and run the network.

        Args:
            item: see :func:`monai_landmark.data.datalist.load_datalist`.

        Returns:
            The film.

        Raises:
            FilmError: if the film cannot be read truthfully.
        """
        known = ("image", "landmarks", "spacing", "spacing_source")
        loaded: Any = {key: item[key] for key in known if key in item}
        for transform in self._transforms:
            loaded = transform(loaded)
        image: MetaTensor = loaded["image"]
        device = next(self.network.parameters()).device
        levels = self.network(image.as_tensor()[None].to(device))
        return FilmMaps(
            item, image, loaded.get("landmarks"), {level: maps[0].float().cpu() for level, maps in levels.items()}
        )


def pooled_vector(levels: Mapping[str, torch.Tensor]) -> NDArray[np.float64]:
    """One vector for a whole film: its two coarsest resolutions, each level averaged over 4 x 4 parts of the grid.

    On 30 ISBI films outside the ten labelled ones, the labelled film that is nearest by this vector is a better
    template (error 2.36 mm) than the nearest by the mean over the whole grid (2.65) and than one by chance (2.93).

    Args:
        levels: level -> ``(C, h, w)``.

    Returns:
        ``(D,)`` of length 1, so that a product of two is a cosine.
    """
    sizes = sorted({maps.shape[-1] for maps in levels.values()})[:_COARSEST]
    parts = [
        functional.normalize(functional.adaptive_avg_pool2d(maps, _POOLED).flatten(), dim=0)
        for maps in levels.values()
        if maps.shape[-1] in sizes
    ]
    vector = functional.normalize(torch.cat(parts).double(), dim=0)
    return np.asarray(vector.numpy(), dtype=np.float64)


class FilmVectors:
    """From a datalist item to the vector of its film.

    Args:
        network: the frozen network.
        spatial_size: (H, W) of its grid.
    """

    def __init__(self, network: FrozenFeatures, spatial_size: Sequence[int]) -> None:
        self._read = FilmReader(network, spatial_size)

    def __call__(self, item: Mapping[str, Any]) -> NDArray[np.float64]:
        """The vector of one film.

        Args:
            item: a datalist item, annotated or not.

        Returns:
            ``(D,)`` of length 1.

        Raises:
            FilmError: if the film cannot be read truthfully.
        """
        film = {key: value for key, value in item.items() if key != "landmarks"}
        return pooled_vector(self._read(film).levels)
