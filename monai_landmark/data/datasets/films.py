"""Films of a folder: finding them, opening each once, and keeping what a datalist needs to know of them."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_landmark.data.datalist import LeftOut
from monai_landmark.data.duplicates import fingerprint
from monai_landmark.data.film_cache import FilmCache
from monai_landmark.data.formats import FILM_SUFFIXES, is_film, read_film
from monai_landmark.errors import AnnotationError, ConfigurationError, DataError

__all__ = [
    "OpenedFilm",
    "Progress",
    "Size",
    "Spacing",
    "bare_name",
    "films_below",
    "only_one",
    "open_film",
    "open_films",
    "read_table",
    "relative_name",
]

Size = tuple[int, int]
Spacing = tuple[float, float]
Progress = Callable[[Iterable[Any], int], Iterable[Any]]
"""Wraps an iterable of known length, to show how far it is."""


@dataclass(frozen=True, slots=True)
class OpenedFilm:
    """What is kept of a film once it was read.

    Attributes:
        size: (H, W) in pixels.
        spacing_mm: (row, column) spacing, or None.
        spacing_source: where the spacing comes from.
        sha256: of the file's bytes.
        info: facts for reports: format, bits; no patient data.
    """

    size: Size
    spacing_mm: Spacing | None
    spacing_source: str
    sha256: str
    info: Mapping[str, Any] = field(default_factory=dict)


def films_below(folder: Path) -> list[Path]:
    """Every film in a folder and its subfolders, sorted by path; hidden folders are not entered.

    Raises:
        ConfigurationError: there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigurationError("there is no such folder", file=folder, action="give the folder that holds the films")
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(path for path in found if is_film(path))


def only_one(found: Iterable[Path], folder: Path, kind: str, *, expected: str, action: str) -> Path:
    """The one file or folder that a data set holds of a kind.

    Args:
        found: what there is of the kind.
        folder: where it was looked for.
        kind: its plural, for the message.
        expected: how the one is called.
        action: what to do when it is missing or comes more than once.

    Raises:
        ConfigurationError: it is missing or comes more than once.
    """
    paths = sorted(found)
    if len(paths) != 1:
        raise ConfigurationError(
            f"{len(paths)} {kind}", file=folder, value=[str(path) for path in paths], expected=expected, action=action
        )
    return paths[0]


def open_film(path: Path, spacing_mm: Spacing | None, cache: FilmCache) -> OpenedFilm:
    """Read one film and forget its pixels, or take what was kept when it was read before.

    Args:
        path: the film.
        spacing_mm: (row, column) spacing known to the user; overrules the file.
        cache: keeps what is seen of it, fingerprint included.

    Raises:
        FilmError: the film cannot be read.
    """
    sha256 = cache.sha256(path)
    known = cache.facts(sha256, spacing_mm)
    if known is None:
        film = read_film(path, spacing_mm)
        spacing = film.spacing
        told: dict[str, Any] = {"size": film.size, "spacing_mm": spacing.mm, "spacing_source": spacing.source}
        told |= {"info": film.info}
        cache.keep(sha256, spacing_mm, told, fingerprint(film.pixels))
        known = cache.facts(sha256, spacing_mm) or told
    row_col = known["spacing_mm"]
    size, spacing_known = tuple(known["size"]), None if row_col is None else tuple(row_col)
    return OpenedFilm(size, spacing_known, known["spacing_source"], sha256, known["info"])


def open_films(
    paths: Iterable[Path],
    root: Path,
    spacing_mm: Spacing | None = None,
    progress: Progress | None = None,
    *,
    cache: FilmCache,
) -> tuple[dict[Path, OpenedFilm], list[LeftOut]]:
    """Read films; one that is broken does not stop the others.

    Args:
        paths: the films.
        root: what the names of films left out are relative to.
        spacing_mm: (row, column) spacing of all of them, known to the user.
        progress: shows how far the reading is.
        cache: keeps what is seen of them, fingerprints included.

    Returns:
        The opened films by path, and those that could not be read, with the reason.
    """
    opened: dict[Path, OpenedFilm] = {}
    left_out: list[LeftOut] = []
    films = list(paths)
    for path in progress(films, len(films)) if progress else films:
        try:
            opened[path] = open_film(path, spacing_mm, cache)
        except (DataError, OSError) as error:
            left_out.append(LeftOut(relative_name(path, root), str(error)))
    return opened, left_out


def relative_name(path: Path, root: Path) -> str:
    """Path below ``root`` with forward slashes; the absolute path of a film that lies elsewhere."""
    name, folder = path.absolute().as_posix(), root.absolute().as_posix().rstrip("/") + "/"
    return name.removeprefix(folder)


def bare_name(name: str) -> str:
    """Name without a film's suffix; other dots, as in ``1.2.840.113``, belong to the name."""
    suffix = next((s for s in sorted(FILM_SUFFIXES, key=len, reverse=True) if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)]


def read_table(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with header.

    Args:
        path: the CSV.
        columns: columns it must have.

    Raises:
        AnnotationError: it cannot be read, or a column is missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, strict=True)
            rows, found = list(table), list(table.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"the table cannot be read ({error})", file=path, expected="CSV with a header") from error
    missing = [column for column in columns if column not in found]
    if missing or any(None in row or None in row.values() for row in rows):
        problem = "columns are missing" if missing else "a row is not as long as the header"
        raise AnnotationError(problem, file=path, field="header", value=missing or found, expected=", ".join(columns))
    return rows
