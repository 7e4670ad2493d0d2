"""The YAML itself: values only, explained, and the same network and transforms wherever they must be the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIGS = ["train", "pretrain", "evaluate", "inference"]
SELF_EXPLAINING = {"datalist", "batch_size", "steps_per_epoch", "rotation_deg", "num_workers"}


def read(bundle: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((bundle / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", [*CONFIGS, "multi_gpu"])
def test_holds_values_and_no_code(bundle: Path, name: str) -> None:
    text = (bundle / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)
    assert not re.search(r"\blambda\b|\bscripts\b|strftime|datetime|__import__|\bexec\(|\beval\(", text)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_of_the_command_line_is_explained(bundle: Path, name: str) -> None:
    text = (bundle / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    block = text.split("command line ---")[1].split("\n# ----")[0].splitlines()[1:]
    silent = [line.split(":")[0] for line in block if line and " # " not in line]
    assert len(block) > 8 and set(silent) <= SELF_EXPLAINING


@pytest.mark.parametrize("name", ["inference", "evaluate"])
def test_network_and_transforms_are_those_of_training(bundle: Path, name: str) -> None:
    train, other = read(bundle, "train"), read(bundle, name)
    assert train["network_def"]["_target_"] == "monai_landmark.networks.landmark_network"
    assert other["network_def"] == {  # what else training was told is read back from the card it wrote
        "_target_": "monai_landmark.networks.trained_network",
        "model_dir": "@model_dir",
        **{key: train["network_def"][key] for key in ("landmarks", "architecture")},
    }
    assert other["network"] == train["network"]
    assert other["preprocessing"] == train["validate"]["preprocessing"]
    decoding = train["validate"]["postprocessing"]
    for transform in decoding["transforms"]:
        if transform.get("shape") == "@train#card#shape":
            transform["shape"] = "@shape"  # read back from the card that training wrote
            transform["calibration"] = "@calibration"  # there is none before there are weights
    assert other["postprocessing"] == decoding


def test_inference_and_evaluation_differ_only_in_what_they_are_for(bundle: Path) -> None:
    inference, evaluation = read(bundle, "inference"), read(bundle, "evaluate")
    same = ["network_def", "network", "weights", "preprocessing", "postprocessing", "inferer", "collector", "views"]
    same += ["schema", "architecture", "spatial_size", "landmarks", "device", "shape", "precision", "calibration"]
    assert {key: inference[key] for key in same} == {key: evaluation[key] for key in same}


def test_pretraining_feeds_the_network_what_training_will(bundle: Path) -> None:
    """Same film, same grid, same range of values, so that what was learned transfers."""
    train, pretrain = read(bundle, "train"), read(bundle, "pretrain")
    load, fit, scale = pretrain["preprocessing"]["transforms"]
    assert [load, fit] == train["preprocessing"]["transforms"][:2]
    expected = train["validate"]["preprocessing"]["transforms"][2]
    assert scale == expected and (scale["b_min"], scale["b_max"]) == (-1.0, 1.0)
    assert pretrain["spatial_size"] == train["spatial_size"]


WRITERS = {"ModelSaver", "ProgressHandler", "TensorBoardStatsHandler", "CheckpointSaver"}
WRITERS |= {"SampleHandler", "MemorizationHandler", "DenoisingValidator"}


def test_only_rank_0_writes(bundle: Path) -> None:
    for name in ("train", "pretrain"):
        train = read(bundle, name)["train"]
        handlers = [*train["handlers"], train.get("sampling", {})]
        written = 0
        for handler in handlers:
            kind = handler.get("_target_", "").rsplit(".", 1)[-1]
            if kind in WRITERS:
                assert "@rank > 0" in handler["_disabled_"], kind
                written += 1
            if kind == "TrainingStateSaver":
                assert handler["save"] == "$@rank == 0"
            if kind == "ThroughputHandler":  # all count, for objectives ask the other processes; the first one tells
                assert handler["writer"] == "@train#writer" and train["writer"].endswith("if @rank == 0 else None")
        assert written >= 3
