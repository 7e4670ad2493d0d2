"""Regression of heatmaps pixel by pixel, with more weight near the landmark."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional

from monai_landmark.errors import ConfigurationError
from monai_landmark.losses.spatial_nll import LossReduction, check_reduction, flatten_maps, reduce_landmarks

__all__ = ["HeatmapRegressionLoss", "RegressionKind", "adaptive_wing"]

RegressionKind = Literal["mse", "l1", "awing"]


def adaptive_wing(
    prediction: torch.Tensor,
    target: torch.Tensor,
    omega: float = 14.0,
    theta: float = 0.5,
    epsilon: float = 1.0,
    alpha: float = 2.1,
) -> torch.Tensor:
    """Adaptive wing loss of each pixel: logarithmic for small errors, linear beyond ``theta``, sharper on the peak.

    Wang, Bo, Fuxin, Adaptive wing loss for robust face alignment via heatmap regression, ICCV 2019, equation 3.

    Args:
        prediction: maps of any shape.
        target: maps of the same shape, in [0, 1].
        omega: height of the logarithmic part.
        theta: error at which the linear part begins.
        epsilon: width of the logarithmic part.
        alpha: exponent at the background; it must exceed 1 + the target's maximum for a smooth minimum.

    Returns:
        The loss per pixel, same shape.
    """
    error, power = (target - prediction).abs(), alpha - target
    ratio = theta / epsilon
    slope = omega / (1.0 + ratio**power) * power * ratio ** (power - 1.0) / epsilon
    offset = theta * slope - omega * torch.log1p(ratio**power)
    return torch.where(error < theta, omega * torch.log1p((error / epsilon) ** power), slope * error - offset)


class HeatmapRegressionLoss(nn.Module):
    """Mean pixel loss between predicted maps and Gaussians of height 1, heavier around each landmark.

    Pixels in the foreground (target at least ``foreground_level``, widened by one pixel) count
    ``1 + foreground_weight`` times, the weighted loss map of Wang et al., ICCV 2019 (section 4.3); without it the
    empty background, 99 % of a map, decides. A landmark whose target map is all zero is not annotated and is ignored.

    Args:
        kind: ``"mse"``, ``"l1"`` or ``"awing"`` (see :func:`adaptive_wing`).
        foreground_weight: extra weight of the foreground; 0 weighs all pixels alike.
        foreground_level: target value from which a pixel is foreground.
        reduction: ``"mean"`` over the annotated landmarks of the batch, ``"sum"``, or ``"none"`` for ``(B, K)``.
        all_processes: as for :class:`SpatialNLLLoss`.

    Raises:
        ConfigurationError: an unknown kind or reduction, or a negative weight.
    """

    def __init__(
        self,
        kind: RegressionKind = "mse",
        foreground_weight: float = 10.0,
        foreground_level: float = 0.2,
        reduction: LossReduction = "mean",
        all_processes: bool = False,
    ) -> None:
        super().__init__()
        if kind not in get_args(RegressionKind):
            raise ConfigurationError(
                "unknown loss", field="kind", value=kind, expected=", ".join(get_args(RegressionKind))
            )
        if not foreground_weight >= 0:
            raise ConfigurationError("negative weight", field="foreground_weight", value=foreground_weight)
        self.kind, self.reduction, self.all_processes = kind, check_reduction(reduction), all_processes
        self.foreground_weight, self.foreground_level = float(foreground_weight), float(foreground_level)

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compare predicted maps with target maps.

        Args:
            prediction: ``(B, K, H, W)`` raw network output, no activation.
            target: ``(B, K, H, W)`` maps with peaks of height 1; all zero = not annotated.

        Returns:
            Scalar, or ``(B, K)`` for ``reduction="none"``: weighted mean over the pixels of a map.

        Raises:
            ValueError: the shapes differ or are not ``(B, K, H, W)``.
        """
        values, wanted = flatten_maps(prediction, target)
        if self.kind == "awing":
            loss = adaptive_wing(values, wanted)
        else:
            loss = (values - wanted).abs() if self.kind == "l1" else (values - wanted) ** 2
        near = functional.max_pool2d(target.to(wanted.dtype), 3, stride=1, padding=1).flatten(2)
        weight = 1.0 + self.foreground_weight * (near >= self.foreground_level)
        return reduce_landmarks((loss * weight).mean(-1), wanted.amax(-1) > 0, self.reduction, self.all_processes)
