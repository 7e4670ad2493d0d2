"""Landmark error on ISBI 2015 cephalograms by initialization: several seeds, native pixels, mean reader.

    python benchmarks/isbi2015.py --initializations best --encoder-weights efficientnet-lite0.pth --json best.json
    python benchmarks/isbi2015.py --labels 10 25 --chest ../shared/data/chest_unlabelled --json table.json

``best`` is the shipped recipe. The other rows are a table of their own: same films, augmentation, grid and steps, each
from another start. Pre-trains, fine-tunes and evaluates by the same commands as a user; what is finished is not done
again, so it can be stopped and started. Films: ``../shared/data/isbi2015`` or ``$MONAI_LANDMARK_DATA/isbi2015``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from records import record, summary

CONFIGS = Path("bundles/xray_landmarks/configs")
MEASURES = {"mre_mm": "mm", "median_mm": "mm", "sdr2": "%", "sdr2.5": "%", "sdr3": "%", "sdr4": "%"}
ENCODER, DIFFUSION = "tf_efficientnet_lite0", "diffusion-tiny"


class Row(NamedTuple):
    """A start of fine-tuning: the network, and how it was pre-trained."""

    architecture: str
    objective: str | None = None
    options: tuple[str, ...] = ()
    imagenet: bool = False


ROWS = {
    "best": Row(ENCODER, imagenet=True),
    "random": Row(DIFFUSION),
    "ddpm": Row(DIFFUSION, "ddpm"),
    "flow": Row(DIFFUSION, "flow"),
    "conditional": Row(DIFFUSION, "conditional"),
    "aligned": Row(DIFFUSION, "aligned"),
    "imagenet": Row(ENCODER, imagenet=True),
    "denoise": Row(ENCODER, "ddpm", ("--timestep_range", "[0.05,0.4]"), imagenet=True),
}
ALIGNED_COST = 1.26  # a step of aligned costs so much of the others' on average: 3.6 times in its last tenth


def arguments() -> argparse.Namespace:
    """The command line."""
    root = Path(os.environ.get("MONAI_LANDMARK_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=Path, default=root / "isbi2015")
    parser.add_argument("--chest", type=Path, help="folder of further films to pre-train on, drawn as often as ISBI's")
    parser.add_argument("--work", type=Path, default=Path("runs/isbi2015"))
    parser.add_argument(
        "--encoder-weights", help="ImageNet weights of tf_efficientnet_lite0; timm's own where left out"
    )
    parser.add_argument("--initializations", nargs="+", choices=ROWS, default=[name for name in ROWS if name != "best"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--labels", nargs="+", type=int, default=[25])
    parser.add_argument("--epochs", type=int, default=6, help="of fine-tuning the table's rows, 50 steps each")
    parser.add_argument("--pretrain-epochs", type=int, default=32)
    parser.add_argument("--grid", nargs=2, type=int, default=[160, 128], metavar=("H", "W"), help="of the table's rows")
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


def pretrain(args: argparse.Namespace, name: str) -> Path:
    """Pre-train once for all cells of a row; returns the weights."""
    row, folder = ROWS[name], args.work / "pretrained" / name
    epochs = round(args.pretrain_epochs / (ALIGNED_COST if row.objective == "aligned" else 1))
    if not args.only_collect and steps_done(folder) < 50 * epochs:
        pool = [{"path": str((args.work / "datalist.json").resolve()), "weight": 1}]
        if args.chest:
            pool.append({"path": str(args.chest), "name": "chest", "weight": 1})
        words = ["--objective", row.objective, "--architecture", row.architecture, *row.options]
        start = ["--initialization", args.encoder_weights or "imagenet"] if row.imagenet else []
        words += [*start, "--pool", json.dumps(pool), "--learning_rate", 0.0005, "--val_interval", 8]
        bundle("pretrain", args, *words, "--epochs", epochs, *grid(args), "--output_dir", folder)
    return folder / "model.safetensors"


def grid(args: argparse.Namespace) -> list[str]:
    """The network's grid, as the bundle takes it."""
    return ["--spatial_size", json.dumps(args.grid)]


def train(args: argparse.Namespace, name: str, labels: int, seed: int) -> Path:
    """Fine-tune one cell of the table; returns its folder."""
    row, model = ROWS[name], args.work / "out" / f"{name}_{labels}_s{seed}"
    if name == "best":
        return train_best(args, labels, seed, model)
    if args.only_collect or steps_done(model) >= 50 * args.epochs:
        return model
    start: Any = "random"
    if row.objective is not None:
        start = pretrain(args, name)
    elif row.imagenet:
        start = args.encoder_weights or "imagenet"
    network = ["--architecture", row.architecture, *grid(args), "--initialization", start]
    budget = ["--label_budget", labels, "--seed", seed, "--epochs", args.epochs]
    bundle("train", args, *budget, *network, "--output_dir", model)
    return model


