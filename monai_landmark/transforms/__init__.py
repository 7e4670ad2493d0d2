"""What MONAI lacks for landmarks: loading with spacing, the heatmap codec, names after a flip, elastic warps."""

from monai_landmark.transforms.elastic import RandElasticLandmarksd
from monai_landmark.transforms.film import FitFilm, FitFilmd
from monai_landmark.transforms.heatmap import DecodeHeatmap, EncodeHeatmap
from monai_landmark.transforms.heatmapd import DecodeHeatmapd, EncodeHeatmapd
from monai_landmark.transforms.landmarks import (
    ExchangeLeftRight,
    GridToMillimetersd,
    MillimetersToGridd,
    RandFlipLandmarksd,
)
from monai_landmark.transforms.load import LoadRadiographd
from monai_landmark.transforms.shape import DecodeLandmarksd, LandmarkShape, shape_of_films
from monai_landmark.transforms.slices import LoadSliced
from monai_landmark.transforms.views import RandViewsd

__all__ = [
    "DecodeHeatmap",
    "DecodeHeatmapd",
    "DecodeLandmarksd",
    "EncodeHeatmap",
    "EncodeHeatmapd",
    "ExchangeLeftRight",
    "FitFilm",
    "FitFilmd",
    "GridToMillimetersd",
    "LandmarkShape",
    "LoadRadiographd",
    "LoadSliced",
    "MillimetersToGridd",
    "RandElasticLandmarksd",
    "RandFlipLandmarksd",
    "RandViewsd",
    "shape_of_films",
]
