"""Whether films that something was trained on are tested on: the same file, picture, exposure or patient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from monai_landmark.data.datalist import Datalist, LeftOut
from monai_landmark.data.datasets.films import Progress, films_below, relative_name
from monai_landmark.data.duplicates import Fingerprint, find_duplicates, fingerprint
from monai_landmark.data.formats import read_film
from monai_landmark.errors import ConfigurationError, DataError
from monai_landmark.files import file_sha256

__all__ = ["Leak", "Leakage", "NamedFilm", "films_of", "find_leaks", "only_trained"]

Kind = Literal["same file", "same picture", "same exposure", "same patient"]


@dataclass(frozen=True)
class NamedFilm:
    """A film of a datalist or folder.

    Attributes:
        id: its id, or its path in the folder.
        image: its file.
        patient: whose film it is, where that is known.
        sha256: of the file, where it is known.
    """

    id: str
    image: Path
    patient: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Leak:
    """Two films that should not be on both sides.

    Attributes:
        trained: id of the film that was trained on.
        tested: id of the one that is tested on.
        kind: what they have in common; the first of ``same file``, ``same picture`` (every pixel), ``same exposure``
            (nearly every pixel) and ``same patient`` that holds.
        similarity: correlation of the pictures, where they were compared.
    """

    trained: str
    tested: str
    kind: Kind
    similarity: float | None = None


@dataclass(frozen=True)
class Leakage:
    """What was found.

    Attributes:
        leaks: in the order of the films.
        unread: films that could not be compared, with the reason.
        compared: how many films were, on each side.
    """

    leaks: tuple[Leak, ...]
    unread: tuple[LeftOut, ...]
    compared: tuple[int, int]


def films_of(path: Path, sections: Sequence[str]) -> list[NamedFilm]:
    """Films of a datalist or folder.

    Args:
        path: the datalist JSON, or the folder.
        sections: of the datalist.

    Returns:
        The films; no two with one id.

    Raises:
        ConfigurationError: there are none.
        AnnotationError: the datalist is broken.
    """
    if path.is_dir():
        films = [NamedFilm(relative_name(file, path), file) for file in films_below(path)]
    else:
        datalist = Datalist.load(path)
        films = [
            NamedFilm(item["id"], datalist.root / item["image"], item.get("patient"), item.get("sha256"))
            for section, item in datalist.items()
            if section in sections
        ]
    if not films:
        expected = "a folder of films, or a datalist with " + " or ".join(sections)
        raise ConfigurationError("no film to compare", file=path, expected=expected)
    return films


def only_trained(films: Iterable[NamedFilm], card: Mapping[str, Any], file: Path) -> list[NamedFilm]:
    """Those of a datalist's films that a model was trained on, by its own account.

    Args:
        films: of the datalist.
        card: see :func:`monai_landmark.networks.model_card`.
        file: of the model, for messages.

    Returns:
        The films.

    Raises:
        ConfigurationError: the model does not name its films, or names some that the datalist does not hold.
    """
    named = card.get("films")
    if not isinstance(named, list) or not named:
        raise ConfigurationError("the model does not say which films it was trained on", file=file, field="films")
    known: dict[str, NamedFilm] = {}
    for film in films:
        known |= {film.id: film, film.sha256 or file_sha256(film.image): film}
    wanted = [*named, *(card.get("pseudo_films") or [])]
    if missing := [film for film in wanted if film not in known]:
        raise ConfigurationError(
            f"the model was trained on {len(missing)} films that the datalist does not hold",
            file=file,
            field="films",
            value=missing[:3],
            action="name the datalist that it was trained with",
        )
    return [known[film] for film in wanted]


def find_leaks(
    trained: Sequence[NamedFilm],
    tested: Sequence[NamedFilm],
    *,
    same_patients: bool = True,
    progress: Progress | None = None,
) -> Leakage:
    """Compare every film trained on with every film tested on.

    Args:
        trained: the first.
        tested: the second.
        same_patients: whether a patient's name means the same person on both sides.
        progress: shows how far the reading is.

    Returns:
        What was found.
    """
    sides = [("trained", film) for film in trained] + [("tested", film) for film in tested]
    prints: dict[tuple[str, str], Fingerprint] = {}
    hashes: dict[tuple[str, str], str] = {}
    unread: list[LeftOut] = []
    for side, film in progress(sides, len(sides)) if progress else sides:
        try:
            hashes[side, film.id] = file_sha256(film.image)
            prints[side, film.id] = fingerprint(read_film(film.image).pixels)
        except (DataError, OSError) as error:
            unread.append(LeftOut(f"{side}: {film.id}", str(error)))
            if film.sha256 is not None:
                hashes.setdefault((side, film.id), film.sha256)
    leaks = _same_files(hashes)
    for pair in _crossing(prints):
        leaks.setdefault((pair.trained, pair.tested), pair)
    if same_patients:
        for first in trained:
            for second in tested:
                if first.patient is not None and first.patient == second.patient:
                    leaks.setdefault((first.id, second.id), Leak(first.id, second.id, "same patient"))
    compared = tuple(sum(side == name for side, _ in prints) for name in ("trained", "tested"))
    return Leakage(tuple(leaks[pair] for pair in sorted(leaks)), tuple(unread), (compared[0], compared[1]))


def _same_files(hashes: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], Leak]:
    trained: dict[str, list[str]] = {}
    for (side, film), sha256 in hashes.items():
        if side == "trained":
            trained.setdefault(sha256, []).append(film)
    return {
        (first, film): Leak(first, film, "same file", 1.0)
        for (side, film), sha256 in hashes.items()
        if side == "tested"
        for first in trained.get(sha256, [])
    }


def _crossing(prints: Mapping[tuple[str, str], Fingerprint]) -> list[Leak]:
    """Pairs of one exposure with a film on each side."""
    keys = list(prints)
    found = []
    for pair in find_duplicates({str(number): prints[key] for number, key in enumerate(keys)}):
        ends = dict(keys[int(number)] for number in (pair.first, pair.second))
        if len(ends) == 2:
            kind: Kind = "same picture" if pair.identical else "same exposure"
            found.append(Leak(ends["trained"], ends["tested"], kind, pair.similarity))
    return found
