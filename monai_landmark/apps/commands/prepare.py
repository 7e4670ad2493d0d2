"""``prepare``: from a folder of films to a datalist."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from monai_landmark.apps.commands.tables import pair_table, reason_table, show_progress, suspicion_table
from monai_landmark.data.annotations import FORMATS
from monai_landmark.data.datalist import SECTIONS, Datalist, save_datalist
from monai_landmark.data.datalist_checks import POLICIES
from monai_landmark.data.datasets import (
    chest6,
    dha,
    isbi2015,
    prepare_chest6,
    prepare_dha,
    prepare_folder,
    prepare_isbi2015,
)
from monai_landmark.data.datasets.split import DEFAULT_FRACTIONS, Fractions
from monai_landmark.data.film_cache import FilmCache, cache_beside
from monai_landmark.data.spacing import check_spacing

__all__ = ["HELP", "add_arguments", "run"]

HELP = "make a datalist from a public data set or from a folder of films"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``prepare``: one sub-command for each data set and one for a folder."""
    kinds = parser.add_subparsers(dest="dataset", required=True, metavar="isbi2015|dha|chest6|folder")
    _isbi2015(kinds.add_parser("isbi2015", help="ISBI 2015 lateral cephalograms, 19 landmarks, two readers"))
    _dha(kinds.add_parser("dha", help="Digital Hand Atlas, 37 landmarks"))
    _chest6(kinds.add_parser("chest6", help="chest films with 6 landmarks"))
    _folder(kinds.add_parser("folder", help="your own films and annotations"))


def run(args: argparse.Namespace) -> int:
    """Read the films, write the datalist, print what was decided.

    Args:
        args: as declared by :func:`add_arguments`.

    Returns:
        0, or 3 when a film or an annotation could not be used.

    Raises:
        DataError: no datalist could be made.
    """
    options: dict[str, Any] = {
        "spacing_mm": None if args.spacing is None else check_spacing(args.spacing, field="--spacing"),
        "duplicates": args.duplicates,
        "unlabelled": args.unlabelled,
        "progress": show_progress,
    }
    if "test_fraction" in args:
        options["fractions"] = Fractions(args.test_fraction, args.validation_fraction, args.seed)
    with FilmCache(args.cache or cache_beside(args.out)) as cache:
        datalist: Datalist = args.prepare(args, options | {"cache": cache})
    save_datalist(datalist, args.out)
    _print(datalist, Console())
    if any("landmarks" in item for _, item in datalist.items()):
        from monai_landmark.results.label_audit import audit_labels  # with torch; films alone need none of it

        if suspicions := audit_labels(datalist):
            Console().print(suspicion_table(suspicions))
    Console().print(f"wrote {args.out}", markup=False, highlight=False)
    return 3 if any(entry.by == "fault" for entry in datalist.left_out) else 0


def _common(parser: argparse.ArgumentParser, duplicates: str) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder that holds the films, at any depth")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="datalist JSON to write")
    parser.add_argument(
        "--spacing", nargs=2, type=float, metavar=("ROW", "COL"), help="mm per pixel of every annotated film"
    )
    parser.add_argument(
        "--duplicates",
        choices=POLICIES,
        default=duplicates,
        help="films that recur in another section: mark them, drop the copy that is not tested on, or refuse "
        "(default: %(default)s)",
    )
    parser.add_argument("--unlabelled", type=Path, metavar="DIR", help="folder of further films without landmarks")
    text = "keeps what was seen of the films, so that they need not be read again (default: beside the datalist)"
    parser.add_argument("--cache", type=Path, metavar="FILE", help=text)


def _fractions(parser: argparse.ArgumentParser) -> None:
    for name, share in (("test", DEFAULT_FRACTIONS.test), ("validation", DEFAULT_FRACTIONS.validation)):
        text = f"share of the patients for {name} (default: %(default)s)"
        parser.add_argument(f"--{name}-fraction", type=float, default=share, metavar="SHARE", help=text)
    parser.add_argument("--seed", type=int, default=DEFAULT_FRACTIONS.seed, help="of the split (default: %(default)s)")


