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
from monai_landmark.results.evaluation import Evaluation
from monai_landmark.results.html import DASH, Cell, number, section, table
from monai_landmark.results.measurements import UNITS, Kind, kind_of, measure_points, measured_sd
from monai_landmark.results.result import LandmarkResult

__all__ = ["Agreement", "agreement_rows", "agreement_section", "measure_agreement", "reader_names", "two_readers"]

FloatArray = NDArray[np.float64]
Readings = tuple[FloatArray, FloatArray]

_SIGNS = {"deg": "\N{DEGREE SIGN}", "mm": " mm", "1": ""}
_DIGITS = {"deg": 2, "mm": 2, "1": 3}
_EXPECTED = (
    " Expected SD is what the landmarks' own expected errors give, the films' median; Held is the share of films whose "
    "reference lies within 1.96 of its own film's expected SD, 95 % if they are right and normal."
)


@dataclass(frozen=True, eq=False)
class Agreement:
    """One measure on a set of films, as measured by two.

    Args:
        name: as the schema calls it.
        kind: angle, distance or ratio.
        readings: ``(N,)`` from the reference and ``(N,)`` from the prediction, films where both are known.
        readers: ``(M,)`` from the first and ``(M,)`` from the second reader, films where both are known.
        expected: ``(N,)`` standard deviation that each prediction expects of itself, NaN when unknown.
    """

    name: str
    kind: Kind
    readings: Readings
    readers: Readings
    expected: FloatArray

    @property
    def expected_sd(self) -> float:
        """Median of the expected standard deviations, NaN when unknown: a few lost films would rule a mean square."""
        known = self.expected[np.isfinite(self.expected)]
        return float(np.median(known)) if known.size else float("nan")

    @property
    def held_percent(self) -> float:
        """Share of films whose reference lies within 1.96 expected SD of the prediction; 95 if all is normal."""
        known = np.isfinite(self.expected)
        off = np.abs(self.readings[1] - self.readings[0])[known]
        return 100.0 * float((off <= 1.96 * self.expected[known]).mean()) if off.size else float("nan")


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
    predicted, reference, expected = [], [], []
    first, second = [], []
    for film in evaluation.films:
        spacing = film.result.spacing_mm
        if film.reference_px is not None:
            predicted.append(measure_points(film.result.points_px, schema, spacing))
            reference.append(measure_points(film.reference_px, schema, spacing))
            expected.append(_expected_sd(film.result, schema))
        if readers and film.result.film in readers:
            one, other = readers[film.result.film]
            first.append(measure_points(one, schema, spacing))
            second.append(measure_points(other, schema, spacing))
    found = []
    for name in [*schema.angles, *schema.distances, *schema.ratios]:
        *readings, spread = _known(name, reference, predicted, expected)
        if len(spread) > 1:
            between = _known(name, first, second)
            found.append(
                Agreement(name, kind_of(schema, name), (readings[0], readings[1]), (between[0], between[1]), spread)
            )
    return found


def _known(name: str, *columns: Sequence[Mapping[str, float]]) -> tuple[FloatArray, ...]:
    """One measure of several columns of films: those films whose first two values are known."""
    values = np.array([[film[name] for film in films] for films in columns]).reshape(len(columns), -1)
    return tuple(values[:, np.isfinite(values[:2]).all(axis=0)])


def _expected_sd(result: LandmarkResult, schema: LandmarkSchema) -> Mapping[str, float]:
    if result.spacing_mm is None or result.expected_error_mm is None:
        return dict.fromkeys([*schema.angles, *schema.distances, *schema.ratios], float("nan"))
    return measured_sd(result.points_px, schema, result.spacing_mm, result.expected_error_mm)


def agreement_rows(agreements: Sequence[Agreement]) -> list[dict[str, Any]]:
    """The numbers of the section as ``metrics.json`` holds them.

    Args:
        agreements: see :func:`measure_agreement`.

    Returns:
        One row per measure: ``measure, kind, unit, expected_sd, held_percent``, and under ``prediction`` and
        ``readers`` (None without two readers) ``n, icc, icc_interval, bias, bias_interval, sd, limits,
        lower_interval, upper_interval``.
    """
    return [
        {
            "measure": one.name,
            "kind": one.kind,
            "unit": UNITS[one.kind],
            "expected_sd": one.expected_sd,
            "held_percent": one.held_percent,
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
    hint += _EXPECTED if expected else ""
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
    html = table(heads + ["Expected SD", "Held %"] * expected, rows, kind="sortable")
    return f'<div class="scroll">{html}</div>'


def _cells(one: Agreement, readings: Readings, expected: bool = False) -> list[Cell]:
    unit, digits = UNITS[one.kind], _DIGITS[UNITS[one.kind]]
    icc, spread = _compare(readings)
    cells = [Cell(escape(landmark_title(one.name))), Cell(str(spread.films), spread.films)]
    cells += [Cell(number(icc.value, 3), icc.value), Cell(_range(icc.interval, 2))]
    cells += [Cell(_measure(spread.bias, unit), spread.bias), Cell(_range(spread.bias_interval, digits))]
    cells += [Cell(_range((spread.lower, spread.upper), digits)), Cell(number(spread.sd, digits), spread.sd)]
    if expected:
        held = Cell(number(one.held_percent, 1), one.held_percent)
        cells += [Cell(number(one.expected_sd, digits), one.expected_sd), held]
    return cells


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
