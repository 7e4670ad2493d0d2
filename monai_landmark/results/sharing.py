"""Results as others may see them: ids of films and patients are salted, names of people and folders are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from monai_landmark.privacy import pseudonym
from monai_landmark.results.report import FilmSource
from monai_landmark.results.report_info import ReportInfo
from monai_landmark.results.result import LandmarkResult

__all__ = ["for_others"]

Item = dict[str, Any]
_NUMBERS = ("labels", "seeds", "commit", "date", "inter_reader_mm")


def for_others(
    results: Sequence[LandmarkResult], items: Mapping[str, Item], info: ReportInfo, films: FilmSource, salt: str
) -> tuple[list[LandmarkResult], dict[str, Item], ReportInfo, FilmSource]:
    """What a report is made of, without names.

    The pictures stay: text that is burned into a film names whom it names.

    Args:
        results: predictions.
        items: of a datalist, by film id.
        info: what the report would state; numbers, commit and date stay.
        films: film id -> pixels.
        salt: a secret; the one that ``deidentify`` was given gives the ids that it gave.

    Returns:
        All of them, by salted ids.
    """
    old = {pseudonym(film, salt): film for film in {*items, *(result.film for result in results)}}
    new = {film: name for name, film in old.items()}
    readers = sorted({reader for item in items.values() for reader in item.get("readers", {})})

    def renamed(item: Item) -> Item:
        """An item without names."""
        changed: Item = {**item, "id": new[item["id"]]}
        if item.get("patient"):
            changed["patient"] = pseudonym(f"patient {item['patient']}", salt)
        if "near_duplicates" in item:
            changed["near_duplicates"] = [pseudonym(film, salt) for film in item["near_duplicates"]]
        if "readers" in item:
            names = {reader: f"reader {number}" for number, reader in enumerate(readers, start=1)}
            changed["readers"] = {names[reader]: points for reader, points in item["readers"].items()}
        return changed

    told = ReportInfo(
        split=f"{len(items) or len(results)} films",
        calibrated_on=tuple(pseudonym(film, salt) for film in info.calibrated_on),
        **{key: getattr(info, key) for key in _NUMBERS},
    )
    return (
        [replace(result, film=new[result.film]) for result in results],
        {new[film]: renamed(item) for film, item in items.items()},
        told,
        lambda film: films(old[film]),
    )
