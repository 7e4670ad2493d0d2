"""The command line: ``python -m monai_landmark <command>``; each command is a module of :mod:`apps.commands`."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from monai_landmark import __version__
from monai_landmark.errors import DataError
from monai_landmark.privacy import PhiFilter

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "demo": "synthetic films, pre-training, fine-tuning and the report, in one go",
    "synthesize": "write synthetic films with exact landmarks",
    "prepare": "turn films and annotations into a datalist",
    "scans": "turn CT scans and label volumes into a list of scans",
    "inspect": "say what is in a folder of films, and what is wrong with it",
    "leaks": "say which films of a test set something was trained on",
    "select": "say which films to label first",
    "calibrate": "fit regions and referrals to a trained network",
    "predict": "find the landmarks of films",
    "deidentify": "copies of films and datalists that name no patient",
    "label": "label films with MONAI Label: predict, correct, train",
    "study": "measure label budgets and initializations against each other",
    "report": "write the HTML report of predictions again",
    "verify": "look into a bundle or a weights file from elsewhere without running any of it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the command line without the program's name; ``sys.argv`` by default.

    Returns:
        0 done, 1 failed, 2 wrong usage, 3 done but something was left out.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m monai_landmark", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    named = next((word for word in arguments if word in COMMANDS), None)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == named:  # the other commands need not be imported
            module = importlib.import_module(f"monai_landmark.apps.commands.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    terminal = logging.StreamHandler()
    terminal.addFilter(PhiFilter())
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[terminal])
    try:
        return int(args.run(args))
    except (DataError, OSError) as error:
        Console(stderr=True).print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        return 1
