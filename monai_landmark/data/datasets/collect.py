"""From a list of films to a datalist: read every film once, note what cannot be used, deal with films that recur."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.datalist import SECTIONS, Datalist, Item, LeftOut, landmarks_json
from monai_landmark.data.duplicates import Fingerprint, find_duplicates, fingerprint
from monai_landmark.data.reader import is_film, read_film
from monai_landmark.errors import AnnotationError, ConfigurationError, DataError

__all__ = ["Candidate", "Marks", "Progress", "collect", "file_hash", "films_below", "mean_of_readers", "relative_name", "rescale"]

FloatArray = NDArray[np.float64]
Size = tuple[int, int]
Spacing = tuple[float, float]
Progress = Callable[[Iterable[Any], int], Iterator[Any]]
"""Wraps an iterable of known length, to show how far it is."""


@dataclass(frozen=True)
class Marks:
    """What is annotated on one film.

    Attributes:
        landmarks: ``(K, 2)`` (x, y) in pixels of the film on disk, of the target reader; NaN = not annotated.
        visibility: ``(K,)`` 0, 1 or 2.
        readers: landmarks of each reader, when there are several.
        spacing_mm: spacing that follows from the annotation.
        spacing_source: where that spacing comes from.
    """

    landmarks: FloatArray
    visibility: NDArray[np.int8]
    readers: Mapping[str, FloatArray] = field(default_factory=dict)
    spacing_mm: Spacing | None = None
    spacing_source: str = "user"


@dataclass(frozen=True)
class Candidate:
    """A film that an adapter found, before it is opened.

    Attributes:
        path: the file.
        id: unique name within the data set.
        patient: whom it shows; films of one patient stay in one section.
        section: one of :data:`~monai_landmark.data.datalist.SECTIONS`.
        marks: film size (H, W) -> its annotation; None for an unlabelled film.
        extra: further fields of the item.
    """

    path: Path
    id: str
    patient: str
    section: str
    marks: Callable[[Size], Marks] | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


def films_below(folder: Path) -> list[Path]:
    """Every film in a folder and its subfolders, sorted by path; hidden folders are not entered.

    Raises:
        ConfigurationError: there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigurationError("there is no such folder", file=folder, action="give the folder that holds the films")
    visible = (path for path in folder.rglob("*") if not any(p.startswith(".") for p in path.relative_to(folder).parts))
    return sorted(path for path in visible if is_film(path))


def relative_name(path: Path, root: Path) -> str:
    """Path below ``root`` with forward slashes; the absolute path of a film that lies elsewhere."""
    path, root = path.absolute(), root.absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def mean_of_readers(readers: Mapping[str, FloatArray]) -> FloatArray:
    """Mean position of each landmark; a landmark that one of the readers did not annotate has none.

    Args:
        readers: ``(K, 2)`` (x, y) by reader, NaN = not annotated.

    Returns:
        ``(K, 2)`` (x, y).
    """
    return np.asarray(np.mean(list(readers.values()), axis=0), dtype=np.float64)


def rescale(landmarks: FloatArray, original: Size, stored: Size) -> FloatArray:
    """Landmarks of a film that was stored at another size than it was annotated at.

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
    candidates: list[Candidate],
    *,
    spacing_mm: Spacing | None = None,
    progress: Progress | None = None,
) -> Datalist:
    """Read the films, fill the sections and apply the datalist's policy for films that recur.

    A film that cannot be read, or whose annotation is broken, is left out with its reason; the others go on.

    Args:
        datalist: name, schema, root, policy and notes; its sections, duplicates and left_out are filled here.
        candidates: the films.
        spacing_mm: spacing of every film, known to the user; an annotation's own rule comes first.
        progress: shows how far the reading is.

    Returns:
        ``datalist``.

    Raises:
        AnnotationError: no film is left, or films recur in another section and the policy is ``refuse``.
    """
    _leave_out_leaks(datalist, candidates)
    left_out = {entry.film for entry in datalist.left_out}
    kept = [film for film in candidates if relative_name(film.path, datalist.root) not in left_out]
    prints: dict[str, Fingerprint] = {}
    sections: dict[str, list[Item]] = {section: [] for section in SECTIONS}
    for film in progress(kept, len(kept)) if progress else kept:
        try:
            item, prints[film.id] = _read(film, datalist.root, spacing_mm)
            sections[film.section].append(item)
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
    _settle_duplicates(datalist, prints)
    return datalist


def _leave_out_leaks(datalist: Datalist, candidates: list[Candidate]) -> None:
    """An unlabelled film of a patient whose films are scored must not be pre-trained on."""
    scored = {film.patient for film in candidates if film.section in ("validation", "test")}
    for film in candidates:
        if film.section == "unlabelled" and film.patient in scored:
            reason = "shows a patient of the validation or test section, so nothing may be learned from it"
            datalist.left_out.append(LeftOut(relative_name(film.path, datalist.root), reason, "rule"))


def _read(film: Candidate, root: Path, spacing_mm: Spacing | None) -> tuple[Item, Fingerprint]:
    """Item and fingerprint of one film."""
    read = read_film(film.path, spacing_mm)
    marks = film.marks(read.size) if film.marks else None
    spacing, source = read.spacing.mm, str(read.spacing.source)
    if marks is not None and marks.spacing_mm is not None:
        spacing, source = marks.spacing_mm, marks.spacing_source
    item: Item = {
        "image": relative_name(film.path, root),
        "id": film.id,
        "patient": film.patient,
        "size": list(read.size),
        "spacing": None if spacing is None else list(spacing),
        "spacing_source": source,
        "sha256": file_hash(film.path),
        **film.extra,
    }
    if marks is not None:
        item["landmarks"] = landmarks_json(marks.landmarks)
        item["visibility"] = [int(code) for code in marks.visibility]
        if len(marks.readers) > 1:
            item["readers"] = {reader: landmarks_json(rows) for reader, rows in marks.readers.items()}
    return item, fingerprint(read.pixels)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as ``sha256sum`` prints it."""
    content = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def _settle_duplicates(datalist: Datalist, prints: Mapping[str, Fingerprint]) -> None:
    """Note every pair; mark, drop or refuse those that lie in different sections."""
    place = {item["id"]: (SECTIONS.index(section), item) for section, item in datalist.items()}
    pairs = find_duplicates(prints)
    datalist.duplicates = [
        {"films": [pair.first, pair.second], "similarity": pair.similarity, "identical": pair.identical}
        for pair in pairs
    ]
    across = [(p.first, p.second) for p in pairs if place[p.first][0] != place[p.second][0]]
    if across and datalist.duplicates_policy == "refuse":
        raise AnnotationError(
            f"{len(across)} pairs of films are (nearly) the same picture in two sections",
            file=datalist.root,
            value="; ".join(" = ".join(pair) for pair in across[:5]),
            expected="no film, nor a copy of it, in two sections",
            action="give the copies one patient, remove them, or choose `--duplicates drop` or `--duplicates mark`",
        )
    for first, second in across:
        for film, other in ((first, second), (second, first)):
            place[film][1].setdefault("near_duplicates", []).append(other)
    if datalist.duplicates_policy == "drop":
        _drop(datalist, across)


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
    for _, item in datalist.items():
        rest = [film for film in item.pop("near_duplicates", []) if film not in dropped]
        if rest:
            item["near_duplicates"] = rest
