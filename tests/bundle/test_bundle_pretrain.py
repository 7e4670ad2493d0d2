"""Pre-training by the bundle: every objective, what it leaves, and that a stopped run goes on bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from safetensors.torch import load_file

from monai_landmark.data.synthetic import write_synthetic_dataset
from monai_landmark.engines import TrainingStateSaver
from monai_landmark.errors import ConfigurationError
from monai_landmark.networks import landmark_network
from monai_landmark.pretraining.factory import OBJECTIVES

MonaiBundle = Callable[..., None]
SHORT = ["--steps_per_epoch", "2", "--batch_size", "2", "--precision", "float32", "--spatial_size", "[64,64]"]
ENCODERS = ("simclr", "mocov3", "dino", "masked")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small films: two to test, and enough others that one is held out."""
    folder = tmp_path_factory.mktemp("pool")
    write_synthetic_dataset(folder, training=2, test=2, unlabelled=10, size=(200, 216))
    return folder


@pytest.fixture(scope="module")
def pretrain(bundle: Path, pool: Path, monai_bundle: MonaiBundle) -> Callable[..., Path]:
    """Run ``pretrain`` into a folder."""

    def run(folder: Path, *words: str) -> Path:
        config = ["--config_file", str(bundle / "configs" / "pretrain.yaml")]
        monai_bundle("run", "pretrain", *config, "--dataset_dir", pool, "--output_dir", folder, *SHORT, *words)
        return folder

    return run


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_leaves_what_a_landmark_network_starts_from(
    pretrain: Callable[..., Path], tmp_path: Path, objective: str
) -> None:
    options = ["--alignment_start", "0.5"] if objective == "aligned" else []
    if objective in ENCODERS:
        options = ["--architecture", "mobilenetv3_small_050"]
    folder = pretrain(tmp_path, "--objective", objective, "--epochs", "1", "--samples", "0", *options)
    card = json.loads((folder / "model.json").read_text())
    assert card["objective"] == objective and card["steps"] == 2 and card["films"] == 11
    network = landmark_network(4, card["architecture"], folder / "model.safetensors")
    assert network.transfer_report is not None and not network.transfer_report.ignored
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 4, 64, 64)


def test_what_one_looks_at_is_written(pretrain: Callable[..., Path], tmp_path: Path) -> None:
    folder = pretrain(tmp_path, "--epochs", "1", "--val_interval", "1", "--samples", "2")
    assert {file.name for file in (folder / "samples").iterdir()} == {
        f"step_0000002_{name}.png" for name in ("samples", "denoised", "nearest")
    }
    assert json.loads((folder / "validation.json").read_text())
    assert json.loads((folder / "memorization.json").read_text())


def test_a_stopped_run_goes_on_bit_for_bit(
    pretrain: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill after the first epoch leaves is that epoch's checkpoint; a new run goes on from it."""
    saved: list[bytes] = []
    original = TrainingStateSaver.__call__

    def watched(self: TrainingStateSaver, engine: Engine) -> None:
        original(self, engine)
        saved.append(self.path.read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStateSaver, "__call__", watched)
        whole = pretrain(tmp_path / "whole", "--epochs", "2", "--samples", "0")
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "checkpoint.pt").write_bytes(saved[0])
    resumed = pretrain(tmp_path / "stopped", "--epochs", "2", "--samples", "0")
    expected, found = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_refuses_to_start_with_an_evaluation_film_in_its_pool(
    pretrain: Callable[..., Path], pool: Path, tmp_path: Path
) -> None:
    test_films = json.loads((pool / "datalist.json").read_text())["test"]
    (tmp_path / "more").mkdir()
    copy = tmp_path / "more" / ("copy" + Path(test_films[0]["image"]).suffix)
    copy.write_bytes((pool / test_films[0]["image"]).read_bytes())
    with pytest.raises(RuntimeError) as refusal:  # MONAI wraps what a component raises
        pretrain(tmp_path / "out", "--epochs", "1", "--pool", f"['{tmp_path / 'more'}']")
    chain, error = [], refusal.value
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    (told,) = [str(each) for each in chain if isinstance(each, ConfigurationError)]
    assert "1 evaluation films are in the pre-training pool" in told and "set `on_evaluation_film`" in told
    assert "copy" not in told  # a film of a training is told by its pseudonym
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_budget_of_minutes_ends_the_run(pretrain: Callable[..., Path], tmp_path: Path) -> None:
    folder = pretrain(tmp_path, "--epochs", "500", "--budget", "0.02", "--samples", "0", "--held_out_films", "0")
    assert 0 < json.loads((folder / "model.json").read_text())["steps"] < 1000
