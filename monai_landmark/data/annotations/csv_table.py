"""CSV with a header, wide or long; columns are found by their names, in any order, and further columns do not matter.

Wide, a line for each film: ``film, <name>_x, <name>_y[, <name>_visibility] ... [, reader]``.
Long, a line for each landmark: ``film, landmark, x, y[, visibility][, reader]``.
The column of the film may also be called image, file, filename or id. Separators are comma, semicolon or tab, told by
the header. Empty or NaN coordinates mean that the landmark is not annotated.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from monai_landmark.data.annotations.base import (
    Annotation,
    FilmSizes,
    SchemaLike,
    check_annotations,
    common_names,
    from_listed,
    from_named,
    landmark_names,
)
from monai_landmark.data.annotations.parsing import (
    FilePath,
    Point,
    csv_rows,
    number_text,
    parse_point,
    read_text,
)
from monai_landmark.errors import AnnotationError
from monai_landmark.files import write_text

__all__ = ["read_csv", "write_csv"]

FILM_COLUMNS = ("film", "image", "file", "filename", "id")
LONG_COLUMNS = frozenset({"landmark", "x", "y"})


class _Table(NamedTuple):
    """A CSV file: its columns, which of them names the film, and (line number, column -> text)."""

    columns: list[str]
    film: str
    rows: list[tuple[int, dict[str, str]]]


def read_csv(
    path: FilePath,
    schema: SchemaLike | None = None,
    *,
    film_sizes: FilmSizes | None = None,
    reader: str | None = None,
) -> list[Annotation]:
    """Read a CSV with a header in the wide or long form.

    Args:
        path: the CSV file.
        schema: gives names and order, and refuses other names; None keeps those of the file.
        film_sizes: film -> (height, width), to refuse landmarks outside the film.
        reader: who annotated, where the file does not say.

    Raises:
        AnnotationError: names the file, the line and what was expected there.
    """
    table = _read_table(path)
    form = _long if table.columns and LONG_COLUMNS <= set(table.columns) else _wide
    return check_annotations(form(table, path, landmark_names(schema), reader), film_sizes, path)


def write_csv(path: FilePath, annotations: Sequence[Annotation], form: Literal["wide", "long"] = "wide") -> Path:
    """Write annotations that share their landmark names; nothing is lost in either form.

    Raises:
        AnnotationError: nothing to write, or annotations without common names.
    """
    names = common_names(annotations, "CSV")
    with_reader = ["reader"] if any(a.reader is not None for a in annotations) else []
    with_seen = form == "long" or any((a.visibility == 1).any() for a in annotations)
    parts = ["x", "y", "visibility"] if with_seen else ["x", "y"]
    lines: list[list[str]] = []
    for annotation in annotations:
        cells = [_cells(point)[: len(parts)] for point in annotation.points()]
        own = [annotation.reader or ""] if with_reader else []
        if form == "long":
            lines += [[annotation.film, *own, name, *cell] for name, cell in zip(names, cells, strict=True)]
        else:
            lines.append([annotation.film, *own, *(text for cell in cells for text in cell)])
    columns = ["landmark", *parts] if form == "long" else [f"{name}_{part}" for name in names for part in parts]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([["film", *with_reader, *columns], *lines])
    return write_text(path, stream.getvalue())


def _cells(point: Point) -> list[str]:
    """x, y and visibility as texts; empty coordinates for a landmark that is not annotated."""
    x, y, seen = point
    return [number_text(x), number_text(y), str(seen)] if seen else ["", "", "0"]


def _read_table(path: FilePath) -> _Table:
    """Columns and rows, every row as long as the header."""
    text = read_text(path)
    first = text.split("\n", 1)[0]
    separator = next((mark for mark in (";", "\t") if mark in first), ",")
    lines = csv_rows(text, file=path, separator=separator)
    columns = lines[0][1] if lines else []
    film = [column for column in columns if column in FILM_COLUMNS]
    if len(film) != 1 or len(set(columns)) != len(columns):
        raise AnnotationError(
            "the header does not tell the films" if len(film) != 1 else "a column comes twice",
            file=path,
            field="line 1",
            value=separator.join(columns),
            expected=f"every column once, and one of them called {', '.join(FILM_COLUMNS)}",
            action="correct the header",
        )
    for number, cells in lines[1:]:
        if len(cells) != len(columns):
            raise AnnotationError(
                "wrong number of values",
                file=path,
                field=f"line {number}",
                value=len(cells),
                expected=f"{len(columns)}, as in the header",
                action="check separators and quotes; write decimals with a point",
            )
    return _Table(columns, film[0], [(number, dict(zip(columns, cells, strict=True))) for number, cells in lines[1:]])


def _wide(table: _Table, path: FilePath, names: Sequence[str] | None, reader: str | None) -> Iterator[Annotation]:
    """One annotation for each line."""
    listed = [column[:-2] for column in table.columns if column.endswith("_x") and column != "_x"]
    odd = {column[:-2] for column in table.columns if column.endswith("_y")} ^ set(listed)
    if odd or not listed:
        raise AnnotationError(
            "landmark columns do not pair up" if odd else "no landmark columns",
            file=path,
            field="line 1",
            value=sorted(odd) or table.columns,
            expected="<name>_x with <name>_y for every landmark, or the columns landmark, x, y",
            action="correct the header",
        )
    for number, row in table.rows:
        film = _film(row, table, path, number)
        points = [
            parse_point(
                row[f"{name}_x"],
                row[f"{name}_y"],
                row.get(f"{name}_visibility", ""),
                file=path,
                field=f"line {number}, film {film}, {name}",
            )
            for name in listed
        ]
        yield from_listed(film, points, listed, names, file=path, reader=row.get("reader") or reader)


def _long(table: _Table, path: FilePath, names: Sequence[str] | None, reader: str | None) -> Iterator[Annotation]:
    """One annotation for each film and reader, in the order of their first lines."""
    films: dict[tuple[str, str | None], dict[str, Point]] = {}
    for number, row in table.rows:
        film, name = _film(row, table, path, number), row["landmark"]
        points = films.setdefault((film, row.get("reader") or reader), {})
        field = f"line {number}, film {film}, {name}"
        if name in points or not name:
            problem = "landmark comes twice" if name else "landmark without a name"
            raise AnnotationError(problem, file=path, field=field, value=name, action="remove or name this line")
        points[name] = parse_point(row["x"], row["y"], row.get("visibility", ""), file=path, field=field)
    known = names or list(dict.fromkeys(name for points in films.values() for name in points))
    for (film, own_reader), points in films.items():
        yield from_named(film, points, known, file=path, reader=own_reader)


def _film(row: dict[str, str], table: _Table, path: FilePath, number: int) -> str:
    """Name of the film of one line."""
    film = row[table.film]
    if not film:
        raise AnnotationError("line without a film", file=path, field=f"line {number}", action=f"fill in {table.film}")
    return film
