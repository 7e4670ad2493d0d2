"""``python -m monai_landmark demo``: the whole road on synthetic films, in minutes and without a patient."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from monai_landmark.errors import ConfigurationError

HELP = "synthetic films, pre-training, fine-tuning on ten of them, and the report; minutes on two cores"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line.

    Args:
        parser: the parser of this subcommand.
    """
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for films, models and report")
    parser.add_argument("--bundle", type=Path, default=Path("bundles/xray_landmarks"), help="folder of the bundle")
    parser.add_argument("--epochs", type=int, default=4, help="of pre-training and of fine-tuning, 50 steps each")


def run(args: argparse.Namespace) -> int:
    """Run the road, command by command, each printed as a user would type it.

    Args:
        args: see :func:`add_arguments`.

    Returns:
        0.

    Raises:
        ConfigurationError: if the bundle is not there, or a command fails.
    """
    configs = args.bundle / "configs"
    if not configs.is_dir():
        action = "run from the repository's root, or use --bundle"
        raise ConfigurationError("no bundle here", file=configs, action=action)
    films, pretrained, model = args.out / "films", args.out / "pretrained", args.out / "model"
    console, began = Console(), time.monotonic()
    grid = ["--spatial_size", "[128,96]", "--epochs", str(args.epochs)]
    once = ["--val_interval", str(args.epochs), "--samples", "4"]  # one sheet of samples, at the end
    start_from = str(pretrained / "model.safetensors")
    start = ["--architecture", "diffusion-tiny", "--initialization", start_from]
    measured = ["--model_dir", str(model)]
    bundle = ["monai.bundle", "run"]
    steps: list[tuple[str, list[str]]] = [
        ("synthetic films", ["monai_landmark", "synthesize", str(films)]),
        ("what is in the folder", ["monai_landmark", "inspect", str(films / "datalist.json")]),
        (
            "pre-training on films without annotation",
            [*bundle, "pretrain", *_config(configs, "pretrain"), *_folders(films, pretrained), *grid, *once],
        ),
        (
            "fine-tuning on ten annotated films",
            [*bundle, "train", *_config(configs, "train"), *_folders(films, model), *grid, *start],
        ),
        (
            "measuring on test films",
            [*bundle, "evaluate", *_config(configs, "evaluate"), *_folders(films, args.out / "evaluation"), *measured],
        ),
    ]
    for title, command in steps:
        console.rule(title)
        console.print(f"python -m {shlex.join(command)}", style="bold", soft_wrap=True, highlight=False)
        done = subprocess.run([sys.executable, "-m", *command], check=False)  # noqa: S603 - our own commands
        if done.returncode:
            raise ConfigurationError(f"the step {title!r} failed with exit code {done.returncode}")
    console.rule("done")
    console.print(_table(args.out / "evaluation" / "metrics.json"))
    report = (args.out / "evaluation" / "report.html").resolve()
    console.print(f"{(time.monotonic() - began) / 60:.1f} minutes; open {report} in a browser", soft_wrap=True)
    return 0


def _config(configs: Path, name: str) -> list[str]:
    return ["--config_file", str(configs / f"{name}.yaml")]


def _folders(films: Path, output: Path) -> list[str]:
    return ["--dataset_dir", str(films), "--output_dir", str(output)]


def _table(metrics: Path) -> Table:
    """Headline numbers of an evaluation, in mm."""
    numbers = json.loads(metrics.read_text(encoding="utf-8"))["all_films"]
    table = Table("measure", "value")
    table.add_row("mean radial error", f"{numbers['mre_found_mm']:.2f} mm")
    table.add_row("median", f"{numbers['median_mm']:.2f} mm")
    for threshold in ("2", "2.5", "3", "4"):
        table.add_row(f"within {threshold} mm", f"{numbers[f'sdr{threshold}']:.1f} %")
    return table
