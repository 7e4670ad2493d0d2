"""``inspect``: what is in a folder of films, a film or a datalist."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from monai_landmark.apps.commands.tables import pair_table, reason_table, show_progress, suspicion_table
from monai_landmark.data.annotations import FORMATS
from monai_landmark.data.audit import Audit, audit_datalist, audit_folder
from monai_landmark.data.datalist import Datalist, dump_lines
from monai_landmark.data.spacing import check_spacing
from monai_landmark.errors import ConfigurationError
from monai_landmark.files import write_text

if TYPE_CHECKING:
    from monai_landmark.results.label_audit import Suspicion

__all__ = ["HELP", "add_arguments", "run"]

HELP = "say what is in a folder of films: sizes, spacings, missing landmarks, copies, bad films"
_MOST_ROWS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``inspect``."""
    parser.add_argument("path", type=Path, help="folder of films, one film, or a datalist (.json)")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="annotation file or folder to check as well")
    parser.add_argument("--format", choices=FORMATS, help="format of the annotations (default: recognized)")
    parser.add_argument("--schema", help="landmark schema: a shipped name or a YAML")
    parser.add_argument("--spacing", nargs=2, type=float, metavar=("ROW", "COL"), help="mm per pixel of every film")
    text = "keep here what was seen of the films, so that they need not be read again (default: beside a datalist)"
    parser.add_argument("--cache", type=Path, metavar="FILE", help=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found to this file")


def run(args: argparse.Namespace) -> int:
    """Inspect and print.

    Args:
        args: as declared by :func:`add_arguments`.

    Returns:
        0, or 3 when a film or an annotation could not be used.

    Raises:
        DataError: nothing could be inspected at all.
    """
    suspicions: list[Suspicion] = []
    if args.path.suffix.lower() == ".json":
        if any(value is not None for value in (args.annotations, args.format, args.schema, args.spacing)):
            raise ConfigurationError(
                "a datalist brings its own landmarks, schema and spacings",
                file=args.path,
                action="leave out --annotations, --format, --schema and --spacing",
            )
        audit = audit_datalist(args.path, progress=show_progress, cache=args.cache)
        from monai_landmark.results.label_audit import audit_labels  # with torch; a folder needs none of it

        suspicions = audit_labels(Datalist.load(args.path))
    else:
        spacing = None if args.spacing is None else check_spacing(args.spacing, field="--spacing")
        audit = audit_folder(
            args.path,
            annotations=args.annotations,
            annotation_format=args.format,
            schema=args.schema,
            spacing_mm=spacing,
            progress=show_progress,
            cache=args.cache,
        )
    if args.json:
        found = audit.to_json() | {"suspicions": [asdict(suspicion) for suspicion in suspicions]}
        write_text(args.json, dump_lines(found))
    _print(audit, Console())
    if suspicions:
        Console().print(suspicion_table(suspicions))
    return 3 if audit.bad else 0


def _print(audit: Audit, console: Console) -> None:
    facts = audit.to_json()
    console.print(f"{facts['film_count']} films read, {facts['bad_count']} left out, {audit.other_files} other files")
    if facts["annotated_films"] is not None:
        console.print(f"{facts['annotated_films']} films annotated")
    for name, count in audit.counts().items():
        table = Table(name, "films")
        for value, films in list(count.items())[:_MOST_ROWS]:
            table.add_row(value, str(films))
        if len(count) > _MOST_ROWS:
            table.add_row(f"{len(count) - _MOST_ROWS} more", str(sum(list(count.values())[_MOST_ROWS:])))
        console.print(table)
    if audit.landmarks:
        table = Table("landmark", "visible", "occluded", "missing")
        for landmark, found in audit.landmarks.items():
            table.add_row(landmark, *(str(found[state]) for state in ("visible", "occluded", "missing")))
        console.print(table)
    if audit.duplicates:
        pairs = [([pair["first"], pair["second"]], pair["similarity"], pair["identical"]) for pair in audit.duplicates]
        console.print(pair_table(pairs))
    if audit.bad:
        console.print(reason_table("Could not be used", audit.bad))
    if audit.left_out:
        console.print(reason_table("Left out when the datalist was prepared", audit.left_out))
