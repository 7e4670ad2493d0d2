"""The films of a folder or of a command line, as items for the transforms."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from monai_landmark.data.formats import is_film
from monai_landmark.errors import FilmError

__all__ = ["film_items", "find_films"]


def film_items(
    paths: Iterable[str | PathLike[str]], spacing_mm: tuple[float, float] | None = None
) -> list[dict[str, Any]]:
    """Films, and folders of films, as datalist items without annotation.

    Args:
        paths: files, taken as they are, and folders, searched through for films.
        spacing_mm: ``(row_mm, col_mm)`` of every film, when the user knows it.

    Returns:
        Items with ``image``, ``id`` (the path below the folder that was named, without suffix), and the spacing.

    Raises:
        FilmError: if a path does not exist, or two films would have the same id.
    """
    items: list[dict[str, Any]] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FilmError("no such file or folder", file=path, action="check the path")
        files = sorted(f for f in path.rglob("*") if f.is_file() and is_film(f)) if path.is_dir() else [path]
        for file in files:
            name = file.relative_to(path) if path.is_dir() else Path(file.name)
            items.append({"image": str(file), "id": name.with_suffix("").as_posix()})
    if spacing_mm is not None:
        items = [{**item, "spacing": list(spacing_mm), "spacing_source": "user"} for item in items]
    seen: dict[str, str] = {}
    for item in items:
        if item["id"] in seen:
            raise FilmError(
                "two films would have the same id",
                file=item["image"],
                field="id",
                value=item["id"],
                action=f"rename it or {seen[item['id']]}, or predict them in separate runs",
            )
        seen[item["id"]] = item["image"]
    return items


def find_films(folder: str | PathLike[str]) -> list[dict[str, Any]]:
    """The films below a folder.

    Args:
        folder: searched through with all its folders.

    Returns:
        See :func:`film_items`.

    Raises:
        FilmError: if there is none.
    """
    items = film_items([folder])
    if not items:
        raise FilmError("no film found", file=folder, action="give a folder of DICOM, PNG, JPEG or TIFF films")
    return items
