"""``python -m monai_landmark predict``: landmarks for films, as files and as a table."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from monai_landmark.apps.commands.tables import film_table
from monai_landmark.apps.predict import LandmarkPredictor
from monai_landmark.data.films import film_items
from monai_landmark.data.schema import LandmarkSchema
from monai_landmark.data.spacing import check_spacing
from monai_landmark.errors import DataError, FilmError
from monai_landmark.results.dicom_film import import_highdicom
from monai_landmark.results.files import write_csv
from monai_landmark.results.measurements import write_measurements_csv
from monai_landmark.results.result import LandmarkResult
from monai_landmark.results.writers import DICOM_FILES, RESULT_FILES, write_dicom_files, write_result_files
from monai_landmark.safety import TRUST_HELP

HELP = "find the landmarks of films and write them as JSON, CSV, 3D Slicer markups and pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line.

    Args:
        parser: the parser of this subcommand.
    """
    parser.add_argument("films", nargs="+", type=Path, help="films, or folders of films")
    parser.add_argument("--bundle", type=Path, default=Path("bundles/xray_landmarks"), help="folder of the bundle")
    parser.add_argument("--model-dir", type=Path, help="folder that train wrote (default: the bundle's models)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--spacing", nargs=2, type=float, metavar=("ROW_MM", "COL_MM"), help="pixel spacing of all these films"
    )
    parser.add_argument("--files", nargs="+", choices=RESULT_FILES, default=RESULT_FILES, help="what to write")
    parser.add_argument(
        "--dicom",
        nargs="+",
        choices=DICOM_FILES,
        default=(),
        help="for DICOM films also a structured report <id>.sr.dcm, a presentation state <id>.gsps.dcm",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    parser.add_argument("--trust", action="append", default=[], metavar="SHA256", help=TRUST_HELP)


def run(args: argparse.Namespace) -> int:
    """Predict every film; one that cannot be read is named, and the others go on.

    Args:
        args: see :func:`add_arguments`.

    Returns:
        0, or 3 if a film, or a DICOM object of a film, was left out.

    Raises:
        DataError: if there is no film, no usable model, or the spacing is impossible.
    """
    spacing = None if args.spacing is None else check_spacing(args.spacing, field="--spacing")
    items = film_items(args.films, spacing)
    if not items:
        raise FilmError("no film found", file=args.films[0], action="give films, or a folder of films")
    if args.dicom:
        import_highdicom()  # says what to install before the first film, not after it
    predictor = LandmarkPredictor(args.bundle, args.model_dir, args.device, args.trust)
    console, results, left_out = Console(), [], []
    for item in track(items, description="predicting", console=console, disable=not console.is_terminal):
        try:
            result = predictor(item)
            write_result_files(result, args.out, predictor.schema, item["image"], args.files)
        except DataError as error:
            left_out.append(str(error))
        else:
            results.append(result)
            left_out += _write_dicom(result, args, predictor.schema, item["image"])
    if results:
        write_csv(results, args.out / "landmarks.csv")
        write_measurements_csv(results, predictor.schema, args.out / "measurements.csv")
        console.print(_table(results))
    for reason in left_out:
        console.print(f"[red]left out:[/] {escape(reason)}", soft_wrap=True, highlight=False)
    console.print(f"{len(results)} of {len(items)} films written to {args.out}; not for diagnosis")
    return 3 if left_out else 0


def _write_dicom(result: LandmarkResult, args: argparse.Namespace, schema: LandmarkSchema, film: str) -> list[str]:
    """Write the DICOM objects that were asked for; why one could not be written."""
    reasons = []
    for kind in args.dicom:
        try:
            write_dicom_files(result, args.out, schema, film, [kind])
        except FilmError as error:
            return [f"no DICOM result: {error}"]
        except DataError as error:
            reasons.append(f"no DICOM {kind}: {error}")
    return reasons


def _table(results: list[LandmarkResult]) -> Table:
    """One row per film; the landmarks themselves are in the files."""
    table = film_table("film", "landmarks", "spacing (row, col)", "source", "least confident", "referred")
    for result in results:
        found = int(np.isfinite(result.points_px[:, 0]).sum())
        spacing = "-" if result.spacing_mm is None else "{:.4g}, {:.4g} mm".format(*result.spacing_mm)
        worst = "-"
        if result.confidence is not None and np.isfinite(result.confidence).any():
            index = int(np.nanargmin(result.confidence))
            worst = f"{result.names[index]} ({result.confidence[index]:.2f})"
        referred = "not calibrated" if result.refer is None else f"{int(result.refer.sum())} of {len(result.names)}"
        counted = f"{found} of {len(result.names)}"
        table.add_row(escape(result.film), counted, spacing, result.spacing_source, worst, referred)
    return table
