"""The overlay for distributed training, with gloo on the CPU."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from safetensors.torch import load_file

from monai_landmark.safety.configs import check_config

TINY = ["--epochs", "1", "--steps_per_epoch", "2", "--batch_size", "1", "--precision", "float32"]
TINY += ["--spatial_size", "[64,64]"]


def files(bundle: Path, *more: Path | str) -> list[str]:
    """The words that name several config files, the later ones over the earlier ones."""
    names = [str(bundle / "configs" / name) for name in more]  # an absolute path stays as it is
    return ["--config_file", str(names)]


def start(words: list[str], environment: dict[str, str]) -> str:
    """Run a command on the CPU, one thread a process; returns what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


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
    bundle: Path, films: Path, tmp_path: Path, witness: Path
) -> None:
    """In a process of its own: ignite does not forget that a process group was there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    torchrun = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = ["run", "train", *files(bundle, "train.yaml", "multi_gpu.yaml", witness), "--dataset_dir", str(films)]
    words += ["--output_dir", str(tmp_path / "out"), "--architecture", "diffusion-tiny", "--validation_films", "1"]
    start([sys.executable, "-m", "monai.bundle", *words, *TINY], torchrun)
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
    said = start([*launch, *words], {})
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["world"] == second["world"] == 2 and first["wrapped"] == "DistributedDataParallel"
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name
    assert json.loads((tmp_path / "out" / "model.json").read_text())["steps"] == 2
    assert said.count("step 2 of 2") == 1  # only rank 0 speaks


@pytest.mark.parametrize("name", ["train", "pretrain"])
def test_names_nothing_that_is_not_allowed(bundle: Path, name: str) -> None:
    both = [bundle / "configs" / f"{each}.yaml" for each in (name, "multi_gpu")]
    content = ConfigParser.load_config_files([str(file) for file in both])
    assert content["network"]["_target_"].endswith("DistributedDataParallel")
    assert check_config(content, both[-1]) == []


@pytest.fixture()
def distributed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark's module: it forks the workers, so that none imports everything anew."""
    if sys.platform == "win32":
        pytest.skip("needs fork")
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    module = importlib.import_module("distributed")
    for name, value in {"OMP_NUM_THREADS": "1", **module.FRESH_STORE}.items():
        monkeypatch.setenv(name, value)
    return module


def few_steps(work: Path, **more: Any) -> argparse.Namespace:
    """Options of the benchmark for a run of one epoch."""
    return argparse.Namespace(work=work, steps=5, seed=0, dtype="float32", control=False, **more)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("train_diffusion", "train_encoder")]


@pytest.mark.parametrize("name", ["pretrain", *SLOW])
def test_two_processes_lose_what_one_does(distributed: Any, tmp_path: Path, name: str) -> None:
    distributed.write_films(tmp_path / "films")
    [found] = distributed.curves(few_steps(tmp_path, networks=[name], worlds=[1, 2]))
    assert found["name"] == f"robustness/ddp/{name}/2/float32_difference"
    assert found["value"] < (1e-3 if name == "train_encoder" else 1e-5)  # few films a batch: rounding grows


@pytest.mark.slow
def test_a_killed_worker_changes_no_loss(distributed: Any, tmp_path: Path) -> None:
    distributed.write_films(tmp_path / "films")
    options = few_steps(tmp_path, networks=["pretrain"], worlds=[2], kills=1)
    options.steps = 10
    [found] = distributed.elastic(options)
    assert (found["value"], found["n"]) == (0, 1)
