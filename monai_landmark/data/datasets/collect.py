"""From opened films and their annotations to a datalist: leaks left out, films that recur dealt with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.datalist import SECTIONS, Datalist, Item, LeftOut, landmarks_json
from monai_landmark.data.datasets.films import (
    OpenedFilm,
    Progress,
    Size,
    Spacing,
    bare_name,
    films_below,
    open_films,
    read_table,
    relative_name,
)
from monai_landmark.data.film_cache import FilmCache
from monai_landmark.errors import AnnotationError, DataError

__all__ = ["Candidate", "Marks", "collect", "mean_of_readers", "rescale", "unlabelled_below"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Marks:
    """What is annotated on one film.

    Attributes:
        landmarks: ``(K, 2)`` (x, y) in pixels of the film on disk, of the target reader; NaN = not annotated.
        visibility: ``(K,)`` 0, 1 or 2.
        readers: landmarks of each reader, when there are several.
        spacing_mm: spacing that follows from the annotation or its manifest.
        spacing_source: where that spacing comes from.
    """

    landmarks: FloatArray
    visibility: NDArray[np.int8]
    readers: Mapping[str, FloatArray] = field(default_factory=dict)
    spacing_mm: Spacing | None = None
    spacing_source: str = "user"


@dataclass(frozen=True)
class Candidate:
    """A film that an adapter found.

    Attributes:
        path: the file.
        id: unique name within the data set.
        patient: whom it shows; films of one patient stay in one section.
        section: one of :data:`~monai_landmark.data.datalist.SECTIONS`.
        marks: film size (H, W) -> its annotation; None for an unlabelled film.
        spacing_mm: spacing known to the user or published with the data set.
        extra: further fields of the item.
    """

    path: Path
    id: str
    patient: str
    section: str
    marks: Callable[[Size], Marks] | None = None
    spacing_mm: Spacing | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


def unlabelled_below(folder: Path) -> list[Candidate]:
    """Films of a folder as unlabelled candidates.

    A ``manifest.csv`` in it with the columns ``file`` and ``patient_group`` tells whom they show; else every film
    counts as a patient of its own.

    Raises:
        ConfigurationError: there is no such folder.
        AnnotationError: the manifest has not these columns.
    """
    manifest = folder / "manifest.csv"
    rows = read_table(manifest, ("file", "patient_group")) if manifest.is_file() else []
    patients = {row["file"]: row["patient_group"] for row in rows}
    names = [(path, relative_name(path, folder)) for path in films_below(folder)]
    ids = [(path, name, f"unlabelled/{bare_name(name)}") for path, name in names]
    return [Candidate(path, film, patients.get(name, film), "unlabelled") for path, name, film in ids]


def mean_of_readers(readers: Mapping[str, FloatArray]) -> FloatArray:
    """Mean position of each landmark; a landmark that one of the readers did not annotate has none.

    Args:
        readers: ``(K, 2)`` (x, y) by reader, NaN = not annotated.

    Returns:
        ``(K, 2)`` (x, y).
    """
    return np.asarray(np.mean(list(readers.values()), axis=0), dtype=np.float64)


def rescale(landmarks: FloatArray, original: Size, stored: Size) -> FloatArray:
    """Landmarks of a film that is stored at another size than it was annotated at.

    Pixel centers are at whole numbers, so the film's edge is at -0.5: x' + 0.5 = (x + 0.5) W' / W.

    Args:
        landmarks: ``(K, 2)`` (x, y) in pixels of the original film.
        original: (H, W) at which it was annotated.
        stored: (H, W) of the file.

    Returns:
        ``(K, 2)`` (x, y) in pixels of the file.
    """
    factor = np.array([stored[1] / original[1], stored[0] / original[0]])
    return np.asarray((landmarks + 0.5) * factor - 0.5)


def collect(
    datalist: Datalist,
    candidates: Iterable[Candidate],
    *,
    unlabelled: Path | None = None,
    opened: Mapping[Path, OpenedFilm] | None = None,
    progress: Progress | None = None,
    cache: FilmCache | None = None,
) -> Datalist:
    """Fill the sections of a datalist and apply its policy for films that recur in another section.

    A film that cannot be read, or whose annotation is broken, is left out with its reason; the others go on.

    Args:
        datalist: name, schema, root, policy and notes; its sections and duplicates are filled, its left_out extended.
        candidates: the films.
        unlabelled: a folder of further films without landmarks.
        opened: films that were opened already.
        progress: shows how far the reading is.
        cache: keeps what is seen of the films; it has seen those that were opened.

    Returns:
        ``datalist``.

    Raises:
        AnnotationError: no film is left, or films recur in another section and the policy is ``refuse``.
    """
    films = [*candidates, *(unlabelled_below(unlabelled) if unlabelled else [])]
    films = _without_leaks(datalist, films)
    known, cache = dict(opened or {}), cache or FilmCache()
    sections: dict[str, list[Item]] = {section: [] for section in SECTIONS}
    hashes = {}
    for film in progress(films, len(films)) if progress else films:
        if film.path not in known:
            found, broken = open_films([film.path], datalist.root, film.spacing_mm, cache=cache)
            known |= found
            datalist.left_out += broken
        if film.path not in known:
            continue
        one = known.pop(film.path)
        try:
            sections[film.section].append(_item(film, one, datalist.root))
            hashes[film.id] = one.sha256
        except DataError as error:
            datalist.left_out.append(LeftOut(relative_name(film.path, datalist.root), str(error)))
    datalist.sections = {section: items for section, items in sections.items() if items}
    if not datalist.sections:
        raise AnnotationError(
            "no film can be used",
            file=datalist.root,
            value=datalist.left_out[0].reason if datalist.left_out else "no film found",
            action="check the folder; `inspect` says what is in it",
        )
    datalist.duplicates = [
        {"films": [pair.first, pair.second], "similarity": pair.similarity, "identical": pair.identical}
        for pair in cache.duplicates(hashes)
    ]
    _settle_duplicates(datalist)
    return datalist


def _without_leaks(datalist: Datalist, films: list[Candidate]) -> list[Candidate]:
    """An unlabelled film of a patient whose films are scored must not be learned from."""
    scored = {film.patient for film in films if film.section in ("validation", "test")}
    leaks = {film.path for film in films if film.section == "unlabelled" and film.patient in scored}
    reason = "unlabelled, and shows a patient of the validation or test section"
    datalist.left_out += [LeftOut(relative_name(path, datalist.root), reason, "rule") for path in sorted(leaks)]
    return [film for film in films if film.path not in leaks]


def _item(film: Candidate, opened: OpenedFilm, root: Path) -> Item:
    """The datalist item of one film."""
    marks = film.marks(opened.size) if film.marks else None
    spacing, source = opened.spacing_mm, opened.spacing_source
    if marks is not None and marks.spacing_mm is not None:
        spacing, source = marks.spacing_mm, marks.spacing_source
    item: Item = {
        "image": relative_name(film.path, root),
        "id": film.id,
        "patient": film.patient,
        "size": list(opened.size),
        "spacing": None if spacing is None else list(spacing),
        "spacing_source": source,
        "sha256": opened.sha256,
        **film.extra,
    }
    if marks is not None:
        item["landmarks"] = landmarks_json(marks.landmarks)
        item["visibility"] = [int(code) for code in marks.visibility]
        if len(marks.readers) > 1:
            item["readers"] = {reader: landmarks_json(rows) for reader, rows in marks.readers.items()}
    return item


def _settle_duplicates(datalist: Datalist) -> None:
    """Mark, drop or refuse copies that lie in different sections."""
    place = {item["id"]: (section, item) for section, item in datalist.items()}
    pairs = [entry["films"] for entry in datalist.duplicates]
    across = [(first, second) for first, second in pairs if place[first][0] != place[second][0]]
    if across and datalist.duplicates_policy == "refuse":
        shown = ", ".join(" = ".join(pair) for pair in across[:10]) + (", ..." if len(across) > 10 else "")
        raise AnnotationError(
            f"{len(across)} pairs of films are (nearly) the same picture in two sections: {shown}",
            file=datalist.root,
            expected="no film, nor a copy of it, in two sections",
            action="give the copies one patient, remove them, or choose `--duplicates drop` or `--duplicates mark`",
        )
    if datalist.duplicates_policy == "drop":
        _drop(datalist, across)
        return
    for first, second in across:
        for film, other in ((first, second), (second, first)):
            place[film][1].setdefault("near_duplicates", []).append(other)


def _drop(datalist: Datalist, across: list[tuple[str, str]]) -> None:
    """Of two copies keep the one that is scored (test, then validation), so that the test section stays whole."""
    worth = {"test": 3, "validation": 2, "training": 1, "unlabelled": 0}
    place = {item["id"]: (section, item) for section, item in datalist.items()}
    dropped: dict[str, str] = {}
    for pair in across:
        less, more = sorted(pair, key=lambda film: worth[place[film][0]])
        dropped.setdefault(less, more)
    for film, other in dropped.items():
        section, item = place[film]
        reason = f"(nearly) the same picture as {other} of the {place[other][0]} section"
        datalist.left_out.append(LeftOut(item["image"], reason, "rule"))
        datalist.sections[section].remove(item)
    datalist.sections = {section: items for section, items in datalist.sections.items() if items}
    datalist.duplicates = [entry for entry in datalist.duplicates if not set(entry["films"]) & set(dropped)]
