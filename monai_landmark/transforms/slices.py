"""From an item of a list of slices to the slice and its labels, each with the slice's affine."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray

from monai_landmark.data.geometry import film_affine
from monai_landmark.data.organs import organ_table
from monai_landmark.data.scan import Scan
from monai_landmark.data.scan_reader import SCANS

__all__ = ["LoadSliceD", "LoadSliceDict", "LoadSliced"]


class LoadSliced(MapTransform):
    """Take an axial slice out of a scan; to what comes after it a slice is a film, in HU.

    Args:
        keys: key of the scan's path; the slice takes its place, ``(1, H, W)`` float32 HU, rows from front to back and
            columns from the patient's right to the left, with the ``(3, 3)`` affine of
            :func:`monai_landmark.data.geometry.film_affine`.
        label_key: key of the label volume's path; the labels of the slice take its place where it is present,
            ``(1, H, W)`` float32: the number of the organ among the item's ``organs``, from 1, 0 elsewhere.
        allow_missing_keys: see :class:`monai.transforms.MapTransform`.
    """

    def __init__(
        self, keys: KeysCollection = "image", label_key: str = "label", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load one slice.

        Args:
            data: an item with the number of the ``slice``; with ``numbers`` and ``organs`` where it has labels.

        Returns:
            The item with pixels in place of paths.

        Raises:
            ScanError: the scan cannot be read.
            AnnotationError: the labels do not lie on it.
        """
        loaded = dict(data)
        index = int(loaded["slice"])
        for key in self.key_iterator(loaded):
            scan = SCANS.scan(loaded[key])
            loaded[key] = _film(scan.slice(index), scan)
            if self.label_key in loaded:
                labels = SCANS.labels(loaded[self.label_key], scan)[index]
                classes = organ_classes(labels, organ_table(loaded["numbers"], loaded["organs"]))
                loaded[self.label_key] = _film(classes.astype(np.float32), scan)
        return loaded


def organ_classes(labels: NDArray[Any], table: Mapping[int, int]) -> NDArray[np.uint8]:
    """The numbers of a label file as classes of a network.

    Args:
        labels: whole numbers, any shape.
        table: number -> class, see :func:`monai_landmark.data.organs.organ_table`; others become 0.

    Returns:
        The classes, of the same shape.
    """
    classes = np.zeros(labels.shape, dtype=np.uint8)
    for number, organ in table.items():
        classes[labels == number] = organ
    return classes


def _film(pixels: NDArray[np.float32], scan: Scan) -> MetaTensor:
    meta = {
        "original_size": np.asarray(pixels.shape),
        "spacing_mm": np.asarray(scan.spacing_mm),
        "filename_or_obj": str(scan.file),
    }
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(pixels))[None], film_affine(scan.spacing_mm), meta)


LoadSliceD = LoadSliceDict = LoadSliced
