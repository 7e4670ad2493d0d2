"""Which films an uncertainty may be fitted on: annotated ones that are neither measured on nor trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_landmark.data.datalist import Datalist, with_hashes
from monai_landmark.errors import ConfigurationError

__all__ = ["FilmRules"]


@dataclass(frozen=True)
class FilmRules:
    """What keeps a film from being calibrated on.

    Attributes:
        sections: film id -> the section it stands in.
        items: film id -> its item of the datalist.
        measured: ids of the test films.
        trained_on: ids of the films that the network learned from, pseudo-labels included.
        patients: whose films the network learned from.
    """

    sections: Mapping[str, str]
    items: Mapping[str, Mapping[str, Any]]
    measured: frozenset[str]
    trained_on: frozenset[str]
    patients: frozenset[str]

    @classmethod
    def of(cls, datalist: Datalist, card: Mapping[str, Any]) -> FilmRules:
        """Gather them.

        Args:
            datalist: it says of which section and patient each film is.
            card: ``model.json``, which says what the network was trained on.

        Returns:
            The rules.

        Raises:
            ConfigurationError: the card does not name the films.
        """
        films, pseudo_films = card.get("films"), card.get("pseudo_films", [])
        if not isinstance(films, list) or not isinstance(pseudo_films, list):
            raise ConfigurationError(
                "nothing says which films the network was trained on",
                field="model.json, films",
                value=films,
                expected="the hashes of the training films",
                action="train with this package, or copy model.json from where the weights came",
            )
        items = {item["id"]: item for _, item in datalist.items()}
        trained_on = frozenset(with_hashes(items.values(), [*films, *pseudo_films], datalist.root))
        return cls(
            sections={item["id"]: section for section, item in datalist.items()},
            items=items,
            measured=frozenset(item["id"] for item in datalist.sections.get("test", [])),
            trained_on=trained_on,
            patients=frozenset(items[film]["patient"] for film in trained_on if items[film].get("patient")),
        )

    def against(self, film: str) -> str | None:
        """Why a film must not be calibrated on.

        Args:
            film: its id.

        Returns:
            The reason as a clause, or None.
        """
        if film not in self.items:
            return "it is in no section of the datalist"
        if film in self.measured:
            return "it is a test film"
        if film in self.trained_on:
            return "the network was trained on it"
        copies = set(self.items[film].get("near_duplicates", []))
        for others, kind in ((self.measured, "test"), (self.trained_on, "training")):
            if same := sorted(copies & others):
                return f"nearly the same picture as {kind} film {', '.join(same)}"
        if self.items[film].get("patient") in self.patients:
            return "the network was trained on another film of this patient"
        return None

    def check(self, films: Sequence[str]) -> tuple[str, ...]:
        """Refuse films that would make an uncertainty look better than it is.

        Args:
            films: ids.

        Returns:
            The sections that the films are from.

        Raises:
            ConfigurationError: a film that a rule is against, or one that is named twice.
        """
        seen: set[str] = set()
        for film in films:
            reason = "it is named twice" if film in seen else self.against(film)
            if reason is not None:
                raise ConfigurationError(
                    f"a film that an uncertainty must not be fitted on: {reason}",
                    field="films",
                    value=film,
                    expected="annotated films outside the section test that the network was not trained on",
                    action="leave this film out",
                )
            seen.add(film)
        return tuple(sorted({self.sections[film] for film in films}))
