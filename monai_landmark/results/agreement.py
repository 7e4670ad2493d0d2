"""The report's section on measurements: prediction against reference and reader against reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_landmark.data.datalist import landmarks_array
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.metrics import BlandAltman, IntraclassCorrelation, bland_altman, intraclass_correlation
from monai_landmark.results.canvas import landmark_title
from monai_landmark.results.evaluation import EvaluatedFilm, Evaluation
from monai_landmark.results.html import DASH, Cell, number, section, table
from monai_landmark.results.measurements import UNITS, Kind, kind_of, measure_points, measured_sd

__all__ = ["Agreement", "agreement_rows", "agreement_section", "measure_agreement", "reader_names", "two_readers"]

FloatArray = NDArray[np.float64]
Readings = tuple[FloatArray, FloatArray]

_SIGNS = {"deg": "\N{DEGREE SIGN}", "mm": " mm", "1": ""}
_DIGITS = {"deg": 2, "mm": 2, "1": 3}


@dataclass(frozen=True, eq=False)
class Agreement:
    """One measure on a set of films, as measured by two.

    Args:
        name: as the schema calls it.
        kind: angle, distance or ratio.
        readings: ``(N,)`` from the reference and ``(N,)`` from the prediction, films where both are known.
        readers: ``(M,)`` from the first and ``(M,)`` from the second reader, films where both are known.
        expected_sd: root mean square of the predictions' expected standard deviations, NaN when unknown.
    """

    name: str
    kind: Kind
    readings: Readings
    readers: Readings
    expected_sd: float


def reader_names(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who the first two readers of a datalist's section are, by name.

    Args:
        items: of a datalist.

    Returns:
        At most two names.
    """
    return sorted({name for item in items for name in item.get("readers", {})})[:2]


def two_readers(items: Sequence[Mapping[str, Any]]) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Landmarks by the first two readers of a datalist's section, by name.

    Args:
        items: of a datalist.

    Returns:
        Film id -> ``(K, 2)`` by each, in original pixels; only films that both have read.
    """
    names = reader_names(items)
    if len(names) < 2:
        return {}
    both = [item for item in items if all(name in item.get("readers", {}) for name in names)]
    return {item["id"]: (landmarks_array(item, names[0]), landmarks_array(item, names[1])) for item in both}


def measure_agreement(
    evaluation: Evaluation,
    schema: LandmarkSchema | None,
    readers: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
) -> list[Agreement]:
    """Measure every film by prediction, reference and two readers.

    Args:
        evaluation: predictions and references.
        schema: says what is measured; None, or a schema of other landmarks, measures nothing.
        readers: film id -> ``(K, 2)`` by two readers in original pixels.

    Returns:
        The measures that at least two films have from prediction and reference.
    """
    if schema is None or evaluation.names != schema.landmarks:
        return []
    predicted, reference = [], []
    first, second = [], []
    for film in evaluation.films:
        spacing = film.result.spacing_mm
        if film.reference_px is not None:
            predicted.append(measure_points(film.result.points_px, schema, spacing))
            reference.append(measure_points(film.reference_px, schema, spacing))
        if readers and film.result.film in readers:
            one, other = readers[film.result.film]
            first.append(measure_points(one, schema, spacing))
            second.append(measure_points(other, schema, spacing))
    spread = _expected_sd(evaluation.films, schema)
    found = []
    for name in [*schema.angles, *schema.distances, *schema.ratios]:
        readings = _both(reference, predicted, name)
        if len(readings[0]) > 1:
            between = _both(first, second, name)
            found.append(Agreement(name, kind_of(schema, name), readings, between, spread.get(name, float("nan"))))
    return found


def _both(first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]], name: str) -> Readings:
    pairs = np.array([(one[name], other[name]) for one, other in zip(first, second, strict=True)]).reshape(-1, 2)
    known = pairs[np.isfinite(pairs).all(axis=1)]
    return known[:, 0], known[:, 1]


def _expected_sd(films: Sequence[EvaluatedFilm], schema: LandmarkSchema) -> dict[str, float]:
    """Root mean square over the measured films of what their landmarks' expected errors give."""
    spreads = [
        measured_sd(film.result.points_px, schema, film.result.spacing_mm, film.result.expected_error_mm)
        for film in films
        if film.reference_px is not None
        and film.result.spacing_mm is not None
        and film.result.expected_error_mm is not None
    ]
    values = {name: np.array([spread[name] for spread in spreads]) for name in (spreads[0] if spreads else {})}
    return {
        name: float(np.sqrt(np.square(column[np.isfinite(column)]).mean()))
        for name, column in values.items()
        if np.isfinite(column).any()
    }


