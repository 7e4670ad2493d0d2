"""The HTML report: one file that opens from disk without the network, and its numbers beside it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.errors import DataError
from monai_landmark.files import write_text
from monai_landmark.results import report_sections as sections
from monai_landmark.results.agreement import Agreement, agreement_rows, agreement_section, measure_agreement
from monai_landmark.results.canvas import landmark_title, region_text
from monai_landmark.results.evaluation import Evaluation, evaluate_results
from monai_landmark.results.files import save_results
from monai_landmark.results.html import number, page
from monai_landmark.results.plots import film_picture
from monai_landmark.results.report_films import film_table, gallery
from monai_landmark.results.report_info import ReportInfo
from monai_landmark.results.result import LandmarkResult
from monai_landmark.results.table import Measurement, Row, errors_csv, jsonable
from monai_landmark.results.uncertainty_section import uncertainty_numbers, uncertainty_section

__all__ = ["ReportInfo", "write_report"]

FilmSource = Callable[[str], "NDArray[np.float32] | None"]


def write_report(
    path: str | PathLike[str],
    results: Sequence[LandmarkResult],
    references: Mapping[str, ArrayLike] | None = None,
    schema: LandmarkSchema | None = None,
    *,
    info: ReportInfo | None = None,
    films: FilmSource | None = None,
    near_duplicates: Mapping[str, Sequence[str]] | None = None,
    patients: Mapping[str, str] | None = None,
    readers: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    thresholds_mm: Sequence[float] = (2.0, 2.5, 3.0, 4.0),
    inclusive: bool = True,
    max_pictures: int = 12,
) -> Path:
    """Write a self-contained HTML report, and ``metrics.json``, ``errors.csv`` and ``predictions.json`` beside it.

    Args:
        path: the HTML file; its folder is made when absent.
        results: one per film, all of one landmark schema.
        references: film id -> ``(K, 2)`` (x, y) of the target reader in original pixels, NaN = not annotated; None
            or empty makes a gallery of predictions without errors.
        schema: its lines are drawn on the films, its measures are compared with the reference's.
        info: title, data set, split, reader, command and the like, which the report states.
        films: film id -> ``(H, W)`` upright film for the pictures, or None; asked only for the films that are shown.
        near_duplicates: film id -> ids of films in other splits that show (almost) the same picture; if any,
            all-films and leak-free figures stand side by side.
        patients: film id -> patient, so that confidence intervals draw whole patients.
        readers: film id -> ``(K, 2)`` (x, y) by two readers, whose measures are compared with each other.
        thresholds_mm: radii of the success detection rates; px when no film has a spacing.
        inclusive: an error equal to the threshold is a success (``<=``, else ``<``).
        max_pictures: how many films are shown at most.

    Returns:
        Path of the HTML file.

    Raises:
        DataError: results and references do not fit together, or a picture has not the size its result states.
    """
    info = info or ReportInfo()
    info = replace(info, date=info.date or datetime.datetime.now(datetime.timezone.utc).date().isoformat())
    evaluation = evaluate_results(results, references, near_duplicates)
    measurement = Measurement(evaluation, tuple(map(float, thresholds_mm)), inclusive, dict(patients or {}))
    agreements = measure_agreement(evaluation, schema, readers)
    document = _metrics_document(measurement, info) | {"measurements": agreement_rows(agreements)}
    groups = _chosen_films(measurement, max_pictures)
    pictures, unreadable = _pictures(measurement, document["film_rows"], groups, films, schema)
    notes = [*info.notes, *_notes(measurement, document), *unreadable]
    body = _body(measurement, info, document, notes, (groups, pictures), agreements)
    path = write_text(path, _page(info, measurement, document, body))
    write_text(path.with_name("metrics.json"), json.dumps(jsonable(document), indent=1, allow_nan=False) + "\n")
    save_results(list(results), path.with_name("predictions.json"))
    if evaluation.has_reference:
        write_text(path.with_name("errors.csv"), errors_csv(evaluation))
    return path


def _metrics_document(measurement: Measurement, info: ReportInfo) -> dict[str, Any]:
    """All numbers of the report, as ``metrics.json`` holds them."""
    evaluation = measurement.evaluation
    results = [film.result for film in evaluation.films]
    leaks = evaluation.has_reference and not evaluation.leak_free.all()
    return {
        "format": "monai-landmark/metrics",
        "format_version": 1,
        "unit": measurement.unit,
        "comparison": measurement.comparison,
        "thresholds": list(measurement.thresholds),
        "pixel_grid": "native",
        "films": len(results),
        "all_films": measurement.summary() if evaluation.has_reference else None,
        "leak_free": measurement.summary(evaluation.leak_free) if leaks else None,
        "landmarks": measurement.landmark_rows() if evaluation.has_reference else None,
        "uncertainty": uncertainty_numbers(measurement, info.calibrated_on) if evaluation.has_reference else None,
        "film_rows": measurement.film_rows(),
        "spacing_sources": measurement.spacing_rows(),
        "unmeasured_films": evaluation.unmeasured,
        "models": sorted({(result.model_name, result.model_sha256 or "") for result in results}),
        "versions": sorted({result.version for result in results}),
        "info": asdict(info),
        "disclaimer": results[0].disclaimer,
    }


def _chosen_films(measurement: Measurement, limit: int) -> dict[str, list[int]]:
    """Rows of the films to show: best, median and worst; without reference the least confident ones."""
    evaluation = measurement.evaluation
    if not evaluation.has_reference:
        rows = measurement.film_rows()
        unsure = [row["confidence"] if row["confidence"] is not None else 1.0 for row in rows]
        order = np.argsort(unsure, kind="stable").tolist()
        heading = "Least confident first" if len(order) > limit and min(unsure) < 1 else ""
        return {heading: order[:limit] if heading else list(range(len(order)))[:limit]}
    missing = np.isinf(evaluation.errors).sum(axis=1)
    means = evaluation.film_means
    measured = [row for row in range(len(means)) if not np.isnan(evaluation.errors[row]).all()]
    order = sorted(measured, key=lambda row: (missing[row], np.nan_to_num(means[row], nan=np.inf)))
    if len(order) <= min(limit, 3):
        return {"": order}
    each = max(1, min(limit, len(order)) // 3)
    middle = (len(order) - each) // 2
    return {"Best": order[:each], "Median": order[middle : middle + each], "Worst": order[::-1][:each]}


def _pictures(
    measurement: Measurement,
    rows: Sequence[Row],
    groups: Mapping[str, Sequence[int]],
    films: FilmSource | None,
    schema: LandmarkSchema | None,
) -> tuple[dict[int, tuple[str, str]], list[str]]:
    """Film row -> (svg, caption) of the chosen films, and a sentence about those that could not be read."""
    pictures, unreadable = {}, []
    for row in (row for chosen in groups.values() for row in chosen):
        film = measurement.evaluation.films[row]
        try:
            pixels = None if films is None else films(film.result.film)
        except (DataError, OSError):
            # The numbers do not need the picture; the report says which one is absent.
            pixels = None
            unreadable.append(film.result.film)
        if pixels is not None and np.shape(pixels)[-2:] != film.result.original_size:
            raise DataError(
                f"the picture of film {film.result.film!r} is not the film that was predicted",
                field="original_size",
                value=np.shape(pixels),
                expected=str(film.result.original_size),
                action="give the upright film in its original size",
            )
        svg = film_picture(film, pixels, schema)
        pictures[row] = (svg, _caption(measurement, rows[row]))
    names = ", ".join(unreadable)
    return pictures, [f"Without a picture, because the film could not be read: {names}."] if unreadable else []


def _promise(evaluation: Evaluation) -> str:
    """What the films' regions promise, if all promise the same."""
    promises = {text for film in evaluation.films if (text := region_text(film.result))}
    return promises.pop() if len(promises) == 1 else ""


