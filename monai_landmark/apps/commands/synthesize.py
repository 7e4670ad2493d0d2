"""``python -m monai_landmark synthesize``: films with exact landmarks, to try everything without a patient."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from monai_landmark.data.synthetic import write_synthetic_dataset

HELP = "write synthetic films with exact landmarks, and their datalist"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line.

    Args:
        parser: the parser of this subcommand.
    """
    parser.add_argument("out", type=Path, help="folder for the films and datalist.json")
    parser.add_argument("--training", type=int, default=10, help="annotated films to train on")
    parser.add_argument("--test", type=int, default=20, help="annotated films to measure on")
    parser.add_argument("--unlabelled", type=int, default=60, help="films without annotation")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other films")


def run(args: argparse.Namespace) -> int:
    """Write the films.

    Args:
        args: see :func:`add_arguments`.

    Returns:
        0.
    """
    counts = {"training": args.training, "test": args.test, "unlabelled": args.unlabelled}
    path = write_synthetic_dataset(args.out, **counts, seed=args.seed)
    Console().print(f"{sum(counts.values())} synthetic films, listed in {path}")
    return 0
