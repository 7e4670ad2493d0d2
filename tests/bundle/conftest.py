"""A bundle trained for two steps on a few small synthetic films, and MONAI's command line run in this process."""

from __future__ import annotations

import logging
import runpy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_landmark.data.synthetic import write_synthetic_dataset

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "xray_landmarks"
TWO_STEPS = ["--epochs", "1", "--steps_per_epoch", "2", "--batch_size", "2", "--precision", "float32"]
SMALL_GRID = ["--spatial_size", "[64,64]"]

MonaiBundle = Callable[..., None]


def run_monai_bundle(command: str, *words: str | Path) -> None:
    """``python -m monai.bundle command words``, word for word, without the seconds that a new interpreter takes."""
    root, argv, path = logging.getLogger(), sys.argv, sys.path[:]
    handlers, level = root.handlers[:], root.level
    sys.argv = ["monai.bundle", command, *map(str, words)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI warns each time that a config can run code
            runpy.run_module("monai.bundle", run_name="__main__")
    finally:
        sys.argv, sys.path[:] = argv, path
        root.handlers[:], root.level = handlers, level


def config(*names: str) -> list[str]:
    """The words that name config files of the bundle."""
    files = [str(BUNDLE / "configs" / f"{name}.yaml") for name in names]
    return ["--config_file", files[0] if len(files) == 1 else str(files)]


@pytest.fixture(scope="session")
def monai_bundle() -> MonaiBundle:
    """See :func:`run_monai_bundle`."""
    return run_monai_bundle


@pytest.fixture(scope="session")
def bundle() -> Path:
    """Folder of the bundle."""
    return BUNDLE


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of small synthetic films with their datalist: 5 annotated, 2 to test, 1 without annotation."""
    folder = tmp_path_factory.mktemp("films")
    write_synthetic_dataset(folder, training=5, test=2, unlabelled=1, size=(200, 216))
    return folder


@pytest.fixture(scope="session")
def pretrained(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that ``pretrain`` wrote."""
    folder = tmp_path_factory.mktemp("pretrained")
    folders = ["--dataset_dir", films, "--output_dir", folder]
    run_monai_bundle("run", "pretrain", *config("pretrain"), *folders, *TWO_STEPS, *SMALL_GRID)
    return folder


@pytest.fixture(scope="session")
def model(films: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that ``train`` wrote: from the pre-trained network, 4 labels of which one validates."""
    folder = tmp_path_factory.mktemp("model")
    folders = ["--dataset_dir", films, "--output_dir", folder]
    start = ["--architecture", "diffusion-tiny", "--initialization", pretrained / "model.safetensors"]
    budget = ["--label_budget", "4", "--validation_films", "1"]
    run_monai_bundle("run", "train", *config("train"), *folders, *start, *budget, *TWO_STEPS, *SMALL_GRID)
    return folder
