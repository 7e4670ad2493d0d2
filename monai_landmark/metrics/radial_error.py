"""Radial error: the distance between a predicted and an annotated landmark, in millimetres."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from monai.metrics import CumulativeIterationMetric

from monai_landmark.errors import ConfigurationError

__all__ = ["ErrorReduction", "RadialErrorMetric", "nan_mean", "radial_errors"]

ErrorReduction = Literal["pooled", "per_film", "per_landmark"]


def check_error_reduction(reduction: ErrorReduction) -> ErrorReduction:
    """Refuse a reduction that is not one of ``pooled``, ``per_film`` and ``per_landmark``.

    Args:
        reduction: the name to check.

    Returns:
        The same name.

    Raises:
        ConfigurationError: it is another one.
    """
    if reduction not in get_args(ErrorReduction):
        raise ConfigurationError(
            "unknown reduction", field="reduction", value=reduction, expected=", ".join(get_args(ErrorReduction))
        )
    return reduction


def radial_errors(y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Distance of each predicted landmark from the annotated one.

    Args:
        y_pred: ``(..., K, 2)`` predicted (x, y) in mm.
        y: ``(..., K, 2)`` annotated (x, y) in mm; NaN = not annotated.

    Returns:
        ``(..., K)`` float64 errors in mm: NaN where there is no annotation, inf where there is one but the prediction
        is missing (not finite). A missing prediction is a failure, not a landmark to leave out.

    Raises:
        ValueError: the shapes differ or do not end in (K, 2), or an annotation is infinite.
    """
    if y_pred.shape != y.shape or y.ndim < 2 or y.shape[-1] != 2:
        raise ValueError(f"y_pred and y must both be (..., K, 2), got {tuple(y_pred.shape)} and {tuple(y.shape)}")
    if bool(y.isinf().any()):
        raise ValueError("an annotated landmark is infinite; a landmark that is not annotated must be NaN")
    wanted, found = y.to(torch.float64), y_pred.to(device=y.device, dtype=torch.float64)
    distance = torch.linalg.vector_norm(found - wanted, dim=-1)
    distance = torch.where(found.isfinite().all(-1), distance, torch.inf)
    return torch.where(wanted.isnan().any(-1), torch.nan, distance)


def nan_mean(values: torch.Tensor, reduction: ErrorReduction) -> torch.Tensor:
    """Mean over the landmarks that are annotated.

    Args:
        values: ``(..., N, K)`` one value per film and landmark; NaN = not annotated.
        reduction: ``"pooled"`` over all points, ``"per_film"`` the mean of the films' means (films without
            annotation left out), ``"per_landmark"`` over the films.

    Returns:
        ``(...)``, or ``(..., K)`` for ``"per_landmark"``; NaN where nothing is annotated.
    """
    if reduction == "per_landmark":
        return values.nanmean(-2)
    return values.nanmean(-1).nanmean(-1) if reduction == "per_film" else values.flatten(-2).nanmean(-1)


class RadialErrorMetric(CumulativeIterationMetric):  # type: ignore[misc]
    """Mean radial error (MRE) in millimetres.

    ``metric(y_pred, y)`` takes ``(B, K, 2)`` tensors, or lists of ``(K, 2)``, in mm and (x, y), measured on the
    original film. Its buffer (``get_buffer()``, gathered over all ranks) holds the ``(N, K)`` errors of
    :func:`radial_errors`, so one missing prediction makes the mean infinite instead of vanishing from it;
    :meth:`missing_predictions` counts them.

    Args:
        reduction: ``"pooled"`` over all points, ``"per_film"`` the mean of the films' means, or ``"per_landmark"``.

    Raises:
        ConfigurationError: an unknown reduction.
    """

    def __init__(self, reduction: ErrorReduction = "pooled") -> None:
        super().__init__()
        self.reduction = check_error_reduction(reduction)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **_: object) -> torch.Tensor:
        if y is None:
            raise ValueError("a radial error needs the annotated landmarks y")
        return radial_errors(y_pred, y)

    def errors(self) -> torch.Tensor:
        """All errors so far, over all ranks.

        Returns:
            ``(N, K)`` float64 errors in mm; NaN = not annotated, inf = prediction missing.

        Raises:
            ValueError: nothing was measured yet.
        """
        errors = self.get_buffer()
        if not isinstance(errors, torch.Tensor):
            raise ValueError("nothing was measured yet; call the metric with y_pred and y first")
        return errors

    def missing_predictions(self) -> int:
        """How many annotated landmarks have no prediction.

        Returns:
            The count over all ranks.
        """
        return int(self.errors().isinf().sum())

    def aggregate(self, reduction: ErrorReduction | None = None) -> torch.Tensor:
        """Mean radial error over what was measured so far.

        Args:
            reduction: instead of the one given at construction.

        Returns:
            Scalar, or ``(K,)`` for ``"per_landmark"``, float64 in mm; inf if a prediction is missing, NaN if nothing
            is annotated.

        Raises:
            ValueError: nothing was measured yet.
            ConfigurationError: an unknown reduction.
        """
        return nan_mean(self.errors(), self.reduction if reduction is None else check_error_reduction(reduction))
