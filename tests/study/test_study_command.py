"""The study as a user runs it: two starts on synthetic films, stopped, repeated, and run again from nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from monai_landmark.apps import cli
from monai_landmark.data.synthetic import write_synthetic_dataset

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "xray_landmarks"
SHORT = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_synthetic_dataset(folder / "films", training=4, test=3, size=(200, 216))
    content = {
        "name": "synthetic",
        "bundle": str(BUNDLE),
        "datasets": {"synthetic": {"datalist": str(folder / "films" / "datalist.json")}},
        "budgets": [2],
        "seeds": [0],
        "initializations": {
            "random": {"architecture": "diffusion-tiny"},
            "ddpm": {"architecture": "diffusion-tiny", "pretrain": {"objective": "ddpm", "samples": 0}},
        },
        "train": {**SHORT, "spatial_size": [64, 64]},
        "pretrain": SHORT,
        "evaluate": {"views": [[0, 1]]},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def run(study: Path, *words: str) -> int:
    return cli.main(["study", str(study / "study.yaml"), "--out", str(study / "out"), *words])


def test_nothing_finished_is_an_empty_table(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(study, "--collect") == 0
    assert "0 rows" in capsys.readouterr().out and json.loads((study / "out" / "table.json").read_text()) == []


@pytest.mark.slow
def test_a_study_runs_goes_on_and_repeats_itself(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, cell = study / "out", study / "out/cells/synthetic/2/ddpm/full/s0"
    assert run(study, "--only", "/random/") == 0
    assert not cell.exists() and not (out / "pretrained").exists()
    assert run(study) == 0
    said = capsys.readouterr().out
    assert "cells/synthetic/2/random/full/s0, was done" in said and "| ddpm | full | 1 |" in said
    assert {record["name"] for record in json.loads((out / "table.json").read_text())} >= {
        "synthetic/test/2/random/finetune/mre_mm",
        "synthetic/test/2/ddpm/finetune/gain_mm",
    }
    assert (out / "figures" / "synthetic_pairs_2.png").is_file()
    predictions = (cell / "evaluation" / "predictions.json").read_bytes()
    shutil.rmtree(cell)
    assert run(study) == 0
    assert (cell / "evaluation" / "predictions.json").read_bytes() == predictions
