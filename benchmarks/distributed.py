"""Do several processes train what one does, and does a run survive one that is killed? Real runs of the bundle.

    python benchmarks/distributed.py curves      # 1, 2 and 4 processes, the same films a step: 50 losses, and films/s
    python benchmarks/distributed.py elastic     # workers killed with -9 and started again by torchrun; hex floats
    python benchmarks/distributed.py nodes       # two nodes on loopback; a worker of one dies, then that whole node

All with gloo on the CPU, one thread a process, under torchrun's agent (``torchrun`` itself is a command line around
``elastic_launch``). Each writes its records into docs/results/robustness.json. POSIX only: workers are forked, so that
none imports everything anew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import robustness
import torch
import torch.distributed
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.data import list_data_collate
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from monai_landmark.data.synthetic import write_synthetic_dataset

BATCH, GRID, EPOCH = 4, [64, 64], 5  # films a step, of all processes; steps an epoch, after which there is a checkpoint
FINE = {"train_diffusion": "diffusion-tiny", "train_encoder": "tf_efficientnet_lite0"}
NETWORKS: dict[str, dict[str, Any]] = {
    **{name: {"architecture": each} for name, each in FINE.items()},
    "pretrain": {"samples": 0, "val_interval": 1000},
}


FRESH_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Otherwise workers that were started again may look for each other where the dead ones were (PyTorch issue 135712)."""


