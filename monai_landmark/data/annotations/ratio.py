"""Ratio text: a file for each film, first line the number of landmarks, then ``rx ry`` as shares of width and height.

This is how the landmarks of the Shenzhen chest films are distributed. The public code that introduced them (GU2Net, Zhu
et al., MICCAI 2021; YOLO_Universal_Anatomical_Landmark_Detection, datasets/chest.py) takes ``ratio * size`` as pixel
index, with the size and not ``size - 1``, and with no half pixel taken off. So does this module: ``x = rx * width``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from monai_landmark.data.annotations.base import (
    Annotation,
    FilmSizes,
    SchemaLike,
    check_annotations,
    find_film,
    from_rows,
    landmark_names,
    write_folder,
)
from monai_landmark.data.annotations.parsing import (
    FilePath,
    Point,
    annotation_files,
    parse_number,
    read_text,
)
from monai_landmark.errors import AnnotationError

__all__ = ["read_ratio", "write_ratio"]


def read_ratio(
    path: FilePath,
    schema: SchemaLike | None = None,
    *,
    film_sizes: FilmSizes,
    reader: str | None = None,
) -> list[Annotation]:
    """Read one file, or all of a folder; the film is the file's stem.

    Args:
        path: the file or the folder.
        schema: names of the landmarks in the files' order; None leaves them without names.
        film_sizes: film -> (height, width) in pixels, without which the ratios mean nothing.
        reader: who annotated; the files do not say.

    Raises:
        AnnotationError: names the file, the line and what was expected there.
    """
    names = landmark_names(schema)
    found = []
    for file in annotation_files(path, ".txt"):
        size = find_film(film_sizes, file.stem, file=file, what="size")
        found.append(from_rows(file.stem, _points(file, size), names, file=file, reader=reader))
    return check_annotations(found, film_sizes, path)


def write_ratio(folder: FilePath, annotations: Iterable[Annotation], *, film_sizes: FilmSizes) -> list[Path]:
    """Write ``<film>.txt`` for each film.

    Coordinates come back within rounding (1e-12 of the film); occlusion, landmark names and reader are left out.

    Raises:
        AnnotationError: a landmark is missing, which the format cannot say, or a film's size is not given.
    """

    def text(annotation: Annotation) -> str:
        """Content of the file of one film."""
        height, width = find_film(film_sizes, annotation.film, file=None, what="size")
        lines = [f"{x / width!r} {y / height!r}\n" for x, y, _ in annotation.points()]
        return "".join([f"{len(lines)}\n", *lines])

    return write_folder(folder, annotations, "ratio text", text)


def _points(file: Path, size: tuple[int, int]) -> list[Point]:
    """The landmarks of one file in pixels, all visible."""
    height, width = size
    lines = read_text(file).rstrip().splitlines()
    if not lines or lines[0].strip() != str(len(lines) - 1):
        raise AnnotationError(
            "the first line does not count the landmarks",
            file=file,
            field="line 1",
            value=lines[0] if lines else "",
            expected=f"{max(len(lines) - 1, 0)}, the number of lines that follow",
            action="check that the file is complete",
        )
    ratios = [_ratios(line, file, f"line {number}") for number, line in enumerate(lines[1:], start=2)]
    return [(rx * width, ry * height, 2) for rx, ry in ratios]


def _ratios(line: str, file: Path, field: str) -> tuple[float, float]:
    """One ``rx ry`` line, both within 0 and 1."""
    parts = line.split()
    values = [parse_number(part, file=file, field=field) for part in parts]
    if len(values) != 2 or not all(0 <= value <= 1 for value in values):
        raise AnnotationError(
            "not a ratio",
            file=file,
            field=field,
            value=line,
            expected="two numbers within 0 and 1: x / width, y / height",
            action="correct the line, or read the file as another format if these are pixels",
        )
    return values[0], values[1]
