"""A model that the bundle trained for two steps, for whatever works with a finished one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from monai.bundle import run

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "xray_landmarks"

TrainTwoSteps = Callable[..., None]


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """MONAI sets up logging for the whole process; put it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="session")
def train_two_steps() -> TrainTwoSteps:
    """Trains ``diffusion-tiny`` on 64 x 64 on the films of a folder."""

    def train(films: Path, output: Path, **options: object) -> None:
        run(
            run_id="train",
            config_file=str(BUNDLE / "configs" / "train.yaml"),
            dataset_dir=str(films),
            output_dir=str(output),
            architecture="diffusion-tiny",
            spatial_size=[64, 64],
            epochs=1,
            steps_per_epoch=2,
            batch_size=1,
            precision="float32",
            **options,
        )

    return train