def agreement_rows(agreements: Sequence[Agreement]) -> list[dict[str, Any]]:
    """The numbers of the section as ``metrics.json`` holds them.

    Args:
        agreements: see :func:`measure_agreement`.

    Returns:
        One row per measure: ``measure, kind, unit, expected_sd``, and under ``prediction`` and ``readers`` (None
        without two readers) ``n, icc, icc_interval, bias, bias_interval, sd, limits, lower_interval, upper_interval``.
    """
    return [
        {
            "measure": one.name,
            "kind": one.kind,
            "unit": UNITS[one.kind],
            "expected_sd": one.expected_sd,
            "prediction": _numbers(one.readings),
            "readers": _numbers(one.readers) if len(one.readers[0]) > 1 else None,
        }
        for one in agreements
    ]


def _numbers(readings: Readings) -> dict[str, Any]:
    icc, spread = _compare(readings)
    return {
        "n": spread.films,
        "icc": icc.value,
        "icc_interval": icc.interval,
        "bias": spread.bias,
        "bias_interval": spread.bias_interval,
        "sd": spread.sd,
        "limits": (spread.lower, spread.upper),
        "lower_interval": spread.lower_interval,
        "upper_interval": spread.upper_interval,
    }


def _compare(readings: Readings) -> tuple[IntraclassCorrelation, BlandAltman]:
    return intraclass_correlation(np.stack(readings, axis=1)), bland_altman(*readings)


def agreement_section(agreements: Sequence[Agreement]) -> str:
    """Table and Bland-Altman plots of every measure.

    Args:
        agreements: see :func:`measure_agreement`.

    Returns:
        HTML; empty when nothing was measured.
    """
    if not agreements:
        return ""
    both = [one for one in agreements if len(one.readers[0]) > 1]
    expected = any(np.isfinite(one.expected_sd) for one in agreements)
    hint = (
        "Bias is prediction minus reference (second minus first reader); 95 % of the differences lie within the limits "
        "of agreement (Bland-Altman, if they are normal). ICC(2,1) is absolute agreement of single readings. Intervals "
        "take films as independent. Films without a pixel spacing count for angles and ratios only, their pixels taken "
        "as square."
    )
    hint += " Expected SD is what the landmarks' own expected errors give, to be held against SD." if expected else ""
    body = _table([_cells(one, one.readings, expected) for one in agreements], expected)
    body = f"<h3>Prediction against reference</h3>{body}" if both else body
    if both:
        body += "<h3>Reader against reader</h3>" + _table([_cells(one, one.readers) for one in both])
    legend = (
        '<p class="legend"><span><i class="key-line"></i>bias</span><span><i class="key-line c1"></i>limits of '
        "agreement, with their 95 % confidence intervals</span>"
    )
    legend += '<span><i class="key-band"></i>two readers\N{RIGHT SINGLE QUOTATION MARK} limits</span>' if both else ""
    figures = "".join(_figure(one) for one in agreements)
    body += (
        f'<h3>Prediction minus reference, against their mean</h3>{legend}</p><div class="agreements">{figures}</div>'
    )
    return section("Measurements", body, hint=hint, kind="long")


def _table(rows: Sequence[Sequence[Cell]], expected: bool = False) -> str:
    heads = ["Measure", "Films", "ICC(2,1)", "95 % CI", "Bias", "95 % CI", "Limits of agreement", "SD"]
    html = table(heads + ["Expected SD"] * expected, rows, kind="sortable")
    return f'<div class="scroll">{html}</div>'


