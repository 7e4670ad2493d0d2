"""What is in a folder of films or in a datalist: counts, spacings, missing landmarks, copies, unreadable films."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_landmark.data.datalist import Datalist, Item, LeftOut
from monai_landmark.data.datasets.films import OpenedFilm, Progress, Size, Spacing, films_below, open_films
from monai_landmark.data.datasets.films import relative_name as _name
from monai_landmark.data.datasets.matching import FilmIndex, match_annotations, read_all_annotations
from monai_landmark.data.film_cache import FilmCache, cache_beside
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import AnnotationError, ConfigurationError, DataError

__all__ = ["Audit", "AuditedFilm", "audit_datalist", "audit_folder"]

_BITS_OF_MODE = {"1": 1, "L": 8, "LA": 8, "P": 8, "PA": 8, "RGB": 8, "RGBA": 8, "CMYK": 8, "YCbCr": 8, "I": 16, "F": 32}


@dataclass(frozen=True)
class AuditedFilm:
    """One film that could be read.

    Attributes:
        film: its path in the folder, or its id in the datalist.
        format: dicom, png, jpeg ...
        size: (H, W) in pixels.
        bits: bits stored for a pixel; None where the format does not say.
        spacing_mm: (row, column) spacing, or None.
        spacing_source: where the spacing comes from.
        section: of the datalist; None in a folder.
        annotated: number of landmarks on it; None when no annotation was looked at.
    """

    film: str
    format: str
    size: Size
    bits: int | None
    spacing_mm: Spacing | None
    spacing_source: str
    section: str | None = None
    annotated: int | None = None


@dataclass
class Audit:
    """The findings of one inspection; holds no patient data but the films' own names.

    Attributes:
        path: what was inspected.
        films: the films that could be read.
        bad: films and annotations that could not be used, with the reason.
        duplicates: pairs of films that are (nearly) the same picture.
        landmarks: by landmark, on how many of the annotated films it is ``visible``, ``occluded`` or ``missing``.
        other_files: files in the folder that are no films.
        left_out: by the datalist when it was prepared.
    """

    path: str
    films: list[AuditedFilm] = field(default_factory=list)
    bad: list[LeftOut] = field(default_factory=list)
    duplicates: list[dict[str, Any]] = field(default_factory=list)
    landmarks: dict[str, dict[str, int]] = field(default_factory=dict)
    other_files: int = 0
    left_out: list[LeftOut] = field(default_factory=list)

    def counts(self) -> dict[str, dict[str, int]]:
        """Films by section, format, size, bit depth, spacing and spacing source, the most frequent first."""

        def text(spacing: Spacing | None) -> str:
            """A spacing as people read it."""
            return "none" if spacing is None else f"{spacing[0]:.4g} x {spacing[1]:.4g} mm"

        columns = {
            "section": (film.section or "" for film in self.films),
            "format": (film.format for film in self.films),
            "size (rows x columns)": (f"{film.size[0]} x {film.size[1]}" for film in self.films),
            "bits": ("unknown" if film.bits is None else str(film.bits) for film in self.films),
            "spacing (row x column)": (text(film.spacing_mm) for film in self.films),
            "spacing source": (film.spacing_source for film in self.films),
        }
        counted = {name: dict(Counter(values).most_common()) for name, values in columns.items()}
        return {name: count for name, count in counted.items() if list(count) != [""]}

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain dicts and lists."""
        annotated = [film.annotated for film in self.films if film.annotated is not None]
        return {
            "path": self.path,
            "film_count": len(self.films),
            "bad_count": len(self.bad),
            "other_files": self.other_files,
            "annotated_films": sum(count > 0 for count in annotated) if annotated else None,
            "counts": self.counts(),
            "landmarks": self.landmarks,
            "duplicates": self.duplicates,
            "bad": [asdict(entry) for entry in self.bad],
            "left_out": [asdict(entry) for entry in self.left_out],
            "films": [vars(film) for film in self.films],
        }


