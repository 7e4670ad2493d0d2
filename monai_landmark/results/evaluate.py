"""The end of an evaluation: predictions held against the datalist's reference, as a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from monai_landmark.data.datalist import Datalist, landmarks_array, load_datalist, with_hashes
from monai_landmark.data.reader import read_film
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.manifest import write_manifest
from monai_landmark.results.agreement import reader_names, two_readers
from monai_landmark.results.collect import ResultCollector
from monai_landmark.results.report import ReportInfo, write_report
from monai_landmark.results.result import LandmarkResult
from monai_landmark.uncertainty import Calibration

__all__ = ["EvaluationReport", "write_evaluation"]


class EvaluationReport:
    """Handler that writes ``report.html`` and the numbers beside it when an evaluator is done.

    Args:
        collector: gathers the predictions of the same evaluator.
        datalist: the datalist JSON that was evaluated.
        section: which section of it.
        output_dir: where to.
        thresholds_mm: of the success detection rate, counted with <=.
        command: stated in the report.
    """

    def __init__(
        self,
        collector: ResultCollector,
        datalist: str | PathLike[str],
        section: str,
        output_dir: str | PathLike[str],
        thresholds_mm: Sequence[float] = (2.0, 2.5, 3.0, 4.0),
        command: str = "",
    ) -> None:
        self.collector, self.datalist, self.section = collector, Path(datalist), section
        self.output_dir, self.thresholds_mm, self.command = Path(output_dir), tuple(thresholds_mm), command

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator.

        Args:
            engine: the evaluator.
        """
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the report.

        Args:
            engine: the evaluator.
        """
        write_evaluation(
            self.collector.results,
            self.collector.schema,
            self.collector.card,
            self.datalist,
            self.section,
            self.output_dir,
            self.thresholds_mm,
            self.command,
            self.collector.calibration,
        )


def write_evaluation(
    results: Sequence[LandmarkResult],
    schema: LandmarkSchema,
    card: Mapping[str, Any],
    datalist: str | PathLike[str],
    section: str,
    output_dir: str | PathLike[str],
    thresholds_mm: Sequence[float] = (2.0, 2.5, 3.0, 4.0),
    command: str = "",
    calibration: Calibration | None = None,
) -> Path:
    """Hold predictions against a datalist's landmarks, and write the report.

    Args:
        results: predictions of all films of the section.
        schema: of the landmarks.
        card: what is known of the model, see :func:`monai_landmark.networks.model_card`.
        datalist: the datalist JSON.
        section: which section of it.
        output_dir: where to.
        thresholds_mm: of the success detection rate, counted with <=.
        command: stated in the report.
        calibration: that made the results' regions; they are not measured on its films.

    Returns:
        Path of ``report.html``; ``metrics.json``, ``errors.csv``, ``predictions.json`` and ``run.json`` lie beside it.
    """
    items = {item["id"]: item for item in load_datalist(datalist, section)}
    trained_on = with_hashes(items.values(), [*card.get("films", []), *card.get("pseudo_films", [])])
    calibrated_on = () if calibration is None else (*calibration.films, *calibration.scale_films)
    inputs = {"datalist": datalist, "section": section, "model_sha256": card.get("sha256")}
    write_manifest(output_dir, inputs, [card["seed"]] if "seed" in card else [])
    return write_report(
        Path(output_dir) / "report.html",
        results,
        {film: landmarks_array(item) for film, item in items.items()},
        schema,
        info=replace(
            _info(Datalist.load(datalist), section, list(items.values()), card, command),
            calibrated_on=tuple(sorted(with_hashes(items.values(), calibrated_on))),
        ),
        films=lambda film: read_film(items[film]["image"]).pixels,
        near_duplicates={film: _leaks(item, trained_on) for film, item in items.items()},
        patients={film: item["patient"] for film, item in items.items() if item.get("patient")},
        readers=two_readers(list(items.values())),
        thresholds_mm=thresholds_mm,
    )


def _info(
    datalist: Datalist, section: str, items: Sequence[Mapping[str, Any]], card: Mapping[str, Any], command: str
) -> ReportInfo:
    between, who = _reader_distance(items)
    return ReportInfo(
        title=f"Landmarks: {datalist.name}",
        dataset=datalist.name,
        split=f"{section} ({len(items)} films)",
        reader=datalist.reader or "",
        labels=card.get("label_budget"),
        initialization=Path(str(card.get("initialization", ""))).name,
        seeds=(card["seed"],) if "seed" in card else (),
        command=command,
        inter_reader_mm=between,
        inter_reader_note=who,
        notes=tuple(datalist.notes),
    )


def _leaks(item: Mapping[str, Any], trained_on: set[str]) -> list[str]:
    """Near-duplicates of a film outside its section: those that could have been, or were, trained on."""
    return [*item.get("near_duplicates", []), *trained_on.intersection([item["id"]])]


def _reader_distance(items: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
    """Mean distance in mm between the first two readers, over all their common landmarks."""
    spacing = {item["id"]: item["spacing"] for item in items if item.get("spacing")}
    distances = [
        np.hypot(*((first - second) * np.array(spacing[film])[::-1]).T)
        for film, (first, second) in two_readers(items).items()
        if film in spacing
    ]
    if not distances:
        return None, ""
    return float(
        np.nanmean(np.concatenate(distances))
    ), f"{' against '.join(reader_names(items))}, same films and landmarks"
