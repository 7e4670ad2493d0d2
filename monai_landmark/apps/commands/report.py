"""`python -m monai_landmark report`: make the HTML report again from predictions that were saved."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from monai_landmark.data.datalist import Datalist, landmarks_array, load_datalist
from monai_landmark.data.deidentify_folder import read_salt
from monai_landmark.data.reader import is_film, read_film
from monai_landmark.data.schema import LandmarkSchema, shipped_schemas
from monai_landmark.errors import ConfigurationError, DataError
from monai_landmark.results.agreement import two_readers
from monai_landmark.results.files import load_results
from monai_landmark.results.report import FilmSource, ReportInfo, write_report
from monai_landmark.results.result import LandmarkResult
from monai_landmark.results.sharing import for_others

__all__ = ["HELP", "add_arguments", "inter_reader_mm", "run"]

HELP = "write the HTML report again from saved predictions"
Item = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of this command.

    Args:
        parser: the command's own parser.
    """
    parser.add_argument("predictions", type=Path, help="predictions.json, one result JSON, or a folder of them")
    parser.add_argument("--datalist", type=Path, help="datalist JSON with the reference landmarks and the films")
    parser.add_argument("--section", default="test", help="section of the datalist (default: test)")
    parser.add_argument("--films", type=Path, help="folder of films for the pictures, when there is no datalist")
    parser.add_argument("--schema", help="landmark schema whose lines are drawn: a shipped name or a YAML file")
    parser.add_argument("--out", type=Path, help="folder for report.html (default: where the predictions are)")
    parser.add_argument("--title", help="heading of the report")
    parser.add_argument(
        "--thresholds-mm", type=float, nargs="+", default=[2.0, 2.5, 3.0, 4.0], help="radii of the success rates"
    )
    parser.add_argument("--exclusive", action="store_true", help="count error < threshold instead of <=")
    parser.add_argument("--share", action="store_true", help="name no film, patient or reader: salted ids only")
    parser.add_argument("--salt", type=Path, metavar="FILE", help="of --share: the secret that `deidentify` was given")
    parser.add_argument("--max-pictures", type=int, default=12, help="how many films are shown (default: 12)")


def run(args: argparse.Namespace) -> int:
    """Write the report.

    Args:
        args: what :func:`add_arguments` declared.

    Returns:
        0, or 3 when predictions and datalist do not hold the same films.

    Raises:
        DataError: predictions, datalist or schema cannot be used.
    """
    if not all(threshold > 0 for threshold in args.thresholds_mm):
        expected = "numbers above 0"
        raise ConfigurationError("bad threshold", field="--thresholds-mm", value=args.thresholds_mm, expected=expected)
    if args.share and args.out is None:
        raise ConfigurationError("not beside the predictions", field="--share", action="name a folder with --out")
    results = load_results(args.predictions)
    folder = args.predictions if args.predictions.is_dir() else args.predictions.parent
    items = {} if args.datalist is None else {item["id"]: item for item in load_datalist(args.datalist, args.section)}
    info, films = _info(args, folder, list(items.values())), _film_source(items, args.films)
    schema = _schema(args, results)
    if args.share:
        results, items, info, films = for_others(results, items, info, films, read_salt(args.salt))
        info = replace(info, title=args.title) if args.title else info
    path = write_report(
        (args.out or folder) / "report.html",
        results,
        {film: landmarks_array(item) for film, item in items.items() if "landmarks" in item},
        schema,
        info=info,
        films=films,
        near_duplicates={film: item.get("near_duplicates", []) for film, item in items.items()},
        patients={film: item["patient"] for film, item in items.items() if item.get("patient")},
        readers=two_readers(list(items.values())),
        thresholds_mm=args.thresholds_mm,
        inclusive=not args.exclusive,
        max_pictures=args.max_pictures,
    )
    return _say(path, {result.film for result in results}, set(items))


def _say(path: Path, predicted: set[str], listed: set[str]) -> int:
    """Tell where the report is and what it could not compare; the exit code."""
    console = Console(soft_wrap=True)
    console.print(f"report: {path}", markup=False, highlight=False)
    if not listed or predicted == listed:
        return 0
    console.print(
        f"left out: {len(predicted - listed)} predicted films are not in the datalist's section, "
        f"{len(listed - predicted)} films of the section were not predicted",
        markup=False,
    )
    return 3


def _schema(args: argparse.Namespace, results: Sequence[LandmarkResult]) -> LandmarkSchema | None:
    """The schema named on the command line, else by the datalist, else by the results when it is a shipped one."""
    if args.schema:
        return LandmarkSchema.load(args.schema)
    named = None if args.datalist is None else Datalist.load(args.datalist).schema
    if named and named not in shipped_schemas():
        return LandmarkSchema.load(args.datalist.parent / named)
    named = named or results[0].schema
    return LandmarkSchema.load(named) if named in shipped_schemas() else None


def _info(args: argparse.Namespace, folder: Path, items: Sequence[Item]) -> ReportInfo:
    """What the earlier report beside the predictions said, completed by the datalist and the command line."""
    info = _earlier_info(folder / "metrics.json")
    if args.datalist is not None:
        datalist = Datalist.load(args.datalist)
        distance, note = inter_reader_mm(items)
        info = replace(
            info,
            dataset=info.dataset or datalist.name,
            split=info.split or args.section,
            reader=info.reader or datalist.reader or "",
            inter_reader_mm=info.inter_reader_mm if distance is None else distance,
            inter_reader_note=info.inter_reader_note if distance is None else note,
        )
    return replace(info, title=args.title) if args.title else info


def _earlier_info(path: Path) -> ReportInfo:
    if not path.is_file():
        return ReportInfo()
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))["info"]
        known: dict[str, Any] = {field.name: stated[field.name] for field in fields(ReportInfo) if field.name in stated}
        known |= {key: tuple(value) for key, value in known.items() if isinstance(value, list)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "not the metrics of an earlier report", file=path, value=str(error), action="move this file away"
        ) from error
    return ReportInfo(**known)


def inter_reader_mm(items: Sequence[Item]) -> tuple[float | None, str]:
    """Mean distance between the first two readers of a datalist's section.

    Args:
        items: items of a datalist; films without spacing or without two readers are passed over.

    Returns:
        The distance in mm (None when no film has two readers) and how it was obtained.
    """
    distances: list[NDArray[np.float64]] = []
    pairs: set[tuple[str, ...]] = set()
    for item in items:
        readers = tuple(item.get("readers", {}))[:2]
        if len(readers) == 2 and item.get("spacing"):
            row_mm, col_mm = item["spacing"]
            offsets = (landmarks_array(item, readers[0]) - landmarks_array(item, readers[1])) * (col_mm, row_mm)
            distances.append(np.hypot(*offsets.T))
            pairs.add(readers)
    values = np.concatenate(distances) if distances else np.array([])
    values = values[np.isfinite(values)]
    if not values.size:
        return None, ""
    names = "; ".join(" and ".join(pair) for pair in sorted(pairs))
    return float(values.mean()), f"mean distance between {names}, {len(distances)} films"


def _film_source(items: dict[str, Item], folder: Path | None) -> FilmSource:
    """Film id -> pixels, from the datalist or from a folder whose file names are the ids."""
    paths = {film: Path(item["image"]) for film, item in items.items()}
    if folder is not None:
        paths |= {path.stem: path for path in sorted(folder.rglob("*")) if path.is_file() and is_film(path)}

    def read(film: str) -> NDArray[np.float32] | None:
        """Pixels of one film; None where there is no file of it."""
        return read_film(paths[film]).pixels if film in paths else None

    return read
