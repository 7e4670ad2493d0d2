"""Landmark results as files: JSON, CSV and 3D Slicer markups."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from monai_landmark.data.annotations.base import Annotation
from monai_landmark.data.annotations.slicer import write_mrk_json
from monai_landmark.errors import DataError
from monai_landmark.files import write_text
from monai_landmark.results.result import RESULT_FORMAT, LandmarkResult, parse_json

__all__ = ["load_results", "save_results", "write_csv", "write_markups"]

CSV_COLUMNS = (
    "film",
    "landmark",
    "x_px",
    "y_px",
    "x_mm",
    "y_mm",
    "confidence",
    "expected_error_mm",
    "region_radius_mm",
    "refer",
    "region_level",
    "tolerance_mm",
    "risk",
    "row_spacing_mm",
    "col_spacing_mm",
    "spacing_source",
    "model_sha256",
    "version",
    "disclaimer",
)


def write_csv(results: LandmarkResult | Iterable[LandmarkResult], path: str | PathLike[str]) -> Path:
    """Write one row per film and landmark, units in the column names; what is unknown stays empty.

    Args:
        results: one result, or several.
        path: the CSV file.

    Returns:
        The path.
    """
    results = [results] if isinstance(results, LandmarkResult) else results
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for result in results:
        row_mm, col_mm = result.spacing_mm or (None, None)
        promise = {} if result.guarantee is None else result.guarantee._asdict()
        document = result.to_dict()
        for landmark in document["landmarks"]:
            row = {"film": result.film, "landmark": landmark.pop("name"), **landmark, **promise}
            row |= {"row_spacing_mm": row_mm, "col_spacing_mm": col_mm, "spacing_source": result.spacing_source}
            row |= {"model_sha256": result.model_sha256, "version": result.version, "disclaimer": result.disclaimer}
            writer.writerow(row)
    return write_text(path, buffer.getvalue())


def write_markups(result: LandmarkResult, path: str | PathLike[str]) -> Path:
    """Write a result as a 3D Slicer point list; confidence and disclaimer stand in each point's description.

    Args:
        result: the landmarks; what was not found is an undefined point.
        path: the file, which should end in ``.mrk.json``.

    Returns:
        The path.

    Raises:
        DataError: a spacing outside 0.01..2 mm.
    """
    found = ~np.isnan(result.points_px[:, 0])
    annotation = Annotation(result.film, result.points_px, np.where(found, 2, 0).astype(np.int8), result.names)
    confidence = np.full(len(result.names), np.nan) if result.confidence is None else result.confidence
    texts = ["" if np.isnan(value) else f"confidence {value:.2f}" for value in confidence]
    descriptions = ["; ".join(filter(None, ("predicted", text, result.disclaimer))) for text in texts]
    return write_mrk_json(path, annotation, spacing=result.spacing_mm, descriptions=descriptions)


def save_results(results: LandmarkResult | Sequence[LandmarkResult], path: str | PathLike[str]) -> Path:
    """Write one result as a JSON object, or several as a JSON list.

    Args:
        results: one result, or a sequence of them.
        path: the JSON file.

    Returns:
        The path.
    """
    if isinstance(results, LandmarkResult):
        text = results.to_json()
    else:
        text = json.dumps([result.to_dict() for result in results], indent=1, ensure_ascii=False, allow_nan=False)
    return write_text(path, text.rstrip("\n") + "\n")


def load_results(path: str | PathLike[str]) -> list[LandmarkResult]:
    """Read the results of a JSON file (one object or a list) or of every such file in a folder.

    Args:
        path: a JSON file, or a folder: its ``predictions.json``, else every result in the ``*.json`` files below it;
            JSON of other kinds (metrics, markups) is passed over in a folder.

    Returns:
        The results, in the file's order; by file name in a folder.

    Raises:
        DataError: nothing is there, or a file does not follow the published schema.
    """
    path = Path(path)
    if path.is_dir():
        return _load_folder(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot be read as text", file=path, action="give a predictions JSON or its folder") from error
    document = parse_json(text, file=path)
    items = document if isinstance(document, list) else [document]
    return [LandmarkResult.from_dict(item, file=path) for item in items]


def _load_folder(folder: Path) -> list[LandmarkResult]:
    if (folder / "predictions.json").is_file():
        return load_results(folder / "predictions.json")
    results = [
        result for path in sorted(folder.rglob("*.json")) if _holds_result(path) for result in load_results(path)
    ]
    if not results:
        raise DataError("no landmark result in this folder", file=folder, expected="predictions.json or <film>.json")
    return results


def _holds_result(path: Path) -> bool:
    return not path.name.endswith(".mrk.json") and RESULT_FORMAT in path.read_text(encoding="utf-8", errors="replace")
