"""The radial error that a network expects of itself, from the spread of its own map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from monai_landmark.data.geometry import grid_to_mm
from monai_landmark.errors import ConfigurationError

__all__ = ["check_temperatures", "expected_radial_error", "fit_error_scales", "peak_probability"]

Temperatures: TypeAlias = Sequence[float] | NDArray[np.float64]

_LEAST_MM = 1e-3  # a landmark without any error on a few films is not for that without doubt
_SLACK = 1e-2  # of the logarithm, so that no pixel is lost before the exact comparison in double precision


def expected_radial_error(
    logits: torch.Tensor,
    affine: Any,
    points_mm: torch.Tensor,
    temperatures: Temperatures | None = None,
    floor: float = 0.05,
) -> torch.Tensor:
    """Expected radial error (ERE): mean distance from the stated point under the landmark's own map, in mm.

    ``ERE = sum_p q(p) |p - c|``, where ``q`` is the soft-max of the logits without the pixels at or below ``floor``
    times its maximum, scaled to sum one (McCouat & Voiculescu, Contour-hugging heatmaps for landmark detection, CVPR
    2022, section 3.4). The paper's center is the brightest pixel; here ``c`` is the point that is reported. So a point
    that was moved off the map's peak, by the shape of the other landmarks, is as doubtful as it is far from that peak.

    Args:
        logits: ``(K, H, W)``, any floating type; -inf is a pixel ruled out.
        affine: ``(3, 3)`` or ``(4, 4)`` affine of the grid: (row, col) to (x, y) in mm.
        points_mm: ``(K, 2)`` (x, y) reported points in mm, NaN = not found.
        temperatures: ``(K,)``, dividing the logits; None: 1.
        floor: share of the map's maximum at or below which a pixel does not count.

    Returns:
        ``(K,)`` float64 on the CPU, in mm (in original pixels for a film without spacing); NaN where there is no point
        or the map has no finite maximum.

    Raises:
        ValueError: the shapes do not fit together.
        ConfigurationError: a temperature is not positive, or the floor is not within 0 and 1.
    """
    if logits.ndim != 3 or points_mm.shape != (len(logits), 2):
        raise ValueError(f"logits (K, H, W) and points (K, 2) do not fit: {(*logits.shape,)}, {(*points_mm.shape,)}")
    if not 0 < floor < 1:
        raise ConfigurationError("not a share", field="floor", value=floor, expected="between 0 and 1")
    maps = _flat(logits)
    scale = check_temperatures(temperatures, len(maps))
    top = maps.amax(1)
    least = top.double() + scale * (math.log(floor) - _SLACK)
    landmark, pixel = (maps >= least.to(maps.dtype)[:, None]).nonzero(as_tuple=True)  # a few of each map
    weight = ((maps[landmark, pixel].double() - top.double()[landmark]) / scale[landmark]).exp()
    weight = torch.where(weight <= floor, 0.0, weight)
    width = logits.shape[-1]
    place = torch.stack((pixel % width, torch.div(pixel, width, rounding_mode="floor")), -1)
    center = points_mm.detach().cpu().double()
    distance = (grid_to_mm(place, torch.as_tensor(affine).cpu()) - center[landmark]).norm(dim=-1)
    total, mass = (torch.zeros(len(maps), dtype=torch.float64) for _ in range(2))
    return total.index_add_(0, landmark, weight * distance) / mass.index_add_(0, landmark, weight)


def fit_error_scales(errors_mm: ArrayLike, expected_mm: ArrayLike) -> NDArray[np.float64]:
    """Factors that turn the expected radial errors of maps into expected errors of landmarks.

    A map tells how unsure a network is of one film; which landmarks are hard to place, and for readers too, it tells
    badly. So each landmark's factor is proportional to its mean error on annotated films, and their common part makes
    the mean expected error the mean error.

    Args:
        errors_mm: ``(N, K)`` radial errors of annotated films; NaN = not annotated, inf = not found.
        expected_mm: ``(N, K)`` their expected radial errors; NaN = no point.

    Returns:
        ``(K,)`` factors above 0. A landmark that no film shows has the mean of the others; 1 for all without films.

    Raises:
        ValueError: the shapes differ.
    """
    errors, expected = (np.asarray(values, dtype=np.float64) for values in (errors_mm, expected_mm))
    if errors.shape != expected.shape or errors.ndim != 2:
        raise ValueError(f"errors and expected errors must be (films, landmarks): {errors.shape}, {expected.shape}")
    known = np.isfinite(errors) & np.isfinite(expected)
    counts, sums = known.sum(axis=0), np.where(known, errors, 0.0).sum(axis=0)
    if not sums.any() or not expected[known].any():
        return np.ones(errors.shape[1])
    means = np.where(counts > 0, np.maximum(sums, _LEAST_MM) / np.maximum(counts, 1), sums.sum() / counts.sum())
    common = errors[known].sum() / (means * np.where(known, expected, 0.0)).sum()
    return np.asarray(common * means)


def peak_probability(logits: torch.Tensor, temperatures: Temperatures | None = None) -> torch.Tensor:
    """Probability of each map's most probable pixel: the confidence of McCouat & Voiculescu's reliability diagram.

    Args:
        logits: ``(K, H, W)``.
        temperatures: ``(K,)``, dividing the logits; None: 1.

    Returns:
        ``(K,)`` float64 in (0, 1]; NaN where the map has no finite maximum.

    Raises:
        ConfigurationError: a temperature is not positive.
    """
    maps = _flat(logits).double()
    scale = check_temperatures(temperatures, len(maps))
    return (-torch.logsumexp((maps - maps.amax(1, keepdim=True)) / scale[:, None], 1)).exp()


def check_temperatures(temperatures: Temperatures | None, landmarks: int) -> torch.Tensor:
    """One positive temperature for each landmark.

    Args:
        temperatures: as many as landmarks, or None for 1 each.
        landmarks: their number K.

    Returns:
        ``(K,)`` float64.

    Raises:
        ConfigurationError: not as many, or one that is not a positive number.
    """
    if temperatures is None:
        return torch.ones(landmarks, dtype=torch.float64)
    scale = torch.as_tensor(temperatures, dtype=torch.float64)
    if scale.shape != (landmarks,) or not bool((scale.isfinite() & (scale > 0)).all()):
        raise ConfigurationError(
            "temperatures do not fit the landmarks",
            field="temperatures",
            value=scale.tolist(),
            expected=f"{landmarks} numbers above 0",
            action="run `calibrate` again for this model",
        )
    return scale


def _flat(logits: torch.Tensor) -> torch.Tensor:
    """``(K, H * W)`` plain tensor on the CPU in at least float32."""
    plain = logits.as_tensor() if hasattr(logits, "as_tensor") else logits
    flat: torch.Tensor = plain.detach().cpu().flatten(1)
    return flat.to(torch.promote_types(flat.dtype, torch.float32))
