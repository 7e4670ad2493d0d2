"""What a report states about itself beside its numbers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ReportInfo"]


@dataclass(frozen=True)
class ReportInfo:
    """Where the numbers of a report come from; fields that are empty are left out.

    Args:
        title: heading.
        dataset: name of the data set.
        split: which part of it was measured, and how it was split.
        reader: whose landmarks are the reference.
        labels: number of labeled training films.
        initialization: what the network started from.
        seeds: random seeds of the training runs.
        command: the command that made the predictions.
        commit: revision of the code.
        date: ISO date; today when empty.
        machine: where it ran.
        inter_reader_mm: mean distance between two readers' landmarks on the same films, in mm.
        inter_reader_note: how that distance was obtained.
        calibrated_on: ids of the films that regions were fitted on; regions are not measured on them.
        notes: further plain sentences, shown at the top.
    """

    title: str = "Landmark report"
    dataset: str = ""
    split: str = ""
    reader: str = ""
    labels: int | None = None
    initialization: str = ""
    seeds: tuple[int, ...] = ()
    command: str = ""
    commit: str = ""
    date: str = ""
    machine: str = ""
    inter_reader_mm: float | None = None
    inter_reader_note: str = ""
    calibrated_on: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
