"""ISBI 2015 text: a file for each film and reader, one ``x,y`` line a landmark, then perhaps 8 lines of class codes."""

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
    write_folder,
)
from monai_landmark.data.annotations.parsing import (
    FilePath,
    Point,
    annotation_files,
    number_text,
    parse_number,
    read_text,
)
from monai_landmark.errors import AnnotationError

__all__ = ["read_isbi", "write_isbi"]

CLASS_LINES = 8


def read_isbi(
    path: FilePath,
    schema: SchemaLike = "isbi19",
    *,
    film_sizes: FilmSizes | None = None,
    reader: str | None = None,
) -> list[Annotation]:
    """Read one ``NNN.txt`` file, or all of a reader's folder; the film is the file's stem.

    The 8 clinical class codes that may follow are checked to be single whole numbers and left out.

    Args:
        path: the file or the folder.
        schema: names and number of the landmarks.
        film_sizes: film -> (height, width), to refuse landmarks outside the film.
        reader: who annotated; the files do not say.

    Raises:
        AnnotationError: names the file, the line and what was expected there.
    """
    names = landmark_names(schema) or ()
    files = annotation_files(path, ".txt")
    found = (from_rows(file.stem, _points(file, len(names)), names, file=file, reader=reader) for file in files)
    return check_annotations(found, film_sizes, path)


def write_isbi(folder: FilePath, annotations: Iterable[Annotation]) -> list[Path]:
    """Write ``<film>.txt`` for each film of one reader.

    Coordinates come back exactly; occlusion, landmark names and reader cannot be told in this format and are left out.

    Raises:
        AnnotationError: a landmark is missing, which the format cannot say, or two annotations share a film.
    """
    return write_folder(folder, annotations, "ISBI text", _text)


def _text(annotation: Annotation) -> str:
    """Content of the file of one film."""
    return "".join(f"{number_text(x)},{number_text(y)}\n" for x, y, _ in annotation.points())


def _points(file: Path, count: int) -> list[Point]:
    """The landmarks of one file, all visible; refuses lines that are neither landmarks nor class codes."""
    lines = read_text(file).rstrip().splitlines()
    if len(lines) not in (count, count + CLASS_LINES):
        raise AnnotationError(
            "wrong number of lines",
            file=file,
            value=len(lines),
            expected=f"{count} landmark lines, with or without {CLASS_LINES} class lines after them",
            action="check that the file is complete and that the schema is the right one",
        )
    for number, line in enumerate(lines[count:], start=count + 1):
        if not line.strip().isdigit():
            place = f"line {number}"
            raise AnnotationError("not a class code", file=file, field=place, value=line, expected="a whole number")
    return [_point(line, file, f"line {number}") for number, line in enumerate(lines[:count], start=1)]


def _point(line: str, file: Path, field: str) -> Point:
    """One ``x,y`` line."""
    parts = line.split(",")
    if len(parts) != 2:
        action = "correct the line; write decimals with a point"
        raise AnnotationError("not a landmark", file=file, field=field, value=line, expected="x,y", action=action)
    return parse_number(parts[0], file=file, field=field), parse_number(parts[1], file=file, field=field), 2
