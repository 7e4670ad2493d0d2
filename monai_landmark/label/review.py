"""What the review page is told: the schema, the list of films to look at, and the pixels of one film."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.annotations import Annotation
from monai_landmark.data.film import Film
from monai_landmark.data.reader import read_film
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.label.labels import spacing_of
from monai_landmark.label.privacy import pseudonym
from monai_landmark.results.measurements import UNITS, kind_of

__all__ = ["REVIEWED", "Frame", "film_frame", "film_state", "points_json", "schema_json", "short_names", "worklist"]

#: What the page writes beside a label, as ``status``.
REVIEWED = "reviewed"
#: A film with more pixels is sent reduced; some browsers on tablets draw no larger picture.
MOST_PIXELS = 2**24
_CLIPPED = 0.02  # of the shown range: a sigmoid never reaches its ends
_PERCENTILES = (0.5, 99.5)
State = Literal["to do", "labelled", "reviewed"]


@dataclass(frozen=True)
class Frame:
    """One film for the page's canvas.

    Attributes:
        facts: size, spacing, side, and how codes become intensities; plain JSON types.
        codes: ``(H', W')`` uint8 or little-endian uint16; intensity = ``facts["low"] + facts["step"] * code``.
    """

    facts: dict[str, Any]
    codes: NDArray[np.unsignedinteger[Any]]


def short_names(schema: LandmarkSchema) -> list[str]:
    """A label of a few letters for each landmark, to stand beside its point.

    Args:
        schema: of the landmarks.

    Returns:
        Distinct labels in the schema's order: the initials of the words, or the first letters of a single one, three
        or as many more as tell it apart; where even that does not, a number follows.
    """
    words = [re.split("[_ -]+", name) for name in schema.landmarks]
    found = ["".join(part[:1] for part in name).upper() for name in words]
    single = [index for index, name in enumerate(words) if len(name) == 1]
    for length in range(3, 7):
        times = Counter(found)
        for index in single:
            if length == 3 or times[found[index]] > 1:
                found[index] = words[index][0][:length].title()
    times, number = Counter(found), Counter[str]()
    for index, label in enumerate(found):
        if times[label] > 1:
            number[label] += 1
            found[index] = f"{label}{number[label]}"
    return found


def schema_json(schema: LandmarkSchema) -> dict[str, Any]:
    """The schema as the page needs it; landmarks are named by their index.

    Args:
        schema: of the landmarks.

    Returns:
        ``name``, ``title``, ``landmarks`` (``name``, ``short``, ``description``), ``pairs`` (left, right), ``lines``,
        and ``measures`` in the order of :func:`monai_landmark.results.measurements.measure_points`: an angle has two
        ``rays`` (from, to) or is the ``difference`` of two measures, a distance has ``ends``, a ratio is one distance
        ``over`` another.
    """
    landmarks = [
        {"name": name, "short": short, "description": schema.descriptions.get(name, "")}
        for name, short in zip(schema.landmarks, short_names(schema), strict=True)
    ]
    return {
        "name": schema.name,
        "title": schema.title,
        "landmarks": landmarks,
        "pairs": [_indices(schema, pair) for pair in schema.pairs],
        "lines": [_indices(schema, ends) for ends in schema.lines.values()],
        "measures": [_measure(schema, name) for name in (*schema.angles, *schema.distances, *schema.ratios)],
    }


def worklist(objects: Mapping[str, Any], films: Collection[str], model: str, score_key: str) -> list[dict[str, Any]]:
    """The films in the order in which a person should look at them.

    Films without a final label come first: those with the most referred landmarks, then those with the highest
    expected error in mm, then those of which only a confidence is known, then those that nobody has predicted.

    Args:
        objects: what the datastore knows, film -> entry.
        films: ids of all films; a PACS has films that the datastore does not know yet.
        model: SHA-256 of the model in use.
        score_key: under which a film's score stands among what is known of it.

    Returns:
        Films with ``id``, ``shown`` (what the page calls it, for an id may be a file's name and name a patient),
        ``state``, ``score`` (see :func:`monai_landmark.label.service.film_score`; None where there is none), and
        ``outdated``, whether the score is of another model.
    """
    rows = []
    for film in sorted(films):
        entry = objects.get(film, {})
        score = entry.get("image", {}).get("info", {}).get(score_key)
        score = score if isinstance(score, dict) else None
        outdated = score is not None and score.get("model") != model
        row = {"id": film, "shown": pseudonym(film), "state": film_state(entry), "score": score, "outdated": outdated}
        rows.append(row)
    return sorted(rows, key=_urgency)


def film_state(entry: Mapping[str, Any]) -> State:
    """Whether somebody has labelled a film, and whether that was done on the review page.

    Args:
        entry: of the film in the datastore.

    Returns:
        The state.
    """
    final = entry.get("labels", {}).get("final")
    if final is None:
        return "to do"
    return "reviewed" if final.get("info", {}).get("status") == REVIEWED else "labelled"


def points_json(annotation: Annotation) -> list[list[float] | None]:
    """A label's points for the page.

    Args:
        annotation: the label.

    Returns:
        ``[x, y, visibility]`` in pixels of the original film for each landmark, None where it is not annotated.
    """
    return [[x, y, seen] if seen else None for x, y, seen in annotation.points()]


def film_frame(path: Path, spacing_mm: tuple[float, float] | None = None) -> Frame:
    """Read a film for the page: every intensity of the film, and the window through which it is shown at first.

    Args:
        path: the film.
        spacing_mm: ``(row_mm, col_mm)`` that the user knows.

    Returns:
        The film, not windowed. Whole intensities are sent as they are, others in 65536 steps.

    Raises:
        FilmError: if the film cannot be read truthfully.
    """
    film = shown = read_film(path, spacing_mm)
    if film.info.get("voi") in ("window", "lut"):
        film = read_film(path, spacing_mm, apply_voi=False)
    low, high = float(film.pixels.min()), float(film.pixels.max())
    pixels, reduction = _reduced(film.pixels)
    whole = high - low <= 65535 and bool((pixels == np.rint(pixels)).all())
    step = 1.0 if whole else max(high - low, 1e-12) / 65535
    depth: np.dtype[np.unsignedinteger[Any]] = np.dtype("u1" if whole and high - low <= 255 else "<u2")
    codes = np.rint((pixels.astype(np.float64) - low) / step).astype(depth)
    row_col = spacing_of(film)
    facts = {
        "size": list(film.size),
        "sent": list(codes.shape),
        "reduction": reduction,
        "bytes": codes.itemsize,
        "low": low,
        "step": step,
        "range": [low, high],
        "window": _first_window(film, shown),
        "spacing_mm": None if row_col is None else list(row_col),
        "spacing_source": film.spacing.source,
        "side": _stated(film, "laterality", ("L", "R")),
        "view": _stated(film, "view_position", ("AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO")),
    }
    return Frame(facts, codes)


def _indices(schema: LandmarkSchema, names: tuple[str, ...]) -> list[int]:
    return [schema.index(name) for name in names]


def _measure(schema: LandmarkSchema, name: str) -> dict[str, Any]:
    kind = kind_of(schema, name)
    found: dict[str, Any] = {"name": name, "kind": kind, "unit": UNITS[kind]}
    if kind == "distance":
        return found | {"ends": _indices(schema, schema.distances[name])}
    if kind == "ratio":
        return found | {"over": list(schema.ratios[name])}
    parts = schema.angles[name]
    if parts[0] in schema.angles:
        return found | {"difference": list(parts)}
    return found | {"rays": [_indices(schema, ray) for ray in schema.angle_rays(name)]}


def _urgency(row: Mapping[str, Any]) -> tuple[Any, ...]:
    score = row["score"]
    if score is None:
        return row["state"] != "to do", 2, 0, 0.0
    return row["state"] != "to do", int(score["unit"] != "mm"), -(score["referred"] or 0), -score["highest"]


def _reduced(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Means of squares of pixels, where there are too many; the last square is filled up with the film's rim."""
    factor = math.ceil(math.sqrt(pixels.size / MOST_PIXELS))
    if factor == 1:
        return pixels, 1
    rows, columns = (-(-side // factor) for side in pixels.shape)
    beyond = [(0, rows * factor - pixels.shape[0]), (0, columns * factor - pixels.shape[1])]
    squares = np.pad(pixels, beyond, mode="edge").reshape(rows, factor, columns, factor)
    return np.rint(squares.mean(axis=(1, 3))), factor


def _first_window(film: Film, shown: Film) -> list[float]:
    """Intensities that are shown black and white at first: what the film says itself, else what its pixels say."""
    low, high = float(film.pixels.min()), float(film.pixels.max())
    if shown is not film:
        darkest, brightest = float(shown.pixels.min()), float(shown.pixels.max())
        margin = _CLIPPED * (brightest - darkest)
        black = float(film.pixels[shown.pixels <= darkest + margin].max())
        white = float(film.pixels[shown.pixels >= brightest - margin].min())
        if black < white:
            return [black, white]
    elif low >= 0 and high <= 255:
        return [0.0, 255.0]
    black, white = (float(value) for value in np.percentile(film.pixels, _PERCENTILES))
    return [black, white] if black < white else [low, max(high, low + 1)]


def _stated(film: Film, fact: str, known: tuple[str, ...]) -> str | None:
    """What the film says of itself, where it is one of the terms that DICOM defines."""
    value = film.info.get(fact)
    return value if value in known else None
