"""The overlay for distributed training, with gloo on the CPU."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

MonaiBundle = Callable[..., None]
TINY = ["--epochs", "1", "--steps_per_epoch", "2", "--batch_size", "1", "--precision", "float32"]
TINY += ["--spatial_size", "[64,64]"]


def files(bundle: Path, *more: Path | str) -> list[str]:
    """The words that name several config files, the later ones over the earlier ones."""
    names = [str(more_file if isinstance(more_file, Path) else bundle / "configs" / more_file) for more_file in more]
    return ["--config_file", str(names)]


@pytest.fixture()
def witness(tmp_path: Path) -> Path:
    """A config over all others: every process leaves its weights and what it trained on, then finalizes."""
    path = tmp_path / "witness.yaml"
    left = "{'weights': @network_def.state_dict(), 'wrapped': type(@network).__name__, 'world': @world_size}"
    path.write_text(
        f"finalize:\n  - \"$torch.save({left}, '{tmp_path}/rank' + str(@rank) + '.pt')\"\n"
        '  - "$torch.distributed.destroy_process_group()"\n'
    )
    return path


def test_one_process_trains_wrapped_and_saves_bare_weights(
    monai_bundle: MonaiBundle, bundle: Path, films: Path, tmp_path: Path, witness: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    folders = ["--dataset_dir", films, "--output_dir", tmp_path / "out", "--architecture", "diffusion-tiny"]
    words = [*files(bundle, "train.yaml", "multi_gpu.yaml", witness), *folders, *TINY]
    monai_bundle("run", "train", *words, "--validation_films", "1")
    assert not torch.distributed.is_initialized()
    left = torch.load(tmp_path / "rank0.pt", weights_only=True)
    assert left["wrapped"] == "DistributedDataParallel"
    saved = load_file(tmp_path / "out" / "model.safetensors")
    checkpoint = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert set(saved) == set(left["weights"]) == set(checkpoint["network"]) == set(checkpoint["average"])


@pytest.mark.slow
@pytest.mark.parametrize("command", ["pretrain", "train"])
def test_two_processes_end_with_equal_weights(
    bundle: Path, films: Path, tmp_path: Path, witness: Path, command: str
) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle"]
    folders = ["--dataset_dir", str(films), "--output_dir", str(tmp_path / "out")]
    words = ["run", command, *files(bundle, f"{command}.yaml", "multi_gpu.yaml", witness), *folders, *TINY]
    words += ["--architecture", "diffusion-tiny", "--validation_films", "1"] if command == "train" else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*launch, *words], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["world"] == second["world"] == 2 and first["wrapped"] == "DistributedDataParallel"
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name
    assert json.loads((tmp_path / "out" / "model.json").read_text())["steps"] == 2
    assert done.stdout.count("step 2 of 2") == 1  # only rank 0 speaks
