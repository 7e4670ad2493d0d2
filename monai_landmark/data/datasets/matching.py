"""Bringing a folder's films and the annotations of any format together by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import numpy as np

from monai_landmark.data.annotations import Annotation, read_annotations, sniff_format
from monai_landmark.data.annotations.base import check_annotations
from monai_landmark.data.datalist import LeftOut
from monai_landmark.data.datasets.collect import Marks, mean_of_readers
from monai_landmark.data.datasets.films import OpenedFilm, Size, bare_name, relative_name
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import AnnotationError, ConfigurationError, DataError

__all__ = ["FilmAnnotations", "FilmIndex", "choose_reader", "match_annotations", "read_all_annotations"]

_SUFFIXES = (".mrk.json", ".fcsv", ".txt", ".csv", ".json")


class FilmIndex:
    """Finds a film by what an annotation calls it: its path in the folder, or its name, with or without suffix.

    Args:
        paths: the films.
        root: the folder.
    """

    def __init__(self, paths: Iterable[Path], root: Path) -> None:
        self.root = root
        self._exact: dict[str, Path] = {}
        self._loose: defaultdict[str, list[Path]] = defaultdict(list)
        for path in paths:
            self._exact[relative_name(path, root)] = path
            for name in {bare_name(relative_name(path, root)), path.name, bare_name(path.name)}:
                self._loose[name].append(path)

    def find(self, name: str) -> Path | None:
        """The film of this name, or None.

        Raises:
            AnnotationError: several films have this name.
        """
        if name in self._exact:
            return self._exact[name]
        name = PureWindowsPath(name).as_posix()  # a table written on Windows says Ward A\0001.dcm
        if name in self._exact:
            return self._exact[name]
        for key in dict.fromkeys((name, bare_name(name), Path(name).name, bare_name(Path(name).name))):
            found = self._loose.get(key, [])
            if len(found) > 1:
                raise AnnotationError(
                    "several films have this name",
                    file=self.root,
                    value=name,
                    expected="one of " + ", ".join(relative_name(path, self.root) for path in found),
                    action="name the film by its path in the folder",
                )
            if found:
                return found[0]
        return None


@dataclass
class FilmAnnotations:
    """What all readers annotated, by film.

    Attributes:
        by_film: film -> reader -> annotation; the reader is ``""`` where nobody says who it was.
        names: the landmark names.
        left_out: annotations that could not be used.
    """

    by_film: dict[Path, dict[str, Annotation]] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    left_out: list[LeftOut] = field(default_factory=list)

    def readers(self) -> list[str]:
        """Everybody who annotated a film, sorted."""
        return sorted({reader for readers in self.by_film.values() for reader in readers})

    def marks(self, film: Path, target: str, size: Size, file: Path) -> Marks:
        """Landmarks of one film, checked against its size.

        Args:
            film: the film.
            target: a reader, or ``mean``.
            size: (H, W) of the film.
            file: where the annotations came from, for messages.

        Raises:
            AnnotationError: a landmark outside the film, or a reader who did not annotate it.
        """
        found = self.by_film[film]
        wanted = self.readers() if target == "mean" else [target]
        missing = [reader for reader in wanted if reader not in found]
        if missing:
            raise AnnotationError(
                "not annotated by this reader", file=film, value=missing, action="annotate it, or choose the reader"
            )
        for annotation in found.values():
            check_annotations([annotation], {annotation.film: size}, file)
        landmarks = {reader: annotation.landmarks for reader, annotation in found.items()}
        visibility = np.min([found[reader].visibility for reader in wanted], axis=0)
        return Marks(mean_of_readers({who: landmarks[who] for who in wanted}), visibility, landmarks)


def read_all_annotations(
    path: Path, kind: str | None, schema: LandmarkSchema | None, opened: Mapping[Path, OpenedFilm]
) -> tuple[list[Annotation], list[LeftOut]]:
    """Annotations of a file, or of every file of a folder; there, a broken one does not stop the others.

    Args:
        path: the file or folder.
        kind: annotation format; None recognizes it.
        schema: names and order of the landmarks; None takes those of the files.
        opened: the films, whose sizes and spacings some formats need.

    Raises:
        AnnotationError: the one file cannot be read, or the folder holds no annotation file.
    """
    sizes = {bare_name(film.name): one.size for film, one in opened.items()}
    spacings = {bare_name(film.name): one.spacing_mm for film, one in opened.items()}

    def read(file: Path) -> list[Annotation]:
        """Annotations of one file, checked against the films where its format needs them."""
        found = kind or sniff_format(file)
        needs_size, needs_spacing = found == "ratio", found in ("mrk.json", "fcsv")
        return read_annotations(
            file,
            found,
            schema=schema,
            film_sizes=sizes if needs_size else None,
            spacing=spacings if needs_spacing else None,
        )

    if not path.is_dir():
        return read(path), []
    files = sorted(file for file in path.iterdir() if file.name.lower().endswith(_SUFFIXES))
    if not files:
        raise AnnotationError("no annotation file", file=path, expected=f"files of kind {', '.join(_SUFFIXES)}")
    annotations, left_out = [], []
    for file in files:
        try:
            annotations += read(file)
        except DataError as error:
            left_out.append(LeftOut(file.name, str(error)))
    return annotations, left_out


def match_annotations(
    annotations: Iterable[Annotation], films: FilmIndex, opened: Mapping[Path, OpenedFilm], file: Path
) -> FilmAnnotations:
    """Sort annotations by film and reader.

    A film on which nothing at all is annotated counts as not annotated; one that could not be opened is passed over,
    since it is reported already.

    Args:
        annotations: of all films and readers.
        films: every film of the folder, opened or not.
        opened: the films that can be used.
        file: where the annotations came from, for messages.

    Raises:
        AnnotationError: a film annotated twice by one reader, or landmark names that differ between films.
    """
    result = FilmAnnotations()
    for annotation in annotations:
        path = films.find(annotation.film)
        if path is None:
            result.left_out.append(LeftOut(annotation.film, "annotated, but there is no such film in the folder"))
        if path is None or path not in opened or not (annotation.visibility > 0).any():
            continue
        if result.by_film and annotation.names != result.names:
            raise AnnotationError(
                "landmark names differ between films",
                file=file,
                field=f"film {annotation.film}",
                value=annotation.names,
                expected=f"{result.names}",
                action="give the schema",
            )
        result.names = annotation.names
        readers = result.by_film.setdefault(path, {})
        if (annotation.reader or "") in readers:
            raise AnnotationError(
                "film annotated twice by one reader", file=file, value=annotation.film, action="remove one annotation"
            )
        readers[annotation.reader or ""] = annotation
    return result


def choose_reader(readers: list[str], wanted: str | None) -> str:
    """The reader whose landmarks are the target.

    Args:
        readers: everybody who annotated.
        wanted: a reader, ``mean``, or None when there is only one.

    Raises:
        ConfigurationError: several readers and no choice, or an unknown one.
    """
    if wanted is None and len(readers) == 1:
        return readers[0]
    if wanted in readers or (wanted == "mean" and readers):
        return wanted
    raise ConfigurationError(
        "whose landmarks are the target has to be chosen" if wanted is None else "no such reader",
        field="reader",
        value=wanted,
        expected=f"one of {', '.join(reader or '(nameless)' for reader in readers)}, or mean",
        action="give `--reader NAME`",
    )
