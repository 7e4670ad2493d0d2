"""Digital Hand Atlas CSV: no header, one film a line, ``id,x0,y0,...,x36,y36`` in pixels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from monai_landmark.data.annotations.base import (
    Annotation,
    FilmSizes,
    SchemaLike,
    check_annotations,
    from_rows,
    landmark_names,
    require_all_landmarks,
)
from monai_landmark.data.annotations.parsing import FilePath, csv_rows, number_text, parse_number, read_text
from monai_landmark.errors import AnnotationError
from monai_landmark.files import write_text

__all__ = ["read_dha", "write_dha"]


def read_dha(
    path: FilePath,
    schema: SchemaLike = "dha37",
    *,
    film_sizes: FilmSizes | None = None,
    reader: str | None = None,
) -> list[Annotation]:
    """Read a CSV without header: the film's id, then x and y of every landmark.

    Args:
        path: the CSV file.
        schema: names and number of the landmarks.
        film_sizes: film -> (height, width), to refuse landmarks outside the film.
        reader: who annotated; the file does not say.

    Raises:
        AnnotationError: names the file, the line and what was expected there.
    """
    names = landmark_names(schema) or ()
    found = [
        _annotation(cells, names, path, f"line {at}", reader) for at, cells in csv_rows(read_text(path), file=path)
    ]
    if not found:
        raise AnnotationError("no annotation in the file", file=path, expected="id,x0,y0,... on every line")
    return check_annotations(found, film_sizes, path)


def write_dha(path: FilePath, annotations: Iterable[Annotation]) -> Path:
    """Write one line for each film.

    Coordinates come back exactly; occlusion, landmark names and reader cannot be told in this format and are left out.

    Raises:
        AnnotationError: a landmark is missing, which the format cannot say, or a film's name holds a comma or quote.
    """
    lines = []
    for annotation in annotations:
        require_all_landmarks(annotation, "Digital Hand Atlas CSV")
        if any(character in annotation.film for character in ',"\n\r'):
            raise AnnotationError(
                "film name does not fit this format", value=annotation.film, expected="no comma or quote"
            )
        numbers = [number_text(value) for x, y, _ in annotation.points() for value in (x, y)]
        lines.append(",".join([annotation.film, *numbers]) + "\n")
    return write_text(path, "".join(lines))


def _annotation(cells: list[str], names: tuple[str, ...], path: FilePath, line: str, reader: str | None) -> Annotation:
    """One line of the file."""
    if len(cells) != 1 + 2 * len(names):
        raise AnnotationError(
            "wrong number of values",
            file=path,
            field=f"{line}, film {cells[0]}",
            value=len(cells),
            expected=f"{1 + 2 * len(names)}: the id, then x and y of {len(names)} landmarks",
            action="check that the line is complete and that the schema is the right one",
        )
    numbers = [parse_number(cell, file=path, field=f"{line}, value {at}") for at, cell in enumerate(cells[1:], start=2)]
    rows = [(x, y, 2) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]
    return from_rows(cells[0], rows, names, file=path, reader=reader)
