"""What pre-training alone has learned: a light head on frozen features, ISBI 2015, a few labels, several seeds.

    python benchmarks/pretraining_probe.py --initializations random ddpm=runs/ddpm/model.safetensors \
        flow=runs/flow/model.safetensors --json docs/results/pretraining_probe.json

Features are computed once and kept under ``--work``, a head trains in a minute or two on a CPU, and a cell that is
finished is not done again. ``--dev`` measures on training films outside the label budget instead of the test films:
whatever is chosen (levels, timesteps, steps) is chosen there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from records import record, summary
from scipy.stats import bootstrap

import monai_landmark
from monai_landmark.data.budget import labeled_films
from monai_landmark.data.datalist import load_datalist
from monai_landmark.engines.feature_cache import FeatureCache
from monai_landmark.files import file_sha256, write_text
from monai_landmark.metrics import summarize_errors
from monai_landmark.networks import landmark_network
from monai_landmark.pretraining.probe import film_features, probe_errors, train_head
from monai_landmark.transforms import shape_of_films

CONFIG = Path("bundles/xray_landmarks/configs/train.yaml")  # its films look the same to a probe as to fine-tuning
MEASURES = {"mre_mm": "mm", "median_mm": "mm", "sdr2": "%", "sdr2.5": "%", "sdr3": "%", "sdr4": "%"}
MEASURES |= {"maps_alone_mre_mm": "mm"}
RANDOM_SCHEDULE = {"objective": "ddpm", "timesteps": 500, "schedule": "linear_beta"}  # noise for a random network
ERRORS = ("errors_mm", "maps_alone_mm")  # decoded as in `evaluate`, with the shape of the labeled films; without it
DEV_FILMS = 50


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datalist", type=Path, default=Path("runs/isbi2015/datalist.json"))
    parser.add_argument("--work", type=Path, default=Path("runs/pretraining_probe"))
    parser.add_argument(
        "--initializations",
        nargs="+",
        default=["random"],
        metavar="NAME=FILE",
        help="random, or a name and a file of pre-training; NAME=FILE@ARCHITECTURE where no model.json lies beside it",
    )
    parser.add_argument("--architecture", default="diffusion-tiny", help="of random")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--labels", type=int, default=25)
    parser.add_argument("--grid", nargs=2, type=int, default=[160, 128], metavar=("H", "W"))
    parser.add_argument("--levels", nargs="+", help="of the frozen network; its default levels where left out")
    parser.add_argument("--timesteps", nargs="+", type=int, default=[0], help="told to a diffusion network")
    parser.add_argument("--noise", action="store_true", help="noise the films to these timesteps")
    parser.add_argument("--combine", default="concat", help="several timesteps: concat | mean")
    parser.add_argument("--augmentations", type=int, default=8, help="augmented versions of each labeled film")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--width", type=int, default=32, help="channels of the head")
    parser.add_argument("--dev", action="store_true", help=f"measure on {DEV_FILMS} training films outside the budget")
    parser.add_argument("--only-collect", action="store_true", help="run nothing, gather what is finished")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def pipelines(grid: list[int]) -> tuple[dict[str, Any], str]:
    """Transforms of the bundle's ``train``: how films are loaded, augmented and validated; and their text."""
    parser = ConfigParser()
    parser.read_config(CONFIG)
    parser["spatial_size"] = grid
    parser["augmentation"]["transforms"][-1]["keys"] = ["image", "landmarks", "id"]  # maps are drawn in training
    names = ("preprocessing", "augmentation", "validate#preprocessing")
    values = {key: value for key, value in parser.get().items() if isinstance(value, (int, float))}
    text = json.dumps([values, *(parser[name] for name in names)], sort_keys=True, default=str)
    return {name: parser.get_parsed_content(name) for name in names}, text


def split(args: argparse.Namespace, seed: int) -> tuple[list[Any], list[Any]]:
    """The labeled films of a seed, and the films that are measured."""
    chosen = labeled_films(args.datalist, args.labels, 0, seed)
    if not args.dev:
        return chosen, load_datalist(args.datalist, "test")
    taken = {film["id"] for film in chosen} | {name for film in chosen for name in film.get("near_duplicates", [])}
    others = [film for film in labeled_films(args.datalist, 0, 0, 0) if film["id"] not in taken]
    return chosen, sorted(others, key=lambda film: str(film["id"]))[:DEV_FILMS]