def audit_folder(
    path: Path,
    *,
    annotations: Path | None = None,
    annotation_format: str | None = None,
    schema: str | None = None,
    spacing_mm: Spacing | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Audit:
    """Inspect a folder of films, or one film.

    Args:
        path: the folder or film; a broken film is a finding, not an error.
        annotations: annotation file or folder to look for missing landmarks in.
        annotation_format: its format; None recognizes it.
        schema: its landmark schema; None takes the names from the annotations.
        spacing_mm: (row, column) spacing of every film, when the user knows better than the files.
        progress: shows how far the reading is.
        cache: file that keeps what was seen, so that a later run need not read the films again, see
            :class:`~monai_landmark.data.film_cache.FilmCache`.

    Returns:
        The findings.

    Raises:
        ConfigurationError: there is nothing at ``path``.
        AnnotationError: the annotation file as a whole cannot be read.
    """
    if not path.exists():
        raise ConfigurationError("there is no such file or folder", file=path, action="check the path")
    root, paths = (path, films_below(path)) if path.is_dir() else (path.parent, [path])
    with FilmCache(cache) as seen:
        opened, bad = open_films(paths, root, spacing_mm, progress, cache=seen)
        duplicates = _duplicates({_name(film, root): one for film, one in opened.items()}, seen)
    audit = Audit(str(path), bad=bad, duplicates=duplicates)
    codes: dict[Path, NDArray[np.int8]] = {}
    if annotations is not None:
        given = LandmarkSchema.load(schema) if schema else None
        read, broken = read_all_annotations(annotations, annotation_format, given, opened)
        found = match_annotations(read, FilmIndex(paths, root), opened, annotations)
        audit.bad += broken + found.left_out
        for film, readers in found.by_film.items():
            try:
                found.marks(film, next(iter(readers)), opened[film].size, annotations)
                codes[film] = np.min([annotation.visibility for annotation in readers.values()], axis=0)
            except DataError as error:
                audit.bad.append(LeftOut(_name(film, root), str(error)))
        audit.landmarks = _landmarks(found.names or (), list(codes.values()))
    if path.is_dir():
        audit.other_files = sum(len(files) for _, _, files in os.walk(path)) - len(paths)
    for film, one in opened.items():
        annotated = None if annotations is None else int((codes[film] > 0).sum()) if film in codes else 0
        audit.films.append(_audited(_name(film, root), one, one.spacing_mm, one.spacing_source, None, annotated))
    return audit


def audit_datalist(path: Path, *, progress: Progress | None = None, cache: Path | None = None) -> Audit:
    """Inspect the films and landmarks of a datalist.

    Args:
        path: the datalist JSON.
        progress: shows how far the reading is.
        cache: see :func:`audit_folder`; None: the datalist's own, see
            :func:`~monai_landmark.data.film_cache.cache_beside`.

    Returns:
        The findings; spacings are those of the datalist. A film whose size or content is not what the datalist says is
        among the bad ones.

    Raises:
        AnnotationError: the datalist itself is broken.
    """
    datalist = Datalist.load(path)
    entries = list(datalist.items())
    places = {item["id"]: datalist.root / item["image"] for _, item in entries}
    with FilmCache(cache or cache_beside(path)) as seen:
        opened, bad = open_films(places.values(), datalist.root, progress=progress, cache=seen)
        duplicates = _duplicates({film: opened[place] for film, place in places.items() if place in opened}, seen)
    audit = Audit(str(path), bad=bad, left_out=datalist.left_out)
    good = set()
    for section, item in entries:
        one = opened.get(places[item["id"]])
        if one is None:
            continue
        try:
            _check_unchanged(item, one, path)
        except AnnotationError as error:
            audit.bad.append(LeftOut(item["image"], str(error)))
            continue
        good.add(item["id"])
        spacing = None if item["spacing"] is None else (item["spacing"][0], item["spacing"][1])
        annotated = sum(code > 0 for code in item.get("visibility", []))
        audit.films.append(_audited(item["id"], one, spacing, item["spacing_source"], section, annotated))
    audit.duplicates = [pair for pair in duplicates if pair["first"] in good and pair["second"] in good]
    names = LandmarkSchema.load(datalist.schema).landmarks if datalist.schema else ()
    codes = [np.array(item["visibility"], dtype=np.int8) for _, item in entries if "visibility" in item]
    audit.landmarks = _landmarks(names, codes)
    return audit


def _audited(
    name: str, one: OpenedFilm, spacing: Spacing | None, source: str, section: str | None, annotated: int | None
) -> AuditedFilm:
    return AuditedFilm(
        name, str(one.info.get("format", "unknown")), one.size, _bits(one.info), spacing, source, section, annotated
    )


def _bits(info: Mapping[str, Any]) -> int | None:
    """Bits stored: what DICOM says, or what Pillow's mode implies (it opens 16-bit gray PNG as ``I`` or ``I;16``)."""
    if "bits_stored" in info:
        return int(info["bits_stored"])
    return _BITS_OF_MODE.get(str(info.get("mode", "")).split(";")[0])


def _duplicates(opened: Mapping[str, OpenedFilm], seen: FilmCache) -> list[dict[str, Any]]:
    return [asdict(pair) for pair in seen.duplicates({name: one.sha256 for name, one in opened.items()})]


def _landmarks(names: tuple[str, ...], codes: list[NDArray[np.int8]]) -> dict[str, dict[str, int]]:
    """How often each landmark is visible, occluded and missing on the annotated films."""
    if not codes:
        return {}
    table = np.stack(codes)
    labels = names or tuple(f"landmark {index + 1}" for index in range(table.shape[1]))
    return {
        label: {
            name: int((table[:, k] == code).sum()) for name, code in (("visible", 2), ("occluded", 1), ("missing", 0))
        }
        for k, label in enumerate(labels)
    }


def _check_unchanged(item: Item, one: OpenedFilm, path: Path) -> None:
    """The film is still the one that was prepared."""
    for key, found in (("size", list(one.size)), ("sha256", one.sha256)):
        if item.get(key, found) != found:
            raise AnnotationError(
                "the film is not the one that was prepared",
                file=path,
                field=f"{item['id']}.{key}",
                value=found,
                expected=str(item[key]),
                action="run `prepare` again, or bring the old film back",
            )
