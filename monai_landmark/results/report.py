"""The HTML report: one file that opens from disk without the network, and its numbers beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.results.result import LandmarkResult

__all__ = ["ReportInfo", "write_report"]


@dataclass(frozen=True)
class ReportInfo:
    """What the report states about itself beside its numbers; empty fields are left out.

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
        inter_reader_mm: mean distance between two readers on the same films, in mm.
        inter_reader_note: how that distance was obtained.
        notes: further plain sentences.
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
    notes: tuple[str, ...] = ()


def write_report(
    path: str | PathLike[str],
    results: Sequence[LandmarkResult],
    references: Mapping[str, ArrayLike] | None = None,
    schema: LandmarkSchema | None = None,
    *,
    info: ReportInfo | None = None,
    films: Callable[[str], NDArray[np.float32] | None] | None = None,
    near_duplicates: Mapping[str, Sequence[str]] | None = None,
    patients: Mapping[str, str] | None = None,
    thresholds_mm: Sequence[float] = (2.0, 2.5, 3.0, 4.0),
    inclusive: bool = True,
    max_pictures: int = 12,
) -> Path:
    """Write ``report.html`` with ``metrics.json``, ``errors.csv`` and ``predictions.json`` beside it."""
    raise NotImplementedError
