"""Landmarks between millimetres and a network's grid, and their names after a flip."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Flip, MapTransform, RandomizableTransform, Transform

from monai_landmark.data.geometry import grid_to_mm, mm_to_grid

__all__ = [
    "ExchangeLeftRight",
    "GridToMillimetersd",
    "MillimetersToGridd",
    "RandFlipLandmarksd",
]


class _BetweenGridAndMillimeters(MapTransform):
    """Common part of the two directions.

    Args:
        keys: keys of landmarks ``(K, 2)``, (x, y).
        refer_key: key of the image whose affine is meant.
        output_keys: where to put the result; in place by default.
    """

    def __init__(
        self, keys: KeysCollection, refer_key: str = "image", output_keys: KeysCollection | None = None
    ) -> None:
        super().__init__(keys)
        self.refer_key = refer_key
        names = self.keys if output_keys is None else (output_keys,) if isinstance(output_keys, str) else output_keys
        self.output_keys = tuple(names)

    @staticmethod
    def convert(points: torch.Tensor, affine: Any) -> torch.Tensor:
        """Convert points in the direction of the subclass.

        Args:
            points: ``(K, 2)``, (x, y).
            affine: of the image, (row, column) -> (x, y) in mm.

        Returns:
            ``(K, 2)``, (x, y).

        Raises:
            NotImplementedError: a subclass must say how.
        """
        raise NotImplementedError

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Convert the landmarks of one item.

        Args:
            data: an item with landmarks and the image they lie on.

        Returns:
            The item with converted landmarks, float64.
        """
        converted = dict(data)
        affine = converted[self.refer_key].affine.cpu()
        for key, output in zip(self.keys, self.output_keys, strict=True):
            points = torch.as_tensor(converted[key]).detach().cpu()
            converted[output] = self.convert(points, affine)
        return converted


class MillimetersToGridd(_BetweenGridAndMillimeters):
    """Landmarks in mm -> (x, y) pixels of the image as it is after all its transforms.

    Args:
        keys: keys of landmarks ``(K, 2)``, (x, y) in mm.
        refer_key: key of the image whose affine is meant.
        output_keys: where to put the result; in place by default.
    """

    convert = staticmethod(mm_to_grid)


class GridToMillimetersd(_BetweenGridAndMillimeters):
    """Landmarks as (x, y) pixels of an image -> mm in the film plane.

    Args:
        keys: keys of landmarks ``(K, 2)``, (x, y) in pixels of the image.
        refer_key: key of the image whose affine is meant.
        output_keys: where to put the result; in place by default.
    """

    convert = staticmethod(grid_to_mm)


class ExchangeLeftRight(Transform):
    """Give the landmarks of a mirrored film the names they have there.

    Args:
        permutation: for each landmark the index of its partner, or its own; see
            :meth:`monai_landmark.data.schema.LandmarkSchema.flip_permutation`.
    """

    def __init__(self, permutation: Sequence[int]) -> None:
        self.permutation = list(permutation)

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """Reorder.

        Args:
            points: ``(..., K, 2)``.

        Returns:
            The same points in the order of the mirrored film.
        """
        return torch.as_tensor(points)[..., self.permutation, :]


class RandFlipLandmarksd(RandomizableTransform, MapTransform):
    """Mirror a film left to right and exchange the names of paired landmarks.

    The image's affine follows MONAI's flip, so landmarks in mm stay where they are and only change their names.

    Args:
        keys: keys of the images.
        landmarks_key: key of the landmarks in mm.
        permutation: see :class:`ExchangeLeftRight`.
        prob: how often.
        visibility_key: key of the ``(K,)`` visibility codes, exchanged alike where the item has them.
    """

    def __init__(
        self,
        keys: KeysCollection,
        permutation: Sequence[int],
        landmarks_key: str = "landmarks",
        prob: float = 0.5,
        visibility_key: str = "visibility",
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.flip, self.exchange = Flip(spatial_axis=1), ExchangeLeftRight(permutation)
        self.landmarks_key, self.visibility_key = landmarks_key, visibility_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Mirror one item, or leave it.

        Args:
            data: an item with images and landmarks.

        Returns:
            The item, mirrored or not.
        """
        mirrored = dict(data)
        self.randomize(None)
        if self._do_transform:
            for key in self.keys:
                mirrored[key] = self.flip(mirrored[key])
            mirrored[self.landmarks_key] = self.exchange(mirrored[self.landmarks_key])
            if self.visibility_key in mirrored:
                codes = torch.as_tensor(mirrored[self.visibility_key])
                mirrored[self.visibility_key] = self.exchange(codes[:, None])[:, 0]
        return mirrored
