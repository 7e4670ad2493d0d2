"""A label budget: which annotated films a run may see, validation films included."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from monai_landmark.data.datalist import Datalist, load_datalist
from monai_landmark.errors import ConfigurationError

__all__ = ["labeled_films"]

Item = dict[str, Any]


def labeled_films(
    datalist: str | PathLike[str],
    budget: int = 0,
    validation: int = 0,
    seed: int = 0,
    part: str = "training",
) -> list[Item]:
    """Annotated films that a run may use, drawn by its seed; smaller budgets are subsets of larger ones.

    Args:
        datalist: the datalist JSON; its sections ``training`` and ``validation`` are drawn from.
        budget: number of annotated films in all, those kept for validation included; 0 for all there are.
        validation: how many of them validate instead of train.
        seed: seed of the draw.
        part: ``training`` or ``validation``.

    Returns:
        The items of that part, see :func:`monai_landmark.data.datalist.load_datalist`.

    Raises:
        ConfigurationError: if the budget exceeds the films there are, or leaves none to train on.
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
    order = np.random.default_rng(seed).permutation(len(films))[:budget]
    chosen = [films[index] for index in order]
    return chosen[budget - validation :] if part == "validation" else chosen[: budget - validation]
