"""Negative log-likelihood of a spatial soft-max: each landmark is a distribution over the pixels of its map."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from monai_landmark.errors import ConfigurationError
from monai_landmark.processes import share_of_all

__all__ = ["LossReduction", "SpatialNLLLoss"]

LossReduction = Literal["mean", "sum", "none"]


def check_reduction(reduction: str) -> LossReduction:
    """Refuse a reduction that is not one of ``mean``, ``sum`` and ``none``.

    Args:
        reduction: the name to check.

    Returns:
        The same name.

    Raises:
        ConfigurationError: it is another one.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ConfigurationError("unknown reduction", field="reduction", value=reduction, expected="mean, sum or none")
    return reduction  # type: ignore[return-value]


def flatten_maps(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both as ``(B, K, H * W)`` in at least float32, so that half-precision logits are summed safely.

    Args:
        logits: ``(B, K, H, W)`` network output.
        target: ``(B, K, H, W)`` target maps.

    Returns:
        The flattened pair.

    Raises:
        ValueError: the shapes differ or are not ``(B, K, H, W)``.
    """
    if logits.shape != target.shape or logits.ndim != 4:
        raise ValueError(f"logits and target must both be (B, K, H, W), got {(*logits.shape,)} and {(*target.shape,)}")
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.flatten(2).to(dtype), target.flatten(2).to(dtype)


def reduce_landmarks(
    loss: torch.Tensor, annotated: torch.Tensor, reduction: LossReduction, all_processes: bool = False
) -> torch.Tensor:
    """Mean or sum over the annotated landmarks only; a batch without any gives zero that still has a gradient.

    Args:
        loss: ``(B, K)`` loss of each landmark.
        annotated: ``(B, K)`` boolean.
        reduction: ``"none"`` keeps ``(B, K)``, zero where not annotated.
        all_processes: the mean is over the landmarks of all processes, see :class:`SpatialNLLLoss`.

    Returns:
        Scalar, or ``(B, K)``.
    """
    loss = torch.where(annotated, loss, 0.0)
    if reduction == "none":
        return loss
    total = loss.sum()
    if reduction == "sum":
        return total
    return total / (share_of_all(annotated.sum()) if all_processes else annotated.sum().clamp_min(1))


class SpatialNLLLoss(nn.Module):
    """Cross-entropy between a target map and the soft-max of the logits over H x W.

    ``L = - sum_p t(p) log softmax(z)(p)`` for each landmark, with the target ``t`` scaled to sum one: a Gaussian
    (``EncodeHeatmap``) or a single hot pixel, as in McCouat & Voiculescu, Contour-hugging heatmaps for landmark
    detection, CVPR 2022. The logarithm is that of ``log_softmax`` in at least float32: large logits do not overflow.

    A landmark whose target map is all zero is not annotated and is ignored.

    Args:
        reduction: ``"mean"`` over the annotated landmarks of the batch, ``"sum"``, or ``"none"`` for ``(B, K)``.
        all_processes: of distributed training: divide by the number of landmarks that a process has on average, so that
            the mean over processes is that over all landmarks, also where one has films with fewer of them. All
            processes must then ask for the loss in the same step.

    Raises:
        ConfigurationError: an unknown reduction.
    """

    def __init__(self, reduction: LossReduction = "mean", all_processes: bool = False) -> None:
        super().__init__()
        self.reduction, self.all_processes = check_reduction(reduction), all_processes

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compare logits with target maps.

        Args:
            logits: ``(B, K, H, W)`` of any floating type.
            target: ``(B, K, H, W)`` nonnegative maps of any scale; all zero = not annotated.

        Returns:
            Scalar, or ``(B, K)`` for ``reduction="none"``, in nats.

        Raises:
            ValueError: the shapes differ or are not ``(B, K, H, W)``.
        """
        scores, weight = flatten_maps(logits, target)
        mass = weight.sum(-1)
        cross_entropy = -(weight * torch.log_softmax(scores, -1)).sum(-1)
        annotated = mass > 0
        each = cross_entropy / torch.where(annotated, mass, 1.0)
        return reduce_landmarks(each, annotated, self.reduction, self.all_processes)
