"""Do drawn films help a landmark detector that has few labels? The same training with and without them, several seeds.

    python benchmarks/generation_landmarks.py --model runs/diffusion --datalist runs/chest6/datalist.json \
        --initialization imagenet --json docs/results/generation.json

`generate --strategy start` draws from the films of the budget alone, and `train --drawn_films` gives half of its draws
to them, with the landmarks of the films they were drawn from. Budget, steps, grid and augmentation are the same in
every row. A strength of 0.04 hardly changes a film: that row tells what the model's coarser grid does by itself.
Everything lies under ``--work``; what is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from records import add_records, record, summary

from monai_landmark.data.datalist import Datalist
from monai_landmark.files import file_sha256, write_text

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
REAL = "real"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the generation's `pretrain`")
    parser.add_argument("--datalist", type=Path, default=Path("runs/chest6/datalist.json"))
    parser.add_argument("--initialization", default="imagenet", help="of the detector, as of `train`")
    parser.add_argument("--labels", type=int, default=10)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.04, 0.3])
    parser.add_argument("--drawn", type=int, default=40, help="films")
    parser.add_argument("--steps", type=int, default=50, help="of drawing, from pure noise")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=4, help="of 50 steps")
    parser.add_argument("--grid", type=int, nargs=2, default=[96, 128])
    parser.add_argument("--work", type=Path, default=Path("runs/generation_landmarks"))
    parser.add_argument("--json", type=Path, help="records are added, or take the place of those of their names")
    return parser.parse_args()


def bundle(name: str, command: str, output: Path, *words: object) -> Path:
    """``python -m monai.bundle run``, unless it was done; what it says goes into a file beside its output."""
    done = output / "done"
    if not done.is_file():
        output.mkdir(parents=True, exist_ok=True)
        config = BUNDLES / name / "configs" / f"{command}.yaml"
        given = ["--config_file", config, "--output_dir", output, *words]
        run = [sys.executable, "-m", "monai.bundle", "run", command, *map(str, given)]
        with output.with_suffix(".log").open("a", encoding="utf-8") as log:
            subprocess.run(run, check=True, stdout=log, stderr=log)
        write_text(done, "")
    return output


def cell(args: argparse.Namespace, strength: float | None, seed: int) -> dict[str, Any]:
    """Metrics of one training; of the real films alone where there is no strength."""
    name = REAL if strength is None else f"strength_{strength:g}"
    folder = args.work / file_sha256(args.model / "model.safetensors")[:12] / str(args.labels) / name / str(seed)
    films = ["--datalist", args.datalist, "--label_budget", args.labels, "--seed", seed]
    more: list[object] = []
    if strength is not None:
        how = ["--strategy", "start", "--strength", strength, "--guidance", 1, "--steps", args.steps]
        how += ["--model_dir", args.model, "--count", args.drawn, "--embeddings", args.work / "tokens.safetensors"]
        more = [
            "--drawn_films",
            bundle("xray_generation", "generate", folder / "drawn", *films, *how) / "datalist.json",
        ]
    grid = f"[{args.grid[0]},{args.grid[1]}]"
    steps = ["--initialization", args.initialization, "--epochs", args.epochs, "--spatial_size", grid, *more]
    model = bundle("xray_landmarks", "train", folder / "model", *films, *steps)
    own = ["--datalist", args.datalist, "--model_dir", model, "--views", "[[0,1]]"]
    measured = bundle("xray_landmarks", "evaluate", folder / "evaluated", *own)
    metrics: dict[str, Any] = json.loads((measured / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def records(args: argparse.Namespace, found: dict[str, list[float]], unit: str, films: int) -> list[dict[str, Any]]:
    """See docs/design.md, section 8."""
    known = Datalist.load(args.datalist)
    shared = {
        "n": films,
        "seeds": args.seeds,
        "split": "test section",
        "reader": known.reader or "",
        "labels": args.labels,
        "near_duplicates": "kept",
        "notes": f"model {file_sha256(args.model / 'model.safetensors')[:12]}, {args.drawn} films drawn from these; "
        f"{50 * args.epochs} steps of 4 on {args.grid[0]} x {args.grid[1]}; the interval is that of the seeds",
    }
    made = []
    for row, values in found.items():
        name = f"generation/{known.name}/landmarks/{args.labels}/{row}"
        made.append(record(f"{name}/mre", unit=unit, **summary(values), **shared))
        if row != REAL:
            gains = [before - value for before, value in zip(found[REAL], values, strict=True)]
            made.append(record(f"{name}/gain", unit=unit, **summary(gains), **shared))
    return made


def main() -> None:
    """Train, measure, print a line each row, and write the records when asked."""
    args = arguments()
    for name in ("model", "datalist", "work"):
        setattr(args, name, getattr(args, name).resolve())
    found: dict[str, list[float]] = {}
    unit, films = "", 0
    for seed in args.seeds:
        for strength in (None, *args.strengths):
            metrics = cell(args, strength, seed)
            row = REAL if strength is None else f"strength_{strength:g}"
            unit, films = metrics["unit"], metrics["all_films"]["films"]
            found.setdefault(row, []).append(float(metrics["all_films"][f"mre_{unit}"]))
            print(f"{row}, seed {seed}: {found[row][-1]:.3f} {unit}", flush=True)
    made = records(args, found, unit, films)
    for one in made:
        print(f"{one['name']}: {one['value']} {unit} ({one['interval'][0]} to {one['interval'][1]})")
    if args.json:
        add_records(args.json, made)


if __name__ == "__main__":
    main()
