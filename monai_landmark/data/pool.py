"""Films to pre-train on, from any mix of datalists and folders, with the films of the evaluation kept out.

Evaluation films are the test sections of every datalist that is named, and whatever else the user names. What of the
pool is an evaluation film, or too close to one:

- the same file or the same pixels, in another source than the datalist of the evaluation film: the run refuses to
  start, for the user named the wrong folder, or asks for the film to be dropped;
- a film that ``prepare`` has marked as a copy of a test film of its own datalist: dropped;
- another film of a patient of the evaluation: dropped. A patient's name means the same person in every source, unless
  the source is said to have names of its own;
- a near-identical film (:mod:`monai_landmark.data.duplicates`): dropped.

A file that comes twice is kept once. Nothing is dropped unseen: every film left out is logged with its reason.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from monai_landmark.data.datalist import Datalist, Item, LeftOut
from monai_landmark.data.datasets.films import films_below, read_table, relative_name
from monai_landmark.data.film_cache import cache_beside
from monai_landmark.data.pool_sieve import PoolFilm, sift
from monai_landmark.data.readable import readable_films, refuse_too_many
from monai_landmark.errors import ConfigurationError

__all__ = ["Pool", "hold_out", "pretraining_pool"]

Entry = str | PathLike[str] | Mapping[str, Any]
_ENTRY_KEYS = {"path", "name", "weight", "own_patients"}
_EVERY_FILM = {"id", "image", "file", "sha256", "source"}
_ITEM_KEYS = ("image", "spacing", "spacing_source", "patient")


@dataclass(frozen=True)
class Pool:
    """The films of a pre-training run.

    Attributes:
        films: items with ``image``, ``id``, ``patient`` (or None), ``spacing`` and ``spacing_source``, ``source``
            (number of the film's condition, 0 where it has none) and ``source_name``. Films of the run's own datalist
            keep their ids, others begin with the name of their source. The spacing of a folder's films is None here,
            for their files tell it.
        sources: names of the sources, in the order given.
        conditions: names of the conditions; the first has number 1.
        weights: share of the draws of every film, 1 in all; None when every film is drawn equally often.
        left_out: films that are not in the pool, with the reason.
    """

    films: list[Item]
    sources: tuple[str, ...]
    conditions: tuple[str, ...]
    weights: list[float] | None
    left_out: list[LeftOut]


@dataclass(frozen=True)
class _Source:
    """One datalist or folder."""

    path: Path
    name: str
    weight: float | None
    films: list[PoolFilm]


def pretraining_pool(
    datalist: str | PathLike[str] | None = None,
    pool: Entry | Sequence[Entry] = (),
    evaluation: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    condition_on: str = "source",
    on_evaluation_film: Literal["refuse", "drop"] = "refuse",
    workers: int = 2,
    cache: str | PathLike[str] | None = None,
    broken_share: float = 0.1,
) -> Pool:
    """Collect the films to pre-train on, keep those of the evaluation out, and number their conditions.

    Films are read only where ``prepare`` has not compared them yet: those of one source with the evaluation of another.

    Args:
        datalist: the datalist of the run; its films outside the test section are the first source, unless ``pool``
            names it again, with another weight or place.
        pool: further sources: datalists (JSON; the test section is never used) and folders of films, searched through
            with all their folders. A path, or a dictionary of ``path``, ``name``, ``weight`` and ``own_patients`` (true
            when a patient's name means somebody else in the other sources). Weights are shares of the draws: sources
            of weight 1 and 2 give a third and two thirds, however many films they hold; a source without one counts 1
            as soon as another has one; one of weight 0 is left out. Without any weight every film is drawn equally
            often. The ``manifest.csv`` of a folder, with at least the columns ``file`` and ``patient_group``, tells its
            patients and further fields.
        evaluation: further evaluation films: datalists, of which the test section counts, and folders.
        condition_on: what the network is conditioned on: ``source``, or any field of the items: its values, sorted.
        on_evaluation_film: what to do when an evaluation film itself is in a source: ``refuse`` or ``drop``.
        workers: threads that read films.
        cache: a file that keeps what was seen of the films, so that a later run need not read them; several runs may
            share it. None: one beside the datalist, see :func:`~monai_landmark.data.film_cache.cache_beside`.
        broken_share: of the films that may be unreadable; they are left out, and named.

    Returns:
        The pool.

    Raises:
        ConfigurationError: an evaluation film is in the pool, a source has no film left or is no source, two have one
            name, or no film has the condition.
        FilmError: an evaluation film cannot be read, so that no one can say whether the pool holds it.
        TooManyBrokenFilmsError: more of them are unreadable; the process ends with exit code 3.
    """
    if on_evaluation_film not in ("refuse", "drop"):
        raise ConfigurationError(
            "unknown choice", field="on_evaluation_film", value=on_evaluation_film, expected="refuse | drop"
        )
    entries = [_entry(given) for given in _as_list(pool)]
    own = None if datalist is None else Path(datalist).resolve()
    if own is not None and own not in [entry["path"] for entry in entries]:
        entries.insert(0, _entry({"path": own}))
    # a datalist of weight 0 gives no film to the pool, and still says which films are tested on
    held_out = _evaluation_films(entries, evaluation)
    sources = [_source(entry, own) for entry in entries if entry["weight"] != 0]
    _check_names(sources)
    found = [film for source in sources for film in source.films]
    if cache is None and datalist is not None:
        cache = cache_beside(datalist)
    films, left_out = sift(found, held_out, on_evaluation_film, workers, cache)
    films, broken = readable_films(
        films, 1.0, item=lambda film: film.item, name=lambda film: film.id, workers=workers, cache=cache
    )
    left_out += broken
    broken = [film for film in left_out if film.by == "fault"]
    refuse_too_many(broken, sum(len(source.films) for source in sources), broken_share)
    counts = Counter(film.source for film in films)
    _check_left(sources, counts)
    names = tuple(source.name for source in sources)
    conditions, numbers = _conditions(films, names, condition_on)
    items = [
        {**{key: film.item.get(key) for key in _ITEM_KEYS}, "id": film.id, "source": number, "source_name": film.source}
        for film, number in zip(films, numbers, strict=True)
    ]
    return Pool(items, names, conditions, _weights(films, sources, counts), left_out)


def hold_out(pool: Pool, count: int, seed: int = 0) -> tuple[Pool, Pool]:
    """Keep some films from training, to see how the network does on films that it has not seen.

    Args:
        pool: all films.
        count: how many to hold out, a tenth of the pool at most; all films of a patient go together.
        seed: of the choice.

    Returns:
        The pool to train on, and the one held out.
    """
    wanted = min(count, len(pool.films) // 10)
    kept_from: set[int] = set()
    patients = [film["patient"] or index for index, film in enumerate(pool.films)]
    films_of: dict[Any, set[int]] = defaultdict(set)
    for index, patient in enumerate(patients):
        films_of[patient].add(index)
    for index in np.random.default_rng(seed).permutation(len(pool.films)):
        if len(kept_from | films_of[patients[index]]) <= wanted:
            kept_from |= films_of[patients[index]]
    return _part(pool, [i for i in range(len(pool.films)) if i not in kept_from]), _part(pool, sorted(kept_from))


def _part(pool: Pool, places: Sequence[int]) -> Pool:
    weights = None if pool.weights is None else [pool.weights[place] for place in places]
    return replace(pool, films=[pool.films[place] for place in places], weights=weights)


def _as_list(given: Any) -> list[Any]:
    """One source alone may stand without a list."""
    return [given] if isinstance(given, (str, PathLike, Mapping)) else list(given)


def _entry(given: Entry) -> dict[str, Any]:
    """A source as it was given, checked and with all its keys."""
    entry: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"path": given}
    if set(entry) - _ENTRY_KEYS or not isinstance(entry.get("path"), (str, PathLike)):
        expected = "a path, or a dictionary of " + ", ".join(sorted(_ENTRY_KEYS))
        raise ConfigurationError("a source is not understood", field="pool", value=given, expected=expected)
    weight = entry.get("weight")
    if weight is not None and not (type(weight) in (int, float) and math.isfinite(weight) and weight >= 0):
        raise ConfigurationError(
            "a weight is not a share", file=entry["path"], field="weight", value=weight, expected="a number, 0 or more"
        )
    path = Path(entry["path"]).resolve()
    return {"name": None, "weight": None, "own_patients": False, **entry, "path": path}


def _source(entry: Mapping[str, Any], own: Path | None) -> _Source:
    """The films of one entry; a datalist's test section is not among them."""
    path: Path = entry["path"]
    if path.is_dir():
        name = str(entry["name"] or path.name)
        films = list(_folder_films(path, name))
    else:
        content = _load(path)
        name = str(entry["name"] or content.name)
        prefix = "" if path == own else f"{name}/"
        films = [_listed(content, path, name, prefix, item) for section, item in content.items() if section != "test"]
    return _Source(path, name, entry["weight"], _without_patients(films) if entry["own_patients"] else films)


def _load(path: Path) -> Datalist:
    if path.suffix.lower() != ".json" or not path.is_file():
        raise ConfigurationError(
            "neither a folder nor a datalist",
            file=path,
            field="pool, evaluation",
            expected="a folder of films, or a datalist JSON that `prepare` wrote",
            action="check the path",
        )
    return Datalist.load(path)


def _listed(content: Datalist, path: Path, name: str, prefix: str, item: Item) -> PoolFilm:
    """A film of a datalist, its path made absolute."""
    return PoolFilm(prefix + item["id"], name, dict(item, image=str(content.root / item["image"])), path)


def _folder_films(folder: Path, name: str) -> Iterator[PoolFilm]:
    """Films of a folder, with what its manifest says of them."""
    manifest = folder / "manifest.csv"
    rows = read_table(manifest, ("file", "patient_group")) if manifest.is_file() else []
    facts = {row["file"]: {**row, "patient": row["patient_group"]} for row in rows}
    for path in films_below(folder):
        film = relative_name(path, folder)
        known = {"image": str(path), "spacing": None, "spacing_source": "none", "sha256": None}
        yield PoolFilm(f"{name}/{film}", name, {**facts.get(film, {}), **known}, None)


def _without_patients(films: Iterable[PoolFilm]) -> list[PoolFilm]:
    """Films whose patients cannot be told from those of other sources."""
    return [replace(film, item={**film.item, "patient": None}) for film in films]


def _evaluation_films(entries: Iterable[Mapping[str, Any]], further: Any) -> list[PoolFilm]:
    """Test films of all datalists, and the films of the folders that the user evaluates on; each once."""
    named = [Path(given).resolve() for given in _as_list(further)]
    datalists = {entry["path"]: entry["own_patients"] for entry in entries if not entry["path"].is_dir()}
    films: list[PoolFilm] = []
    for path in dict.fromkeys([*datalists, *named]):
        if path.is_dir():
            films += _folder_films(path, path.name)
            continue
        content = _load(path)
        tested = content.sections.get("test", [])
        if path in named and not tested:
            raise ConfigurationError(
                "the datalist has no test section",
                file=path,
                field="evaluation",
                value=list(content.sections),
                action="name a datalist with a test section, or the folder of the films",
            )
        listed = [_listed(content, path, content.name, f"{content.name}/", item) for item in tested]
        films += _without_patients(listed) if datalists.get(path) else listed
    return films


def _check_names(sources: Iterable[_Source]) -> None:
    """A name tells a source from the others, in ids, conditions and logs."""
    seen: dict[str, Path] = {}
    for source in sources:
        if source.name in seen:
            raise ConfigurationError(
                f"two sources have one name, the other is {seen[source.name]}",
                file=source.path,
                field="pool",
                value=source.name,
                action="give one of them another: {'path': ..., 'name': ...}",
            )
        seen[source.name] = source.path


def _check_left(sources: Sequence[_Source], counts: Mapping[str, int]) -> None:
    """A source without films would have a number and a share of the draws, and nothing to draw."""
    if not sources:
        raise ConfigurationError("no source of films", field="datalist, pool", action="name a datalist or a folder")
    for source in sources:
        if not counts[source.name]:
            raise ConfigurationError(
                "no film of a source is left to pre-train on",
                file=source.path,
                field="pool",
                value=f"{len(source.films)} films, all left out (the log says why)" if source.films else "no film",
                expected="films outside the test section",
                action="leave it out of `pool`, or give it the weight 0",
            )


def _conditions(films: Sequence[PoolFilm], sources: tuple[str, ...], field: str) -> tuple[tuple[str, ...], list[int]]:
    """Names of the conditions, and the number of each film's."""
    values = [film.source if field == "source" else _value(film.item, field) for film in films]
    names = sources if field == "source" else tuple(sorted({value for value in values if value is not None}))
    if not names:
        usable = {key for film in films for key in film.item if _value(film.item, key) is not None} - _EVERY_FILM
        raise ConfigurationError(
            "no film has this field as text or number",
            field="condition_on",
            value=field,
            expected=" or ".join(["source", *sorted(usable)]),
            action="condition on another field, or write it into the datalist or the folder's manifest.csv",
        )
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(names, start=1)}
    return names, [numbers.get(value, 0) for value in values]


def _value(item: Item, field: str) -> str | None:
    """Text or number of a field; None where it is missing, which a manifest writes as nothing."""
    value = item.get(field)
    return str(value) if isinstance(value, (str, int, float)) and value != "" else None


def _weights(films: Iterable[PoolFilm], sources: Sequence[_Source], counts: Mapping[str, int]) -> list[float] | None:
    """Each film's share of the draws: its source's, divided by the number of its films."""
    if all(source.weight is None for source in sources):
        return None
    shares = {source.name: 1.0 if source.weight is None else source.weight for source in sources}
    total = sum(shares.values())
    return [shares[film.source] / total / counts[film.source] for film in films]
