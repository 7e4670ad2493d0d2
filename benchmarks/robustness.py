"""What is left after kill -9, and on a full disk? Real runs of the bundle, really killed.

    python benchmarks/robustness.py kill --kills 100     # at random steps of train and pretrain; losses as hex floats
    python benchmarks/robustness.py checkpoint           # while a checkpoint is written without pause
    python benchmarks/robustness.py disk                 # a tmpfs that fills up; needs the right to mount
    python benchmarks/robustness.py phi --label-python .venv-label/bin/python   # planted names, see phi.py

Each writes its records into docs/results/robustness.json. POSIX only: processes are forked, so that none starts anew.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from records import add_records, record
from torch import nn

from monai_landmark.data.synthetic import write_synthetic_dataset
from monai_landmark.engines import TrainingStateSaver
from monai_landmark.engines.checkpoints import _checked_state

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "xray_landmarks"
OUT = Path("docs/results/robustness.json")
EPOCHS, STEPS = 8, 3
RUNS: dict[str, dict[str, Any]] = {
    "train": {"architecture": "diffusion-tiny", "learning_rate": 1e-3},
    "pretrain": {"samples": 0, "val_interval": 1000},
}


def main() -> None:
    """Run one of the experiments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=["kill", "checkpoint", "disk", "phi"])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label-python", default=sys.executable, help="of phi: the interpreter that has MONAI Label")
    parser.add_argument("--work", type=Path, default=Path("runs/robustness"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    experiment = {"kill": kill_runs, "checkpoint": kill_saving, "disk": fill_disk}.get(args.experiment)
    if experiment is None:
        save(plant_names(args.work.resolve() / "phi", args.label_python), [args.seed])
    else:
        save(experiment(args.work.resolve(), args.kills, random.Random(args.seed)), [args.seed])


# ---- a run of the bundle, killed -----------------------------------------------------------------------------------
def kill_runs(work: Path, kills: int, draw: random.Random) -> list[dict[str, Any]]:
    """Kill runs at random steps until enough were killed; every loss is compared with an uninterrupted run's."""
    films = work / "films"
    if not films.is_dir():
        write_synthetic_dataset(films, training=6, test=1, unlabelled=6, size=(200, 216))
    whole = {}
    for name in RUNS:
        shutil.rmtree(work / name, ignore_errors=True)
        ended(fork(partial(bundle_run, name, films, work / name, workers=0)))
        whole[name] = losses(work / name)
        assert sorted(whole[name]) == list(range(1, EPOCHS * STEPS + 1)), f"{name} did not run to its end"
    killed, steps, differing, number = dict.fromkeys(RUNS, 0), 0, 0, 0
    while sum(killed.values()) < kills:
        name, workers = list(RUNS)[number % 2], (0, 2, 4)[number // 2 % 3]
        number += 1
        folder = work / f"{name}_{number}"
        shutil.rmtree(folder, ignore_errors=True)
        while True:
            process = fork(partial(bundle_run, name, films, folder, workers))
            if not kill_after(process, folder, draw):
                break
            killed[name] += 1
        found = read_losses(folder)
        steps += len(found)
        differing += sum(loss != whole[name][step] for step, loss in found)
        missing = set(whole[name]) - {step for step, _ in found}
        print(f"{name}, {workers} workers: {sum(killed.values())} kills, {steps} steps, {differing} differ", flush=True)
        assert not missing, f"steps {missing} of {folder} were never run"
        shutil.rmtree(folder)
    notes = f"{killed['train']} kills of train, {killed['pretrain']} of pretrain, {number} runs with 0, 2 and 4 loader "
    notes += f"workers, {steps} losses as hex floats against uninterrupted runs without workers"
    return [count_record("robustness/kill/differing_losses", differing, sum(killed.values()), notes)]


def bundle_run(name: str, films: Path, folder: Path, workers: int) -> None:
    """Train or pre-train; each step's loss is on disk before the next step."""
    overrides = {"dataset_dir": str(films), "output_dir": str(folder), "num_workers": workers, "epochs": EPOCHS}
    overrides |= {"steps_per_epoch": STEPS, "batch_size": 2, "spatial_size": [64, 64], "precision": "float32"}
    config = str(BUNDLE / "configs" / f"{name}.yaml")
    workflow = ConfigWorkflow(config, workflow_type="train", logging_file=False, **overrides, **RUNS[name])
    workflow.initialize()
    folder.mkdir(parents=True, exist_ok=True)
    stream = os.open(folder / "losses.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(engine: Engine) -> None:
        """One line, in one write."""
        loss = float(engine.state.output["loss"].detach())
        os.write(stream, f"{engine.state.iteration} {loss.hex()}\n".encode())

    workflow.parser.get_parsed_content("train#trainer").add_event_handler(Events.ITERATION_COMPLETED, note)
    workflow.run()


def kill_after(process: int, folder: Path, draw: random.Random) -> bool:
    """Kill after a random number of further steps and a random instant; False if the run ended before."""
    steps = len(read_losses(folder)) + draw.randint(0, 2 * STEPS)
    while len(read_losses(folder)) < steps:
        if has_ended(process):
            return False
        time.sleep(0.005)
    time.sleep(draw.uniform(0, 0.3))
    if has_ended(process):
        return False
    os.killpg(process, signal.SIGKILL)  # with its loader workers
    os.waitpid(process, 0)
    return True


def read_losses(folder: Path) -> list[tuple[int, str]]:
    """Step and loss of every line; a run that was killed has some steps twice."""
    file = folder / "losses.txt"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [(int(step), loss) for step, loss in (line.split() for line in lines)]


def losses(folder: Path) -> dict[int, str]:
    """Step -> loss."""
    return dict(read_losses(folder))


# ---- a checkpoint, killed while it is written ----------------------------------------------------------------------
def kill_saving(work: Path, kills: int, draw: random.Random) -> list[dict[str, Any]]:
    """Kill while files are written without pause, by our saver and by plain ``torch.save``."""
    network = nn.Sequential(*(nn.Linear(800, 800) for _ in range(8)))  # 20 MB
    found = []
    for name, writer in (("unreadable", our_writer), ("unreadable_torch_save", plain_writer)):
        folder = work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        bad = 0
        for _ in range(kills):
            begun, begin = os.pipe()
            process = fork(partial(writer, network, folder, begin))
            os.close(begin)
            os.read(begun, 1)  # one file is whole, the next is being written
            os.close(begun)
            time.sleep(draw.uniform(0, 0.3))
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            bad += not any(readable(file) for file in folder.glob("*checkpoint.pt"))
        print(f"{name}: {bad} of {kills}")
        found.append(count_record(f"robustness/checkpoint/{name}", bad, kills, "20 MB, written without pause, SIGKILL"))
        shutil.rmtree(folder)
    return found


def our_writer(network: nn.Module, folder: Path, begin: int) -> None:
    """Write the state of a run again and again."""
    saver, engine = TrainingStateSaver({"network": network}, folder / "checkpoint.pt"), Engine(lambda *_: None)
    engine.state.epoch = engine.state.iteration = 1
    saver.remove_left_behind()
    saver(engine)
    os.write(begin, b".")
    while True:
        saver(engine)


def plain_writer(network: nn.Module, folder: Path, begin: int) -> None:
    """The same as most code does it."""
    state = {"network": network.state_dict(), "epoch": 1, "iteration": 1}
    torch.save(state, folder / "checkpoint.pt")
    os.write(begin, b".")
    while True:
        torch.save(state, folder / "checkpoint.pt")


def readable(file: Path) -> bool:
    """Whether it is whole."""
    try:
        return bool(_checked_state(file))
    except Exception:  # what a damaged file raises depends on where it is damaged
        return False


# ---- a disk that fills up ------------------------------------------------------------------------------------------
def fill_disk(work: Path, kills: int, draw: random.Random) -> list[dict[str, Any]]:
    """Train into a small file system, fill it after the first checkpoint, and look at what is left."""
    films, disk = work / "films", work / "disk"
    if not films.is_dir():
        write_synthetic_dataset(films, training=6, test=1, unlabelled=6, size=(200, 216))
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(disk)], check=True)
    try:
        words = {"dataset_dir": films, "output_dir": disk / "out", "epochs": 40, "steps_per_epoch": STEPS}
        words |= {"batch_size": 2, "spatial_size": "[64,64]", "precision": "float32", **RUNS["train"]}
        options = [word for key, value in words.items() for word in (f"--{key}", str(value))]
        config = ["run", "train", "--config_file", str(BUNDLE / "configs" / "train.yaml"), *options]
        process = subprocess.Popen([sys.executable, "-m", "monai.bundle", *config], stderr=subprocess.PIPE, text=True)
        checkpoint = disk / "out" / "checkpoint.pt"
        while not checkpoint.is_file():
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
        with (disk / "filler").open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(bytes(1 << 20))
            except OSError:
                pass
        said = process.communicate(timeout=300)[1]
        step = _checked_state(checkpoint)["iteration"]
        message = next((line for line in said.splitlines() if "WeightsError: " in line), "")
        print(f"exit code {process.returncode}; checkpoint of step {step} is whole; {message}")
        good = process.returncode == 1 and "make room" in message and str(checkpoint) in message
        (disk / "filler").unlink()
        again = subprocess.run([sys.executable, "-m", "monai.bundle", *config], capture_output=True, check=False)
        notes = f"exit code {process.returncode}, message names file and step {step}: {good}; with room again the same "
        notes += f"command ended with exit code {again.returncode}"
        return [count_record("robustness/disk/lost_checkpoints", int(not good or again.returncode != 0), 1, notes)]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---- names that were planted ---------------------------------------------------------------------------------------
def plant_names(work: Path, label_python: str) -> list[dict[str, Any]]:
    """Every command and the server on films with planted words, which are then looked for."""
    import phi

    leaks, looked_for, files = phi.search(work, phi.LONG, label_python)
    print("\n".join(leaks) or "nothing found")
    notes = f"{len(phi.TAGGED)} planted words in attributes, {len(phi.NAMED)} in names of files and folders, sought in "
    notes += f"{files} files: logs, models, what is for others, and the clinic's own files; plain, in part, as UTF-16, "
    notes += f"base64, percent and hexadecimal, in archives, pictures and DICOM objects; {', '.join(phi.LONG)}"
    return [count_record("robustness/phi/found", len(leaks), looked_for, notes)]


# ---- processes and records -----------------------------------------------------------------------------------------
def fork(work: Callable[[], None], log: Path | None = None) -> int:
    """Do work in a process group of its own, what it says goes into a file or nowhere; its id."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    null = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(null, 1)
    os.dup2(null, 2)
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def has_ended(process: int) -> bool:
    """Whether a child ended by itself, which it must do without an error."""
    found, status = os.waitpid(process, os.WNOHANG)
    assert not status, f"a run ended with status {status}"
    return found == process


def ended(process: int) -> None:
    """Wait for a child."""
    assert not os.waitpid(process, 0)[1], "a run ended with an error"


def count_record(name: str, value: float, n: int, notes: str) -> dict[str, Any]:
    """A record of what was counted, or measured without a unit, on synthetic films."""
    return record(name, value, "", n, split="synthetic films", notes=notes)


def save(found: list[dict[str, Any]], seeds: Sequence[int]) -> None:
    """Put records in the place of older ones of the same name."""
    add_records(OUT, [{**one, "seeds": list(seeds)} for one in found])


if __name__ == "__main__":
    main()