def frozen_probe(args: argparse.Namespace, initialization: str, landmarks: int, seed: int) -> Any:
    """The probe of one cell, its head fresh; a random network is another one for every seed."""
    file, _, architecture = initialization.partition("@")
    torch.manual_seed(seed)
    return landmark_network(
        landmarks,
        args.architecture if file == "random" else architecture or "auto",
        file,
        frozen=True,
        timesteps=args.timesteps,
        noise=args.noise,
        schedule=RANDOM_SCHEDULE if file == "random" and args.noise else None,
        probe={"levels": args.levels, "combine": args.combine, "width": args.width},
    )


def settings(args: argparse.Namespace, initialization: str) -> dict[str, Any]:
    """All that a cell depends on besides its name and seed; a cell with other settings is measured anew."""
    file, _, architecture = initialization.partition("@")
    names = ("labels", "grid", "levels", "timesteps", "noise", "combine", "augmentations", "steps", "batch_size")
    facts = {name: getattr(args, name) for name in (*names, "learning_rate", "width", "dev")}
    facts["datalist"], facts["config"] = file_sha256(args.datalist), file_sha256(CONFIG)
    random = file == "random"
    return facts | {
        "weights": "random" if random else file_sha256(file),
        "of": args.architecture if random else architecture,
    }


def measure(args: argparse.Namespace, name: str, initialization: str, seed: int) -> dict[str, Any] | None:
    """One cell: features, head, errors on the measured films; kept in a file of its own."""
    part = "dev" if args.dev else "test1"
    path, wanted = args.work / part / str(args.labels) / f"{name}_s{seed}.json", settings(args, initialization)
    if path.is_file():
        cell: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if cell["settings"] == wanted:
            return cell
    if args.only_collect:
        return None
    chosen, measured = split(args, seed)
    transforms, text = pipelines(args.grid)
    start = time.monotonic()
    probe = frozen_probe(args, initialization, len(chosen[0]["landmarks"]), seed)
    facts = {"grid": args.grid, "transforms": text, "version": monai_landmark.__version__}
    cache = FeatureCache(args.work / "features", {**probe.features.identity(), **facts})
    plain = transforms["validate#preprocessing"]
    items = film_features(probe.features, chosen, cache, plain)
    if args.augmentations:
        augmented = (transforms["preprocessing"], transforms["augmentation"], args.augmentations)
        items += film_features(probe.features, chosen, cache, *augmented)
    held = film_features(probe.features, measured, cache, plain)
    ready = time.monotonic()
    losses = train_head(probe.head, items, tuple(args.grid), args.steps, args.batch_size, args.learning_rate, seed=seed)
    trained = time.monotonic()
    with_shape, alone = (probe_errors(probe.head, held, shape).tolist() for shape in (shape_of_films(chosen), None))
    errors = {ERRORS[0]: with_shape, ERRORS[1]: alone}
    cell = {
        "settings": wanted,
        "levels": list(probe.features.levels),
        "head_parameters": sum(weight.numel() for weight in probe.head.parameters()),
        "seconds": {"features": round(ready - start, 1), "head": round(trained - ready, 1)},
        "loss": statistics.mean(losses[-20:]),
        "trained_on": [film["id"] for film in chosen],
        "films": [film["id"] for film in measured],
        "leak_free": [not film.get("near_duplicates") for film in measured],
        **{
            key: [[None if math.isnan(error) else round(error, 4) for error in film] for film in films]
            for key, films in errors.items()
        },
    }
    write_text(path, json.dumps(cell))
    return cell


def errors_of(cell: dict[str, Any], leak_free: bool, key: str = ERRORS[0]) -> np.ndarray:
    """``(N, K)`` errors in mm of a cell's films, of all or of those without a near-duplicate."""
    errors = np.array(cell[key], dtype=np.float64)
    return errors[np.array(cell["leak_free"])] if leak_free else errors


