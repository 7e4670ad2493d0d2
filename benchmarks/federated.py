"""Three hospitals with different films: trained together by NVFlare, each alone, and with all films in one place.

    python benchmarks/federated.py --work runs/federated      # docs/how-to/federated.md; needs nvflare

Pre-training on the films of each site, then fine-tuning on its labels, with the same steps for every model. The test
films of all three sites are the judges. Writes docs/results/federated.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import robustness
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from records import add_records, record, summary

from monai_landmark.data.synthetic import write_synthetic_dataset
from monai_landmark.federated.client import settings_of
from monai_landmark.federated.job import federated_job, federated_model
from monai_landmark.federated.job import simulate as run_simulator
from monai_landmark.files import file_sha256, write_text

OUT = Path("docs/results/federated.json")
SITES: dict[str, dict[str, Any]] = {  # size (H, W), number of labels, and what the site's machine does to a film
    "site_a": {"size": (210, 230), "training": 8, "gamma": 1.0, "noise": 0.0},
    "site_b": {"size": (205, 250), "training": 6, "gamma": 0.5, "noise": 6.0},
    "site_c": {"size": (240, 220), "training": 4, "gamma": 2.0, "noise": 2.0},
}
STAGES = ("pretrain", "train")


def main() -> None:
    """Make the films, train all models, and measure each on the films of every site."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/federated"))
    parser.add_argument("--rounds", type=int, default=4, help="of each stage")
    parser.add_argument("--steps", type=int, default=20, help="of a round at a site")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--test-films", type=int, default=8, help="of a site")
    parser.add_argument("--grid", type=int, nargs=2, default=[64, 64])
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    args.work = args.work.resolve()
    torch.set_num_threads(1)
    os.environ.update(OMP_NUM_THREADS="1")  # for the sites
    make_sites(args.work / "films", args.test_films)
    errors: dict[str, list[list[float]]] = {}
    for seed in args.seeds:
        for name, folder in train_all(args, seed).items():
            errors.setdefault(name, []).append([measured(args, folder, site) for site in SITES])
    print(table(errors))
    add_records(args.out, records(errors, args))


# ---- films ---------------------------------------------------------------------------------------------------------
def make_sites(folder: Path, test: int) -> None:
    """A datalist for each site, and one with the films of all."""
    pooled: dict[str, Any] = {}
    for number, (site, facts) in enumerate(SITES.items()):
        path = folder / site / "datalist.json"
        if not path.is_file():
            counts = {"training": facts["training"], "test": test, "unlabelled": 12}
            write_synthetic_dataset(path.parent, **counts, seed=100 + number, size=facts["size"])
            as_the_site_has_them(path, facts["gamma"], facts["noise"])
        content = json.loads(path.read_text(encoding="utf-8"))
        for section in ("training", "test", "unlabelled"):
            for film in content.get(section, []):
                film |= {key: f"{site}-{film[key]}" for key in ("id", "patient")}
                film["image"] = f"{site}/{film['image']}"
            pooled.setdefault(section, []).extend(content.get(section, []))
        pooled = {**content, **pooled}
    write_text(folder / "datalist.json", json.dumps(pooled))


def as_the_site_has_them(path: Path, gamma: float, noise: float) -> None:
    """Another curve and more noise, as of another machine; the hashes in the datalist follow."""
    content, draw = json.loads(path.read_text(encoding="utf-8")), np.random.default_rng(0)
    for section in ("training", "test", "unlabelled"):
        for film in content.get(section, []):
            file = path.parent / film["image"]
            gray = 255 * (np.asarray(Image.open(file), dtype=np.float64) / 255) ** gamma
            gray += noise * draw.standard_normal(gray.shape)
            Image.fromarray(gray.round().clip(0, 255).astype(np.uint8)).save(file)
            film["sha256"] = file_sha256(file)
    write_text(path, json.dumps(content))


# ---- training ------------------------------------------------------------------------------------------------------
def train_all(args: argparse.Namespace, seed: int) -> dict[str, Path]:
    """Every model's folder; a stage that has been trained is not trained again."""
    folders = {}
    for name in (*SITES, "pooled"):
        films = args.work / "films" if name == "pooled" else args.work / "films" / name
        for stage in STAGES:
            folders[name] = args.work / f"{name}_{seed}" / stage
            if not trained(folders[name], args):
                bundle(stage, films, folders[name], [*settings(args, stage, seed, name), f"epochs={args.rounds}"])
    for stage in STAGES:
        folders["federated"] = args.work / f"federated_{seed}" / stage
        if not (folders["federated"] / "model.json").is_file():  # made when all rounds are over
            simulate(args, stage, seed, folders["federated"])
    return folders


