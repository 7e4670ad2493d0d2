"""Sifting a pre-training pool: what is an evaluation film, or too close to one, is left out; see :mod:`.pool`."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

from monai_landmark.data.datalist import Item, LeftOut
from monai_landmark.data.datasets.films import open_film
from monai_landmark.data.film_cache import FilmCache
from monai_landmark.errors import ConfigurationError, DataError, FilmError
from monai_landmark.privacy import log_name, without_path

__all__ = ["PoolFilm", "sift"]

_LOGGER = logging.getLogger(__name__)
_SHOWN = 10
_TO_NAME = "run with MONAI_LANDMARK_LOG_NAMES=1, which names the films"  # for a training's errors stand in its log


@dataclass(frozen=True, eq=False)
class PoolFilm:
    """A film of a pool or of the evaluation.

    Attributes:
        id: what it is called in the pool and in messages.
        source: name of its source.
        item: what is known of it: at least ``image``, an absolute path.
        datalist: where it was prepared; None for a film of a folder.
    """

    id: str
    source: str
    item: Item
    datalist: Path | None
    _hash: list[str] = field(default_factory=list, init=False, repr=False)

    @property
    def sha256(self) -> str:
        """Hash of the file; that of the datalist where there is one. Known after :meth:`hash_by`."""
        return self._hash[0]

    def hash_by(self, seen: FilmCache) -> None:
        """Hash the file, where the datalist says nothing of it.

        Args:
            seen: knows the hashes of files that have not changed.

        Raises:
            OSError: the file cannot be read.
        """
        self._hash[:] = [self.item.get("sha256") or seen.sha256(self.item["image"])]

    def prepared_with(self, other: PoolFilm) -> bool:
        """Whether ``prepare`` has compared the two."""
        return self.datalist is not None and self.datalist == other.datalist


class _Drop(NamedTuple):
    """One film that is left out, the rule that says so, and what it met."""

    film: PoolFilm
    rule: str
    detail: str


class _Copy(NamedTuple):
    """A film of the pool that is an evaluation film, or near to one."""

    film: PoolFilm
    evaluation: PoolFilm
    similarity: float
    identical: bool


_UNREADABLE = "cannot be read"


def sift(
    films: Sequence[PoolFilm],
    evaluation: Sequence[PoolFilm],
    on_evaluation_film: Literal["refuse", "drop"] = "refuse",
    workers: int = 2,
    cache: str | PathLike[str] | None = None,
) -> tuple[list[PoolFilm], list[LeftOut]]:
    """Divide films into those of the pool and those that are left out; the cheap rules come first, so few are read.

    Args:
        films: candidates for the pool.
        evaluation: films that the pool must not hold.
        on_evaluation_film: ``refuse`` to raise when one of them is a candidate, ``drop`` to leave it out.
        workers: threads that read films.
        cache: file that keeps what was seen from run to run, see :class:`~monai_landmark.data.film_cache.FilmCache`.

    Returns:
        The films of the pool in their order, and the others with the reason, which is logged as well.

    Raises:
        ConfigurationError: an evaluation film is among the films and is to be refused.
        FilmError: an evaluation film cannot be read.
    """
    dropped: dict[PoolFilm, _Drop] = {}

    def leave_out(drops: Iterable[_Drop]) -> list[PoolFilm]:
        """Films still left; the first reason to leave one out counts."""
        for drop in drops:
            dropped.setdefault(drop.film, drop)
        return [film for film in films if film not in dropped]

    with FilmCache(cache) as seen:
        left = leave_out(_without_content(films, evaluation, seen))
        left = leave_out(_marked(left, evaluation))
        left = leave_out(_settle(_same_files(left, evaluation), on_evaluation_film))
        left = leave_out(_repeated(left))
        left = leave_out(_same_patients(left, evaluation))
        unseen = _not_compared(left, evaluation)
        if unseen:
            hashes = _looked_at([*unseen, *evaluation], workers, seen)
            left = leave_out(_unreadable(unseen, evaluation, hashes))
            for film in unseen:
                film.item["sha256"] = film.sha256  # of a file that can be read
            left = leave_out(_settle(_near_copies(unseen, evaluation, hashes, seen), on_evaluation_film))
    _log(len(left), dropped.values())
    return left, [
        LeftOut(drop.film.id, f"{drop.rule}: {drop.detail}", "fault" if drop.rule == _UNREADABLE else "rule")
        for drop in dropped.values()
    ]


def _without_content(films: Iterable[PoolFilm], evaluation: Iterable[PoolFilm], seen: FilmCache) -> Iterator[_Drop]:
    """Films whose file cannot even be hashed; such a film of the evaluation is an error."""
    for film in evaluation:
        try:
            film.hash_by(seen)
        except OSError as error:
            raise _not_comparable(film, error) from error
    for film in films:
        try:
            film.hash_by(seen)
        except OSError as error:
            yield _Drop(film, _UNREADABLE, str(error))


def _marked(films: Iterable[PoolFilm], evaluation: Iterable[PoolFilm]) -> Iterator[_Drop]:
    """Films that recur in the test section of their own datalist, as ``prepare`` found."""
    tested: dict[Path | None, set[str]] = defaultdict(set)
    for film in evaluation:
        if film.datalist is not None:
            tested[film.datalist].add(film.item["id"])
    for film in films:
        again = tested[film.datalist].intersection(film.item.get("near_duplicates", []))
        if again:
            yield _Drop(film, "marked in its datalist as a copy of test film", ", ".join(sorted(again)))


def _same_files(films: Iterable[PoolFilm], evaluation: Iterable[PoolFilm]) -> Iterator[_Copy]:
    held_out = {film.sha256: film for film in evaluation}
    for film in films:
        if film.sha256 in held_out:
            yield _Copy(film, held_out[film.sha256], 1.0, True)


def _repeated(films: Iterable[PoolFilm]) -> Iterator[_Drop]:
    """Every file that came before."""
    first: dict[str, PoolFilm] = {}
    for film in films:
        if first.setdefault(film.sha256, film) is not film:
            yield _Drop(film, "the same file as", first[film.sha256].id)


def _same_patients(films: Iterable[PoolFilm], evaluation: Iterable[PoolFilm]) -> Iterator[_Drop]:
    patients = {film.item["patient"]: film.id for film in evaluation if film.item.get("patient")}
    for film in films:
        patient = film.item.get("patient")
        if patient in patients:
            yield _Drop(film, "shows the patient of evaluation film", f"{patients[patient]}, {patient}")


def _not_compared(films: Iterable[PoolFilm], evaluation: Iterable[PoolFilm]) -> list[PoolFilm]:
    """Films that ``prepare`` has not compared with every evaluation film."""
    datalists = {film.datalist for film in evaluation}
    return [film for film in films if datalists and (film.datalist is None or datalists != {film.datalist})]


def _looked_at(films: Sequence[PoolFilm], workers: int, seen: FilmCache) -> dict[PoolFilm, str | Exception]:
    """Hash of each film's file, of which a fingerprint is then kept, or why the film cannot be read."""

    def one(film: PoolFilm) -> str | Exception:
        """The file is hashed, whatever its datalist says: a film that has changed must not be taken for the old one."""
        try:
            return open_film(Path(film.item["image"]), None, seen).sha256
        except (DataError, OSError) as error:
            return error

    # decoding and hashing release Python's lock
    with ThreadPoolExecutor(max(1, workers)) as threads:
        return dict(zip(films, threads.map(one, films), strict=True))


