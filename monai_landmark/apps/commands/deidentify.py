"""``deidentify``: copies of films and datalists that name no patient, and a warning of burned-in text."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from monai_landmark.apps.commands.tables import film_table, reason_table, show_progress
from monai_landmark.data.datasets.films import films_below, relative_name
from monai_landmark.data.deidentify_folder import (
    Deidentified,
    deidentify_datalist,
    deidentify_films,
    read_salt,
    write_key,
)
from monai_landmark.errors import ConfigurationError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "write copies of films, or of a datalist and its films, that name no patient"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``deidentify``."""
    parser.add_argument("path", type=Path, help="a film, a folder of films, or a datalist (.json)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the copies; new or empty")
    parser.add_argument("--salt", type=Path, metavar="FILE", help="secret that gives a film the same id another time")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="write here which id is which film; keep it to yourself"
    )


def run(args: argparse.Namespace) -> int:
    """Write the copies, and say what to look at.

    Args:
        args: as declared by :func:`add_arguments`.

    Returns:
        0, or 3 when a film could not be used or seems to hold text.

    Raises:
        DataError: nothing can be written.
    """
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise ConfigurationError("the folder is not empty", file=args.out, field="--out", action="name a new folder")
    if not args.path.exists():
        raise ConfigurationError("there is no such file or folder", file=args.path, action="check the path")
    salt = read_salt(args.salt)
    if args.key is not None:
        write_key(args.key, {}, args.out)  # refused now, not when all is done
    if args.path.suffix.lower() == ".json":
        done = deidentify_datalist(args.path, args.out, salt, show_progress)
    else:
        root = args.path if args.path.is_dir() else args.path.parent
        files = films_below(args.path) if args.path.is_dir() else [args.path]
        done = deidentify_films([(relative_name(file, root), file) for file in files], args.out, salt, show_progress)
    if args.key is not None:
        write_key(args.key, done.names, args.out)
    _print(done, args.out, Console())
    return 3 if done.left_out or done.text else 0


def _print(done: Deidentified, out: Path, console: Console) -> None:
    if done.text:
        table = film_table(
            "copy", "lines", "first: rows, columns", title=f"Look at these, they seem to hold text: {len(done.text)}"
        )
        for new, lines in done.text.items():
            top, left, bottom, right = lines[0].box
            table.add_row(done.files[new].name, str(len(lines)), f"{top}-{bottom}, {left}-{right}")
        console.print(table)
    if done.left_out:
        console.print(reason_table("Could not be used", done.left_out))
    console.print(
        f"{len(done.files)} copies written to {out}; the search for burned-in text misses some: look at the films",
        markup=False,
        highlight=False,
    )
