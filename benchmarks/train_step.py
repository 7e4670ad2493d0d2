"""What a training step on a CPU costs: in float32, in bfloat16, with freed memory kept, beside each other in one run.

    python benchmarks/train_step.py                 # EfficientNet-lite0 U-Net, 4 films of 320 x 256, one thread
    python benchmarks/train_step.py --grid 448 352

Every way is a process of its own, for the heap is set up once; they are timed by turns, by processor time. *plain*
bfloat16 is autocast as PyTorch has it; *bfloat16* leaves grouped convolutions in float32, see
:mod:`monai_landmark.engines.precision`; *kept* is :func:`monai_landmark.engines.keep_freed_memory`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from records import add_records, record, summary

from monai_landmark.engines import PrecisionInferer, keep_freed_memory, precision
from monai_landmark.losses import SpatialNLLLoss
from monai_landmark.networks import landmark_network

LANDMARKS = 19
WAYS = ("float32", "plain bfloat16", "bfloat16", "float32, kept", "bfloat16, kept")


def seconds_a_step(way: str, grid: tuple[int, int], films: int, steps: int, threads: int) -> float:
    """Processor seconds of the fastest step, in this process.

    Args:
        way: one of :data:`WAYS`.
        grid: rows and columns of the films.
        films: of a step.
        steps: to time; one more goes before.
        threads: of the processor.

    Returns:
        The seconds.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if way.endswith("kept"):
        keep_freed_memory()
    if way.startswith("plain"):
        precision._GroupedConvolutionsInFloat32 = nullcontext  # type: ignore[assignment,misc]
    network = landmark_network(LANDMARKS, "tf_efficientnet_lite0").to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    inferer = PrecisionInferer(dtype="bfloat16" if "bfloat16" in way else "float32")
    image = torch.randn(films, 1, *grid)
    target = torch.softmax(torch.randn(films, LANDMARKS, grid[0] * grid[1]), dim=2).reshape(films, LANDMARKS, *grid)
    loss, taken = SpatialNLLLoss(), []
    for _ in range(steps + 1):
        began = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        loss(inferer(image, network), target).backward()
        optimizer.step()
        taken.append(time.process_time() - began)
    return min(taken[1:])


def records(ratios: Mapping[str, Sequence[float]], args: argparse.Namespace) -> list[dict[str, Any]]:
    """How many times as fast as float32 each way is, see docs/design.md section 8.

    Args:
        ratios: of every way, one a round.
        args: the command line.

    Returns:
        The records.
    """
    grid = f"{args.grid[0]}x{args.grid[1]}"
    facts = {
        "split": "none: noise in place of films",
        "notes": f"processor time of the fastest step of {args.films} films, {args.threads} thread; rounds by turns",
    }
    found = []
    for way, values in ratios.items():
        name = f"train_step/{grid}/{way.replace(', ', '_').replace(' ', '_')}/ratio_to_float32"
        found.append(record(name, unit="1", n=args.rounds, **summary(values, 2, statistics.median), **facts))
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", type=int, nargs=2, default=[320, 256])
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file of the records")
    parser.add_argument("--way", choices=WAYS, help="time this one, in this process")
    args = parser.parse_args()
    if args.way:
        print(seconds_a_step(args.way, tuple(args.grid), args.films, args.steps, args.threads))
        return
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way in WAYS:
            command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way].append(float(done.stdout.split()[-1]))
    ratios = {way: [plain / own for plain, own in zip(found["float32"], found[way], strict=True)] for way in WAYS}
    print("| way | s a step | times as fast as float32 |\n| --- | --- | --- |")
    for way, values in ratios.items():
        spread = f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
        print(f"| {way} | {statistics.median(found[way]):.2f} | {spread} |")
    if args.json:
        add_records(args.json, records(ratios, args))


if __name__ == "__main__":
    main()
