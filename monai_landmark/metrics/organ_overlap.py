"""How well organs were found: overlap, surfaces and distances, in mm, by MONAI's metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["SCORES", "organ_scores"]

SCORES = ("dsc", "nsd", "hd95_mm")
"""Dice similarity coefficient and normalized surface distance, both in percent, and the 95th percentile of the
Hausdorff distance in mm."""
_MARGIN = 2  # voxels around an organ, so that its surface is inside


def organ_scores(
    found: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    spacing_mm: Sequence[float],
    organs: Sequence[str],
    tolerances_mm: Mapping[str, float],
    surfaces: bool = True,
) -> list[dict[str, Any]]:
    """Scores of every organ of one scan.

    Args:
        found: ``(I, J, K)`` classes, 0 background.
        reference: likewise.
        spacing_mm: of the three axes.
        organs: names of the classes from 1.
        tolerances_mm: distance within which a surface counts as right; of an organ that is not named 3 mm.
        surfaces: whether ``nsd`` and ``hd95_mm`` are measured; they take most of the time.

    Returns:
        For each organ ``organ``, :data:`SCORES`, and ``found_ml`` and ``reference_ml``. An organ that is neither there
        nor found has no score (NaN); one that is only there or only found has a DSC and NSD of 0 and an infinite HD95.
    """
    voxel_ml = math.prod(spacing_mm) / 1000
    places = zip(
        ndimage.find_objects(found, max_label=len(organs)),
        ndimage.find_objects(reference, max_label=len(organs)),
        strict=True,
    )
    rows = []
    for number, (organ, (ours, theirs)) in enumerate(zip(organs, places, strict=True), start=1):
        row: dict[str, Any] = {"organ": organ, **dict.fromkeys(SCORES, math.nan)}
        if ours is not None and theirs is not None:
            place = _around(ours, theirs, found.shape)
            masks = [torch.from_numpy((volume[place] == number)[None, None]) for volume in (found, reference)]
            row |= _both(masks[0], masks[1], spacing_mm, tolerances_mm.get(organ, 3.0), surfaces)
        elif ours is not None or theirs is not None:
            row |= {"dsc": 0.0} | ({"nsd": 0.0, "hd95_mm": math.inf} if surfaces else {})
        counts = [
            0 if box is None else int((v[box] == number).sum()) for v, box in ((found, ours), (reference, theirs))
        ]
        rows.append({**row, "found_ml": counts[0] * voxel_ml, "reference_ml": counts[1] * voxel_ml})
    return rows


def _around(one: Sequence[slice], other: Sequence[slice], shape: Sequence[int]) -> tuple[slice, ...]:
    """The smallest box that holds both organs and a margin."""
    return tuple(
        slice(max(0, min(a.start, b.start) - _MARGIN), min(side, max(a.stop, b.stop) + _MARGIN))
        for a, b, side in zip(one, other, shape, strict=True)
    )


def _both(
    found: torch.Tensor, reference: torch.Tensor, spacing_mm: Sequence[float], tolerance_mm: float, surfaces: bool
) -> dict[str, float]:
    row = {"dsc": 100 * float(compute_dice(found.float(), reference.float()))}
    if surfaces:
        options = {"include_background": True, "spacing": list(spacing_mm)}
        row["nsd"] = 100 * float(compute_surface_dice(found, reference, [tolerance_mm], **options))
        row["hd95_mm"] = float(compute_hausdorff_distance(found, reference, percentile=95, **options))
    return row
