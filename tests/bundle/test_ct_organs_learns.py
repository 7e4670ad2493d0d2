"""The whole road on invented bodies, as one would go it: scans, train, evaluate, infer. It has to learn something.

One seed, all bodies of one kind: this shows that the parts fit together, and nothing about patients.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.bundle import create_workflow

from monai_landmark.data.scan_list import ScanList, load_scans
from monai_landmark.data.synthetic_bodies import write_synthetic_bodies

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "ct_organs" / "configs"
RECIPE = {
    "architecture": "monai-dynunet",
    "spatial_size": [64, 64],
    "learning_rate": 0.01,
    "epochs": 2,
    "steps_per_epoch": 65,
    "rotation_deg": 4,  # all these bodies lie alike
    "scaling": 0.05,
    "shift": 0.03,
    "seed": 0,
}


def run(name: str, kind: str, command: str, **keys: Any) -> None:
    paths = {key: str(value) if isinstance(value, Path) else value for key, value in keys.items()}
    config = str(CONFIGS / f"{name}.yaml")
    options = {"config_file": config, "workflow_type": kind, "run_id": command, "logging_file": False}
    workflow = create_workflow(**options, precision="float32", **paths)
    workflow.run()
    workflow.finalize()


def volume(path: Any) -> Any:
    return np.asarray(nibabel.load(path).dataobj)


def dice(found: Any, label: Any) -> float:
    return float(2 * (found & label).sum() / (found.sum() + label.sum()))


def test_organs_of_bodies_never_seen_are_found(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        bodies = write_synthetic_bodies(tmp_path / "bodies", training=6, test=2, unlabelled=0, size=(64, 56, 20))
        model, report, out = tmp_path / "model", tmp_path / "report", tmp_path / "out"
        run("train", "train", "train", datalist=bodies, output_dir=model, **RECIPE)
        run("evaluate", "evaluation", "evaluate", datalist=bodies, model_dir=model, output_dir=report, surfaces=False)
        measured = json.loads((report / "metrics.json").read_text())["mean"]
        scans = load_scans(bodies, "test")
        run("inference", "infer", "infer", scans=scans, model_dir=model, output_dir=out)
    finally:
        torch.set_num_threads(threads)
    assert measured["dsc"] >= 90, measured
    numbers = {organ: number for number, organ in ScanList.load(bodies).numbers.items()}
    scores = []
    for scan in scans:  # the files alone, without any of the package's measures
        found, label = volume(out / f"{scan['id']}.nii.gz"), volume(scan["label"])
        named = json.loads((out / f"{scan['id']}.json").read_text())["labels"]
        scores += [dice(found == int(number), label == numbers[organ]) for number, organ in named.items()]
    assert len(scores) == 12 and abs(100 * np.mean(scores) - measured["dsc"]) < 0.01
