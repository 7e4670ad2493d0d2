"""Text burned into a film's pixels: a simple detector that warns, and misses some.

Letters that a machine writes are strokes far brighter or darker than what is around them, of one height, side by side.
Connected components of the morphological top-hat give the strokes, and components of like height in a row give a line.
It knows no letters: a row of screws or of a ruler's marks is a line, too, and a single letter is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["TextLine", "find_text"]

_STROKES_PX = (5, 11, 23)  # widest strokes looked for
_CONTRAST = 0.25  # of a stroke, as a share of the film's range
_HEIGHTS_PX = (6, 120)
_FEWEST = 4  # letters of a line
_MOST_PARTS = 4000  # more components than this are grain, not letters


@dataclass(frozen=True)
class TextLine:
    """What looks like a line of text.

    Attributes:
        box: first row, first column, last row, last column.
        letters: number of components.
    """

    box: tuple[int, int, int, int]
    letters: int


def find_text(pixels: NDArray[Any]) -> list[TextLine]:
    """Look for lines of burned-in text.

    Args:
        pixels: ``(H, W)`` film.

    Returns:
        The lines, most letters first; none is no proof that there is none.
    """
    film = pixels.astype(np.float32)
    low, high = np.percentile(film, (0.1, 99.9))
    low, high = min(low, float(film.min()) + 0.0), max(high, float(film.max()))
    if high <= low:
        return []
    film = (film - low) / (high - low)
    lines: list[TextLine] = []
    for width in _STROKES_PX:
        if 3 * width > min(film.shape):
            break
        for hat in (ndimage.white_tophat, ndimage.black_tophat):
            lines += _lines(hat(film, size=(width, width)) > _CONTRAST)
    return _apart(sorted(lines, key=lambda line: -line.letters))


def _lines(strokes: NDArray[np.bool_]) -> list[TextLine]:
    """Rows of components that could be letters."""
    labels, count = ndimage.label(strokes, structure=np.ones((3, 3)))
    if not _FEWEST <= count <= _MOST_PARTS:
        return []
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    letters = []
    for place, area in zip(ndimage.find_objects(labels), areas, strict=True):
        top, left, bottom, right = place[0].start, place[1].start, place[0].stop, place[1].stop
        height, width = bottom - top, right - left
        if _HEIGHTS_PX[0] <= height <= _HEIGHTS_PX[1] and width <= 1.5 * height and area >= 0.12 * height * width:
            letters.append((top, left, bottom, right))
    return _rows(sorted(letters, key=lambda box: box[1]))


def _rows(letters: list[tuple[int, int, int, int]]) -> list[TextLine]:
    """Letters side by side, each on the line of its left neighbor."""
    rows: list[list[tuple[int, int, int, int]]] = []
    for box in letters:
        height = box[2] - box[0]
        for row in rows:
            last = row[-1]
            other = last[2] - last[0]
            level = abs(box[2] - last[2]) <= 0.25 * max(height, other)
            if level and max(height, other) <= 1.6 * min(height, other) and -1 <= box[1] - last[3] <= height:
                row.append(box)
                break
        else:
            rows.append([box])
    return [_line(row) for row in rows if len(row) >= _FEWEST and _written(row)]


def _written(row: list[tuple[int, int, int, int]]) -> bool:
    """Letters differ in width, as the marks of a ruler do not, and most are taller than wide."""
    widths = {right - left for _, left, _, right in row}
    slim = sum(bottom - top >= right - left for top, left, bottom, right in row)
    return len(widths) > 1 and slim > len(row) / 2


def _line(row: list[tuple[int, int, int, int]]) -> TextLine:
    tops, lefts, bottoms, rights = zip(*row, strict=True)
    return TextLine((min(tops), min(lefts), max(bottoms), max(rights)), len(row))


def _apart(lines: list[TextLine]) -> list[TextLine]:
    """Lines that do not overlap one with more letters."""
    kept: list[TextLine] = []
    for line in lines:
        top, left, bottom, right = line.box
        if all(
            bottom <= other.box[0] or other.box[2] <= top or right <= other.box[1] or other.box[3] <= left
            for other in kept
        ):
            kept.append(line)
    return kept
