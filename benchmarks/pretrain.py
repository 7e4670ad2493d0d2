"""Speed and memory of DDPM pre-training beside the 558.5 M-parameter U-Net of the published code, measured by turns.

    python benchmarks/pretrain.py [--size small] [--grid 256 256] [--batch 4] [--steps 3] [--json FILE]

Each network trains in a process of its own, so that its peak memory is its own; while one takes its timed steps the
other waits. A round is one step of the reference and `--per-round` of ours, so that a busy machine slows both; the
ratio is the median over rounds of the reference's seconds to the median of ours. The reference (`reference_unet.py`)
runs as its code does: float32, gradient checkpointing, micro-batches, every weight averaged at every step. Ours runs as
`pretrain.yaml` does: channels_last, bfloat16 where the device multiplies fastest in it. Both: AdamW, the same films and
noise schedule.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import resource
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from monai.networks.schedulers import DDPMScheduler
from records import add_records, record, summary
from reference_unet import ReferenceUNet
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.flop_counter import FlopCounterMode

from monai_landmark.engines.precision import fast_dtype
from monai_landmark.engines.throughput import matrix_rate
from monai_landmark.networks import DiffusionUNet

TIMESTEPS, DECAY, LEARNING_RATE, SEED = 500, 0.995, 1e-4, 0


@dataclasses.dataclass
class Speed:
    """What one network reached.

    Attributes:
        steps: seconds of each timed step.
        updates: seconds of these that went into the optimizer and the average.
        processor: processor seconds of each step; other programs on the machine do not lengthen them.
        peak_gb: largest memory of the process, or of its share of the GPU.
        parameters: of the network.
    """

    steps: list[float]
    updates: list[float]
    processor: list[float]
    peak_gb: float
    parameters: int


class Training:
    """One network with its optimizer and average.

    Args:
        network: takes ``(B, 1, H, W)`` and timesteps ``(B,)``.
        micro_batch: films in one forward and backward pass; gradients add up over a step.
        dtype: in which it multiplies.
        device: where.
    """

    def __init__(self, network: nn.Module, micro_batch: int, dtype: torch.dtype, device: torch.device) -> None:
        self.network, self.micro_batch, self.dtype, self.device = network, micro_batch, dtype, device
        self.optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(DECAY))  # type: ignore[no-untyped-call]
        self.scheduler = DDPMScheduler(TIMESTEPS)

    def backward(self, films: Tensor, share: float = 1.0) -> None:
        """Gradients of the mean squared error of the predicted noise, times ``share``."""
        noise = torch.randn_like(films)
        timesteps = torch.randint(0, TIMESTEPS, films.shape[:1], device=films.device)
        noisy = self.scheduler.add_noise(films, noise, timesteps)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            prediction = self.network(noisy, timesteps)
        (share * nn.functional.mse_loss(prediction.float(), noise)).backward()  # type: ignore[no-untyped-call]

    def step(self, films: Tensor) -> tuple[float, float, float]:
        """One step; returns its seconds, those of the update alone, and the processor's."""
        processor, began = time.process_time(), self._now()
        self.optimizer.zero_grad(set_to_none=True)
        for part in films.split(self.micro_batch):
            self.backward(part, len(part) / len(films))
        differentiated = self._now()
        self.optimizer.step()
        self.average.update_parameters(self.network)
        ended = self._now()
        return ended - began, ended - differentiated, time.process_time() - processor

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def build(name: str, options: argparse.Namespace) -> nn.Module:
    """The reference, or ours of a size."""
    return ReferenceUNet(options.reference_width) if name == "reference" else DiffusionUNet(size=name)


def film_tflop(name: str, options: argparse.Namespace) -> float:
    """Operations for one film, forward and backward; what gradient checkpointing does again counts again."""
    with torch.device("meta"):  # counts without calculating
        network, film, timestep = build(name, options), torch.rand(1, 1, *options.grid), torch.ones(1)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused attention is not counted
            network(film, timestep).sum().backward()
    return float(counter.get_total_flops() / 1e12)


