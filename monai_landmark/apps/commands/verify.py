"""``python -m monai_landmark verify``: is a bundle or a weights file from elsewhere safe to open?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from monai_landmark.files import write_text
from monai_landmark.safety import Verification, verify

__all__ = ["HELP", "add_arguments", "run"]

HELP = "look into a bundle or a weights file from elsewhere without running any of it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line.

    Args:
        parser: the parser of this subcommand.
    """
    parser.add_argument("path", type=Path, help="folder of a bundle, a zip of it, or one weights or configuration file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found to this file")


def run(args: argparse.Namespace) -> int:
    """Look, and print one line for each finding, or the hashes of a clean bundle.

    Args:
        args: see :func:`add_arguments`.

    Returns:
        0 clean, 1 refused.

    Raises:
        ConfigurationError: if there is nothing at the path.
    """
    found = verify(args.path)
    if args.json:
        write_text(args.json, json.dumps(found.to_json(), indent=1, allow_nan=False) + "\n")
    _print(found, Console(soft_wrap=True, highlight=False))
    return 0 if found.clean else 1


def _print(found: Verification, console: Console) -> None:
    for finding in found.findings:
        console.print(f"[red]refused:[/] {escape(str(finding))}")
    if found.findings:
        console.print(escape(f"{found.path}: {len(found.findings)} reasons not to open it"))
        return
    for name, sha256 in found.sha256.items():
        recorded = found.recorded.get(name)
        console.print(escape(f"{sha256}  {name}" + (f"  (as recorded in {recorded})" if recorded else "")))
    console.print(escape(f"{found.path}: clean; what it computes is for you to judge"))
