"""``leaks``: whether films that something was trained on are among those that it is tested on."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from monai_landmark.apps.commands.tables import first_rows, reason_table, show_progress
from monai_landmark.data.leakage import Leakage, films_of, find_leaks, only_trained
from monai_landmark.errors import ConfigurationError
from monai_landmark.files import write_text

__all__ = ["HELP", "add_arguments", "run"]

HELP = "say which films of a test set something was trained on: the same file, picture, exposure or patient"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``leaks``."""
    parser.add_argument("trained", type=Path, help="datalist (its sections but test), or folder of films, trained on")
    parser.add_argument("tested", type=Path, help="datalist (its section test), or folder of films, tested on")
    parser.add_argument(
        "--model-dir", type=Path, metavar="DIR", help="only the films that this model says it learned from"
    )
    parser.add_argument(
        "--other-patients", action="store_true", help="patients' names mean different people in the two"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found to this file")


def run(args: argparse.Namespace) -> int:
    """Compare and print.

    Args:
        args: as declared by :func:`add_arguments`.

    Returns:
        0, or 3 when there is a leak, or a film that could not be compared.

    Raises:
        DataError: nothing can be compared.
    """
    for path in (args.trained, args.tested):
        if not path.exists():
            raise ConfigurationError("there is no such file or folder", file=path, action="check the path")
    trained = films_of(args.trained, ("training", "validation", "unlabelled"))
    if args.model_dir is not None:
        from monai_landmark.networks import model_card  # with torch, which takes longer than many a comparison

        trained = only_trained(trained, model_card(args.model_dir), args.model_dir)
    tested = films_of(args.tested, ("test",))
    found = find_leaks(trained, tested, same_patients=not args.other_patients, progress=show_progress)
    if args.json:
        write_text(args.json, json.dumps(asdict(found), indent=1) + "\n")
    _print(found, Console())
    return 3 if found.leaks or found.unread else 0


def _print(found: Leakage, console: Console) -> None:
    if found.leaks:
        rows = [
            (leak.trained, leak.tested, leak.kind, "" if leak.similarity is None else f"{leak.similarity:.3f}")
            for leak in found.leaks
        ]
        console.print(first_rows(("trained on", "tested on", "what", "similarity"), "Leaks", rows))
    if found.unread:
        console.print(reason_table("Could not be compared", found.unread))
    trained, tested = found.compared
    console.print(f"{trained} films trained on and {tested} tested on were compared: {len(found.leaks)} leaks")
