"""Pictures of a study: error over labels, cumulative curves, landmark by landmark, and every pair of starts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_landmark.metrics import summarize_errors
from monai_landmark.study.grid import Study
from monai_landmark.study.table import THRESHOLDS_MM, StudyRow

__all__ = ["write_figures"]

# Okabe and Ito's palette, which people who see colors differently can tell apart
_COLORS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
_MARKERS = "osD^vPX*"
_STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}


def write_figures(study: Study, rows: Sequence[StudyRow], folder: Path) -> list[Path]:
    """Draw what the finished rows allow, as SVG for documents and PNG for everything else.

    Args:
        study: the study.
        rows: see :func:`monai_landmark.study.table.gather`.
        folder: made if absent.

    Returns:
        The PNG files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with mpl.rc_context(_STYLE):
        for dataset in study.target or study.datasets:
            own = [row for row in rows if row.cell.dataset == dataset]
            if not own:
                continue
            drawn = {"labels": _over_labels(study, own)}
            for labels in sorted({row.cell.labels for row in own}):
                group = [row for row in own if row.cell.labels == labels]
                name = str(labels or "all")
                drawn[f"cumulative_{name}"] = _cumulative(study, group)
                drawn[f"landmarks_{name}"] = _forest(study, group)
                if len(group) > 1:
                    drawn[f"pairs_{name}"] = _pairs(study, group)
            for name, figure in drawn.items():
                path = folder / f"{dataset}_{name}.png"
                figure.savefig(path, dpi=150, bbox_inches="tight")
                figure.savefig(path.with_suffix(".svg"), bbox_inches="tight")
                found.append(path)
    return found


def _look(study: Study, row: StudyRow) -> dict[str, Any]:
    """Color and marker of an initialization; a dashed line for a frozen network."""
    index = list(study.initializations).index(row.cell.initialization)
    style = "-" if row.cell.mode == "full" else "--"
    return {"color": _COLORS[index % len(_COLORS)], "marker": _MARKERS[index % len(_MARKERS)], "linestyle": style}


def _title(row: StudyRow) -> str:
    return row.cell.initialization + ("" if row.cell.mode == "full" else ", frozen")


def _unit(row: StudyRow) -> str:
    return "mm" if row.unit == "mm" else "% of the diagonal"


def _over_labels(study: Study, rows: Sequence[StudyRow]) -> Figure:
    """Mean error over the number of labels; the band is from the lowest to the highest seed."""
    figure, axes = _canvas(6.4, 4.2)
    measure = next(iter(rows[0].measures))
    lines: dict[str, list[StudyRow]] = {}
    for row in rows:
        lines.setdefault(_title(row), []).append(row)
    for name, line in lines.items():
        line = sorted(line, key=_label_count)
        values = [row.values[measure] for row in line]
        x, look = [_label_count(row) for row in line], _look(study, line[0])
        axes.plot(x, [np.mean(v) for v in values], label=name, markersize=5, **look)
        axes.fill_between(x, [min(v) for v in values], [max(v) for v in values], color=look["color"], alpha=0.15, lw=0)
    if between := rows[0].cells[0].facts.get("inter_reader_mm"):
        axes.axhline(between, color="0.4", lw=1, ls=":", zorder=0)
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
        axes.annotate("between the readers", (1, between), color="0.4", **place)
    ticks = sorted({_label_count(row) for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="annotated films", ylabel=f"mean radial error, {_unit(rows[0])}", ylim=(0, None))
    axes.legend(frameon=False)
    return figure


def _label_count(row: StudyRow) -> int:
    return int(row.cells[0].facts.get("labels") or row.cell.labels)


def _cumulative(study: Study, rows: Sequence[StudyRow]) -> Figure:
    """Share of landmarks within a distance, all seeds pooled."""
    figure, axes = _canvas(6.4, 4.2)
    end = 2 * max(THRESHOLDS_MM) if rows[0].unit == "mm" else 8.0
    for row in rows:
        errors = np.concatenate([one.errors.to_numpy().ravel() for one in row.cells])
        errors = np.sort(errors[~np.isnan(errors)])
        grid = np.linspace(0, end, 400)
        look = {**_look(study, row), "marker": None}
        axes.plot(grid, 100 * np.searchsorted(errors, grid, side="right") / len(errors), label=_title(row), **look)
    for threshold in THRESHOLDS_MM if rows[0].unit == "mm" else ():
        axes.axvline(threshold, color="0.85", lw=0.8, zorder=0)
    axes.set(xlabel=f"radial error, {_unit(rows[0])}", ylabel="landmarks within, %", xlim=(0, end), ylim=(0, 100))
    axes.legend(frameon=False, loc="lower right", title=_budget(rows[0]))
    return figure


def _budget(row: StudyRow) -> str:
    count = _label_count(row)
    return f"{count} annotated film{'' if count == 1 else 's'}"


def _forest(study: Study, rows: Sequence[StudyRow]) -> Figure:
    """Every landmark's mean error with its 95 % interval over films, initializations beside each other."""
    names = [str(name) for name in rows[0].cells[0].errors.columns]
    figure, axes = _canvas(6.4, 0.9 + 0.1 * len(names) * (len(rows) + 1))
    for index, row in enumerate(rows):
        films = np.mean([one.errors.loc[row.cells[0].errors.index].to_numpy() for one in row.cells], axis=0)
        found = [summarize_errors(films[:, [k]]) for k in range(len(names))]
        means = np.array([one["mre_mm"] for one in found])
        sides = np.abs(np.array([one["mre_mm_interval"] for one in found]).T - means)
        y = np.arange(len(names)) + (index - (len(rows) - 1) / 2) * 0.8 / len(rows)
        look = {**_look(study, row), "linestyle": "none"}
        axes.errorbar(means, y, xerr=sides, label=_title(row), markersize=3, elinewidth=0.8, **look)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(xlabel=f"mean radial error, {_unit(rows[0])}, with 95 % interval", xlim=(0, None))
    axes.grid(axis="x", color="0.9", lw=0.6)
    axes.legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left", title=_budget(rows[0]))
    return figure


def _pairs(study: Study, rows: Sequence[StudyRow]) -> Figure:
    """By how much a row's error is smaller than a column's, paired by film; bold where the interval is free of 0."""
    count, names = len(rows), [_title(row) for row in rows]
    gains = np.full((count, count), np.nan)
    figure, axes = _canvas(0.09 * max(map(len, names)) + 1.0 * count + 0.8, 0.9 + 0.5 * count)
    for i, j in itertools.combinations(range(count), 2):
        if (gain := StudyRow(rows[i].cells, rows[j].cells).gain) is None:
            continue
        low, high = gain.interval
        for row, column, values in ((i, j, (gain.gain, low, high)), (j, i, (-gain.gain, -high, -low))):
            gains[row, column] = values[0]
            weight = "bold" if low * high > 0 else "normal"
            axes.text(column, row - 0.02, f"{values[0]:+.2f}", ha="center", va="bottom", fontsize=8, fontweight=weight)
            axes.text(column, row + 0.08, f"{values[1]:.2f} to {values[2]:.2f}", ha="center", va="top", fontsize=6)
    limit = np.nanmax(np.abs(gains), initial=1e-9)
    axes.imshow(gains, cmap="PuOr_r", vmin=-1.8 * limit, vmax=1.8 * limit, aspect="auto")
    axes.set_xticks(range(count), names, rotation=30, ha="left")
    axes.set_yticks(range(count), names)
    axes.xaxis.tick_top()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel(f"{_unit(rows[0])} by which the row is better than the column; {_budget(rows[0])}")
    return figure


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()
