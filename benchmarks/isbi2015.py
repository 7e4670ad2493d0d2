"""The table of initializations on ISBI 2015 cephalograms: several seeds, native pixels, mean reader.

    python benchmarks/isbi2015.py --encoder-weights efficientnet-lite0.pth --json docs/results/isbi2015.json

Prepares the datalist, pre-trains, fine-tunes and evaluates by the same commands as a user; what is finished is not done
again, so it can be stopped and started. Films: ``../shared/data/isbi2015`` or ``$MONAI_LANDMARK_DATA/isbi2015``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

CONFIGS = Path("bundles/xray_landmarks/configs")
MEASURES = {"mre_mm": "mm", "median_mm": "mm", "sdr2": "%", "sdr2.5": "%", "sdr3": "%", "sdr4": "%"}


def arguments() -> argparse.Namespace:
    """The command line."""
    root = Path(os.environ.get("MONAI_LANDMARK_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=Path, default=root / "isbi2015")
    parser.add_argument("--work", type=Path, default=Path("runs/isbi2015"))
    parser.add_argument(
        "--encoder-weights", help="ImageNet weights of tf_efficientnet_lite0; timm's own where left out"
    )
    parser.add_argument("--initializations", nargs="+", default=["imagenet", "ddpm", "random"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--labels", type=int, default=25)
    parser.add_argument("--epochs", type=int, default=16, help="of fine-tuning from ImageNet, 50 steps each")
    parser.add_argument("--pretrain-epochs", type=int, default=16)
    parser.add_argument("--diffusion-epochs", type=int, default=16, help="of fine-tuning the diffusion U-Net")
    parser.add_argument("--diffusion-grid", nargs=2, type=int, default=[320, 256], metavar=("H", "W"))
    parser.add_argument("--only-collect", action="store_true", help="run nothing, gather what is finished")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def run(*words: object) -> None:
    """One command, printed as a user would type it."""
    command = [sys.executable, "-m", *map(str, words)]
    print("python", shlex.join(command[1:]), flush=True)
    subprocess.run(command, check=True)


def bundle(name: str, args: argparse.Namespace, *words: object) -> None:
    """One run of the bundle."""
    run("monai.bundle", "run", name, "--config_file", CONFIGS / f"{name}.yaml", "--dataset_dir", args.work, *words)


def steps_done(model: Path) -> int:
    """How far the training in a folder came."""
    card = model / "model.json"
    return int(json.loads(card.read_text())["steps"]) if card.is_file() else 0


def train(args: argparse.Namespace, name: str, seed: int) -> Path:
    """Fine-tune one cell of the table; returns its folder."""
    model = args.work / "out" / f"{name}_s{seed}"
    pretrained = args.work / "out" / "ddpm"
    diffusion = name != "imagenet"
    epochs = args.diffusion_epochs if diffusion else args.epochs
    if args.only_collect or steps_done(model) >= 50 * epochs:
        return model
    grid = ["--spatial_size", json.dumps(args.diffusion_grid)]
    if name == "ddpm" and steps_done(pretrained) < 50 * args.pretrain_epochs:
        bundle("pretrain", args, "--epochs", args.pretrain_epochs, *grid, "--output_dir", pretrained)
    start = {
        "imagenet": args.encoder_weights or "imagenet",
        "ddpm": pretrained / "model.safetensors",
        "random": "random",
    }[name]
    network = ["--architecture", "diffusion-tiny", *grid] if diffusion else []
    budget = ["--label_budget", args.labels, "--seed", seed, "--epochs", epochs]
    bundle("train", args, *budget, *network, "--initialization", start, "--output_dir", model)
    return model


def evaluate(args: argparse.Namespace, model: Path) -> dict[str, Any] | None:
    """Measure one cell, unless that is done; returns its metrics."""
    metrics = model / "evaluation" / "metrics.json"
    weights = model / "model.safetensors"
    fresh = metrics.is_file() and weights.is_file() and metrics.stat().st_mtime > weights.stat().st_mtime
    if not fresh and not args.only_collect:
        bundle("evaluate", args, "--model_dir", model)
    return json.loads(metrics.read_text()) if metrics.is_file() else None


def records(args: argparse.Namespace, name: str, cells: dict[int, dict[str, Any]], models: list[Path]) -> list[Any]:
    """Result records of one initialization, see docs/design.md section 8."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    card = json.loads((models[0] / "model.json").read_text())
    settings = f"--epochs {args.epochs}"
    if name != "imagenet":
        settings = (
            f"--diffusion-epochs {args.diffusion_epochs} --diffusion-grid {' '.join(map(str, args.diffusion_grid))}"
        )
    if name == "ddpm":
        settings += f" --pretrain-epochs {args.pretrain_epochs}"
    shared = {
        "seeds": sorted(cells),
        "command": f"python benchmarks/isbi2015.py --initializations {name} --labels {args.labels} " + settings,
        "commit": commit,
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, CPU, {os.cpu_count()} cores",
        "split": f"{args.labels} of 001-150 drawn by seed, test 151-300",
        "reader": "mean of senior and junior",
        "labels": args.labels,
        "notes": f"{card['architecture']} on {card['spatial_size'][0]} x {card['spatial_size'][1]}, "
        f"{card['steps']} steps of 4 films, no validation films, native pixels, <=, pooled over points",
    }
    found = []
    for part, prefix in (("all_films", ""), ("leak_free", "leakfree_")):
        for measure, unit in MEASURES.items():
            values = [cell[part][measure] for cell in cells.values() if cell.get(part)]
            films = next((cell[part]["films"] for cell in cells.values() if cell.get(part)), 0)
            if not values:
                continue
            label = "best" if name == "imagenet" else name
            found.append(
                {
                    "name": f"isbi2015/test1/{args.labels}/{label}/finetune/{prefix}{measure}",
                    "value": round(statistics.mean(values), 4),
                    "unit": unit,
                    "n": films,
                    "interval": [round(min(values), 4), round(max(values), 4)],
                    "near_duplicates": "left out" if prefix else "kept",
                    **shared,
                }
            )
    return found


def spread(row: dict[str, Any], digits: int) -> str:
    """Mean over seeds, lowest and highest seed."""
    low, high = row["interval"]
    return f"{row['value']:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def main() -> None:
    """Fill the table, print it, and write the records when asked."""
    args = arguments()
    if not (args.work / "datalist.json").is_file():
        run("monai_landmark", "prepare", "isbi2015", args.films, "--out", args.work / "datalist.json")
    every: list[Any] = []
    print("| initialization | seeds | test films | MRE mm | SDR 2 mm | 2.5 mm | 3 mm | 4 mm |\n" + "| --- " * 8 + "|")
    for name in args.initializations:
        models = [train(args, name, seed) for seed in args.seeds]
        cells = {seed: evaluate(args, model) for seed, model in zip(args.seeds, models, strict=True)}
        done = {seed: cell for seed, cell in cells.items() if cell is not None}
        if not done:
            continue
        rows = records(args, name, done, models)
        every += rows
        for part, kind in (("", "all"), ("leakfree_", "leak-free")):
            by = {row["name"].rsplit("/", 1)[1]: row for row in rows}
            row = [by[f"{part}{measure}"] for measure in ("mre_mm", "sdr2", "sdr2.5", "sdr3", "sdr4")]
            text = [spread(cell, 2 if index == 0 else 1) for index, cell in enumerate(row)]
            print(f"| {name} | {len(done)} | {row[0]['n']} {kind} | " + " | ".join(text) + " |")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(every, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
