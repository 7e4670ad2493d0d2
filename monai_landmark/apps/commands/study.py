"""``python -m monai_landmark study``: what each initialization is worth at each number of labels."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from monai_landmark.files import write_text
from monai_landmark.study.engines import ENGINES, study_engine
from monai_landmark.study.figures import write_figures
from monai_landmark.study.grid import Study
from monai_landmark.study.runner import run_tasks
from monai_landmark.study.table import gather, markdown, records, table_csv
from monai_landmark.study.tasks import study_tasks

HELP = "run a study of label budgets and initializations, and write its table"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line.

    Args:
        parser: the parser of this subcommand.
    """
    parser.add_argument("study", type=Path, help="the study, a YAML file")
    parser.add_argument("--out", type=Path, help="folder of the study (default: runs/ and the study's name)")
    parser.add_argument("--engine", choices=ENGINES, default="local", help="where the jobs run (default: this machine)")
    parser.add_argument("--workers", type=int, default=1, help="of the engine local: jobs at once")
    parser.add_argument("--address", default="auto", help="of the engine ray: the cluster, e.g. ray://host:10001")
    parser.add_argument("--gpus", type=float, default=0, help="of the engine ray: that a job needs; 0.5 is possible")
    parser.add_argument("--slurm", default="{}", metavar="JSON", help="of the engine slurm: submitit's parameters")
    parser.add_argument("--only", default="", metavar="TEXT", help="run only the cells whose name has this in it")
    parser.add_argument("--collect", action="store_true", help="run nothing, write the table of what is finished")


def run(args: argparse.Namespace) -> int:
    """Run what is not done yet, then write ``table.csv``, ``table.json``, ``table.md`` and ``figures/``.

    Args:
        args: see :func:`add_arguments`.

    Returns:
        0, or 3 if a job failed.

    Raises:
        ConfigurationError: if the study or the engine is not possible.
    """
    console = Console()
    study = Study.load(args.study)
    work = (args.out or Path("runs") / study.name).resolve()
    failed = 0
    if not args.collect:
        tasks = study_tasks(study)
        wanted = {task.name for task in tasks if task.kind == "cells" and args.only in task.name}
        wanted |= {name for task in tasks if task.name in wanted for name in task.needs}
        tasks = [task for task in tasks if task.name in wanted]
        engine = study_engine(args.engine, **_engine_options(args, study, work))
        try:
            outcomes = run_tasks(
                tasks, str(work), engine, study.threads, lambda line: console.print(escape(line), soft_wrap=True)
            )
        finally:
            engine.close()
        failed = sum(bool(outcome.error) for outcome in outcomes)
    rows = gather(study, work)
    command = shlex.join(["python", "-m", "monai_landmark", "study", str(args.study)])
    write_text(work / "table.csv", table_csv(rows))
    write_text(work / "table.json", json.dumps(records(study, rows, command), indent=1) + "\n")
    text = markdown(study, rows)
    pictures = [f"![{path.stem}](figures/{path.name})" for path in write_figures(study, rows, work / "figures")]
    write_text(work / "table.md", "\n\n".join([text, *pictures]) + "\n")
    console.print(escape(text), soft_wrap=True)
    console.print(f"{len(rows)} rows in {work / 'table.md'}" + (f"; {failed} jobs failed" if failed else ""))
    return 3 if failed else 0


def _engine_options(args: argparse.Namespace, study: Study, work: Path) -> dict[str, object]:
    if args.engine == "ray":
        return {"address": args.address, "processors": study.threads or 1, "gpus": args.gpus}
    if args.engine == "slurm":
        return {"folder": str(work / "slurm"), **json.loads(args.slurm)}
    return {"workers": args.workers}
