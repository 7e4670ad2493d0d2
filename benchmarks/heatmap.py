"""Speed and accuracy of the heatmap codec beside MONAI's GenerateHeatmap, measured in one process.

    python benchmarks/heatmap.py [--json FILE] [--rounds 15] [--points 10000] [--threads 1]

Both encoders draw the same 37 landmarks on a 512 x 512 grid by turns (A, B, A, B, ...), so that a busy machine slows
both; the ratio is that of the medians. Nothing is written without ``--json``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch
from monai.transforms import GenerateHeatmap
from records import add_records, record

from monai_landmark.data.geometry import swap_xy
from monai_landmark.transforms.heatmap import DecodeHeatmap, DecodeMethod, EncodeHeatmap

LANDMARKS, GRID, SIGMA_PX, SEED = 37, (512, 512), 2.0, 0
ROUNDTRIP_GRID, CHUNK = (72, 96), 100
Encoder = Callable[[torch.Tensor], torch.Tensor]


def seconds(encode: Encoder, points: torch.Tensor) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    encode(points)
    return time.perf_counter() - start


def time_encoders(rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each round: (MONAI's GenerateHeatmap, EncodeHeatmap), by turns after one warm-up of each."""
    points = torch.rand(LANDMARKS, 2, generator=torch.Generator().manual_seed(SEED)) * (GRID[0] - 1)
    generate = GenerateHeatmap(sigma=SIGMA_PX, spatial_shape=GRID)
    encode = EncodeHeatmap(SIGMA_PX, GRID)

    def monai(p: torch.Tensor) -> torch.Tensor:
        return generate(swap_xy(p))

    seconds(monai, points), seconds(encode, points)
    pairs = [(seconds(monai, points), seconds(encode, points)) for _ in range(rounds)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def roundtrip_errors(method: str, count: int, seed: int = SEED) -> torch.Tensor:
    """Errors in pixels after encode and decode of points anywhere on the grid, border included, sigma 1-4 px."""
    generator = torch.Generator().manual_seed(seed)
    limit = torch.tensor([ROUNDTRIP_GRID[1] - 1.0, ROUNDTRIP_GRID[0] - 1.0])
    decode = DecodeHeatmap(method)  # type: ignore[arg-type]
    errors = []
    for _ in range(-(-count // CHUNK)):
        sigma_px = 1.0 + 3.0 * float(torch.rand(1, generator=generator))
        points = torch.rand(CHUNK, 2, generator=generator) * limit
        errors.append((decode(EncodeHeatmap(sigma_px, ROUNDTRIP_GRID)(points)) - points).norm(dim=-1))
    return torch.cat(errors)[:count]


def main() -> None:
    """Measure, print, and write the records where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the result records to this file")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds of each encoder")
    parser.add_argument("--points", type=int, default=10_000, help="points of the round trip")
    parser.add_argument("--threads", type=int, default=1, help="threads for both encoders")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    theirs, ours = time_encoders(options.rounds)
    ratio = statistics.median(theirs) / statistics.median(ours)
    by_round = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    print(f"encode {LANDMARKS} x {GRID[0]} x {GRID[1]}, sigma {SIGMA_PX:g} px, median of {options.rounds} rounds")
    print(f"  GenerateHeatmap {1e3 * statistics.median(theirs):9.2f} ms")
    print(f"  EncodeHeatmap   {1e3 * statistics.median(ours):9.2f} ms")
    print(f"  ratio           {ratio:9.1f} x  (single rounds {by_round[0]:.1f} to {by_round[-1]:.1f})")

    print(f"encode -> decode, {options.points} points on {ROUNDTRIP_GRID[1]} x {ROUNDTRIP_GRID[0]} px, sigma 1-4 px")
    errors = {method: roundtrip_errors(method, options.points) for method in get_args(DecodeMethod)}
    for method, error in errors.items():
        print(f"  {method:<18} mean {error.mean():.6f} px   max {error.max():.6f} px")

    if options.json is not None:
        default = errors[DecodeHeatmap().method]
        notes = f"method {DecodeHeatmap().method}, sigma 1-4 px, points anywhere on a grid of 96 x 72 px"
        facts = {"seeds": [SEED], "split": "random points"}
        found = [
            record("codec/ratio_to_monai", ratio, "x", options.rounds, interval=[by_round[0], by_round[-1]], **facts,
                   notes="median over median, 37 x 512 x 512, sigma 2 px; interval: smallest and largest single round"),
            record("codec/roundtrip_mean_px", float(default.mean()), "px", options.points, **facts, notes=notes),
            record("codec/roundtrip_max_px", float(default.max()), "px", options.points, **facts, notes=notes),
        ]  # fmt: skip
        add_records(options.json, found)


if __name__ == "__main__":
    main()