def train_best(args: argparse.Namespace, labels: int, seed: int, model: Path) -> Path:
    """The shipped recipe: 800 steps from ImageNet on 320 x 256, then 250 on 448 x 352 from there."""
    coarse = model.with_name(f"{model.name}_coarse")
    if args.only_collect:
        return model
    budget = ["--label_budget", labels, "--seed", seed]
    if steps_done(coarse) < 800:
        start = args.encoder_weights or "imagenet"
        bundle("train", args, *budget, "--initialization", start, "--output_dir", coarse)
    if steps_done(model) < 250:
        finer = ["--spatial_size", "[448,352]", "--sigma_px", 2.0, "--learning_rate", 0.0005, "--epochs", 5]
        start = coarse / "model.safetensors"
        bundle("train", args, *budget, *finer, "--initialization", start, "--output_dir", model)
    return model


def evaluate(args: argparse.Namespace, model: Path) -> dict[str, Any] | None:
    """Measure one cell, unless that is done; returns its metrics."""
    metrics = model / "evaluation" / "metrics.json"
    weights = model / "model.safetensors"
    fresh = metrics.is_file() and weights.is_file() and metrics.stat().st_mtime > weights.stat().st_mtime
    if not fresh and not args.only_collect:
        bundle("evaluate", args, "--model_dir", model)
    return json.loads(metrics.read_text()) if metrics.is_file() else None


def records(
    args: argparse.Namespace, name: str, labels: int, cells: dict[int, dict[str, Any]], models: list[Path]
) -> list[Any]:
    """Result records of one row, see docs/design.md section 8."""
    card = json.loads((models[0] / "model.json").read_text())
    settings = f"--epochs {card['steps'] // 50} --grid {' '.join(map(str, card['spatial_size']))}"
    notes = (
        f"{card['architecture']} on {card['spatial_size'][0]} x {card['spatial_size'][1]}, "
        f"{card['steps']} steps of 4 films, no validation films, native pixels, <=, pooled over points"
    )
    if name == "best":
        settings, notes = "", notes + "; before that 800 steps on 320 x 256 from ImageNet"
    if ROWS[name].objective:
        settings += f" --pretrain-epochs {args.pretrain_epochs}" + (" --chest CHEST" if args.chest else "")
        source = json.loads((args.work / "pretrained" / name / "model.json").read_text())
        notes += (
            f"; pre-trained for {source['steps']} steps on {source['films']} films of {', '.join(source['sources'])}"
        )
    shared = {
        "seeds": sorted(cells),
        "command": f"python benchmarks/isbi2015.py --initializations {name} --labels {labels} {settings}",
        "split": f"{labels} of 001-150 drawn by seed, test 151-300",
        "reader": "mean of senior and junior",
        "labels": labels,
        "notes": notes,
    }
    found = []
    for part, prefix in (("all_films", ""), ("leak_free", "leakfree_")):
        for measure, unit in MEASURES.items():
            values = [cell[part][measure] for cell in cells.values() if cell.get(part)]
            films = next((cell[part]["films"] for cell in cells.values() if cell.get(part)), 0)
            if not values:
                continue
            found.append(
                record(
                    f"isbi2015/test1/{labels}/{name}/finetune/{prefix}{measure}",
                    unit=unit,
                    n=films,
                    **summary(values, 4),
                    near_duplicates="left out" if prefix else "kept",
                    **shared,
                )
            )
    return found


def spread(row: dict[str, Any], digits: int) -> str:
    """Mean over seeds, lowest and highest seed."""
    low, high = row["interval"]
    return f"{row['value']:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def table_lines(name: str, labels: int, seeds: int, rows: list[Any]) -> list[str]:
    """A row of the table for all test films and one for those without near-duplicates."""
    lines, by = [], {row["name"].rsplit("/", 1)[1]: row for row in rows}
    for part, kind in (("", "all"), ("leakfree_", "leak-free")):
        cells = [by[f"{part}{measure}"] for measure in ("mre_mm", "sdr2", "sdr2.5", "sdr3", "sdr4")]
        text = [spread(cell, 2 if index == 0 else 1) for index, cell in enumerate(cells)]
        lines.append(f"| {labels} | {name} | {seeds} | {cells[0]['n']} {kind} | " + " | ".join(text) + " |")
    return lines


def main() -> None:
    """Fill the table, print it, and write the records when asked."""
    args = arguments()
    if not (args.work / "datalist.json").is_file():
        run("monai_landmark", "prepare", "isbi2015", args.films, "--out", args.work / "datalist.json")
    every: list[Any] = []
    lines = [
        "| labels | initialization | seeds | test films | MRE mm | SDR 2 mm | 2.5 mm | 3 mm | 4 mm |",
        "| --- " * 9 + "|",
    ]
    for labels, name in itertools.product(args.labels, args.initializations):
        models = [train(args, name, labels, seed) for seed in args.seeds]
        cells = {seed: evaluate(args, model) for seed, model in zip(args.seeds, models, strict=True)}
        done = {seed: cell for seed, cell in cells.items() if cell is not None}
        if done:
            every += (rows := records(args, name, labels, done, [model for model in models if model.is_dir()]))
            lines += table_lines(name, labels, len(done), rows)
    print("\n".join(lines))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(every, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
