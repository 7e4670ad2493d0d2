"""What a study found: one row for each budget, initialization and mode, its seeds gathered and compared by film."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monai_landmark.data.datalist import Datalist
from monai_landmark.metrics import PairedDifference, paired_difference, summarize_errors
from monai_landmark.results.files import load_results
from monai_landmark.study.grid import Cell, Study, StudyDataset

__all__ = ["CellErrors", "StudyRow", "gather", "markdown", "records", "table_csv"]

FloatArray = NDArray[np.float64]
THRESHOLDS_MM = (2.0, 2.5, 3.0, 4.0)
PARTS = ("", "leakfree_")  # all measured films; those without a near-duplicate among the training films


@dataclass(frozen=True, eq=False)
class CellErrors:
    """Errors of one finished cell, on the films' own pixels.

    Attributes:
        cell: which.
        errors: films x landmarks, in ``unit``: NaN = not annotated, inf = not predicted.
        unit: ``mm``; or ``%`` of the film's diagonal where no film has a spacing.
        leak_free: by film: no near-duplicate in another section.
        patients: by film: whose it is; the film's own name where nobody says.
        facts: of ``metrics.json``: reader, labels, distance between readers.
        done: of ``done.json``: commit, date, machine, seconds.
        seeds: of the draw; of folds all that were measured.
    """

    cell: Cell
    errors: pd.DataFrame
    unit: str
    leak_free: pd.Series
    patients: pd.Series
    facts: Mapping[str, Any]
    done: Mapping[str, Any]
    seeds: tuple[int, ...]

    @classmethod
    def load(cls, cell: Cell, work: Path, patients: Mapping[str, str]) -> CellErrors | None:
        """Read a cell's evaluation.

        Args:
            cell: which.
            work: the study's folder.
            patients: film -> whose it is.

        Returns:
            Its errors; None if it is not finished.
        """
        folder = work / cell.name
        if not (folder / "done.json").is_file():
            return None
        rows = pd.read_csv(folder / "evaluation" / "errors.csv", dtype={"film": str})
        unit = "mm" if rows["error_mm"].notna().any() else "%"
        if unit == "%":
            results = load_results(folder / "evaluation" / "predictions.json")
            diagonal = {result.film: math.hypot(*result.original_size) for result in results}
            rows["error_%"] = 100 * rows["error_px"] / rows["film"].map(diagonal)
        errors = rows.pivot(index="film", columns="landmark", values=f"error_{unit}")[rows["landmark"].unique()]
        return cls(
            cell,
            errors,
            unit,
            ~rows.groupby("film")["near_duplicate"].first().astype(bool),
            pd.Series({film: patients.get(film, film) for film in errors.index}),
            json.loads((folder / "evaluation" / "metrics.json").read_text(encoding="utf-8"))["info"],
            json.loads((folder / "done.json").read_text(encoding="utf-8")),
            (cell.seed,),
        )

    @classmethod
    def pooled(cls, folds: Sequence[CellErrors]) -> CellErrors:
        """The finished folds of a cross-validation as one.

        Args:
            folds: at least one, each with films of its own.

        Returns:
            Their errors.
        """
        commits = " ".join(sorted({fold.done["commit"] for fold in folds}))
        return dataclasses.replace(
            folds[0],
            errors=pd.concat([fold.errors for fold in folds]),
            leak_free=pd.concat([fold.leak_free for fold in folds]),
            patients=pd.concat([fold.patients for fold in folds]),
            done={**folds[0].done, "commit": commits, "date": max(fold.done["date"] for fold in folds)},
            seeds=tuple(seed for fold in folds for seed in fold.seeds),
        )

    def summary(self, part: str = "") -> dict[str, Any]:
        """See :func:`monai_landmark.metrics.summarize_errors`.

        Args:
            part: one of :data:`PARTS`.

        Returns:
            Its numbers, in ``unit``; without films of that part empty.
        """
        films = self.errors[self.leak_free] if part else self.errors
        return summarize_errors(films.to_numpy(), THRESHOLDS_MM) if len(films) else {}


@dataclass(frozen=True, eq=False)
class StudyRow:
    """The finished seeds of one budget, initialization and mode.

    Attributes:
        cells: one for each seed.
        baseline: the same of the study's first initialization, as far as finished.
    """

    cells: Sequence[CellErrors]
    baseline: Sequence[CellErrors] = ()

    @property
    def cell(self) -> Cell:
        """The first seed's."""
        return self.cells[0].cell

    @property
    def unit(self) -> str:
        """Of the errors."""
        return self.cells[0].unit

    @property
    def measures(self) -> dict[str, str]:
        """What is reported, and its unit; rates within millimetres only where there are millimetres."""
        if self.unit != "mm":
            return {"mre_diagonal": "%", "median_diagonal": "%"}
        return {"mre_mm": "mm", "median_mm": "mm"} | {f"sdr{t:g}": "%" for t in THRESHOLDS_MM}

    @cached_property
    def values(self) -> dict[str, list[float]]:
        """Measure, with its part before it -> one value for each seed."""
        found: dict[str, list[float]] = {}
        for part in PARTS:
            summaries = [summary for one in self.cells if (summary := one.summary(part))]
            for measure in self.measures:
                if summaries:
                    found[part + measure] = [one[measure.replace("diagonal", "mm")] for one in summaries]
        return found

    @cached_property
    def gain(self) -> PairedDifference | None:
        """How much smaller the errors are than the first initialization's, on the same films and seeds."""
        ours, theirs = ({one.cell.seed: one.errors for one in cells} for cells in (self.cells, self.baseline))
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds or self.cells[0].cell == self.baseline[0].cell:
            return None
        pairs = [theirs[seed].align(ours[seed], join="inner") for seed in seeds]
        films = set.intersection(*(set(first.index) for first, _ in pairs))
        order = [film for film in pairs[0][0].index if film in films]
        return paired_difference(
            [first.loc[order].to_numpy() for first, _ in pairs],
            [second.loc[order].to_numpy() for _, second in pairs],
            list(self.cells[0].patients[order]),
        )