def work(connection: Connection, name: str, options: argparse.Namespace) -> None:
    """Train one network in this process: for every number received that many steps, for 0 the end."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    device = torch.device(options.device)
    with device:
        network, films = build(name, options), torch.rand(options.batch, 1, *options.grid)
    if name == "reference":
        training = Training(network, options.micro_batch, torch.float32, device)
    else:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        training = Training(network, options.batch, fast_dtype(device), device)
    training.step(films[: training.micro_batch])  # warms up, and allocates what the optimizer remembers
    connection.send(None)
    times: list[tuple[float, float, float]] = []
    while count := connection.recv():
        times += [training.step(films) for _ in range(count)]
        connection.send(times[-1][0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    parameters = sum(p.numel() for p in training.network.parameters())
    steps, updates, processor = (list(part) for part in zip(*times, strict=True))
    connection.send(Speed(steps, updates, processor, peak / 1e9, parameters))


def measure(names: list[str], options: argparse.Namespace) -> list[Speed]:
    """Run the networks by turns, each in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    connections = []
    for name in names:
        ours, theirs = spawn.Pipe()
        spawn.Process(target=work, args=(theirs, name, options), daemon=True).start()
        theirs.close()
        ours.recv()  # ready, before the next one starts to warm up
        connections.append(ours)
    for number in range(options.steps):
        for name, connection in zip(names, connections, strict=True):
            connection.send(1 if name == "reference" else options.per_round)
            print(f"round {number + 1} of {options.steps}: {name} {connection.recv():.2f} s a step", flush=True)
    speeds = []
    for connection in connections:
        connection.send(0)
        speeds.append(connection.recv())
    return speeds


def report(ours: Speed, theirs: Speed, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Print the comparison; returns its records."""
    device, median = torch.device(options.device), statistics.median
    batch, height, width = options.batch, *options.grid
    print(f"{height} x {width}, {batch} films a step, {device.type}, {options.threads} threads")
    tflop = {name: film_tflop(name, options) for name in ("reference", options.size)}
    for name, speed in (("reference", theirs), (options.size, ours)):
        print(
            f"  {name:<10} {speed.parameters / 1e6:6.1f} M  {batch / median(speed.steps):9.4f} images/s "
            f"({batch / max(speed.steps):.4f}-{batch / min(speed.steps):.4f})  {speed.peak_gb:5.2f} GB  "
            f"{tflop[name]:8.3f} TFLOP a film  update {median(speed.updates) / median(speed.steps):.1%} of a step"
        )
    rounds = [ours.steps[i : i + options.per_round] for i in range(0, len(ours.steps), options.per_round)]
    ratios = [slow / median(fast) for slow, fast in zip(theirs.steps, rounds, strict=True)]
    ratio, processor = median(ratios), median(theirs.processor) / median(ours.processor)
    print(f"  ratio      {ratio:.1f} x  (single rounds {min(ratios):.1f} to {max(ratios):.1f})")
    print(f"  ratio of processor times, which other programs do not disturb: {processor:.1f} x")

    notes = (
        f"{height} x {width}, {batch} films a step, AdamW, average at every step; {options.size}: "
        f"{ours.parameters / 1e6:.1f} M, {str(fast_dtype(device)).removeprefix('torch.')}, peak {ours.peak_gb:.2f} GB; "
        f"reference: {theirs.parameters / 1e6:.1f} M, float32, gradient checkpointing, micro-batches of "
        f"{options.micro_batch}, {batch / median(theirs.steps):.4g} images/s, peak {theirs.peak_gb:.2f} GB; "
        f"ratio of processor times {processor:.1f}"
    )
    rates, prefix = [batch / each for each in ours.steps], f"pretrain/{options.size}/{device.type}"
    facts = {"seeds": [SEED], "split": "noise in place of films"}
    by_round, by_step = notes + "; median and range of rounds", notes + "; median and range of steps"
    found = [
        record(f"{prefix}/ratio_to_reference", unit="x", n=options.steps, **summary(ratios, 1, median), **facts,
               notes=by_round),
        record(f"{prefix}/images_per_s", unit="1/s", n=len(rates), **summary(rates, 4, median), **facts, notes=by_step),
        record(f"{prefix}/peak_gb", round(ours.peak_gb, 3), "GB", 1, **facts, notes=notes),
    ]  # fmt: skip
    if device.type == "cuda":
        peak = matrix_rate(device, torch.bfloat16) / 1e12
        share = median(rates) * tflop[options.size] / peak
        print(f"  {share:.1%} of the {peak:.1f} TFLOP/s that products of large bfloat16 matrices reach")
        found.append(record(f"{prefix}/matrix_rate_share", round(share, 4), "1", len(rates), **facts, notes=notes))
    return found


def main() -> None:
    """Measure, print, and write the records where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", help="of the package's diffusion U-Net: tiny, small or base")
    parser.add_argument("--grid", nargs=2, type=int, default=[256, 256], metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=4, help="films a step, of both")
    parser.add_argument("--micro-batch", type=int, default=1, help="of the reference: films in one pass")
    parser.add_argument("--reference-width", type=int, default=256, help="another width is another network: for tests")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of the reference; after each, ours")
    parser.add_argument("--per-round", type=int, default=5, help="timed steps of ours after each of the reference")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the result records to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    theirs, ours = measure(["reference", options.size], options)
    found = report(ours, theirs, options)
    if options.json is not None:
        add_records(options.json, found)


if __name__ == "__main__":
    main()
