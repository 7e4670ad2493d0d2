"""``scans``: from folders of CT scans and label volumes to a list of scans."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from monai_landmark.data.datalist_checks import SECTIONS
from monai_landmark.data.datasets.scans import prepare_flare2022, prepare_scans
from monai_landmark.data.datasets.split import DEFAULT_FRACTIONS, Fractions
from monai_landmark.data.organs import LABEL_SETS
from monai_landmark.data.synthetic_bodies import write_synthetic_bodies

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line.

    Args:
        parser: the parser of this subcommand.
    """
    kinds = parser.add_subparsers(dest="layout", required=True, metavar="folder|flare2022|synthetic")
    folder = kinds.add_parser("folder", help="your own scans and label volumes")
    flare = kinds.add_parser("flare2022", help="FLARE 2022 as it is distributed")
    synthetic = kinds.add_parser("synthetic", help="write invented bodies and their list")
    for kind in (folder, flare):
        kind.add_argument(
            "folder", type=Path, metavar="DIR", help="folder of NIfTI files or DICOM series, at any depth"
        )
        kind.add_argument("--out", type=Path, required=True, metavar="FILE", help="list of scans to write, JSON")
        kind.add_argument("--test-fraction", type=float, default=DEFAULT_FRACTIONS.test, metavar="SHARE")
        kind.add_argument("--validation-fraction", type=float, default=DEFAULT_FRACTIONS.validation, metavar="SHARE")
        kind.add_argument("--seed", type=int, default=DEFAULT_FRACTIONS.seed, help="of the split")
    folder.add_argument("--labels", type=Path, metavar="DIR", help="folder of label volumes, called as their scans")
    folder.add_argument(
        "--label-set", choices=tuple(LABEL_SETS), default="flare2022", help="which number is which organ"
    )
    folder.add_argument("--reader", default="", help="who drew the labels; a model, if it was one")
    folder.add_argument(
        "--unlabelled", type=Path, nargs="*", default=[], metavar="DIR", help="folders of further scans"
    )
    synthetic.add_argument("folder", type=Path, metavar="DIR", help="where to")
    for section, count in (("training", 4), ("test", 2), ("unlabelled", 2)):
        synthetic.add_argument(f"--{section}", type=int, default=count, help="bodies (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Read the scans, write the list, print what is in it.

    Args:
        args: see :func:`add_arguments`.

    Returns:
        0.

    Raises:
        DataError: a scan or a label volume cannot be used.
    """
    console = Console()
    if args.layout == "synthetic":
        path = write_synthetic_bodies(args.folder, args.training, args.test, args.unlabelled)
        console.print(f"wrote {path}", markup=False, highlight=False)
        return 0
    fractions = Fractions(args.test_fraction, args.validation_fraction, args.seed)
    if args.layout == "flare2022":
        found = prepare_flare2022(args.folder, fractions)
    else:
        found = prepare_scans(args.folder, args.labels, args.label_set, args.reader, fractions, args.unlabelled)
    found.save(args.out)
    table = Table("section", "scans", "slices", "that show an organ")
    for section in SECTIONS:
        items = found.sections.get(section, [])
        shown = sum(sum(1 for organs in item.get("shown", []) if organs) for item in items)
        table.add_row(section, str(len(items)), str(sum(item["slices"] for item in items)), str(shown))
    console.print(table)
    console.print(f"wrote {args.out}", markup=False, highlight=False)
    return 0
