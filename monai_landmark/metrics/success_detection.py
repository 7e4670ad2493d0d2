"""Success detection rate: how many landmarks lie within a radius of their annotation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from monai_landmark.errors import ConfigurationError
from monai_landmark.metrics.radial_error import ErrorReduction, RadialErrorMetric, check_error_reduction, nan_mean

__all__ = ["SuccessDetectionRate", "within"]


def within(errors: torch.Tensor, thresholds_mm: Sequence[float], inclusive: bool) -> torch.Tensor:
    """Which errors lie within each radius.

    Args:
        errors: ``(N, K)`` in mm; NaN = not annotated, inf = prediction missing.
        thresholds_mm: T radii.
        inclusive: ``<=``, else ``<``.

    Returns:
        ``(T, N, K)`` 1 or 0, NaN where not annotated; a missing prediction is never within.
    """
    radius = torch.as_tensor(thresholds_mm, dtype=errors.dtype, device=errors.device)[:, None, None]
    hit = errors <= radius if inclusive else errors < radius
    return torch.where(errors.isnan(), torch.nan, hit.to(errors.dtype))


class SuccessDetectionRate(RadialErrorMetric):
    """Percentage of annotated landmarks whose radial error is within each threshold (SDR).

    Papers differ in the comparison: the attribute ``comparison`` and ``str(metric)`` say which one was used.
    Inputs, buffer and missing predictions (failures, at every threshold) are those of :class:`RadialErrorMetric`.

    Args:
        thresholds_mm: radii in mm.
        inclusive: True: ``error <= threshold``; False: ``error < threshold``.
        reduction: ``"pooled"`` over all points, ``"per_film"`` the mean of the films' rates, or ``"per_landmark"``.

    Raises:
        ConfigurationError: no threshold, one that is not positive, or an unknown reduction.
    """

    def __init__(
        self,
        thresholds_mm: Sequence[float] = (2.0, 2.5, 3.0, 4.0),
        inclusive: bool = True,
        reduction: ErrorReduction = "pooled",
    ) -> None:
        super().__init__(reduction)
        if not thresholds_mm or any(not t > 0 for t in thresholds_mm):
            raise ConfigurationError(
                "bad thresholds", field="thresholds_mm", value=thresholds_mm, expected="one or more numbers above 0"
            )
        self.thresholds_mm, self.inclusive = tuple(float(t) for t in thresholds_mm), inclusive

    @property
    def comparison(self) -> str:
        """``"<="`` or ``"<"``."""
        return "<=" if self.inclusive else "<"

    def __str__(self) -> str:
        return f"SDR (% {self.comparison} {', '.join(f'{t:g}' for t in self.thresholds_mm)} mm)"

    def aggregate(self, reduction: ErrorReduction | None = None) -> torch.Tensor:
        """Success detection rates over what was measured so far.

        Args:
            reduction: instead of the one given at construction.

        Returns:
            ``(T,)`` percentages, one per threshold, or ``(T, K)`` for ``"per_landmark"``; NaN if nothing is annotated.

        Raises:
            ValueError: nothing was measured yet.
            ConfigurationError: an unknown reduction.
        """
        hits = within(self.errors(), self.thresholds_mm, self.inclusive)
        return 100.0 * nan_mean(hits, self.reduction if reduction is None else check_error_reduction(reduction))