def _caption(measurement: Measurement, row: Row) -> str:
    unit = measurement.unit
    parts = [f"<b>{escape(row['film'])}</b>"]
    if measurement.evaluation.has_reference:
        parts.append(f"mean {number(row[f'mean_{unit}'])} {unit}")
        if row["worst_landmark"]:
            parts.append(
                f"largest {number(row[f'max_{unit}'])} {unit}: {escape(landmark_title(row['worst_landmark']))}"
            )
    elif row["confidence"] is not None:
        parts.append(f"confidence {number(row['confidence'])}")
    if row["refer"]:
        parts.append(f"{row['refer']} to be looked at")
    if lost := row["landmarks"] - row["found"]:
        parts.append(f"{lost} not found")
    if row["near_duplicates"]:
        parts.append('<span class="chip">near-duplicate in another split</span>')
    return " \N{MIDDLE DOT} ".join(parts)


def _notes(measurement: Measurement, document: Mapping[str, Any]) -> list[str]:
    """What a reader of the numbers must not overlook."""
    evaluation, notes = measurement.evaluation, []
    sources: dict[str, int] = {row["spacing_source"]: row["films"] for row in document["spacing_sources"]}
    if measurement.unit == "px":
        notes.append(
            "No film has a pixel spacing: all distances and thresholds are in pixels of the original film (px)."
        )
    if count := len(document["unmeasured_films"]):
        notes.append(f"Films with a reference but without pixel spacing, left out of every figure: {count}.")
    if count := sources.get("detector", 0):
        notes.append(f"Films whose millimeters are those at the detector, larger than in the patient: {count}.")
    if count := sources.get("uncalibrated", 0):
        notes.append(f"Films whose spacing is uncalibrated, so that the meaning of a millimeter is unknown: {count}.")
    if evaluation.has_reference and (count := document["all_films"]["missing"]):
        notes.append(f"Annotated landmarks that were not found: {count}. They are failures in every success rate.")
    without = sum(film.reference_px is None for film in evaluation.films)
    if evaluation.has_reference and without:
        notes.append(f"Films without a reference, listed but not measured: {without}.")
    warned = [warning for film in evaluation.films for warning in film.result.warnings]
    counts = {text: warned.count(text) for text in dict.fromkeys(warned)}
    return notes + [f"{text} (films: {count})" for text, count in list(counts.items())[:10]]


