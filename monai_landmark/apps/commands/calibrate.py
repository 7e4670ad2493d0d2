"""``python -m monai_landmark calibrate``: regions and referrals for a trained network, fitted on annotated films."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monai_landmark.apps.calibrate import CALIBRATION_SECTIONS, CalibrationRun, calibrate
from monai_landmark.apps.commands.tables import reason_table, show_progress
from monai_landmark.apps.predict import LandmarkPredictor
from monai_landmark.safety import TRUST_HELP

HELP = "fit regions and referrals on annotated films that are neither test nor training films"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line.

    Args:
        parser: the parser of this subcommand.
    """
    parser.add_argument("--model-dir", type=Path, required=True, help="folder that train wrote")
    parser.add_argument("--datalist", type=Path, required=True, help="datalist JSON with annotated films")
    parser.add_argument(
        "--section",
        nargs="+",
        default=list(CALIBRATION_SECTIONS),
        help="sections to take films from (default: training and validation, without the films trained on)",
    )
    parser.add_argument("--level", type=float, default=0.9, help="share of regions that hold their landmark")
    parser.add_argument("--tolerance-mm", type=float, default=4.0, help="errors above it are gross (default: 4)")
    parser.add_argument(
        "--risk", type=float, default=0.05, help="share of a film's landmarks that may be gross errors and pass"
    )
    parser.add_argument("--scale-share", type=float, default=1 / 3, help="part of the films for the scales; 0: none")
    parser.add_argument("--seed", type=int, default=0, help="draws the films for the scales")
    parser.add_argument("--bundle", type=Path, default=Path("bundles/xray_landmarks"), help="folder of the bundle")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    parser.add_argument("--trust", action="append", default=[], metavar="SHA256", help=TRUST_HELP)


def run(args: argparse.Namespace) -> int:
    """Fit, write ``uncertainty.json`` beside the weights, and print what was found.

    Args:
        args: see :func:`add_arguments`.

    Returns:
        0, or 3 if a film could not be read.

    Raises:
        DataError: if films, model or settings do not fit.
    """
    predictor = LandmarkPredictor(args.bundle, args.model_dir, args.device, args.trust, calibration=None)
    done = calibrate(
        predictor,
        args.datalist,
        tuple(args.section),
        scale_share=args.scale_share,
        seed=args.seed,
        level=args.level,
        tolerance_mm=args.tolerance_mm,
        risk=args.risk,
        progress=lambda items: show_progress(items, len(items)),
    )
    path = done.calibration.save(args.model_dir)
    console = Console(soft_wrap=True, highlight=False)
    console.print(_table(done))
    faults = [entry for entry in done.left_out if entry.by == "fault"]
    if faults:
        console.print(reason_table("Left out", faults))
    for line in _sentences(done, len(done.left_out) - len(faults)):
        console.print(escape(line))
    console.print(escape(f"written to {path}; not for diagnosis"))
    return 3 if faults else 0


def _table(done: CalibrationRun) -> Table:
    """One row per landmark."""
    calibration = done.calibration
    table = Table("landmark", "scale", "mean error mm", "expected mm", "median region mm", "fixed region mm")
    regions = calibration.region_radius_mm(done.expected_mm)
    for index, name in enumerate(calibration.names):
        values = [calibration.scales[index], _mean(done.errors_mm[:, index]), _mean(done.expected_mm[:, index])]
        region = regions[:, index][np.isfinite(regions[:, index])]
        values += [float(np.median(region)) if region.size else np.inf, calibration.fixed_radii_mm[index]]
        table.add_row(escape(name), *(f"{value:.2f}" for value in values))
    return table


def _sentences(done: CalibrationRun, passed_over: int) -> list[str]:
    """What the table does not say."""
    calibration = done.calibration
    counts = f"{len(calibration.films)} films for regions and referral, {len(calibration.scale_films)} for"
    return [
        f"{counts} scales; {passed_over} annotated films passed over: trained on, copies, or without spacing",
        f"expected calibration error of the maps' peaks: {100 * done.calibration_error:.2f} %",
        f"regions hold their landmark at a level of {calibration.level:g}",
        f"at most {calibration.risk:.1%} of a film's landmarks pass although off by more than "
        f"{calibration.tolerance_mm:g} mm: {_referral(done)}",
    ]


def _referral(done: CalibrationRun) -> str:
    calibration = done.calibration
    if calibration.refer_from_mm == 0:
        return "everything is referred, for the films are too few or gross errors cannot be told at this risk"
    if np.isinf(calibration.refer_from_mm):
        return "nothing needs to be referred"
    share = float(calibration.refer(done.expected_mm)[~np.isnan(done.errors_mm)].mean())
    return f"expected errors from {calibration.refer_from_mm:.2f} mm on are referred, {share:.0%} of these landmarks"


def _mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    found = values[np.isfinite(values)]
    return float(found.mean()) if found.size else float("nan")
