"""A bundle trained for two steps on a few small synthetic films, and MONAI's command line run in this process."""

from __future__ import annotations

import logging
import os
import runpy
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from monai_landmark.data.synthetic import write_synthetic_dataset

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "xray_landmarks"
CONFIGS = BUNDLE / "configs"
GRID = ("--spatial_size", "[64,64]")
TWO_STEPS = ("--epochs", "1", "--steps_per_epoch", "2", "--batch_size", "2", "--precision", "float32", *GRID)

MonaiBundle = Callable[..., None]


def monai_bundle(command: str, *arguments: str | Path) -> None:
    """``python -m monai.bundle command arguments`` word for word, without the seconds a new interpreter takes."""
    words = ["monai.bundle", command, *map(str, arguments)]
    root, argv = logging.getLogger(), sys.argv
    handlers, level = root.handlers[:], root.level
    sys.argv = words
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI warns on every run that a config is code
            runpy.run_module("monai.bundle", run_name="__main__", alter_sys=False)
    finally:
        sys.argv = argv
        root.handlers, root.level = handlers, level


def config(name: str) -> tuple[str, str]:
    """The words that name a config file of the bundle."""
    return "--config_file", str(CONFIGS / f"{name}.yaml")


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of eight small synthetic films with their datalist: 5 annotated, 2 to test, 1 without annotation."""
    folder = tmp_path_factory.mktemp("films")
    write_synthetic_dataset(folder, training=5, test=2, unlabelled=1, size=(200, 216))
    return folder


@pytest.fixture(scope="session")
def pretrained(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that ``pretrain`` wrote."""
    folder = tmp_path_factory.mktemp("pretrained")
    monai_bundle("run", "pretrain", *config("pretrain"), "--dataset_dir", films, "--output_dir", folder, *TWO_STEPS)
    return folder


@pytest.fixture(scope="session")
def model(films: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that ``train`` wrote, starting from the pre-trained network, one film kept for validation."""
    folder = tmp_path_factory.mktemp("model")
    start = ("--architecture", "diffusion-tiny", "--initialization", pretrained / "model.safetensors")
    budget = ("--label_budget", "4", "--validation_films", "1")
    folders = ("--dataset_dir", films, "--output_dir", folder)
    monai_bundle("run", "train", *config("train"), *folders, *start, *budget, *TWO_STEPS)
    return folder


@pytest.fixture(autouse=True)
def _one_thread_and_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run from another folder's point of view: paths given are absolute, and the bundle's own are not written to."""
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    monkeypatch.setattr(sys, "path", sys.path[:])  # MONAI puts the bundle on it
    yield
