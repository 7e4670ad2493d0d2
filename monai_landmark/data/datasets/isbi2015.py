"""ISBI 2015 cephalometric challenge: 400 lateral cephalograms, 19 landmarks, two readers.

Wang et al., "Evaluation and comparison of anatomical landmark detection methods for cephalometric X-ray images: a
grand challenge", IEEE TMI 2015, doi 10.1109/TMI.2015.2412951.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from monai_landmark.data.annotations import read_isbi
from monai_landmark.data.datalist import Datalist
from monai_landmark.data.datasets.collect import Candidate, Marks, collect, mean_of_readers
from monai_landmark.data.datasets.films import Progress, Size, Spacing, films_below, only_one
from monai_landmark.data.film_cache import FilmCache
from monai_landmark.errors import ConfigurationError, FilmError

__all__ = ["READERS", "SPLITS", "prepare_isbi2015"]

READERS = ("mean", "senior", "junior")
SPLITS = {
    "challenge": ((1, 150, "training"), (151, 400, "test")),
    "papers": ((1, 130, "training"), (131, 150, "validation"), (151, 400, "test")),
}
"""First and last film of each section; ``papers`` is the split of the label-efficient papers."""
_SUBSETS = ((1, 150, "train"), (151, 300, "test1"), (301, 400, "test2"))
_SIZE = (2400, 1935)
_SPACING_MM = (0.1, 0.1)
"""Published with the data set; the files hold no spacing."""


def prepare_isbi2015(
    folder: Path,
    *,
    reader: str = "mean",
    split: str = "challenge",
    spacing_mm: Spacing | None = None,
    duplicates: str = "mark",
    unlabelled: Path | None = None,
    progress: Progress | None = None,
    cache: FilmCache | None = None,
) -> Datalist:
    """Datalist of the ISBI 2015 films as they were distributed, whatever their file format.

    Args:
        folder: holds films named by their number, ``400_senior`` and ``400_junior``, at any depth.
        reader: whose landmarks are the target: ``mean`` of the two, ``senior`` or ``junior``.
        split: ``challenge`` (001-150, 151-400) or ``papers`` (001-130, 131-150, 151-400).
        spacing_mm: replaces the published 0.1 mm.
        duplicates: ``mark``, ``drop`` or ``refuse`` films that recur in another section.
        unlabelled: a folder of further films without landmarks.
        progress: shows how far the reading is.
        cache: keeps what is seen of the films.

    Returns:
        The datalist; ``subset`` of an item tells train, test1 and test2 apart.

    Raises:
        ConfigurationError: films or a reader's folder are missing, or a film's number comes twice.
    """
    texts = {name: _reader_folder(folder, name) for name in READERS[1:]}
    published = spacing_mm is None
    spacing = _SPACING_MM if spacing_mm is None else spacing_mm
    candidates = []
    for number, path in sorted(_numbered_films(folder).items()):
        name = f"{number:03d}"
        marks = partial(_marks, name=name, texts=texts, reader=reader, published=published)
        extra = {"subset": _range(_SUBSETS, number)}
        candidates.append(Candidate(path, name, name, _range(SPLITS[split], number), marks, spacing, extra))
    datalist = Datalist("isbi2015", "isbi19", folder.absolute(), reader=reader, duplicates_policy=duplicates)
    origin = "published with the data set, not in the files" if published else "given by the user"
    datalist.notes = [
        f"spacing {spacing[0]:g} x {spacing[1]:g} mm: {origin}",
        f"landmarks of reader: {reader}",
        f"split: {split}; patients are not published, every film counts as its own",
    ]
    return collect(datalist, candidates, unlabelled=unlabelled, progress=progress, cache=cache)


def _reader_folder(folder: Path, reader: str) -> Path:
    found = (path for path in folder.rglob(f"400_{reader}") if path.is_dir())
    action = "point at the folder that holds the films and both readers' folders"
    kind, expected = f"folders of the {reader} reader", f"one folder named 400_{reader}"
    return only_one(found, folder, kind, expected=expected, action=action)


def _numbered_films(folder: Path) -> dict[int, Path]:
    films: dict[int, Path] = {}
    for path in films_below(folder):
        if not path.stem.isdecimal() or not 1 <= int(path.stem) <= 400:
            continue
        first = films.setdefault(int(path.stem), path)
        if first != path:
            raise ConfigurationError(
                "the film comes twice", file=path, value=str(first), expected="one file a film", action="remove one"
            )
    if not films:
        raise ConfigurationError("no films", file=folder, expected="films named 001 to 400, e.g. jpg/001.jpg")
    return films


def _range(ranges: tuple[tuple[int, int, str], ...], number: int) -> str:
    return next(name for first, last, name in ranges if first <= number <= last)


def _marks(size: Size, *, name: str, texts: dict[str, Path], reader: str, published: bool) -> Marks:
    """Landmarks of both readers and the target made of them."""
    if published and size != _SIZE:
        raise FilmError(
            "the published spacing does not hold for a film of this size",
            file=name,
            field="size",
            value=f"{size[0]} rows x {size[1]} columns",
            expected=f"{_SIZE[0]} x {_SIZE[1]}, the size it was annotated at",
            action="use the original film",
        )
    readers = {
        who: read_isbi(path / f"{name}.txt", film_sizes={name: size}, reader=who)[0].landmarks
        for who, path in texts.items()
    }
    target = mean_of_readers(readers) if reader == "mean" else readers[reader]
    return Marks(target, np.full(len(target), 2, dtype=np.int8), readers)