def _unreadable(
    films: Iterable[PoolFilm], evaluation: Iterable[PoolFilm], hashes: Mapping[PoolFilm, str | Exception]
) -> Iterator[_Drop]:
    """Films that cannot be read; such a film of the evaluation is an error."""
    for film in evaluation:
        error = hashes[film]
        if isinstance(error, Exception):
            raise _not_comparable(film, error) from error
    for film in films:
        if isinstance(hashes[film], Exception):
            yield _Drop(film, _UNREADABLE, str(hashes[film]))


def _not_comparable(film: PoolFilm, error: Exception) -> FilmError:
    return FilmError(
        f"evaluation film {log_name(film.id)} cannot be compared with the pre-training pool "
        f"({without_path(str(error), film.item['image'])})",
        file=film.datalist,
        action=f"bring the film back, or take it out of the evaluation; {_TO_NAME}",
    )


def _near_copies(
    films: Iterable[PoolFilm],
    evaluation: Iterable[PoolFilm],
    hashes: Mapping[PoolFilm, str | Exception],
    seen: FilmCache,
) -> Iterator[_Copy]:
    """Pairs of a film and an evaluation film that show one exposure."""
    candidates, held_out = (
        [(film, found) for film in group if isinstance(found := hashes[film], str)] for group in (films, evaluation)
    )
    one, other = ([sha256 for _, sha256 in group] for group in (candidates, held_out))
    for first, second, similarity, identical in seen.copies(one, other):
        yield _Copy(candidates[first][0], held_out[second][0], similarity, identical)


def _settle(copies: Iterable[_Copy], on_evaluation_film: Literal["refuse", "drop"]) -> Iterator[_Drop]:
    """Copies of evaluation films are dropped; the films themselves refused, unless the user wants them dropped.

    That a data set holds one picture twice, in training and test, is no mistake of the user's: such films are dropped.
    """
    copies = list(copies)
    own = [copy for copy in copies if copy.identical and not copy.film.prepared_with(copy.evaluation)]
    if own and on_evaluation_film == "refuse":
        shown = [f"{log_name(copy.film.id)} is {log_name(copy.evaluation.id)}" for copy in own]
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        raise ConfigurationError(
            f"{len(shown)} evaluation films are in the pre-training pool: {', '.join(shown[:_SHOWN])}{more}",
            field="pool",
            expected="sources without films of the evaluation",
            action=f"take them out of the source, or set `on_evaluation_film` to `drop`; {_TO_NAME}",
        )
    for copy in copies:
        if copy.identical:
            yield _Drop(copy.film, "is evaluation film", copy.evaluation.id)
        else:
            yield _Drop(
                copy.film,
                "nearly the same as evaluation film",
                f"{copy.evaluation.id}, correlation {copy.similarity:.2f}",
            )


def _log(kept: int, drops: Iterable[_Drop]) -> None:
    """One line for each rule, with every film that it left out, by the name that a log may hold."""
    by_rule: dict[str, list[str]] = defaultdict(list)
    for drop in drops:
        by_rule[drop.rule].append(log_name(drop.film.id))
    for rule, films in by_rule.items():
        _LOGGER.warning("%d films left out of the pre-training pool, %s: %s", len(films), rule, "; ".join(films))
    _LOGGER.info("%d films to pre-train on", kept)
