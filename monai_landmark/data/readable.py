"""The films that a training can read; the others are named with the reason before the first step.

A broken film among thousands should not cost the run, and a folder that has moved should. So films that cannot be read
are left out, each with its reason in the log, up to a share that the user sets; beyond it the process ends with exit
code 3. Nothing takes a broken film's place. A film whose file is still the one that ``prepare`` has read is not read
again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from typing import Any, TypeVar

from monai_landmark.data.datalist import LeftOut
from monai_landmark.data.film_cache import FilmCache
from monai_landmark.data.formats import read_film
from monai_landmark.errors import ConfigurationError, DataError
from monai_landmark.privacy import log_name, without_path

__all__ = ["BROKEN_FILMS_EXIT", "TooManyBrokenFilmsError", "broken_film", "readable_films", "refuse_too_many"]

_LOGGER = logging.getLogger(__name__)
#: What the process ends with.
BROKEN_FILMS_EXIT = 3

_Film = TypeVar("_Film")


class TooManyBrokenFilmsError(SystemExit):
    """More films cannot be read than the user allows: the process ends with exit code 3, whoever called.

    Args:
        left_out: the films that cannot be read.
        count: number of all films.
        share: that was allowed.
    """

    def __init__(self, left_out: Sequence[LeftOut], count: int, share: float) -> None:
        super().__init__(BROKEN_FILMS_EXIT)
        self.left_out = tuple(left_out)
        self.text = (
            f"{len(left_out)} of {count} films cannot be read, more than the share of {share:g} that broken_share "
            "allows; what to do: see the reasons above, run `inspect`, and `prepare` again; or allow a larger share"
        )

    def __str__(self) -> str:
        return self.text


def broken_film(item: dict[str, Any], cache: FilmCache | None = None) -> str | None:
    """Why a film cannot be used.

    Args:
        item: ``image``, the path of the film; ``sha256`` of the file that ``prepare`` read, if it did; ``spacing`` with
            ``spacing_source`` ``user`` where the file's own is overruled.
        cache: knows the hashes of files that have not changed, and which could be read.

    Returns:
        The reason; None where there is none.
    """
    cache = cache or FilmCache()
    try:
        known, sha256 = item.get("sha256"), cache.sha256(item["image"])
        given = item.get("spacing") if item.get("spacing_source", "user") == "user" else None
        if sha256 == known or (known is None and cache.has_read(sha256, given)):
            return None
        size = read_film(item["image"], given).size
        cache.keep_read(sha256, given)
    except (DataError, OSError) as error:
        return str(error)
    if known is not None and list(size) != list(item.get("size", size)):
        return f"{item['image']}: the film is not the one that was prepared; what to do: run `prepare` again"
    return None


def readable_films(
    films: Iterable[_Film],
    share: float = 0.1,
    *,
    item: Callable[[_Film], dict[str, Any]] = lambda film: film,  # type: ignore[assignment, return-value]
    name: Callable[[_Film], str] = lambda film: film["id"],  # type: ignore[index, no-any-return]
    workers: int = 2,
    cache: str | PathLike[str] | None = None,
) -> tuple[list[_Film], list[LeftOut]]:
    """Part films into those that can be read and those that cannot.

    Args:
        films: items of a datalist, or whatever holds one.
        share: of the films that may be broken; 0 allows none, 1 all but one.
        item: the datalist item of a film.
        name: what the film is called in the log.
        workers: threads that read.
        cache: file that keeps what was seen of the films, see :class:`~monai_landmark.data.film_cache.FilmCache`.

    Returns:
        The films that can be read, in their order, and the others with the reason.

    Raises:
        ConfigurationError: the share is none.
        TooManyBrokenFilmsError: more are broken.
    """
    known = list(films)
    with FilmCache(cache) as seen, ThreadPoolExecutor(workers) as pool:
        reasons = list(pool.map(lambda film: broken_film(item(film), seen), known))
    left_out = [LeftOut(name(film), reason) for film, reason in zip(known, reasons, strict=True) if reason is not None]
    for film, reason in zip(known, reasons, strict=True):
        if reason is not None:
            why = without_path(reason, item(film)["image"])
            _LOGGER.warning("left out, it cannot be read: film %s: %s", log_name(name(film)), why)
    if left_out:
        _LOGGER.warning("`inspect` names these films; MONAI_LANDMARK_LOG_NAMES=1 has the log name them")
    refuse_too_many(left_out, len(known), share)
    return [film for film, reason in zip(known, reasons, strict=True) if reason is None], left_out


def refuse_too_many(left_out: Sequence[LeftOut], count: int, share: float) -> None:
    """End the process where too many films cannot be read.

    Args:
        left_out: these.
        count: number of all films.
        share: that may be broken.

    Raises:
        ConfigurationError: the share is none.
        TooManyBrokenFilmsError: more are broken, or all.
    """
    if not 0 <= share <= 1:
        raise ConfigurationError("not a share", field="broken_share", value=share, expected="a number from 0 to 1")
    if left_out and (len(left_out) > share * count or len(left_out) == count):
        error = TooManyBrokenFilmsError(left_out, count, share)
        _LOGGER.error("%s", error)
        raise error
