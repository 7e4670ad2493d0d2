"""Drawn films as further films to train on, with the landmarks of the films that they were drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from monai_landmark.data.datalist import Datalist, film_hashes, load_datalist
from monai_landmark.errors import AnnotationError

__all__ = ["drawn_films"]

Item = dict[str, Any]


def drawn_films(drawn: str | PathLike[str] | None, datalist: str | PathLike[str], films: Sequence[Item]) -> list[Item]:
    """The films that ``generate --strategy start`` drew, to be trained on beside the real ones.

    Args:
        drawn: the ``datalist.json`` in its folder; None: no film.
        datalist: the datalist of the real films.
        films: those that are trained on. A drawn film carries the landmarks of a real one: from any other film they
            would be labels that nobody counts, or those of a film that validates or tests.

    Returns:
        The items, with absolute paths.

    Raises:
        AnnotationError: if they have another schema, or one was drawn from a film that is not trained on.
    """
    if drawn is None:
        return []
    expected, found = (Datalist.load(path).schema for path in (datalist, drawn))
    if found != expected:
        raise AnnotationError("other landmarks", file=drawn, field="schema", value=found, expected=str(expected))
    items, known = load_datalist(drawn, "training"), set(film_hashes(films))
    foreign = [item["id"] for item in items if item.get("source") not in known]
    if foreign:
        raise AnnotationError(
            f"{len(foreign)} of {len(items)} films were not drawn from films that are trained on",
            file=drawn,
            field="source",
            value=foreign[0],
            expected="SHA-256 of the file of a film to train on",
            action="draw with the `label_budget`, `validation_films`, `label_order` and `seed` of this training",
        )
    return items
