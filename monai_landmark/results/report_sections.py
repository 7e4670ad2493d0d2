"""The parts of the HTML report, each from the measurement it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from monai_landmark.results.canvas import landmark_title
from monai_landmark.results.evaluation import Evaluation
from monai_landmark.results.html import DASH, Cell, definitions, number, percent, section, table
from monai_landmark.results.plots import cumulative_curve, error_rose, rose_radius
from monai_landmark.results.report_info import ReportInfo
from monai_landmark.results.table import Measurement, Row

__all__ = [
    "curve_section",
    "headline",
    "landmark_table",
    "leak_table",
    "measured_section",
    "notices",
    "prediction_headline",
    "provenance",
    "roses_section",
]

_SPACING_MEANING = {
    "user": "stated by the user",
    "calibrated": "calibrated in the film",
    "magnification-corrected": "detector spacing divided by the stated magnification",
    "detector": "mm at the detector, not in the patient",
    "uncalibrated": "in mm, meaning unknown",
    "none": "no spacing: pixels only",
}


def _sign(measurement: Measurement) -> str:
    return "\N{LESS-THAN OR EQUAL TO}" if measurement.inclusive else "<"


def _tile(value: str, unit: str, name: str, detail: Sequence[str] = (), key: bool = False) -> str:
    small = f"<small>{escape(unit)}</small>" if unit and value != DASH else ""
    below = "".join(f"<span>{escape(line)}</span>" for line in detail)
    kind = "number key" if key else "number"
    return f'<div class="{kind}"><b>{escape(value)}{small}</b><span class="name">{escape(name)}</span>{below}</div>'


def _interval(pair: Sequence[float], digits: int) -> str:
    if not np.isfinite(pair).all():
        return ""
    return f"{pair[0]:.{digits}f}{DASH}{pair[1]:.{digits}f}"


def _interval_lines(pair: Sequence[float], digits: int) -> list[str]:
    return ["95 % CI", text] if (text := _interval(pair, digits)) else []


def headline(measurement: Measurement, summary: Row) -> str:
    """Tiles with the numbers that matter most.

    Args:
        measurement: how it was counted.
        summary: of all films.

    Returns:
        HTML.
    """
    unit = measurement.unit
    missing = summary["missing"]
    found_only = [f"of {summary['n'] - missing} found"] if missing else []
    tiles = [
        _tile(
            number(summary[f"mre_found_{unit}"]),
            unit,
            "Mean error (MRE)",
            found_only + _interval_lines(summary[f"mre_{unit}_interval"], 2),
            key=True,
        ),
        _tile(number(summary[f"median_{unit}"]), unit, "Median error"),
        _tile(number(summary[f"p95_{unit}"]), unit, "95th percentile"),
    ]
    for threshold in measurement.thresholds:
        key = f"sdr{threshold:g}"
        name = f"SDR {_sign(measurement)} {threshold:g} {unit}"
        tiles.append(_tile(number(summary[key], 1), "%", name, _interval_lines(summary[f"{key}_interval"], 1)))
    return f'<div class="numbers">{"".join(tiles)}</div>'


def prediction_headline(evaluation: Evaluation) -> str:
    """Tiles of a report without reference.

    Args:
        evaluation: the predicted films.

    Returns:
        HTML.
    """
    points = np.stack([film.result.points_px[:, 0] for film in evaluation.films])
    confidences = [film.result.confidence for film in evaluation.films if film.result.confidence is not None]
    tiles = [
        _tile(str(len(evaluation.films)), "", "Films", key=True),
        _tile(str(int((~np.isnan(points)).sum())), "", "Landmarks found"),
        _tile(str(int(np.isnan(points).sum())), "", "Landmarks not found"),
    ]
    if confidences and np.isfinite(values := np.concatenate(confidences)).any():
        tiles.append(_tile(number(float(np.nanmean(values))), "", "Mean confidence"))
    return f'<div class="numbers">{"".join(tiles)}</div>'


def notices(texts: Sequence[str]) -> str:
    """Sentences that must not be overlooked.

    Args:
        texts: plain text.

    Returns:
        HTML.
    """
    return "".join(f'<p class="notice" role="note">{escape(text)}</p>' for text in texts)


def leak_table(measurement: Measurement, summaries: Mapping[str, Row]) -> str:
    """All films and leak-free films side by side.

    Args:
        measurement: how it was counted.
        summaries: name of the set of films -> its summary.

    Returns:
        HTML.
    """
    unit, sign = measurement.unit, _sign(measurement)
    sdr = [f"sdr{threshold:g}" for threshold in measurement.thresholds]
    heads = ["", "Films", "Landmarks", f"MRE {unit}", "95 % CI", "per film", "Median", "P95"]
    heads += [f"{sign} {threshold:g} {unit}" for threshold in measurement.thresholds]
    rows = []
    for name, summary in summaries.items():
        if not summary["n"]:
            rows.append([Cell(escape(name)), Cell("0"), Cell("0"), *[Cell(DASH)] * (len(heads) - 3)])
            continue
        interval = _interval(summary[f"mre_{unit}_interval"], 2)
        cells = [name, str(summary["films"]), str(summary["n"]), number(summary[f"mre_found_{unit}"]), interval or DASH]
        cells += [number(summary[f"{key}_{unit}"]) for key in ("mre", "median", "p95")]
        cells[5] = number(summary[f"mre_found_{unit}_per_film"])
        rows.append([Cell(escape(text)) for text in (*cells, *(percent(summary[key]) for key in sdr))])
    hint = (
        "Some films show (almost) the same picture as a film of another split. Leak-free figures leave these out; "
        "they are the ones to trust."
    )
    return section("With and without near-duplicates", f'<div class="scroll">{table(heads, rows)}</div>', hint=hint)


def curve_section(measurement: Measurement, info: ReportInfo, leak_free: bool) -> str:
    """Cumulative error curve.

    Args:
        measurement: the errors.
        info: may hold the distance between readers.
        leak_free: draw a second curve without the near-duplicates.

    Returns:
        HTML.
    """
    evaluation = measurement.evaluation
    curves = {"all films": evaluation.errors}
    if leak_free:
        curves["leak-free films"] = evaluation.errors[evaluation.leak_free]
    marker = None
    if info.inter_reader_mm is not None and measurement.unit == "mm":
        marker = (info.inter_reader_mm, f"two readers {info.inter_reader_mm:.2f} mm")
    plot = cumulative_curve(curves, measurement.thresholds, measurement.unit, marker)
    keys = [f'<span class="key-line c{index}"></span>{name}' for index, name in enumerate(curves)]
    legend = f'<p class="legend">{" ".join(keys)}</p>' if leak_free else ""
    hint = "Share of annotated landmarks within a distance of the reference. Dotted: the stated thresholds."
    return section("Cumulative error", legend + plot, hint=hint)


def measured_section(measurement: Measurement, info: ReportInfo, summary: Row) -> str:
    """How the numbers came about: what a reader must know to compare them with others.

    Args:
        measurement: how it was counted.
        info: reader, split, distance between readers.
        summary: of all films.

    Returns:
        HTML.
    """
    unit, evaluation = measurement.unit, measurement.evaluation
    leaks = int((~evaluation.leak_free).sum())
    readers = "" if info.inter_reader_mm is None else f"{info.inter_reader_mm:.2f} mm {info.inter_reader_note}"
    whole = "patients" if measurement.patients else "films"
    spacing = "native pixels, sub-pixel, each axis by its own spacing" if unit == "mm" else "native pixels, sub-pixel"
    missing = f"{summary['missing']} of {summary['n']}; failures in rates, infinitely far in quantiles, not in means"
    entries = [
        ("Reference", escape(info.reader)),
        ("Split", escape(info.split)),
        ("Measured", f"{summary['films']} films, {summary['n']} landmarks"),
        ("Pixel grid", f"the original film: {spacing}"),
        ("Tie rule", f"success means error {escape(_sign(measurement))} threshold"),
        ("Pooled mean", f"{number(summary[f'mre_found_{unit}'], 3)} {unit} over all landmarks"),
        ("Per-film mean", f"{number(summary[f'mre_found_{unit}_per_film'], 3)} {unit}, mean of the films' means"),
        ("Interval", f"bootstrap, 2,000 draws of whole {whole}"),
        ("Not found", missing if summary["missing"] else "none"),
        ("Two readers", escape(readers)),
        ("Near-duplicates", f"{leaks} films resemble a film of another split" if leaks else "none stated"),
    ]
    return section("How it was measured", definitions(entries))


def landmark_table(measurement: Measurement, rows: Sequence[Row], summary: Row) -> str:
    """One row per landmark, sortable, with bars for mean error and first success rate.

    Args:
        measurement: how it was counted.
        rows: :meth:`Measurement.landmark_rows`.
        summary: of all films, the last line.

    Returns:
        HTML.
    """
    unit, sign = measurement.unit, _sign(measurement)
    sdr = [f"sdr{threshold:g}" for threshold in measurement.thresholds]
    largest = max((row[f"mre_{unit}"] or 0.0 for row in rows), default=0.0) or 1.0
    titles = {"n": "n", "missing": "Not found", "not_annotated": "Not annotated"}
    counted = [key for key in titles if key == "n" or any(row[key] for row in rows)]
    heads = ["Landmark", *(titles[key] for key in counted), f"MRE {unit}", f"Median {unit}", f"P95 {unit}"]
    heads += [f"{sign} {threshold:g} {unit}" for threshold in measurement.thresholds]
    cells = []
    for row in rows:
        name = Cell(escape(landmark_title(row["landmark"])))
        counts = [Cell(str(row[key]) if row[key] else DASH, row[key]) for key in counted]
        mean = row[f"mre_{unit}"]
        numbers = [Cell(number(mean), mean, None if mean is None else mean / largest)]
        numbers += [Cell(number(row[key]), row[key]) for key in (f"median_{unit}", f"p95_{unit}")]
        rates = [Cell(number(row[key], 1), row[key], None if row[key] is None else row[key] / 100) for key in sdr]
        cells.append([name, *counts, *numbers, *rates])
    total = ["All", *(sum(row[key] for row in rows) for key in counted)]
    total += [number(summary[key]) for key in (f"mre_found_{unit}", f"median_{unit}", f"p95_{unit}")]
    total += [number(summary[key], 1) for key in sdr]
    foot = "<tfoot><tr>" + "".join(f"<td>{text}</td>" for text in total) + "</tr></tfoot></table>"
    html = table(heads, cells, kind="sortable").removesuffix("</table>") + foot
    hint = (
        "Click a heading to sort. MRE is the mean radial error of the landmarks that were found; success rates "
        f"({sign} threshold) are in percent."
    )
    return section("Landmarks", f'<div class="scroll">{html}</div>', hint=hint, kind="long")


def roses_section(measurement: Measurement, rows: Sequence[Row]) -> str:
    """Small multiples: where predictions fall around their reference.

    Args:
        measurement: the offsets.
        rows: :meth:`Measurement.landmark_rows`.

    Returns:
        HTML.
    """
    unit, offsets, threshold = measurement.unit, measurement.evaluation.offsets, measurement.thresholds[0]
    radius = rose_radius(offsets, threshold)
    figures = []
    for index, row in enumerate(rows):
        name = landmark_title(row["landmark"])
        rose = error_rose(offsets[:, index], threshold, radius, f"Errors of {name}")
        below = f"{number(row[f'mre_{unit}'])} {unit}" if row["n"] else "not annotated"
        figures.append(f"<figure>{rose}<figcaption>{escape(name)}<span>{below}</span></figcaption></figure>")
    hint = (
        f"Prediction minus reference, seen as on the film: right is right, down is down. Shaded circle "
        f"{threshold:g} {unit}, rim {radius:.1f} {unit}; larger dots on the rim lie farther out. Plus: mean shift."
    )
    return section("Error roses", f'<div class="roses">{"".join(figures)}</div>', hint=hint, kind="long")


def provenance(evaluation: Evaluation, info: ReportInfo, spacing_rows: Sequence[Row]) -> str:
    """Where the numbers come from: spacing sources, model, version, command, date.

    Args:
        evaluation: the films with their models.
        info: command, date and the like.
        spacing_rows: :meth:`Measurement.spacing_rows`.

    Returns:
        HTML.
    """
    rows = [
        [
            Cell(escape(row["spacing_source"])),
            Cell(escape(_SPACING_MEANING[row["spacing_source"]]), kind="text wrap"),
            Cell(_range(row["range_mm"])),
            Cell(str(row["films"]), row["films"], row["films"] / len(evaluation.films)),
        ]
        for row in spacing_rows
    ]
    spacing = table(["Spacing source", "Meaning", "mm per pixel", "Films"], rows, text_columns={1})
    details = definitions([(term, html) for term, html in _origins(evaluation, info)])
    return section("Where it comes from", f'<div class="scroll">{spacing}</div>{details}')


def _origins(evaluation: Evaluation, info: ReportInfo) -> list[tuple[str, str]]:
    results = [film.result for film in evaluation.films]

    def distinct(values: Sequence[Any]) -> str:
        """Each value once, in the order of the films."""
        return ", ".join(dict.fromkeys(str(value) for value in values if value))

    hashes = distinct([result.model_sha256 for result in results])
    return [
        ("Data set", escape(info.dataset)),
        ("Landmark schema", escape(distinct([result.schema for result in results]))),
        ("Model", escape(distinct([result.model_name for result in results]))),
        ("Weights SHA-256", f"<code>{escape(hashes)}</code>" if hashes else ""),
        ("Labeled films", "" if info.labels is None else str(info.labels)),
        ("Initialization", escape(info.initialization)),
        ("Seeds", escape(", ".join(map(str, info.seeds)))),
        ("Package version", escape(distinct([result.version for result in results]))),
        ("Command", f"<code>{escape(info.command)}</code>" if info.command else ""),
        ("Commit", f"<code>{escape(info.commit)}</code>" if info.commit else ""),
        ("Machine", escape(info.machine)),
        ("Date", escape(info.date)),
    ]


def _range(ends: Sequence[float] | None) -> str:
    if ends is None:
        return DASH
    return f"{ends[0]:.4g}" if ends[0] == ends[1] else f"{ends[0]:.4g}{DASH}{ends[1]:.4g}"