def main() -> None:
    """Run one of the experiments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    experiments = {"curves": curves, "elastic": elastic, "nodes": nodes}
    parser.add_argument("experiment", choices=experiments)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--worlds", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--kills", type=int, default=3, help="of each run")
    parser.add_argument("--control", action="store_true", help="also one process with the films of a step reversed")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/distributed"))
    args = parser.parse_args()
    args.work = args.work.resolve()
    torch.set_num_threads(1)
    os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", **FRESH_STORE)
    if not (args.work / "films").is_dir():
        write_films(args.work / "films")
    robustness.save(experiments[args.experiment](args), [args.seed])


def write_films(folder: Path) -> None:
    """Synthetic films of which every other one lacks most landmarks: a mean of means would differ from the mean."""
    path = write_synthetic_dataset(folder, training=11, test=1, unlabelled=6, size=(200, 216))
    content = json.loads(path.read_text(encoding="utf-8"))
    for film in content["training"][::2]:
        film["landmarks"][5:] = [None] * len(film["landmarks"][5:])
        film["visibility"][5:] = [0] * len(film["visibility"][5:])
    path.write_text(json.dumps(content), encoding="utf-8")


# ---- one process of a run ------------------------------------------------------------------------------------------
def worker(name: str, films: str, folder: str, steps: int, dtype: str, control: bool = False) -> None:
    """Train or pre-train; the first process notes each step's loss before the next step."""
    torch.set_num_threads(1)
    config = [str(robustness.BUNDLE / "configs" / f"{each}.yaml") for each in (name.split("_")[0], "multi_gpu")]
    overrides = {"dataset_dir": films, "output_dir": folder, "epochs": steps // EPOCH, "steps_per_epoch": EPOCH}
    overrides |= {"batch_size": f"${BATCH} // @world_size", "spatial_size": GRID, "precision": "float32"}
    if dtype == "float64":  # what still differs then is no matter of rounding
        torch.set_default_dtype(torch.float64)
        overrides |= {
            "train#trainer#to_kwargs": {"dtype": torch.float64},
            "train#inferer": {"_target_": "SimpleInferer"},
        }
    workflow = ConfigWorkflow(config, workflow_type="train", logging_file=False, **overrides, **NETWORKS[name])
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train#trainer")
    if control:  # the same films in another order: what differs is rounding, and what becomes of it
        trainer.data_loader.collate_fn = lambda batch: list_data_collate(batch[::-1])
    if torch.distributed.get_rank() == 0:
        os.makedirs(folder, exist_ok=True)
        stream = os.open(f"{folder}/losses.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, note, stream)
    workflow.run()
    workflow.finalize()


def note(engine: Engine, stream: int) -> None:
    """One line, in one write: step, loss, and when."""
    loss = float(engine.state.output["loss"].detach())
    os.write(stream, f"{engine.state.iteration} {loss.hex()} {time.time()}\n".encode())


def lines(folder: Path) -> list[tuple[int, str, float]]:
    """Step, loss and time of every line; a run that was killed has some steps twice."""
    file = folder / "losses.txt"
    split = [line.split() for line in file.read_text().splitlines()] if file.is_file() else []
    return [(int(step), loss, float(when)) for step, loss, when in split]


# ---- torchrun's agent ----------------------------------------------------------------------------------------------
def start(
    args: argparse.Namespace,
    name: str,
    folder: Path,
    world: int,
    restarts: int = 0,
    nodes: int = 1,
    port: int = 0,
    control: bool = False,
) -> int:
    """Fork an agent, as ``torchrun`` is one, for all workers of a node; its id."""

    def agent() -> None:
        """Runs until its workers have ended."""
        config = LaunchConfig(
            min_nodes=nodes,
            max_nodes=nodes,
            nproc_per_node=world // nodes,
            rdzv_backend="c10d",
            rdzv_endpoint=f"127.0.0.1:{port}",
            run_id=folder.name,
            max_restarts=restarts,
            start_method="fork",
            local_addr="127.0.0.1",
        )
        elastic_launch(config, worker)(name, str(args.work / "films"), str(folder), args.steps, args.dtype, control)

    return robustness.fork(agent, args.work / f"{folder.name}.log")


def run(args: argparse.Namespace, name: str, world: int, control: bool = False) -> tuple[Path, dict[int, str]]:
    """An undisturbed run on one node, unless it is there already: its folder and its losses."""
    folder = args.work / f"{name}_{world}_{args.steps}_{args.dtype}{'_reversed' * control}"
    if len(lines(folder)) != args.steps:
        robustness.ended(start(args, name, fresh(folder), world, control=control))
    losses = {step: loss for step, loss, _ in lines(folder)}
    assert sorted(losses) == list(range(1, args.steps + 1)), f"see {folder}.log"
    return folder, losses


# ---- the same losses with any number of processes ------------------------------------------------------------------
def curves(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Losses of several processes against those of one, and how much faster they come."""
    found = []
    for name in args.networks:
        whole: dict[int, str] = {}
        for world in args.worlds:
            folder, losses = run(args, name, world)
            rate = films_a_second(folder)
            if not whole:
                whole, alone, fewest = losses, rate, world
            apart = furthest(whole, losses)
            share = rate / alone / (world / fewest)
            said = f"{rate:.1f} films/s, efficiency {share:.2f} on {os.cpu_count()} cores that others used too"
            print(f"{name}, {world} processes: losses within {apart:.2g}; {said}", flush=True)
            if world > fewest:
                notes = f"largest relative difference of a loss to that of {fewest} process, {BATCH} films a step, "
                notes += f"gloo, {args.dtype}; {said}"
                key = f"robustness/ddp/{name}/{world}/{args.dtype}_difference"
                found.append(robustness.count_record(key, apart, args.steps, notes))
        if args.control:
            apart = furthest(whole, run(args, name, args.worlds[0], control=True)[1])
            print(f"{name}, one process, the films of a step in another order: losses within {apart:.2g}", flush=True)
            notes = f"the same as {fewest} process twice, the second with the films of each step in reverse order"
            key = f"robustness/ddp/{name}/reversed/{args.dtype}_difference"
            found.append(robustness.count_record(key, apart, args.steps, notes))
    return found


def furthest(expected: dict[int, str], found: dict[int, str]) -> float:
    """Largest relative difference of a loss."""
    return max(relative(expected[step], found[step]) for step in expected)


def relative(expected: str, found: str) -> float:
    """Relative difference of two hex floats."""
    return abs(float.fromhex(found) / float.fromhex(expected) - 1)


def films_a_second(folder: Path) -> float:
    """Of all processes; the median step, because the machine has other work."""
    return BATCH / statistics.median(later - earlier for (*_, earlier), (*_, later) in pairwise(lines(folder)))


# ---- workers killed ------------------------------------------------------------------------------------------------
def elastic(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Kill workers at random; torchrun starts all anew, and they go on from the last checkpoint."""
    draw, found = random.Random(args.seed), []
    for name in args.networks:
        for world in args.worlds:
            whole = run(args, name, world)[1]
            folder = fresh(args.work / f"{name}_{world}_killed")
            agent = start(args, name, folder, world, restarts=args.kills)
            killed = sum(kill_worker(agent, folder, draw, args.steps // (args.kills + 1)) for _ in range(args.kills))
            robustness.ended(agent)
            found.append(told(f"robustness/ddp/elastic/{name}/{world}/differing_losses", whole, folder, killed))
    return found


def kill_worker(agent: int, folder: Path, draw: random.Random, ahead: int) -> bool:
    """Kill -9 one of an agent's workers some steps from now; False if the run ended before."""
    step = max((step for step, *_ in lines(folder)), default=0) + draw.randint(1, ahead)
    while max((step for step, *_ in lines(folder)), default=0) < step:
        if not psutil.pid_exists(agent) or robustness.has_ended(agent):
            return False
        time.sleep(0.01)
    workers = psutil.Process(agent).children()
    os.kill(draw.choice(workers).pid, signal.SIGKILL)
    return True


def nodes(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Two nodes with a worker each: one worker is killed, then its whole node, which is started again by hand."""
    draw, found = random.Random(args.seed), []
    for name in args.networks:
        whole = run(args, name, 2)[1]
        folder, port = fresh(args.work / f"{name}_nodes"), free_port()
        node = partial(start, args, name, folder, 2, restarts=3, nodes=2, port=port)
        first, second = node(), node()
        killed = kill_worker(second, folder, draw, args.steps // 3)
        killed += kill_worker(second, folder, draw, args.steps // 3)
        os.killpg(second, signal.SIGKILL)
        os.waitpid(second, 0)
        second = node()
        robustness.ended(first)
        robustness.ended(second)
        one = told(f"robustness/ddp/nodes/{name}/differing_losses", whole, folder, killed)
        found.append({**one, "notes": f"{one['notes']}; one node of two was then killed whole, and started again"})
    return found


def told(name: str, whole: dict[int, str], folder: Path, killed: int) -> dict[str, Any]:
    """The record of a run that was killed, against one that was not."""
    found = [(step, loss) for step, loss, _ in lines(folder)]
    assert {step for step, _ in found} == set(whole), f"see {folder}.log"
    differing = sum(loss != whole[step] for step, loss in found)
    notes = f"{killed} kills, {len(found)} losses as hex floats against an undisturbed run of {len(whole)} steps"
    print(f"{name}: {differing}; {notes}", flush=True)
    return robustness.count_record(name, differing, killed, notes)


def fresh(folder: Path) -> Path:
    """A folder that is not there yet."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
