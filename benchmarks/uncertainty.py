"""Is the uncertainty worth something? Trained networks are calibrated on films that they have not seen, and measured.

python benchmarks/uncertainty.py runs/model_s0 runs/model_s1 runs/model_s2 --datalist runs/isbi2015/datalist.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from records import add_records, record, summary

from monai_landmark.networks import model_card
from monai_landmark.uncertainty import CALIBRATION_FILE

MEASURES = {"ere_auroc_4mm": "", "ere_spearman": "", "coverage90": "%", "referral20_gain": "%"}
MEASURES |= {"radius90_mm": "mm", "measure95_held": "%"}


def main() -> None:
    """Calibrate, measure, and write the records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+", help="folders that train wrote, one for each seed")
    parser.add_argument("--datalist", type=Path, required=True)
    parser.add_argument("--name", default="isbi2015/test1/25/best", help="of the records")
    parser.add_argument("--out", type=Path, default=Path("docs/results/uncertainty.json"))
    args = parser.parse_args()
    found = [measured(model, args.datalist) for model in args.models]
    cards = [model_card(model) for model in args.models]
    facts = {
        "n": found[0]["films"],
        "seeds": [card["seed"] for card in cards],
        "command": "python benchmarks/uncertainty.py MODELS --datalist DATALIST",
        "split": "calibrated on films of 001-150 that are neither labels nor near-duplicates, test 151-300",
        "reader": "mean of senior and junior",
        "labels": cards[0]["label_budget"],
        "near_duplicates": "kept",
        "notes": "conformal regions of level 0.9 for each landmark; referral of single landmarks, films pooled",
    }
    records = []
    for measure, unit in MEASURES.items():
        values = [values_of(one)[measure] for one in found]
        print(f"{measure:16s}", *(f"{value:8.3f}" for value in values), f"   mean {statistics.mean(values):.3f} {unit}")
        records.append(record(f"{args.name}/{measure}", unit=unit, **summary(values, 4), **facts))
    add_records(args.out, records)


def measured(model: Path, datalist: Path) -> dict[str, Any]:
    """The report's uncertainty of one network; what was done before is not done again."""
    if not (model / CALIBRATION_FILE).is_file():
        run("monai_landmark", "calibrate", "--model-dir", model, "--datalist", datalist)
    output = model / "calibrated_evaluation"
    if not (output / "metrics.json").is_file():
        config = "bundles/xray_landmarks/configs/evaluate.yaml"
        words = ["--datalist", datalist, "--model_dir", model, "--output_dir", output]
        run("monai.bundle", "run", "evaluate", "--config_file", config, *words)
    metrics: dict[str, Any] = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    return metrics["uncertainty"] | {"measurements": metrics["measurements"]}


def values_of(found: Mapping[str, Any]) -> dict[str, float]:
    """The measures of one network."""
    rows = found["landmarks"]
    count = sum(row["n"] for row in rows)
    return {
        "ere_auroc_4mm": found["auroc"],
        "ere_spearman": found["spearman"],
        "coverage90": sum(row["covered_percent"] * row["n"] for row in rows) / count,
        "referral20_gain": 100 * next(one["gain"] for one in found["referral"] if one["by"] == "landmark"),
        "radius90_mm": statistics.mean(row["median_radius_mm"] for row in rows),
        "measure95_held": statistics.mean(row["held_percent"] for row in found["measurements"]),
    }


def run(*words: object) -> None:
    """One of the package's commands."""
    subprocess.run([sys.executable, "-m", *map(str, words)], check=True)


if __name__ == "__main__":
    main()
