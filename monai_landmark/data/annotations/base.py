"""What every annotation format has in common: the annotation itself, how it is put together, and the checks on it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.annotations.parsing import MISSING, FilePath, Point
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import AnnotationError
from monai_landmark.files import write_text

__all__ = [
    "Annotation",
    "FilmSizes",
    "SchemaLike",
    "check_annotations",
    "common_names",
    "find_film",
    "from_listed",
    "from_named",
    "from_rows",
    "landmark_names",
    "require_all_landmarks",
    "write_folder",
]

FilmSizes = Mapping[str, tuple[int, int]]
"""Film -> (height, width) in pixels."""
SchemaLike = LandmarkSchema | FilePath
"""A schema, its shipped name, or the path of its YAML file."""
_Value = TypeVar("_Value")


@dataclass(frozen=True, eq=False)
class Annotation:
    """The landmarks one reader saw on one film.

    Args:
        film: the film's name as the annotation file gives it; a file that holds one film lends its own stem.
        landmarks: ``(K, 2)`` float64 (x, y) in original pixels, origin at the center of the top-left pixel;
            NaN = not annotated.
        visibility: ``(K,)`` int8: 0 not annotated, 1 annotated but occluded, 2 visible.
        names: the K landmark names, or None where neither the file nor a schema tells them.
        reader: who annotated, or None.

    Raises:
        AnnotationError: shapes that do not fit, half a point, or a visibility that contradicts the landmarks.
    """

    film: str
    landmarks: NDArray[np.float64]
    visibility: NDArray[np.int8]
    names: tuple[str, ...] | None = None
    reader: str | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        count = len(self.landmarks)
        if self.landmarks.shape != (count, 2) or self.visibility.shape != (count,):
            shapes = (self.landmarks.shape, self.visibility.shape)
            raise AnnotationError("shapes do not fit", field=self.film, value=shapes, expected="(K, 2) and (K,)")
        if self.names is not None and len(self.names) != count:
            raise AnnotationError("names do not fit", field=self.film, value=len(self.names), expected=f"{count} names")
        finite, missing = np.isfinite(self.landmarks).all(1), np.isnan(self.landmarks).all(1)
        seen = self.visibility
        wrong = ~((finite & ((seen == 1) | (seen == 2))) | (missing & (seen == 0)))
        for index in np.flatnonzero(wrong).tolist():
            raise AnnotationError(
                "landmark and visibility contradict each other",
                field=f"film {self.film}, {self.label(index)}",
                value=(*self.landmarks[index].tolist(), int(seen[index])),
                expected="two finite numbers with visibility 1 or 2, or two NaN with visibility 0",
            )

    def __eq__(self, other: object) -> bool:
        """Same film, reader, names, visibility and exactly the same coordinates."""
        if not isinstance(other, Annotation):
            return NotImplemented
        return (
            (self.film, self.reader, self.names) == (other.film, other.reader, other.names)
            and np.array_equal(self.landmarks, other.landmarks, equal_nan=True)
            and np.array_equal(self.visibility, other.visibility)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays are mutable

    @property
    def annotated(self) -> NDArray[np.bool_]:
        """``(K,)``: True where there is a landmark."""
        return self.visibility > 0

    def label(self, index: int) -> str:
        """What to call the landmark of this index in a message."""
        return f"landmark {index + 1}" + (f" ({self.names[index]})" if self.names else "")

    def points(self) -> list[Point]:
        """The K landmarks as plain (x, y, visibility), in order."""
        coordinates = zip(self.landmarks.tolist(), self.visibility.tolist(), strict=True)
        return [(x, y, seen) for (x, y), seen in coordinates]


def landmark_names(schema: SchemaLike | None) -> tuple[str, ...] | None:
    """Landmark names of a schema, its shipped name or its path; None stays None."""
    if schema is None:
        return None
    return (schema if isinstance(schema, LandmarkSchema) else LandmarkSchema.load(schema)).landmarks


def from_rows(
    film: str, rows: Sequence[Point], names: Sequence[str] | None, *, file: FilePath, reader: str | None = None
) -> Annotation:
    """An annotation from points in schema order.

    Raises:
        AnnotationError: not as many points as names.
    """
    if names is not None and len(rows) != len(names):
        raise AnnotationError(
            "wrong number of landmarks",
            file=file,
            field=f"film {film}",
            value=len(rows),
            expected=f"{len(names)} landmarks",
            action="check that the file is complete and that the schema is the right one",
        )
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    own_names = None if names is None else tuple(names)
    return Annotation(film, table[:, :2].copy(), table[:, 2].astype(np.int8), own_names, reader)


def from_named(
    film: str, points: Mapping[str, Point], names: Sequence[str], *, file: FilePath, reader: str | None = None
) -> Annotation:
    """An annotation from named points; a name without a point is a landmark that is not annotated.

    Raises:
        AnnotationError: a point whose name is not among the names.
    """
    for name in points.keys() - set(names):
        near = difflib.get_close_matches(name, names, n=1)
        raise AnnotationError(
            "unknown landmark name",
            file=file,
            field=f"film {film}",
            value=name,
            expected=f"one of {', '.join(names)}",
            action=f"rename it to {near[0]!r} if that is meant" if near else "rename it or give the schema that has it",
        )
    return from_rows(film, [points.get(name, MISSING) for name in names], names, file=file, reader=reader)


def from_listed(
    film: str,
    rows: Sequence[Point],
    listed: Sequence[str],
    names: Sequence[str] | None,
    *,
    file: FilePath,
    reader: str | None = None,
) -> Annotation:
    """An annotation from points in the order of the names that the file lists, put into the order of the schema.

    Args:
        film: the film.
        rows: one point for each listed name.
        listed: landmark names of the file.
        names: landmark names of the schema, or None to keep the file's.
        file: for messages.
        reader: who annotated.

    Raises:
        AnnotationError: the file lists other names than the schema, or another number of points than names.
    """
    annotation = from_rows(film, rows, listed, file=file, reader=reader)
    if names is None:
        return annotation
    annotation = from_named(film, dict(zip(listed, rows, strict=True)), names, file=file, reader=reader)
    absent = [name for name in names if name not in listed]
    if absent:
        raise AnnotationError(
            "the file does not know all landmarks of the schema",
            file=file,
            field="landmark names",
            value=", ".join(absent),
            expected=f"{len(names)} landmarks",
            action="add them to the file, with empty values where nobody annotated them, or give the right schema",
        )
    return annotation


def find_film(table: Mapping[str, _Value], film: str, *, file: FilePath | None, what: str) -> _Value:
    """Entry of a film, under its full name or else its name without folder, then without suffix.

    Raises:
        AnnotationError: the table has none of them.
    """
    for key in (film, Path(film).name, Path(film).stem):
        if key in table:
            return table[key]
    action = f"give the film's {what} under this name"
    raise AnnotationError(f"{what} of the film unknown", file=file, field=f"film {film}", action=action)


def common_names(annotations: Sequence[Annotation], form: str) -> tuple[str, ...]:
    """The landmark names that all annotations of one file share.

    Raises:
        AnnotationError: no annotations, annotations without names, or with different ones.
    """
    names = {annotation.names for annotation in annotations}
    only = names.pop() if len(names) == 1 else None
    if only is None:
        raise AnnotationError(
            f"{form} needs at least one annotation, all with the same landmark names",
            value=[annotation.film for annotation in annotations if annotation.names is None][:3],
            action="read the annotations with one schema that names the landmarks",
        )
    return only


def require_all_landmarks(annotation: Annotation, form: str) -> None:
    """Refuse to write a film with missing landmarks to a format that cannot say so.

    Raises:
        AnnotationError: a landmark is missing.
    """
    for index in np.flatnonzero(~annotation.annotated).tolist():
        raise AnnotationError(
            f"{form} cannot say that a landmark is missing",
            field=f"film {annotation.film}, {annotation.label(index)}",
            action="write CSV, COCO, Slicer markups or JSON instead",
        )


def write_folder(
    folder: FilePath, annotations: Iterable[Annotation], form: str, text: Callable[[Annotation], str]
) -> list[Path]:
    """Write ``<film>.txt`` for each film, in a format that holds one complete film a file.

    Args:
        folder: made if it is not there.
        annotations: one for each film.
        form: name of the format, for messages.
        text: content of the file of one annotation.

    Returns:
        The files.

    Raises:
        AnnotationError: a landmark is missing, or two annotations would be written to one file.
    """
    written: list[Path] = []
    for annotation in annotations:
        require_all_landmarks(annotation, form)
        path = Path(folder) / f"{Path(annotation.film).stem}.txt"
        if path in written:
            action = "write each reader to a folder of its own"
            raise AnnotationError("two annotations for one file", file=path, value=annotation.film, action=action)
        write_text(path, text(annotation))
        written.append(path)
    return written


def check_annotations(
    annotations: Iterable[Annotation], film_sizes: FilmSizes | None, file: FilePath
) -> list[Annotation]:
    """Pass on annotations of which no film comes twice for one reader and no landmark lies outside its film.

    Without sizes only negative coordinates can be told to be outside. The rim of the film, half a pixel beyond the
    center of its outer pixels, is inside, and so is a full width or height, as tools that count from the corner write.

    Raises:
        AnnotationError: the first film or landmark that breaks this.
    """
    seen: set[tuple[str, str | None]] = set()
    checked = list(annotations)
    for annotation in checked:
        if (annotation.film, annotation.reader) in seen:
            raise AnnotationError(
                "film comes more than once",
                file=file,
                field="film",
                value=annotation.film,
                expected="one annotation for each film and reader",
                action="remove one, or tell the readers apart",
            )
        seen.add((annotation.film, annotation.reader))
        size = None if film_sizes is None else find_film(film_sizes, annotation.film, file=file, what="size")
        _check_inside(annotation, size, file)
    return checked


def _check_inside(annotation: Annotation, size: tuple[int, int] | None, file: FilePath) -> None:
    """Refuse a landmark outside the film, and say so when it would be inside with x and y exchanged."""
    height, width = (math.inf, math.inf) if size is None else size

    def inside(x: Any, y: Any) -> Any:
        """Which of the points lie on the film or its rim."""
        return (x >= -0.5) & (y >= -0.5) & (x <= width) & (y <= height)

    x, y = annotation.landmarks.T
    outside = annotation.annotated & ~inside(x, y)
    if not outside.any():
        return
    first = int(np.flatnonzero(outside)[0])
    swapped = bool(np.all(inside(y, x)[annotation.annotated]))
    raise AnnotationError(
        "landmark outside the film",
        file=file,
        field=f"film {annotation.film}, {annotation.label(first)}",
        value=tuple(annotation.landmarks[first].tolist()),
        expected="(x, y) not negative" if size is None else f"(x, y) within width {width} and height {height}",
        action=(
            "x and y seem to be exchanged: with the two swapped every landmark of this film is inside"
            if swapped
            else "check that these are pixels of this film, x first; leave a landmark that is not annotated empty"
        ),
    )
