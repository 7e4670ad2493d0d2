"""The report's films: pictures to click on, and a table of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from monai_landmark.results.canvas import landmark_title
from monai_landmark.results.html import DASH, Cell, number, section, table
from monai_landmark.results.table import Measurement, Row

__all__ = ["film_table", "gallery"]


def gallery(
    groups: Mapping[str, Sequence[int]], pictures: Mapping[int, tuple[str, str]], compared: bool, regions: str = ""
) -> str:
    """Films with their landmarks, to click on.

    Args:
        groups: heading -> rows of ``pictures``; an empty heading is not shown.
        pictures: row -> (svg, caption as HTML).
        compared: whether reference points are drawn.
        regions: what the rings about the points promise; empty when there are none.

    Returns:
        HTML.
    """
    legend = '<span><i class="ring">\N{WHITE CIRCLE}</i>predicted</span>'
    if compared:
        legend += '<span><i class="x">\N{MULTIPLICATION SIGN}</i>reference</span>'
    if regions:
        legend += f'<span><i class="ring">\N{LARGE CIRCLE}</i>{escape(regions)}</span>'
        legend += '<span><i class="x">\N{DOTTED CIRCLE}</i>to be looked at</span>'
    parts = [f'<p class="legend">{legend}<span>click a film to enlarge it</span></p>']
    for heading, rows in groups.items():
        parts.append((f"<h3>{escape(heading)}</h3>" if heading else "") + '<div class="films">')
        for row in rows:
            svg, caption = pictures[row]
            button = f'<button type="button" aria-label="Enlarge this film">{svg}</button>'
            parts.append(f"<figure>{button}<figcaption>{caption}</figcaption></figure>")
        parts.append("</div>")
    return section("Films", "".join(parts), kind="long")


def film_table(measurement: Measurement, rows: Sequence[Row]) -> str:
    """Every film, sortable.

    Args:
        measurement: unit and whether there is a reference.
        rows: :meth:`Measurement.film_rows`.

    Returns:
        HTML.
    """
    unit, compared = measurement.unit, measurement.evaluation.has_reference
    leaks = any(row["near_duplicates"] for row in rows)
    referred = any(row["refer"] is not None for row in rows)
    largest = max((row[f"mean_{unit}"] or 0.0 for row in rows), default=0.0) or 1.0
    heads = ["Film", "Found", "Confidence"] + (["To look at"] if referred else [])
    heads += [f"Mean {unit}", f"Largest {unit}", "Where"] if compared else []
    heads += ["Spacing mm", "Source"] + (["Near-duplicate of"] if leaks else [])
    cells = []
    for row in rows:
        line = [Cell(escape(row["film"]), kind="wrap"), Cell(f"{row['found']}/{row['landmarks']}", row["found"])]
        line.append(Cell(number(row["confidence"]), row["confidence"]))
        if referred:
            line.append(Cell(DASH if row["refer"] is None else str(row["refer"]), row["refer"]))
        if compared:
            mean, worst = row[f"mean_{unit}"], row["worst_landmark"]
            line.append(Cell(number(mean), mean, None if mean is None else mean / largest))
            line.append(Cell(number(row[f"max_{unit}"]), row[f"max_{unit}"]))
            line.append(Cell(escape(landmark_title(worst or DASH)), kind="text"))
        line += [_spacing_cell(row["spacing_mm"]), Cell(escape(row["spacing_source"]), kind="text")]
        chips = "".join(f'<span class="chip">{escape(name)}</span> ' for name in row["near_duplicates"])
        line += [Cell(chips or DASH, kind="text")] if leaks else []
        cells.append(line)
    text = {heads.index(head) for head in ("Where", "Source", "Near-duplicate of") if head in heads}
    html = table(heads, cells, text_columns=text, kind="sortable")
    return section("All films", f'<div class="scroll tall">{html}</div>', hint="Click a heading to sort.", kind="long")


def _spacing_cell(spacing: Sequence[float] | None) -> Cell:
    if spacing is None:
        return Cell(DASH, None)
    row_mm, col_mm = spacing
    text = f"{row_mm:.4g}" if row_mm == col_mm else f"{row_mm:.4g} \N{MULTIPLICATION SIGN} {col_mm:.4g}"
    return Cell(text, row_mm)