def _isbi2015(parser: argparse.ArgumentParser) -> None:
    _common(parser, "mark")
    parser.add_argument("--reader", choices=isbi2015.READERS, default="mean", help="the target (default: %(default)s)")
    parser.add_argument(
        "--split",
        choices=tuple(isbi2015.SPLITS),
        default="challenge",
        help="challenge: 001-150 / 151-400; papers: 001-130 / 131-150 / 151-400 (default: %(default)s)",
    )
    parser.set_defaults(
        prepare=lambda args, options: prepare_isbi2015(args.folder, reader=args.reader, split=args.split, **options)
    )


def _dha(parser: argparse.ArgumentParser) -> None:
    _common(parser, "mark")
    parser.add_argument(
        "--spacing-rule",
        choices=dha.SPACING_RULES,
        help="wrist50: 50 mm between landmarks 1 and 5; header: what the film says (one of these, or --spacing)",
    )
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="the table, when not called all.csv")
    parser.add_argument(
        "--split", choices=dha.SPLITS, default="papers", help="papers: 550 / 59 / rest (default: %(default)s)"
    )
    _fractions(parser)
    parser.set_defaults(
        prepare=lambda args, options: prepare_dha(
            args.folder, spacing_rule=args.spacing_rule, annotations=args.annotations, split=args.split, **options
        )
    )


def _chest6(parser: argparse.ArgumentParser) -> None:
    _common(parser, "mark")
    text = "papers: 195 / 34 / rest (default for pngs and labels); fractions (default with a manifest)"
    parser.add_argument("--split", choices=chest6.SPLITS, help=text)
    _fractions(parser)
    parser.set_defaults(prepare=lambda args, options: prepare_chest6(args.folder, split=args.split, **options))


def _folder(parser: argparse.ArgumentParser) -> None:
    _common(parser, "refuse")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="annotation file, or folder of them")
    parser.add_argument("--format", choices=FORMATS, help="format of the annotations (default: recognized)")
    parser.add_argument("--schema", help="landmark schema: a shipped name or a YAML (default: made from the names)")
    parser.add_argument("--reader", help="whose landmarks are the target, or mean; when several annotated")
    parser.add_argument(
        "--patient-pattern", metavar="REGEX", help="finds the patient in a film's path: group `patient`, or the first"
    )
    parser.add_argument("--patients", type=Path, metavar="FILE", help="CSV with the columns film and patient")
    _fractions(parser)
    parser.set_defaults(prepare=_prepare_folder)


def _prepare_folder(args: argparse.Namespace, options: dict[str, Any]) -> Datalist:
    return prepare_folder(
        args.folder,
        annotations=args.annotations,
        annotation_format=args.format,
        schema=args.schema,
        schema_out=args.out.with_suffix(".schema.yaml"),
        reader=args.reader,
        patient_pattern=args.patient_pattern,
        patients=args.patients,
        **options,
    )


def _print(datalist: Datalist, console: Console) -> None:
    for note in datalist.notes:
        console.print(note, markup=False, highlight=False)
    table = Table("section", "films", "patients", "with a copy in another section")
    for section in SECTIONS:
        items = datalist.sections.get(section, [])
        copies = sum("near_duplicates" in item for item in items)
        table.add_row(section, str(len(items)), str(len({item["patient"] for item in items})), str(copies))
    console.print(table)
    if datalist.duplicates:
        pairs = [(pair["films"], pair["similarity"], pair["identical"]) for pair in datalist.duplicates]
        console.print(pair_table(pairs))
        console.print(f"films that recur in another section: {datalist.duplicates_policy}", highlight=False)
    for by, title in (("fault", "Could not be used"), ("rule", "Left out by a rule")):
        entries = [entry for entry in datalist.left_out if entry.by == by]
        if entries:
            console.print(reason_table(title, entries))