def gather(study: Study, work: Path) -> list[StudyRow]:
    """All rows that have at least one finished seed.

    Args:
        study: the study.
        work: its folder.

    Returns:
        The rows in the study's order.
    """
    groups: dict[tuple[Any, ...], list[CellErrors]] = {}
    patients = {name: _patients(dataset) for name, dataset in study.datasets.items()}
    for cell in study.cells():
        if (found := CellErrors.load(cell, work, patients[cell.dataset])) is not None:
            groups.setdefault((cell.dataset, cell.labels, cell.initialization, cell.mode), []).append(found)
    groups = {
        key: [CellErrors.pooled(found)] if study.datasets[key[0]].folds else found for key, found in groups.items()
    }
    datasets, starts = list(study.datasets), list(study.initializations)

    def place(key: tuple[Any, ...]) -> tuple[Any, ...]:
        """By dataset, then few labels before many, full before frozen, and the order of the initializations."""
        dataset, labels, start, mode = key
        return datasets.index(dataset), labels or math.inf, study.modes.index(mode), starts.index(start)

    return [
        StudyRow(groups[key], groups.get((key[0], key[1], starts[0], key[3]), ())) for key in sorted(groups, key=place)
    ]


def _patients(dataset: StudyDataset) -> dict[str, str]:
    """Film -> patient, of a dataset's measured part."""
    measured = [
        item for part, item in Datalist.load(dataset.datalist).items() if dataset.folds or part == dataset.section
    ]
    return {item["id"]: item["patient"] for item in measured if item.get("patient")}


def records(study: Study, rows: Sequence[StudyRow], command: str = "") -> list[dict[str, Any]]:
    """Result records, see docs/design.md section 8.

    Args:
        study: the study.
        rows: see :func:`gather`.
        command: that made them.

    Returns:
        One for each number.
    """
    return [record for row in rows for record in _row_records(study, row, command)]


def _row_records(study: Study, row: StudyRow, command: str) -> list[dict[str, Any]]:
    cell, dataset, facts = row.cell, study.datasets[row.cell.dataset], row.cells[0].facts
    place = f"{cell.dataset}/{dataset.split or dataset.section}/{cell.labels or 'all'}/{cell.initialization}"
    place += "/finetune" if cell.mode == "full" else "/probe"
    done = [one.done for one in row.cells]
    shared = {
        "seeds": [seed for one in row.cells for seed in one.seeds],
        "command": command,
        "commit": " ".join(sorted({one["commit"] for one in done})),
        "date": max(one["date"] for one in done),
        "machine": done[0]["machine"],
        "split": dataset.split or facts.get("split") or dataset.section,
        "reader": facts.get("reader") or "",
        "labels": facts.get("labels") or cell.labels,
        "notes": "native pixels, <=, pooled over points" + (f", {dataset.folds} folds" if dataset.folds else ""),
    }
    films = row.cells[0].leak_free
    found = []
    for name, values in row.values.items():
        leak_free = name.startswith("leakfree_")
        found.append(
            {
                "name": f"{place}/{name}",
                "value": round(statistics.mean(values), 4),
                "unit": row.measures[name.removeprefix("leakfree_")],
                "n": int(films.sum()) if leak_free else len(films),
                "interval": [round(min(values), 4), round(max(values), 4)],
                "near_duplicates": "left out" if leak_free else "kept",
                **shared,
            }
        )
    if row.gain is not None:
        found.append(_gain_record(row.gain, row.unit, place, shared))
    return found


