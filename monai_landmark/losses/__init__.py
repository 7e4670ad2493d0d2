"""Losses between a network's maps and landmark heatmaps; all ignore landmarks that are not annotated."""

from __future__ import annotations

from monai_landmark.losses.heatmap_regression import HeatmapRegressionLoss
from monai_landmark.losses.spatial_nll import SpatialNLLLoss

__all__ = ["HeatmapRegressionLoss", "SpatialNLLLoss"]