def trained(folder: Path, args: argparse.Namespace) -> bool:
    """Whether a training came to its end; it keeps its model after every epoch."""
    card = folder / "model.json"
    return card.is_file() and bool(json.loads(card.read_text())["steps"] >= args.rounds * args.steps)


def settings(args: argparse.Namespace, stage: str, seed: int, name: str) -> list[str]:
    """What is changed in the bundle's configuration, the same for every model."""
    words = [f"seed={seed}", f"steps_per_epoch={args.steps}", "batch_size=4", "precision=float32"]
    words += [f"spatial_size=[{args.grid[0]},{args.grid[1]}]"]
    if stage == "pretrain":
        return [*words, "samples=0", "val_interval=1000"]
    start = args.work / f"{name}_{seed}" / "pretrain" / "model.safetensors"
    return [*words, "architecture=diffusion-tiny", f"initialization={start}", "val_interval=1000"]


def bundle(command: str, films: Path, output: Path, words: Sequence[str]) -> None:
    """``python -m monai.bundle run`` in a forked process; what it says goes into a file beside its output."""

    def work() -> None:
        """As :class:`monai.bundle.ConfigWorkflow` runs a bundle."""
        torch.set_num_threads(1)
        own = {"dataset_dir": str(films), "output_dir": str(output)}
        config = robustness.BUNDLE / "configs" / f"{command}.yaml"
        kind = "evaluation" if command == "evaluate" else "train"
        overrides = {**settings_of(words, config), **own}
        workflow = ConfigWorkflow(str(config), workflow_type=kind, logging_file=False, **overrides)
        workflow.initialize()
        workflow.run()

    output.parent.mkdir(parents=True, exist_ok=True)
    print(f"{command}: {output}", flush=True)
    robustness.ended(robustness.fork(work, output.with_suffix(".log")))


def simulate(args: argparse.Namespace, stage: str, seed: int, folder: Path) -> None:
    """All sites at once in NVFlare's simulator, then the model of what the server saved."""
    own = folder.parent / "sites" / "{site}" / stage
    films = args.work / "films" / "{site}"
    job = federated_job(
        f"{stage}_{seed}",
        stage,
        len(SITES),
        args.rounds,
        1,
        str(films),
        str(own),
        robustness.BUNDLE,
        settings(args, stage, seed, "federated"),
        sys.executable,
    )
    job.export_job(str(args.work / "jobs"))  # what a project's admin would submit
    workspace = folder.parent / f"{stage}_workspace"
    saved = run_simulator(job, workspace, list(SITES))
    federated_model(saved, str(own).format(site=next(iter(SITES))), folder)


# ---- measuring -----------------------------------------------------------------------------------------------------
def measured(args: argparse.Namespace, folder: Path, site: str) -> float:
    """Mean radial error on the test films of a site, in mm."""
    output = folder.parent / f"evaluated_{site}"
    if not (output / "metrics.json").is_file():
        words = [f"model_dir={folder}", "views=[[0,1]]", "precision=float32"]
        bundle("evaluate", args.work / "films" / site, output, words)
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    return float(metrics["all_films"]["mre_mm"])


def table(errors: dict[str, list[list[float]]]) -> str:
    """Mean radial error by model (rows) and films (columns), means over seeds."""
    lines = ["| trained on | " + " | ".join((*SITES, "all")) + " |", "| --- |" + " --- |" * (len(SITES) + 1)]
    for name, found in errors.items():
        means = np.mean(found, axis=0)
        cells = [*means, np.mean(means)]
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in cells) + " |")
    return "\n".join(lines)


def records(errors: dict[str, list[list[float]]], args: argparse.Namespace) -> list[dict[str, Any]]:
    """One a model, over the films of all sites; see docs/design.md, section 8."""
    made = []
    for name, found in errors.items():
        by_seed = np.mean(found, axis=1).tolist()
        parts = ", ".join(f"{site} {mean:.2f}" for site, mean in zip(SITES, np.mean(found, axis=0), strict=True))
        notes = f"{parts}; each stage {args.rounds} rounds of {args.steps} steps, or as many steps without rounds; "
        notes += "the interval is that of the seeds"
        facts = {"seeds": args.seeds, "split": "synthetic films", "notes": notes}
        name, films = f"federated/{name}/mre_mm", args.test_films * len(SITES)
        made.append(record(name, unit="mm", n=films, **summary(by_seed), **facts))
    return made


if __name__ == "__main__":
    main()
