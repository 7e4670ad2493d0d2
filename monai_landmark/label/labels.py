"""Labels as clients send them, and as the server keeps them: 3D Slicer markups of one film."""

from __future__ import annotations

import dataclasses
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from monai_landmark.data.annotations import Annotation, read_mrk_json, read_plain_json, write_mrk_json
from monai_landmark.data.annotations.parsing import read_json, write_json
from monai_landmark.data.datalist import landmarks_json
from monai_landmark.data.film import Film
from monai_landmark.data.reader import read_film
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import AnnotationError, DataError
from monai_landmark.label.checks import RequestError
from monai_landmark.results.result import RESULT_FORMAT, LandmarkResult

__all__ = ["datalist_item", "read_label", "spacing_of", "write_label"]

_NAME = "label"  # the readers take a film's name from the file's


def spacing_of(shown: Film) -> tuple[float, float] | None:
    """``(row_mm, col_mm)`` of a film; None where it has none, and Slicer shows it with pixels of 1 mm."""
    row_mm, col_mm = shown.spacing.row_mm, shown.spacing.col_mm
    return None if row_mm is None or col_mm is None else (row_mm, col_mm)


def read_label(path: str | PathLike[str], film: str, shown: Film, schema: LandmarkSchema) -> Annotation:
    """Read what a client sent as the label of one film.

    Args:
        path: 3D Slicer markups, a result of this package, or its plain JSON with one film.
        film: id of the film.
        shown: the film; its spacing turns Slicer's millimeters into pixels.
        schema: whose landmarks the label may have.

    Returns:
        The landmarks in the schema's order; at least one is annotated.

    Raises:
        RequestError: what is wrong with the label.
    """
    try:
        found = _annotation(read_json(Path(path)), film, shown, schema)
    except RequestError:
        raise
    except DataError as error:
        raise RequestError(error.problem, field=error.field, expected=error.expected, action=error.action) from error
    if not found.annotated.any():
        raise RequestError("no landmark is annotated", field="label", action="place at least one point")
    return dataclasses.replace(found, film=film, names=schema.landmarks)


def write_label(path: str | PathLike[str], annotation: Annotation, shown: Film) -> Path:
    """Write a label the way that the server keeps it: markups that 3D Slicer opens on the film.

    Args:
        path: the file.
        annotation: the landmarks.
        shown: the film.

    Returns:
        The path.
    """
    return write_mrk_json(Path(path), annotation, spacing=spacing_of(shown) or (1.0, 1.0))


def datalist_item(
    film: str, image: str | PathLike[str], label: str | PathLike[str], schema: LandmarkSchema, spacing_mm: Any = None
) -> dict[str, Any]:
    """An item to train on.

    Args:
        film: id of the film.
        image: its file.
        label: see :func:`write_label`.
        schema: of the landmarks.
        spacing_mm: ``(row_mm, col_mm)`` that the user knows.

    Returns:
        See :mod:`monai_landmark.data.datalist`.

    Raises:
        FilmError: if the film cannot be read truthfully.
        RequestError: if the label is damaged.
    """
    shown = read_film(image, spacing_mm)
    annotation = read_label(label, film, shown, schema)
    spacing = spacing_of(shown)
    return {
        "image": str(Path(image).absolute()),
        "id": film,
        "patient": film,
        "size": list(shown.size),
        "spacing": None if spacing is None else list(spacing),
        "spacing_source": shown.spacing.source,
        "landmarks": landmarks_json(annotation.landmarks),
        "visibility": annotation.visibility.tolist(),
    }


def _annotation(content: Any, film: str, shown: Film, schema: LandmarkSchema) -> Annotation:
    """From the form that the content has."""
    keys = content if isinstance(content, dict) else {}
    if keys.get("format") == RESULT_FORMAT:
        return _of_result(LandmarkResult.from_dict(content), shown, schema)
    with TemporaryDirectory() as folder:  # the readers want a file that is named for its film
        sizes = {_NAME: shown.size}
        if "markups" in keys:
            file = write_json(Path(folder) / f"{_NAME}.mrk.json", content)
            spacing = spacing_of(shown) or (1.0, 1.0)
            return read_mrk_json(file, schema, spacing=spacing, film_sizes=sizes)[0]
        films = keys.get("films")
        if isinstance(films, list) and len(films) == 1 and isinstance(films[0], dict) and films[0].get("film") == film:
            file = write_json(Path(folder) / f"{_NAME}.json", {**keys, "films": [{**films[0], "film": _NAME}]})
            return read_plain_json(file, schema, film_sizes=sizes)[0]
    raise RequestError(
        "not a label",
        field="label",
        expected="3D Slicer markups with one point list, a result of this package, or plain JSON of this one film",
        action="save the point list as .mrk.json",
    )


def _of_result(result: LandmarkResult, shown: Film, schema: LandmarkSchema) -> Annotation:
    if result.names != schema.landmarks or result.original_size != shown.size:
        expected = f"the {schema.count} landmarks of {schema.name} on a film of {shown.size[0]} x {shown.size[1]}"
        raise AnnotationError("a result of another schema or film", field="landmarks", expected=expected)
    found = np.isfinite(result.points_px[:, 0])
    return Annotation(_NAME, result.points_px, np.where(found, 2, 0).astype(np.int8), result.names)
