"""Films drawn a second, and how many times faster that is than 1,000 steps of DDPM in pixels of the same size.

    python benchmarks/generation_speed.py --model runs/diffusion --json docs/results/generation.json

The slow side is the same kind of U-Net on the films themselves, one pixel a patch, with Ho et al.'s scheduler. All its
steps cost the same, so some are timed and the rest is reckoned; its weights are untrained, which costs the same too.
Both sides take turns in one process, in processor time, so that other programs on the machine take nothing away.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.networks.schedulers import DDPMScheduler
from records import add_records, record, summary

from monai_landmark.generation.diffusion import EmbeddingUNet
from monai_landmark.generation.model import Generator, trained_generator
from monai_landmark.generation.sampling import draw_films

DDPM_STEPS = 1000


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the generation's `pretrain`")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--films", type=int, default=8, help="drawn at once")
    parser.add_argument("--timed-steps", type=int, default=3, help="of the 1,000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="records are added, or take the place of those of their names")
    return parser.parse_args()


def seconds(work: Callable[[], Any]) -> float:
    """Processor time on a CPU, time by the clock with a GPU."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


@torch.no_grad()
def ddpm_steps(network: EmbeddingUNet, film: torch.Tensor, tokens: torch.Tensor, steps: int) -> torch.Tensor:
    """The first steps from noise."""
    scheduler = DDPMScheduler(num_train_timesteps=DDPM_STEPS)
    scheduler.set_timesteps(DDPM_STEPS)
    for timestep in scheduler.timesteps[:steps]:
        answer = network(film, timestep.to(film.device).expand(len(film)), tokens)
        film = scheduler.step(answer, int(timestep), film)[0]
    return film


def measured(args: argparse.Namespace, model: Generator) -> dict[str, list[float]]:
    """Seconds a film, of both sides, in every round."""
    unet, device = model.objective.network, model.device
    tokens = torch.zeros(args.films, *unet.center.shape, device=device)
    pixels = EmbeddingUNet(*unet.center.shape, patch_size=1).to(device, memory_format=torch.channels_last).eval()
    films = torch.randn(args.films, 1, *model.spatial_size, device=device)
    noise = torch.randn(args.films, *model.latent_shape, device=device)
    sides: dict[str, Callable[[], Any]] = {
        "drawn": lambda: draw_films(model.objective, tokens, noise, args.steps, args.guidance),
        "ddpm": lambda: ddpm_steps(pixels, films, tokens, args.timed_steps),
    }
    for work in sides.values():
        work()
    found: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(args.rounds):
        for side, work in sides.items():
            found[side].append(seconds(work) / args.films)
    found["ddpm"] = [DDPM_STEPS / args.timed_steps * each for each in found["ddpm"]]
    return found


def records(args: argparse.Namespace, model: Generator, found: dict[str, list[float]]) -> list[dict[str, Any]]:
    """See docs/design.md, section 8."""
    rates = [1 / each for each in found["drawn"]]
    ratios = [slow / fast for slow, fast in zip(found["ddpm"], found["drawn"], strict=True)]
    height, width = model.spatial_size
    shared = {
        "n": args.rounds,
        "notes": f"{model.device.type}, {height} x {width} pixels, {args.films} at once, model "
        f"{model.card['sha256'][:12]}, {args.steps} steps, guidance "
        f"{args.guidance}; of the {DDPM_STEPS} steps {args.timed_steps} were timed",
    }
    return [
        record(f"generation/speed/{name}", unit=unit, **summary(values, middle=statistics.median), **shared)
        for name, unit, values in (("films_per_second", "films/s", rates), ("ddpm_ratio", "ratio", ratios))
    ]


def main() -> None:
    """Time both sides and print a line each."""
    args = arguments()
    model = trained_generator(args.model)
    rows = records(args, model, measured(args, model))
    for row in rows:
        print(f"{row['name']}: {row['value']} {row['unit']} ({row['interval'][0]}-{row['interval'][1]})")
    if args.json:
        add_records(args.json, rows)


if __name__ == "__main__":
    main()
