"""Which films an uncertainty may be fitted on: annotated ones that are neither measured on nor trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_landmark.data.datalist import Datalist
from monai_landmark.errors import ConfigurationError

__all__ = ["check_calibration_films", "films_trained_on", "reason_against"]


def films_trained_on(card: Mapping[str, Any]) -> set[str]:
    """Ids of the films that a network learned from, pseudo-labels included.

    Args:
        card: ``model.json``.

    Returns:
        The ids.

    Raises:
        ConfigurationError: the card does not name them.
    """
    films, pseudo_films = card.get("films"), card.get("pseudo_films", [])
    if not isinstance(films, list) or not isinstance(pseudo_films, list):
        raise ConfigurationError(
            "nothing says which films the network was trained on",
            field="model.json, films",
            value=films,
            expected="the ids of the training films",
            action="train with this package, or copy model.json from where the weights came",
        )
    return {*films, *pseudo_films}


def reason_against(item: Mapping[str, Any], section: str, measured: set[str], trained_on: set[str]) -> str | None:
    """Why a film must not be calibrated on.

    Args:
        item: of a datalist.
        section: the section it stands in.
        measured: ids of all test films.
        trained_on: see :func:`films_trained_on`.

    Returns:
        The reason as a clause, or None.
    """
    copies = set(item.get("near_duplicates", []))
    if section == "test" or item["id"] in measured:
        return "it is a test film"
    if item["id"] in trained_on:
        return "the network was trained on it"
    if copies & measured:
        return f"nearly the same picture as test film {', '.join(sorted(copies & measured))}"
    if copies & trained_on:
        return f"nearly the same picture as training film {', '.join(sorted(copies & trained_on))}"
    return None


def check_calibration_films(films: Sequence[str], datalist: Datalist, card: Mapping[str, Any]) -> tuple[str, ...]:
    """Refuse films that would make an uncertainty look better than it is.

    Args:
        films: ids.
        datalist: it says of which section each film is.
        card: ``model.json``, which says what the network was trained on.

    Returns:
        The sections that the films are from, in the datalist's order.

    Raises:
        ConfigurationError: a film twice, in no section, a test film, one that was trained on, or a copy of such a film.
    """
    known = {item["id"]: (section, item) for section, item in datalist.items()}
    measured = {item["id"] for item in datalist.sections.get("test", [])}
    trained_on = films_trained_on(card)
    seen: set[str] = set()
    for film in films:
        reason = "it is in no section of the datalist" if film not in known else None
        reason = "it is named twice" if film in seen else reason
        if reason is None:
            section, item = known[film]
            reason = reason_against(item, section, measured, trained_on)
        if reason is not None:
            raise ConfigurationError(
                f"a film that an uncertainty must not be fitted on: {reason}",
                field="films",
                value=film,
                expected="annotated films outside the section test that the network was not trained on",
                action="leave this film out",
            )
        seen.add(film)
    present = {known[film][0] for film in films}
    return tuple(section for section in datalist.sections if section in present)