def records(args: argparse.Namespace, name: str, cells: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Result records of one initialization, see docs/design.md section 8."""
    first = next(iter(cells.values()))
    shared = {
        "seeds": sorted(cells),
        "split": f"{args.labels} of 001-150 drawn by seed, "
        + ("50 others of them measured" if args.dev else "test 151-300"),
        "reader": "mean of senior and junior",
        "labels": args.labels,
        "notes": f"frozen {', '.join(first['levels'])} on {args.grid[0]} x {args.grid[1]}, timesteps {args.timesteps} "
        f"{'noised' if args.noise else 'clean'}, head of {first['head_parameters']} parameters, {args.steps} steps of "
        f"{args.batch_size}, {args.augmentations} augmented versions per film, native pixels, <=, pooled over points",
    }
    found = []
    for leak_free in (False, True):
        summaries = [summarize_errors(errors_of(cell, leak_free)) for cell in cells.values()]
        for cell, measured in zip(cells.values(), summaries, strict=True):
            measured["maps_alone_mre_mm"] = float(np.nanmean(errors_of(cell, leak_free, ERRORS[1])))
        for key, unit in MEASURES.items():
            values = [measured[key] for measured in summaries]
            found.append(
                record(
                    f"isbi2015/{'dev' if args.dev else 'test1'}/{args.labels}/{name}/probe/"
                    f"{'leakfree_' if leak_free else ''}{key}",
                    unit=unit,
                    n=summaries[0]["films"],
                    **summary(values, 4),
                    near_duplicates="left out" if leak_free else "kept",
                    **shared,
                )
            )
    return found


def gain(cells: dict[int, dict[str, Any]], baseline: dict[int, dict[str, Any]]) -> str:
    """How much smaller the errors are than the baseline's, seed by seed and film by film, with a 95 % interval."""
    seeds = sorted(cells.keys() & baseline.keys())
    if not seeds:
        return ""
    pairs = ((errors_of(baseline[seed], False), errors_of(cells[seed], False)) for seed in seeds)
    films = np.mean([np.nanmean(before - after, axis=1) for before, after in pairs], axis=0)
    interval = bootstrap((films,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return f"{films.mean():.2f} ({interval.low:.2f} to {interval.high:.2f})"


def spread(row: dict[str, Any], digits: int) -> str:
    """Mean over seeds, lowest and highest seed."""
    low, high = row["interval"]
    return f"{row['value']:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def main() -> None:
    """Fill the table, print it, and write the records when asked."""
    args = arguments()
    every: list[Any] = []
    tables: dict[str, dict[int, dict[str, Any]]] = {}
    columns = [
        "initialization",
        "seeds",
        "films",
        "MRE mm",
        "SDR 2 mm",
        "2.5 mm",
        "3 mm",
        "4 mm",
        "MRE maps alone",
        "gain over the first",
    ]
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    for entry in args.initializations:
        name, _, file = entry.partition("=")
        cells = {seed: measure(args, name, (file or name).replace("{seed}", str(seed)), seed) for seed in args.seeds}
        tables[name] = {seed: cell for seed, cell in cells.items() if cell is not None}
        if not tables[name]:
            continue
        rows = records(args, name, tables[name])
        every += rows
        by = {row["name"].rsplit("/", 1)[1]: row for row in rows}
        against = gain(tables[name], next(iter(tables.values()))) if len(tables) > 1 else ""
        for prefix, kind in (("", "all"), ("leakfree_", "leak-free")):
            picked = [by[f"{prefix}{key}"] for key in ("mre_mm", "sdr2", "sdr2.5", "sdr3", "sdr4", "maps_alone_mre_mm")]
            text = [spread(row, 2 if row["unit"] == "mm" else 1) for row in picked]
            row = [name, str(len(tables[name])), f"{picked[0]['n']} {kind}", *text, "" if prefix else against]
            print("| " + " | ".join(row) + " |", flush=True)
    if args.json:
        write_text(args.json, json.dumps(every, indent=1) + "\n")


if __name__ == "__main__":
    main()
