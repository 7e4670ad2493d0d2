"""Landmark metrics in millimetres, on the original film; all ignore landmarks that are not annotated."""

from __future__ import annotations

from monai_landmark.metrics.paired import PairedDifference, paired_difference
from monai_landmark.metrics.radial_error import RadialErrorMetric, radial_errors
from monai_landmark.metrics.success_detection import SuccessDetectionRate
from monai_landmark.metrics.summary import summarize_errors

__all__ = [
    "PairedDifference",
    "RadialErrorMetric",
    "SuccessDetectionRate",
    "paired_difference",
    "radial_errors",
    "summarize_errors",
]
