"""Plain JSON of landmarks: easy to write by hand or from a script.

::

    {"landmarks": [names],
     "films": [{"film": "001", "reader": null, "landmarks": [[x, y], null, ...], "visibility": [2, 0, ...]}]}

The landmarks of a film may also be an object, name -> ``[x, y]`` or null, in which a name that is absent is not
annotated; its visibility is then an object too. ``landmarks`` at the top, ``reader``, ``visibility`` may be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_landmark.data.annotations.base import (
    Annotation,
    FilmSizes,
    SchemaLike,
    check_annotations,
    from_listed,
    from_named,
    from_rows,
    landmark_names,
)
from monai_landmark.data.annotations.parsing import FilePath, json_entry, json_point, read_json, write_json
from monai_landmark.errors import AnnotationError

__all__ = ["read_plain_json", "write_plain_json"]


def read_plain_json(
    path: FilePath,
    schema: SchemaLike | None = None,
    *,
    film_sizes: FilmSizes | None = None,
    reader: str | None = None,
) -> list[Annotation]:
    """Read the JSON form that this module describes.

    Args:
        path: the JSON file.
        schema: gives names and order, and refuses other names; None keeps those of the file.
        film_sizes: film -> (height, width), to refuse landmarks outside the film.
        reader: who annotated, where the file does not say.

    Raises:
        AnnotationError: names the file, the entry and what was expected there.
    """
    content = read_json(path)
    films = json_entry(content, "films", list, file=path, where="")
    listed = None
    if content.get("landmarks") is not None:
        listed = [str(name) for name in json_entry(content, "landmarks", list, file=path, where="")]
    names = landmark_names(schema)
    found = [_annotation(film, f"films[{at}]", path, listed, names, reader) for at, film in enumerate(films)]
    return check_annotations(found, film_sizes, path)


def write_plain_json(path: FilePath, annotations: Sequence[Annotation]) -> Path:
    """Write annotations that share their landmark names, or have none; nothing is lost.

    Raises:
        AnnotationError: nothing to write, or annotations with different names.
    """
    names = {annotation.names for annotation in annotations}
    if len(names) != 1:
        raise AnnotationError(
            "JSON needs at least one annotation, all with the same landmark names",
            value=len(names),
            expected="1 schema",
        )
    shared = names.pop()
    films = [_film(annotation) for annotation in annotations]
    return write_json(path, {"landmarks": shared and list(shared), "films": films})


def _film(annotation: Annotation) -> dict[str, Any]:
    """One entry of the list of films."""
    points = annotation.points()
    return {
        "film": annotation.film,
        "reader": annotation.reader,
        "landmarks": [[x, y] if seen else None for x, y, seen in points],
        "visibility": [seen for _, _, seen in points],
    }


def _annotation(
    entry: Any, where: str, path: FilePath, listed: list[str] | None, names: Sequence[str] | None, reader: str | None
) -> Annotation:
    """One film, from landmarks in a list or by name."""
    film = json_entry(entry, "film", str, file=path, where=where)
    values = json_entry(entry, "landmarks", (list, dict), file=path, where=where)
    own_reader = reader if entry.get("reader") is None else json_entry(entry, "reader", str, file=path, where=where)
    if isinstance(values, list):
        seen = (
            json_entry(entry, "visibility", list, file=path, where=where)
            if "visibility" in entry
            else [None] * len(values)
        )
        if len(seen) != len(values):
            expected = f"{len(values)}, one for each landmark"
            raise AnnotationError(
                "wrong number of codes", file=path, field=f"{where}.visibility", value=len(seen), expected=expected
            )
        pairs = enumerate(zip(values, seen, strict=True))
        rows = [json_point(value, code, file=path, field=f"{where}.landmarks[{at}]") for at, (value, code) in pairs]
        if listed is None:
            return from_rows(film, rows, names, file=path, reader=own_reader)
        return from_listed(film, rows, listed, names, file=path, reader=own_reader)
    codes = json_entry(entry, "visibility", dict, file=path, where=where) if "visibility" in entry else {}
    points = {
        name: json_point(value, codes.get(name), file=path, field=f"{where}.landmarks.{name}")
        for name, value in values.items()
    }
    known = names or listed or list(points)
    return from_named(film, points, known, file=path, reader=own_reader)