def _body(
    measurement: Measurement,
    info: ReportInfo,
    document: Mapping[str, Any],
    notes: Sequence[str],
    shown: tuple[Mapping[str, Sequence[int]], Mapping[int, tuple[str, str]]],
    agreements: Sequence[Agreement],
) -> str:
    evaluation, summary, landmarks = measurement.evaluation, document["all_films"], document["landmarks"]
    groups, pictures = shown
    films = gallery(groups, pictures, evaluation.has_reference, _promise(evaluation)) if pictures else ""
    table = film_table(measurement, document["film_rows"])
    origin = sections.provenance(evaluation, info, document["spacing_sources"])
    if summary is None:
        return sections.prediction_headline(evaluation) + sections.notices(notes) + films + table + origin
    leak_free = document["leak_free"]
    curve = sections.curve_section(measurement, info, leak_free is not None)
    parts = [
        sections.headline(measurement, summary),
        sections.notices(notes),
        sections.leak_table(measurement, {"All films": summary, "Leak-free": leak_free}) if leak_free else "",
        f'<div class="split">{curve}{sections.measured_section(measurement, info, summary)}</div>',
        films,
        sections.landmark_table(measurement, landmarks, summary),
        sections.roses_section(measurement, landmarks),
        uncertainty_section(measurement, document["uncertainty"], info.calibrated_on),
        agreement_section(agreements),
        table,
        origin,
    ]
    return "\n".join(parts)


def _page(info: ReportInfo, measurement: Measurement, document: Mapping[str, Any], body: str) -> str:
    count = document["films"]
    parts = [info.dataset, info.split, f"{count} film{'' if count == 1 else 's'}", info.date]
    numbers = "metrics.json, errors.csv and predictions.json"
    return page(info.title, parts, body, disclaimer=document["disclaimer"], numbers=numbers)
