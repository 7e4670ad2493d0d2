"""A label budget: which annotated films a run may see, validation films included."""

from __future__ import annotations

import csv
import math
from collections.abc import Set
from os import PathLike
from typing import Any

import numpy as np

from monai_landmark.data.datalist import Datalist, load_datalist
from monai_landmark.data.film_cache import cache_beside
from monai_landmark.data.readable import readable_films
from monai_landmark.errors import ConfigurationError

__all__ = ["labeled_films"]

Item = dict[str, Any]


def labeled_films(
    datalist: str | PathLike[str],
    budget: int = 0,
    validation: int = 0,
    seed: int = 0,
    part: str = "training",
    order: str | PathLike[str] | None = None,
    broken_share: float = 0.1,
) -> list[Item]:
    """Annotated films that a run may use, drawn by its seed; smaller budgets are subsets of larger ones.

    Args:
        datalist: the datalist JSON; its sections ``training`` and ``validation`` are drawn from.
        budget: number of annotated films in all, those kept for validation included; 0 for all there are.
        validation: how many of them validate instead of train.
        seed: seed of the draw.
        part: ``training`` or ``validation``.
        order: the CSV of ``select``: its films come first, in their rank; None: as drawn.
        broken_share: of the films drawn that may be unreadable; they are left out, and no other film takes their place.

    Returns:
        The items of that part, see :func:`monai_landmark.data.datalist.load_datalist`.

    Raises:
        ConfigurationError: if the budget exceeds the films there are, or leaves none to train on, or the order names
            none of the films.
        TooManyBrokenFilmsError: more of them are unreadable; the process ends with exit code 3.
    """
    present = Datalist.load(datalist).sections
    films = [film for name in ("training", "validation") if name in present for film in load_datalist(datalist, name)]
    films = [film for film in films if film.get("landmarks")]
    budget = budget or len(films)
    if not 0 <= validation < budget <= len(films):
        raise ConfigurationError(
            "label budget does not fit the datalist",
            file=datalist,
            field="label_budget, validation_films",
            value=(budget, validation),
            expected=f"validation_films < label_budget <= {len(films)}",
        )
    drawn = [films[index] for index in np.random.default_rng(seed).permutation(len(films))]
    if order is not None:
        rank = _ranks(order, {film["id"] for film in films})
        drawn.sort(key=lambda film: rank.get(film["id"], math.inf))
    chosen = drawn[:budget]
    part_films = chosen[budget - validation :] if part == "validation" else chosen[: budget - validation]
    return readable_films(part_films, broken_share, cache=cache_beside(datalist))[0]


def _ranks(file: str | PathLike[str], known: Set[str]) -> dict[str, int]:
    """Film -> rank; films of the CSV that are not annotated are passed over."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            rank = {row["film"]: int(row["rank"]) for row in csv.DictReader(stream)}
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            "not an order of films", file=file, field="label_order", value=repr(error), expected="the CSV of `select`"
        ) from error
    if not known & rank.keys():
        raise ConfigurationError(
            "names none of the annotated films",
            file=file,
            field="label_order",
            value=f"{len(rank)} other films",
            action="give the CSV that `select` wrote for these films",
        )
    return rank
