"""Results: one :class:`LandmarkResult` per film, and the files and the report made from them."""

from __future__ import annotations

from monai_landmark.results.files import load_results, save_results, write_csv
from monai_landmark.results.result import DISCLAIMER, LandmarkResult, result_json_schema

__all__ = ["DISCLAIMER", "LandmarkResult", "load_results", "result_json_schema", "save_results", "write_csv"]