def _cells(one: Agreement, readings: Readings, expected: bool = False) -> list[Cell]:
    unit, digits = UNITS[one.kind], _DIGITS[UNITS[one.kind]]
    icc, spread = _compare(readings)
    cells = [Cell(escape(landmark_title(one.name))), Cell(str(spread.films), spread.films)]
    cells += [Cell(number(icc.value, 3), icc.value), Cell(_range(icc.interval, 2))]
    cells += [Cell(_measure(spread.bias, unit), spread.bias), Cell(_range(spread.bias_interval, digits))]
    cells += [Cell(_range((spread.lower, spread.upper), digits)), Cell(number(spread.sd, digits), spread.sd)]
    return cells + ([Cell(number(one.expected_sd, digits), one.expected_sd)] if expected else [])


def _measure(value: float, unit: str) -> str:
    text = number(value, _DIGITS[unit])
    return text if text == DASH else f"{text}{_SIGNS[unit]}"


def _range(pair: tuple[float, float], digits: int) -> str:
    """``-1.20 to 0.35``: a dash between negative numbers could not be read."""
    return f"{pair[0]:.{digits}f} to {pair[1]:.{digits}f}" if np.isfinite(pair).all() else DASH


def _figure(one: Agreement) -> str:
    unit = UNITS[one.kind]
    _, spread = _compare(one.readings)
    band = _compare(one.readers)[1] if len(one.readers[0]) > 1 else None
    plot = _plot(one, spread, band)
    caption = f"{escape(landmark_title(one.name))}<span>bias {_measure(spread.bias, unit)}</span>"
    return f"<figure>{plot}<figcaption>{caption}</figcaption></figure>"


def _plot(one: Agreement, spread: BlandAltman, readers: BlandAltman | None) -> str:
    """Difference against mean, films as dots; lines for the bias and the limits, a band for two readers' limits."""
    width, height, left, right, top, bottom = 260, 180, 40, 6, 8, 22
    reference, predicted = one.readings
    mean, difference = (reference + predicted) / 2, predicted - reference
    shown = [spread.lower_interval[0], spread.upper_interval[1], 0.0, *difference.tolist()]
    shown += [readers.lower, readers.upper] if readers else []
    (x0, x1), (y0, y1) = _ends(mean), _ends(np.array(shown))

    def at(x: float, y: float) -> tuple[float, float]:
        """Place in the picture."""
        across = left + (width - left - right) * (x - x0) / (x1 - x0)
        return across, top + (height - top - bottom) * (y1 - y) / (y1 - y0)

    def line(kind: str, y: float) -> str:
        """A line across the picture."""
        return f'<path class="{kind}" d="M{left},{at(x0, y)[1]:.1f}H{width - right}"/>'

    def band(kind: str, low: float, high: float) -> str:
        """A band across the picture."""
        upper, lower = at(x0, high)[1], at(x0, low)[1]
        return f'<path class="{kind}" d="M{left},{upper:.1f}H{width - right}V{lower:.1f}H{left}Z"/>'

    title = f"Differences of {landmark_title(one.name)}"
    parts = [f'<svg class="plot agreement" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">']
    parts += [band("between", readers.lower, readers.upper)] if readers else []
    parts += [band("margin", *pair) for pair in (spread.lower_interval, spread.upper_interval)]
    parts.append(line("grid", 0.0))
    dots = "".join("M{:.1f},{:.1f}h0".format(*at(x, y)) for x, y in zip(mean, difference, strict=True))
    parts.append(f'<path class="dots" d="{dots}"/>')
    parts += [line("curve c1", spread.lower), line("curve c1", spread.upper), line("curve c0", spread.bias)]
    digits = _DIGITS[UNITS[one.kind]] - 1
    for value in (spread.lower, 0.0, spread.upper):
        parts.append(f'<text class="tick" x="{left - 4}" y="{at(x0, value)[1] + 4:.1f}" text-anchor="end">')
        parts.append(f"{value:.{digits}f}</text>")
    for x, anchor in ((float(mean.min()), "start"), (float(mean.max()), "end")):
        parts.append(f'<text class="tick" x="{at(x, y0)[0]:.1f}" y="{height - 5}" text-anchor="{anchor}">')
        parts.append(f"{x:.{digits}f}{_SIGNS[UNITS[one.kind]]}</text>")
    return "".join(parts) + "</svg>"


def _ends(values: FloatArray) -> tuple[float, float]:
    """Range of an axis with some room, also where all values are equal."""
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room
