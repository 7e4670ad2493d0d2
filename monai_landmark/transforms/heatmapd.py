"""Dictionary forms of the heatmap codec, in MONAI's grammar."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ensure_tuple

from monai_landmark.errors import ConfigurationError
from monai_landmark.transforms.heatmap import DecodeHeatmap, DecodeMethod, EncodeHeatmap

__all__ = [
    "DecodeHeatmapD",
    "DecodeHeatmapDict",
    "DecodeHeatmapd",
    "EncodeHeatmapD",
    "EncodeHeatmapDict",
    "EncodeHeatmapd",
]


def _one_per_key(name: str, value: Any, keys: tuple[Hashable, ...]) -> tuple[Any, ...]:
    """As many entries as there are keys; None stands for none of them."""
    entries = (None,) * len(keys) if value is None else ensure_tuple(value)
    if len(entries) != len(keys):
        raise ConfigurationError(f"{name} must be as many as keys", field=name, value=value, expected=f"{len(keys)}")
    return tuple(entries)


class EncodeHeatmapd(MapTransform):  # type: ignore[misc]
    """Dictionary form of :class:`~monai_landmark.transforms.heatmap.EncodeHeatmap`.

    Args:
        keys: keys of ``(K, 2)`` points, (x, y) in pixels of the grid.
        sigma_px: standard deviation in grid pixels.
        heatmap_keys: where the ``(K, H, W)`` maps go, one for each key; None: ``"<key>_heatmap"``.
        ref_image_keys: image ``(C, H, W)`` whose own shape gives the grid, one for each key.
        spatial_size: (H, W) of the grid, used where there is no reference image.
        visibility_keys: key of the ``(K,)`` visibility codes, one for each key; 0 gives an all-zero map.
        dtype: floating type of the maps.
        normalize: ``"peak"`` or ``"sum"``.
        truncation: half width of the support in multiples of ``sigma_px``.
        allow_missing_keys: skip keys that the dictionary lacks.

    Raises:
        ConfigurationError: a setting is out of range, or neither ``ref_image_keys`` nor ``spatial_size`` is given.
    """

    backend = EncodeHeatmap.backend

    def __init__(
        self,
        keys: KeysCollection,
        sigma_px: float,
        heatmap_keys: KeysCollection | None = None,
        ref_image_keys: KeysCollection | None = None,
        spatial_size: tuple[int, int] | None = None,
        visibility_keys: KeysCollection | None = None,
        dtype: torch.dtype = torch.float32,
        normalize: Literal["peak", "sum"] = "peak",
        truncation: float = 4.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if (ref_image_keys is None) == (spatial_size is None):
            raise ConfigurationError(
                "the grid needs one source",
                field="ref_image_keys, spatial_size",
                value=(ref_image_keys, spatial_size),
                expected="one of the two",
            )
        self.heatmap_keys = _one_per_key("heatmap_keys", heatmap_keys or [f"{k}_heatmap" for k in self.keys], self.keys)
        self.ref_image_keys = _one_per_key("ref_image_keys", ref_image_keys, self.keys)
        self.visibility_keys = _one_per_key("visibility_keys", visibility_keys, self.keys)
        self.encoder = EncodeHeatmap(sigma_px, spatial_size, dtype, normalize, truncation)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the maps to a dictionary.

        Args:
            data: holds the points, and the reference images and visibility codes named.

        Returns:
            A shallow copy with the heatmaps added; the points stay.

        Raises:
            KeyError: a key is missing.
            ValueError: points or visibility have the wrong shape.
        """
        d = dict(data)
        for key, heatmap_key, image_key, visibility_key in self.key_iterator(
            d, self.heatmap_keys, self.ref_image_keys, self.visibility_keys
        ):
            size = None if image_key is None else tuple(d[image_key].shape[-2:])
            d[heatmap_key] = self.encoder(d[key], None if visibility_key is None else d[visibility_key], size)
        return d


class DecodeHeatmapd(MapTransform):  # type: ignore[misc]
    """Dictionary form of :class:`~monai_landmark.transforms.heatmap.DecodeHeatmap`.

    Args:
        keys: keys of ``(K, H, W)`` heatmaps or logits.
        points_keys: where the ``(K, 2)`` points go, one for each key; None: ``"<key>_points"``.
        confidence_keys: where the ``(K,)`` confidences go, one for each key; None: they are not computed.
        method: decoding method.
        from_logits: the maps are logits of a soft-max over H x W.
        window_px: standard deviation of the window of ``"local_soft_argmax"``.
        smoothing_px: standard deviation of the smoothing of ``"dark"``.
        confidence_radius_px: radius of the disc whose share of the mass is the confidence.
        allow_missing_keys: skip keys that the dictionary lacks.

    Raises:
        ConfigurationError: an unknown method, or a width that is not positive.
    """

    backend = DecodeHeatmap.backend

    def __init__(
        self,
        keys: KeysCollection,
        points_keys: KeysCollection | None = None,
        confidence_keys: KeysCollection | None = None,
        method: DecodeMethod = "local_soft_argmax",
        from_logits: bool = False,
        window_px: float = 3.0,
        smoothing_px: float = 1.0,
        confidence_radius_px: float = 4.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.points_keys = _one_per_key("points_keys", points_keys or [f"{k}_points" for k in self.keys], self.keys)
        self.confidence_keys = _one_per_key("confidence_keys", confidence_keys, self.keys)
        self.decoder = DecodeHeatmap(method, from_logits, window_px, smoothing_px, confidence_radius_px)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the decoded points to a dictionary.

        Args:
            data: holds the maps.

        Returns:
            A shallow copy with the points, and the confidences where asked for; the maps stay.

        Raises:
            KeyError: a key is missing.
            ValueError: the maps have the wrong shape.
        """
        d = dict(data)
        for key, points_key, confidence_key in self.key_iterator(d, self.points_keys, self.confidence_keys):
            if confidence_key is None:
                d[points_key] = self.decoder(d[key])
            else:
                d[points_key], d[confidence_key] = self.decoder.decode_with_confidence(d[key])
        return d


EncodeHeatmapD = EncodeHeatmapDict = EncodeHeatmapd
DecodeHeatmapD = DecodeHeatmapDict = DecodeHeatmapd
