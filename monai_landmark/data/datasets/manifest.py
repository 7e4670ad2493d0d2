"""Data sets that are handed on with resized films: a manifest tells the size at which each film was annotated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from monai_landmark.data.datasets.films import Size, read_table
from monai_landmark.errors import AnnotationError, FilmError

__all__ = ["ManifestRow", "read_manifest"]

_COLUMNS = ("id", "orig_width", "orig_height", "width", "height")


@dataclass(frozen=True)
class ManifestRow:
    """One film of a manifest.

    Attributes:
        original: (H, W) at which the film was annotated.
        stored: (H, W) of the file.
        values: every column of the row as text.
    """

    original: Size
    stored: Size
    values: dict[str, str]

    def check_size(self, size: Size, film: str) -> None:
        """Refuse a film that has not the size that the manifest says.

        Raises:
            FilmError: another size, so that landmarks cannot be brought to it.
        """
        if size != self.stored:
            raise FilmError(
                "the film has not the size that its manifest says",
                file=film,
                field="size",
                value=size,
                expected=f"{self.stored} (rows, columns)",
                action="use the film and the manifest of one distribution",
            )


def read_manifest(path: Path) -> dict[str, ManifestRow]:
    """Rows of a manifest by film id.

    Args:
        path: a CSV with the columns ``id, orig_width, orig_height, width, height``.

    Raises:
        AnnotationError: columns missing, a size that is not a whole number above 0, or an id that comes twice.
    """
    rows: dict[str, ManifestRow] = {}
    for number, values in enumerate(read_table(path, _COLUMNS), start=2):
        film, *numbers = (values[column] for column in _COLUMNS)
        if film in rows or not all(text.isdecimal() and int(text) > 0 for text in numbers):
            raise AnnotationError(
                "the id comes twice" if film in rows else "not a size",
                file=path,
                field=f"line {number}",
                value=[film, *numbers],
                expected="every film once, with sizes in whole pixels",
            )
        width, height, stored_width, stored_height = map(int, numbers)
        rows[film] = ManifestRow((height, width), (stored_height, stored_width), values)
    return rows