def _gain_record(gain: PairedDifference, unit: str, place: str, shared: Mapping[str, Any]) -> dict[str, Any]:
    low, high = gain.effect_interval
    notes = f"{shared['notes']}; the first initialization's error minus this one's, paired by film, 95 % interval; "
    notes += f"effect {gain.effect:.2f} ({low:.2f} to {high:.2f}), p {gain.p_value:.2g}"
    return {
        "name": f"{place}/gain_{'mm' if unit == 'mm' else 'diagonal'}",
        "value": round(gain.gain, 4),
        "unit": unit,
        "n": gain.films,
        "interval": [round(limit, 4) for limit in gain.interval],
        "near_duplicates": "kept",
        **shared,
        "notes": notes,
    }


def table_csv(rows: Sequence[StudyRow]) -> str:
    """One line for each row: means, lowest and highest seed, gain and effect with their intervals.

    Args:
        rows: see :func:`gather`.

    Returns:
        CSV with header.
    """
    lines = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(column for line in lines for column in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(row: StudyRow) -> dict[str, Any]:
    cell = row.cell
    line: dict[str, Any] = {"dataset": cell.dataset, "labels": cell.labels or "all"}
    line |= {"initialization": cell.initialization, "mode": cell.mode}
    line |= {"seeds": len(row.cells), "films": len(row.cells[0].leak_free)}
    for name, values in row.values.items():
        line |= {name: statistics.mean(values), f"{name}_lowest": min(values), f"{name}_highest": max(values)}
    if (gain := row.gain) is not None:
        line |= {"gain": gain.gain, "gain_low": gain.interval[0], "gain_high": gain.interval[1]}
        line |= {"effect": gain.effect, "effect_low": gain.effect_interval[0], "effect_high": gain.effect_interval[1]}
        line |= {"p_value": gain.p_value, "better_films": gain.better}
    return line


def markdown(study: Study, rows: Sequence[StudyRow]) -> str:
    """The table for people, with what a reader must know to judge it.

    Args:
        study: the study.
        rows: see :func:`gather`.

    Returns:
        Markdown.
    """
    parts = [f"# {study.name}\n"]
    for dataset in study.target or study.datasets:
        own = [row for row in rows if row.cell.dataset == dataset]
        if own:
            parts.append(f"## {dataset}\n\n{_conditions(study, own)}\n\n{_lines(study, own)}\n")
    return "\n".join(parts)


def _conditions(study: Study, rows: Sequence[StudyRow]) -> str:
    facts, films = rows[0].cells[0].facts, rows[0].cells[0].leak_free
    unit = "mm" if rows[0].unit == "mm" else "percent of the film's diagonal (no spacing is known)"
    folds = study.datasets[rows[0].cell.dataset].folds
    split = f"cross-validation, {folds} folds, pooled" if folds else facts.get("split")
    said = [
        f"Target: {facts.get('reader') or 'the one reader there is'}",
        f"measured on {len(films)} films ({split}), of which {int(films.sum())} have no near-duplicate among the "
        "training films (leak-free)",
        f"errors in {unit} on the films' own pixels, pooled over points, rates with <=",
        "labels count those that validate",
        "values are means over the seeds with the lowest and the highest seed",
        f"gain: {next(iter(study.initializations))} minus the row, on the same films and seeds, with the 95 % interval "
        "of a bootstrap over films; d: the gain over its standard deviation between films",
    ]
    if between := facts.get("inter_reader_mm"):
        said.append(f"the readers themselves are {between:.2f} mm apart ({facts.get('inter_reader_note')})")
    return "; ".join(said) + "."


def _lines(study: Study, rows: Sequence[StudyRow]) -> str:
    main = f"mre_{'mm' if rows[0].unit == 'mm' else 'diagonal'}"
    rates = [name for name in rows[0].measures if name.startswith("sdr")]
    head = ["labels", "initialization", "mode", "seeds", f"MRE {rows[0].unit}", *(f"{r[3:]} mm %" for r in rates)]
    head += ["MRE, leak-free", "gain", "d"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for row in rows:
        cell, gain = row.cell, row.gain
        line = [str(cell.labels or "all"), cell.initialization, cell.mode, str(len(row.cells)), _spread(row, main, 2)]
        line += [_spread(row, name, 1) for name in rates] + [_spread(row, f"leakfree_{main}", 2)]
        line += (
            ["", ""]
            if gain is None
            else [f"{gain.gain:.2f} ({gain.interval[0]:.2f} to {gain.interval[1]:.2f})", f"{gain.effect:.2f}"]
        )
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def _spread(row: StudyRow, name: str, digits: int) -> str:
    values = row.values.get(name)
    if not values:
        return ""
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"
