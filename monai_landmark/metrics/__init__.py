"""Landmark metrics in millimetres, on the original film; all ignore landmarks that are not annotated."""

from __future__ import annotations

from monai_landmark.metrics.agreement import (
    BlandAltman,
    IntraclassCorrelation,
    bland_altman,
    intraclass_correlation,
)
from monai_landmark.metrics.paired import PairedDifference, paired_difference
from monai_landmark.metrics.radial_error import RadialErrorMetric, radial_errors
from monai_landmark.metrics.success_detection import SuccessDetectionRate
from monai_landmark.metrics.summary import summarize_errors

__all__ = [
    "BlandAltman",
    "IntraclassCorrelation",
    "PairedDifference",
    "RadialErrorMetric",
    "SuccessDetectionRate",
    "bland_altman",
    "intraclass_correlation",
    "paired_difference",
    "radial_errors",
    "summarize_errors",
]
